from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Second:
    """Count the characters of a probe."""

    produces: ClassVar[str] = "second.txt"

    probe: Path = argument("The probe.")
    output: Path | None = option(None, "Where to write.", flags=("-o", "--output"), in_key=False)
    factor: int = option(1, "Times.")
