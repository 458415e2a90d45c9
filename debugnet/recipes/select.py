"""Options of ``debugnet select``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

METRICS = ("accuracy", "balanced_accuracy", "average_precision", "exact_match", "r2")

_RULE = "The rule (one of these)"


def parse_drop(text: str) -> float:
    """Read "5%" or "0.05" as the fraction 0.05."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if "%" in text else 1)
    except ValueError:
        raise ValueError(f"'{text}' is not a drop: write 5% or 0.05") from None
    if not 0 <= value <= 1:
        raise ValueError(f"'{text}' is not between 0% and 100%: write 5% or 0.05")
    return value


@dataclass(frozen=True)
class Select:
    """Choose a point of the path: the sparsest layer that is accurate enough on the validation split.

    --drop 5% takes the point with the fewest non-zero weights whose validation accuracy is at most 5
    percentage points below the best one on the path.  The test split is reported and never used.
    For multi-label data the accuracy is the balanced one (mean of sensitivity and specificity, over
    labels): where labels are rare, plain accuracy would choose a layer without any feature.

    Examples
    --------
    debugnet select runs/cifar/path.h5 --drop 5%
    debugnet select runs/cifar/path.h5 --relative-drop 5% --reference dense -o runs/cifar/head_relative
    debugnet select runs/cifar/path.h5 --features-per-class 5 -o runs/cifar/head_5
    debugnet select runs/cifar/path.h5 --one-standard-error -o runs/cifar/head_1se
    debugnet select runs/sparse-lassonet/sparse --drop 5%
    """

    produces: ClassVar[str] = "head"

    path: Path = argument("path.h5, or sparse/ of train-sparse; - reads which from stdin.", kind="path|sparse")
    output: Path | None = option(
        None, "The folder to write (default: head beside the path file).", flags=("-o", "--output"), in_key=False
    )
    drop: float | None = option(
        None,
        "Percentage points of the metric that may be lost (default: 5%).",
        parse=parse_drop,
        metavar="5%",
        group=_RULE,
    )
    relative_drop: float | None = option(
        None, "The same as a share of the reference.", parse=parse_drop, metavar="5%", group=_RULE
    )
    one_standard_error: bool = option(False, "Lose at most one standard error of the accuracy.", group=_RULE)
    features_per_class: int | None = option(
        None, "Exactly K features per class: the largest weights, fitted again on them.", metavar="K", group=_RULE
    )
    index: int | None = option(None, "This point; -1 is the least regularized.", metavar="I", group=_RULE)
    lam: float | None = option(None, "The point nearest to this lambda.", group=_RULE)
    reference: str = option(
        "best", "What the drop is measured from: the best or the least regularized point.", choices=("best", "dense")
    )
    metric: str | None = option(
        None,
        "Validation metric that is compared (default: accuracy; multi-label: balanced_accuracy; regression: r2).",
        choices=METRICS,
    )
    refit_l2: float | None = option(
        None, "Ridge of the --features-per-class refit (default: that of the point it starts from)."
    )
    allow_unconverged: bool = option(False, "Consider points that missed their tolerance, too.")
    device: str = option("auto", "For a network's features: auto, cpu, cuda or cuda:N.", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the path was made from it.", kind="features", in_key=False
    )
