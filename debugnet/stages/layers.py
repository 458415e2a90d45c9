"""The dense layer beside a sparse one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debugnet.errors import InputError
from debugnet.progress import log

if TYPE_CHECKING:
    from debugnet.heads import LinearHead


def dense_layer(head: Path) -> LinearHead | None:
    """Return the least regularized layer of the path a head was selected from; None where it is gone."""
    from debugnet.artifacts.path_store import load_path
    from debugnet.artifacts.provenance import read_provenance
    from debugnet.heads import LinearHead
    from debugnet.stages.inputs import find_path

    try:
        found = find_path(head, None)
        if read_provenance(found).kind == "sparse":
            log(f"there is no dense layer to compare with: {head} is the own layer of a network of {found}")
            return None
        path = load_path(found)
    except InputError as error:
        log(f"there is no dense layer to compare with: {error}", level="warning")
        return None
    meta = path.meta
    return LinearHead(*path.raw(len(path) - 1), path.standardizer, meta["family"], meta["class_names"], meta["task"])
