"""Options of ``debugnet analyze``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Analyze:
    """Show what a sparse layer uses, and how well it does with all, with its top-k and with its other features.

    Features per class, accuracy against sparsity along the path, order of entry, features shared between classes.

    The path and the features are found through the head's provenance.  Writes analysis.json, and each
    figure as PNG and SVG; overview.png is the one to look at first.

    Examples
    --------
    debugnet analyze runs/cifar/head --top-k 10
    debugnet analyze runs/sst2/head --top-k 5 --split val -o runs/sst2/analysis_val
    """

    produces: ClassVar[str] = "analysis"

    head: Path = argument("The sparse layer (head/), or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: analysis beside the head).", flags=("-o", "--output"), in_key=False
    )
    top_k: int = option(10, "Features per class in the top-k and rest accuracies (paper: 10 vision, 5 text).")
    turn_off: str = option(
        "mean", "A feature that is turned off is at its train mean, or at raw zero.", choices=("mean", "zero")
    )
    split: str | None = option(None, "Split that accuracies are measured on (default: test, or val without one).")
    top_features: int = option(10, "Features per class in the table of the largest weights.")
    classes: tuple[str, ...] | None = option(None, "Classes in the coefficient plots (default: the first 12).")
    path: Path | None = option(
        None, "The path file, if it is not where the head was made from it.", kind="path", in_key=False
    )
    features: Path | None = option(
        None, "The feature file, if it is not where the path was made from it.", kind="features", in_key=False
    )
