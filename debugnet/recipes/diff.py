"""Options of ``debugnet diff``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Diff:
    """Compare two heads of one feature store: weights that differ, accuracy, samples that change sides.

    Examples
    --------
    debugnet diff runs/cifar/head runs/cifar/head_edited
    debugnet diff runs/cifar/head runs/cifar/head_5 --split val --json
    """

    first: Path = argument("A head folder.", kind="head")
    second: Path = argument("The head folder to compare it with.", kind="head")
    split: str | None = option(None, "Samples to compare them on (default: test, else val).")
    features: Path | None = option(None, "The feature file, if it is not where the first head was made from it.")
