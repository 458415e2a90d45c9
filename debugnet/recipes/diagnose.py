"""Options of ``debugnet diagnose``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

SPLIT_HELP = "Samples to look at: val, test, or a half of one that leaves the other unseen (test/a, test/b)."


@dataclass(frozen=True)
class Diagnose:
    """Say which feature is behind each error, and which features the layer would be better without.

    For every misclassified sample: the features that push most to the wrong and to the right class
    (gamma, Wong et al. 2021, appendix G.1), and whether turning the first one off mends it.  For every
    feature: how many decisions its removal fixes and breaks, and whether less of it would lower the
    loss (a score test on the calibrated layer, corrected over the features).  A feature that passes is a
    suspect, listed with the classes that lean on it and, with --stability, the share of resamples that
    select it; with its companions, the features that stand out in the samples it misleads, it goes into
    edits.yaml for debugnet edit.  Samples like those in training hide a shortcut: use data in which it
    may fail (--split test/a, and audit on test/b).

    Examples
    --------
    debugnet diagnose runs/cifar/head
    debugnet diagnose runs/cifar/head --split test/a -o runs/cifar/diagnosis_test
    debugnet diagnose runs/cifar/head --sample test/17 -o runs/cifar/sample_17
    """

    produces: ClassVar[str] = "diagnosis"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: diagnosis beside the head).", flags=("-o", "--output"), in_key=False
    )
    split: str = option("val", SPLIT_HELP)
    off: str = option("mean", "What turning a feature off means: its train mean, or zero.", choices=("mean", "zero"))
    threshold: float = option(0.05, "Corrected p-value below which a feature is a suspect.")
    sample: tuple[str, ...] = option(
        (), "Ids of samples of the split: also take these decisions apart, as a sum over features."
    )
    stability: Path | None = option(
        None, "A stability folder of this head: its shares stand beside the suspects.", in_key=False
    )
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
