"""How stages find their inputs: through provenance, or by the name given, and only what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debugnet.artifacts.lineage import locate_input
from debugnet.artifacts.provenance import input_reference, read_provenance
from debugnet.errors import DebugnetError, InputError, StaleArtifact

if TYPE_CHECKING:
    import numpy as np

    from debugnet.artifacts.feature_store import FeatureStore, Split
    from debugnet.heads import LinearHead


def find_input(artifact: Path, kind: str, given: Path | None) -> Path:
    """Return the artefact of ``kind`` that ``artifact`` was made from, or the one given instead.

    Parameters
    ----------
    artifact : Path
        For example ``head/``.
    kind : str
        "path" or "features".
    given : Path or None
        The user's own choice; it must be the same content as the recorded one (a copy, or the
        original after a move).

    Raises
    ------
    InputError
        Nothing recorded, or it is gone and none was given.
    StaleArtifact
        It changed since, or the one given is another.
    """
    if given is None:
        return locate_input(artifact, kind)
    found = input_reference(given)
    if found["kind"] != kind:
        raise InputError(f"{given} is of kind {found['kind']}, and {kind} is needed")
    recorded = _recorded_digests(artifact, kind)
    if recorded and found["digest"] not in recorded:
        command = read_provenance(artifact).command
        raise StaleArtifact(
            f"{artifact} was not made from {given}: they do not belong together; name the one that it was made from, "
            f"or renew it (--force) with: {command}"
        )
    return Path(given)


def find_path(head: Path, given: Path | None) -> Path:
    """Return the path that a head was chosen from: ``path.h5``, or ``sparse/`` of ``train-sparse``.

    Raises
    ------
    InputError, StaleArtifact
        As :func:`find_input`.
    """
    if given is not None:
        kind = input_reference(given)["kind"]
        return find_input(head, "sparse" if kind == "sparse" else "path", given)
    of_networks = not _recorded_digests(head, "path") and _recorded_digests(head, "sparse")
    return find_input(head, "sparse" if of_networks else "path", None)  # a path.h5 can stand on such a network, too


def usable_rows(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, d) and labels of the usable rows; the memory map itself where all are.

    Raises
    ------
    InputError
        The split has no usable row.
    """
    usable = split.usable
    if not usable.any():
        raise InputError(f"split {split.name} has no usable row (debugnet inspect shows why)")
    return (split.X, split.y) if usable.all() else (split.X[usable], split.y[usable])


def has_rows(store: FeatureStore, split: str) -> bool:
    """Whether the store has the split, with at least one usable row."""
    return split in store.splits and bool(store.splits[split].usable.any())


def network_head(store: FeatureStore) -> LinearHead | None:
    """Return the network's own head where its outputs are the data set's classes, else None."""
    dense = store.dense_head
    return dense if dense is not None and list(dense.class_names) == store.class_names else None


def _recorded_digests(artifact: Path, kind: str) -> set[str]:
    """Digests of the inputs of ``kind``, however many steps back, as far as the files are still there."""
    digests, waiting = set(), [artifact]
    while waiting:
        for reference in read_provenance(waiting.pop()).inputs.values():
            if reference["kind"] == kind:
                digests.add(reference["digest"])
            else:
                waiting += [path for path in [Path(reference["path"])] if _is_artifact(path)]
    return digests


def _is_artifact(path: Path) -> bool:
    try:
        read_provenance(path)
    except DebugnetError:
        return False
    return True
