"""Options of ``debugnet inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Inspect:
    """Describe an artefact: what it is, how it was made, and whether its inputs are still the same.

    Only headers are read, so the answer comes at once whatever the size.

    Examples
    --------
    debugnet inspect runs/demo_digits/features.h5
    debugnet inspect runs/demo_digits/head --json
    debugnet select runs/demo_digits/path.h5 | debugnet inspect -
    """

    file: Path = argument("The artefact: a file or a folder that a command wrote.")
    verify: bool = option(False, "Also read everything and compare it with its checksums.", in_key=False)
