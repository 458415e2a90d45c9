from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.errors import UsageError
from debugnet.recipes.fields import argument, option


def parse_percent(text: str) -> float:
    if not text.endswith("%"):
        raise ValueError(f"'{text}' has no percent sign")
    return float(text[:-1]) / 100


@dataclass(frozen=True)
class Probe:
    """Do what the test asks for.

    A second paragraph.

    Attributes
    ----------
    behaviour : str
        Not shown.

    Examples
    --------
    debugnet probe file --size 3
    """

    produces: ClassVar[str] = "probe.txt"

    source: Path = argument("Any file.")
    output: Path | None = option(None, "Where to write.", flags=("-o", "--output"), in_key=False)
    behaviour: str = option("write", "What to do.", flags=("--do",), metavar="NAME")
    size: int = option(3, "How many lines.")
    share: float = option(0.5, "Part of it.", parse=parse_percent, metavar="5%", group="Amounts")
    rate: float | None = option(None, "A rate.", group="Amounts")
    mode: str = option("fast", "How.", choices=("fast", "right"))
    names: tuple[str, ...] = option((), "Some names.")
    tags: tuple[str, ...] = option((), "Whole tags.", flags=("--tag",), multiple=True)
    strict: bool = option(False, "Be strict.")
    bias: bool = option(True, "Have a bias.")

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UsageError(f"size is {self.size}: it must be 0 or more")
