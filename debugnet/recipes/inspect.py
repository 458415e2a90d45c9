"""Options of ``debugnet inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from debugnet.recipes.fields import argument


@dataclass(frozen=True)
class Inspect:
    """Describe an artefact: what it is, what it was made from and how, and whether it is still up to date.

    Reads headers only, so that it answers at once for files of any size.

    Examples
    --------
    debugnet inspect runs/demo/features.h5
    debugnet inspect runs/demo/head --json
    debugnet select runs/demo/path.h5 | debugnet inspect -
    """

    file: Path = argument("The artefact: a file or a folder that a command wrote.")
