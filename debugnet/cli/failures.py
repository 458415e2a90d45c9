"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from debugnet import interrupts, progress
from debugnet.errors import DebugnetError, DeviceError, InputError, Interrupted, StorageError, UsageError

BUG = 1
BROKEN_PIPE = 141

_STORAGE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.EIO}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


def report(error: BaseException, words: Sequence[str]) -> int:
    """Tell about ``error`` on stderr and return the exit code.

    Parameters
    ----------
    error : BaseException
        What ended the command.
    words : sequence of str
        The command line after ``debugnet``: ``--debug`` in it asks for the traceback, and an
        interrupted command is shown again to be resumed.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return BROKEN_PIPE
    if "--debug" in words:
        _tell("".join(traceback.format_exception(error)).rstrip())
    rank = follower_rank()
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return _interrupted(error, words) if rank is None else 128 + (interrupts.received() or signal.SIGINT)
    code, message = classify(error)
    if rank is not None:
        if code == UsageError.exit_code:  # the first rank says the same
            return code
        message = f"rank {rank}: {message}"
    if code == BUG and not isinstance(error, DebugnetError):
        message = f"{_one_line(error)} (a bug: {_keep_traceback(error)})"
    prefix = "debugnet: error:"
    if sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        prefix = f"\x1b[1;31m{prefix}\x1b[0m"
    _tell(f"{prefix} {progress.plain(message)}")
    return code


def follower_rank() -> int | None:
    """Return which of torchrun's processes this is, if it is not the first one: the first one speaks for all."""
    rank = int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
    return rank or None


def classify(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message of an exception."""
    if isinstance(error, DebugnetError):
        return error.exit_code, str(error)
    if hasattr(error, "format_message"):  # typer's own usage errors, whichever click it brings
        return UsageError.exit_code, error.format_message()
    if isinstance(error, MemoryError) or _is_device_failure(error):
        return DeviceError.exit_code, f"out of memory or device failure: {_one_line(error)}"
    if isinstance(error, OSError):
        place = f": '{error.filename}'" if error.filename else ""
        if error.errno in _STORAGE:
            return StorageError.exit_code, f"{error.strerror}{place}"
        if error.errno in _MISSING:
            return InputError.exit_code, f"{error.strerror}{place}"
    return BUG, _one_line(error)


def _is_device_failure(error: BaseException) -> bool:
    """Recognize torch's errors by name: importing torch to name them would cost seconds."""
    names = {c.__name__ for c in type(error).__mro__}
    text = str(error)
    return bool(names & {"OutOfMemoryError", "AcceleratorError"}) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA error" in text)
    )


def _interrupted(error: BaseException, words: Sequence[str]) -> int:
    number = interrupts.received() or signal.SIGINT
    if isinstance(error, Interrupted):
        number = error.exit_code - 128
    _tell(f"debugnet: stopped by {signal.Signals(number).name}; to go on: {shlex.join(['debugnet', *words])}")
    return 128 + number


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a file and say where; to stderr if no file can be written."""
    text = "".join(traceback.format_exception(error))
    try:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        with tempfile.NamedTemporaryFile("w", prefix=f"debugnet-{stamp}-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError:
        _tell(text)
        return "traceback above"
    return f"traceback in {file.name}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _silence_stdout() -> None:
    """Point stdout at /dev/null, or Python complains again when it flushes at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
