"""Following artefacts back to what they were made from."""

from __future__ import annotations

import os
from pathlib import Path

from debugnet.artifacts.provenance import Reference, input_reference, read_provenance
from debugnet.errors import InputError, StaleArtifact


def locate_input(path: str | os.PathLike[str], kind: str) -> Path:
    """Find the artefact of a kind that ``path`` was made from, however many steps back.

    An input is looked for where it was, then beside ``path`` (a run folder may have moved).

    Parameters
    ----------
    path : path
        Any artefact, for example ``head/``.
    kind : str
        For example "features".

    Raises
    ------
    InputError
        No input of that kind is recorded, or it is not where it was.
    StaleArtifact
        It is there, but is no longer what ``path`` was made from.
    """
    waiting = [(Path(path), reference) for reference in read_provenance(path).inputs.values()]
    missing: list[str] = []
    while waiting:
        child, reference = waiting.pop(0)
        found = _find(child, reference)
        if found is None:
            missing.append(reference["path"])
            continue
        if reference["kind"] == kind:
            _check_unchanged(child, found, reference)
            return found
        with_inputs = found.suffix == ".h5" or (found / "manifest.json").exists()
        waiting += [(found, r) for r in read_provenance(found).inputs.values()] if with_inputs else []
    where = f"; not found: {', '.join(missing)}: put it back, or name the {kind} on the command line" if missing else ""
    raise InputError(f"{path} has no {kind} among its inputs{where}")


def check_inputs(path: str | os.PathLike[str]) -> None:
    """Check that the artefacts ``path`` was made from are still what they were.

    Inputs that are no longer there, or are no artefacts (data, weights), are not looked at.

    Raises
    ------
    StaleArtifact
        One has changed; the message names the command that renews ``path``.
    """
    for reference in read_provenance(path).inputs.values():
        found = _find(Path(path), reference)
        if found is not None and (found.suffix == ".h5" or (found / "manifest.json").exists()):
            _check_unchanged(Path(path), found, reference)


def _find(child: Path, reference: Reference) -> Path | None:
    recorded = Path(reference["path"])
    candidates = (recorded, Path(os.path.abspath(child)).parent / recorded.name)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _check_unchanged(child: Path, found: Path, reference: Reference) -> None:
    if input_reference(found)["digest"] != reference["digest"]:
        command = read_provenance(child).command
        raise StaleArtifact(
            f"{child} was made from {found}, which has changed since; renew it (--force) with: {command}"
        )
