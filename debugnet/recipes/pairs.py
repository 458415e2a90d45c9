"""Options of ``debugnet pairs``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.diagnose import SPLIT_HELP
from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Pairs:
    """Compare pairs of classes: are those that share features confused, and what do they share?

    Correlates confusion with the overlap of the supports over all pairs (permutation p-value: pairs are
    not independent), ranks the confused pairs, and lists the pairs that share a feature above a share
    of the maximum weight, with the samples of each class that activate it most.

    Examples
    --------
    debugnet pairs runs/cifar/head
    debugnet pairs runs/imagenet/head --limit 1000 --correlation spearman
    """

    produces: ClassVar[str] = "pairs"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: pairs beside the head).", flags=("-o", "--output"), in_key=False
    )
    split: str = option("val", SPLIT_HELP)
    overlap: str = option(
        "jaccard", "Overlap of two supports: shared / union, shared / smaller, or the count.",
        choices=("jaccard", "overlap", "count"),
    )  # fmt: skip
    correlation: str = option("pearson", "Kind of correlation.", choices=("pearson", "spearman"))
    permutations: int = option(1000, "Permutations of the classes behind the p-value.")
    share: float = option(0.05, "A feature is shared where its weight is above this share of the maximum, fraction.")
    relative_to: str = option("class", "Maximum weight of the class, or of the model.", choices=("class", "model"))
    limit: int | None = option(None, "Keep a random sample of this many shared features (the paper: 1000).")
    samples: int = option(3, "Samples per class shown for each shared feature.")
    seed: int = option(0, "Seed of the permutations and of the sample.")
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
