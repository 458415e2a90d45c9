"""Options of ``debugnet stability``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Stability:
    """Fit the head's point again on resamples, and count how often each weight is selected.

    Two correlated features can stand in for each other, and which one a layer uses may be chance: do
    not read meaning into a weight that other resamples of the same data do without.  Resamples are
    bootstrap draws of the train rows, by class; penalty mixes vary l1_ratio at the same lambda.

    Examples
    --------
    debugnet stability runs/cifar/head --bootstrap 50
    debugnet stability runs/cifar/head --bootstrap 20 --l1-ratios 0.5,0.9,0.99
    """

    produces: ClassVar[str] = "stability"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: stability beside the head).", flags=("-o", "--output"), in_key=False
    )
    bootstrap: int = option(50, "Number of resamples (shared out over the penalty mixes).")
    l1_ratios: tuple[float, ...] = option((), "Penalty mixes to draw from (default: the head's own).")
    tol: float = option(1e-4, "Relative duality gap of each fit.")
    seed: int = option(0, "Seed of the resamples.")
    device: str = option("auto", "Where to compute: auto, cpu, cuda, cuda:1.", in_key=False)
    path: Path | None = option(None, "The path file, if it is not where the head was made from it.", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
