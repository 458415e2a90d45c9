"""The errors debugnet raises on purpose, each with the exit code the shell sees.

Every message names the offending value, the place and the way out, in one line.
The exit codes are the table in docs/architecture.md ("Shell contract").
"""

from __future__ import annotations


class DebugnetError(Exception):
    """Base class: a failure that is the input's or the machine's, not a bug."""

    exit_code = 1


class UsageError(DebugnetError):
    """Options that are unknown, contradict each other or cannot work together."""

    exit_code = 2


class InputError(DebugnetError):
    """An input is missing, malformed or fails verification."""

    exit_code = 3


class StaleArtifact(InputError):
    """An artefact was made from an input that has changed since."""


class OutputExists(DebugnetError):
    """The output is there already, made with other options; ``--force`` replaces it."""

    exit_code = 4


class TooManyBadRows(DebugnetError):
    """The work finished, but more rows are unusable than ``--max-bad`` allows."""

    exit_code = 5


class StorageError(DebugnetError):
    """Disk full, read-only, permission denied or over quota."""

    exit_code = 6


class DeviceError(DebugnetError):
    """No such device, or out of memory even at the smallest batch."""

    exit_code = 7


class NotConverged(DebugnetError):
    """A solver did not reach its tolerance, or met NaN; finished points are kept."""

    exit_code = 8


class Locked(DebugnetError):
    """Another process is writing the same artefact."""

    exit_code = 75


class Interrupted(DebugnetError):
    """SIGINT or SIGTERM arrived; what was finished is on disk and resumes."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
