"""Options of ``debugnet fit-path``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

METHODS = ("elastic-net", "group-lasso", "spred", "lassonet")
FAMILIES = ("auto", "multinomial", "binomial", "gaussian")
PENALTIES = ("elastic_net", "group_lasso")

_GRID, _STOP, _FIT, _RUN = "The lambdas", "When to stop", "The problem", "How it runs"
_OTHER = "Methods spred and lassonet"


@dataclass(frozen=True)
class FitPath:
    """Fit a sparse decision layer on stored features, for a whole path of regularization strengths.

    The objective is the mean loss on standardized features plus
    lambda (l1_ratio |W|_1 + (1 - l1_ratio)/2 |W|^2), the bias unpenalized.  Mean and scale come from
    the usable train rows alone.  Every point carries its duality gap and its metrics on every split.
    An interrupted fit goes on where it stopped; --extend goes on from a finished path.

    --method spred trains the layer as a product of factors under weight decay and polishes each point to a certified
    solution of the same objective.  --method lassonet lets a residual network choose subsets of features; each point
    is the linear layer fitted on one subset (at the smallest lambda of the grid), beside the network's own metrics.

    Examples
    --------
    debugnet fit-path runs/cifar/features.h5 --l1-ratio 0.99 --n-lambdas 100 --lambda-min-ratio 0.001
    debugnet fit-path runs/cifar/features.h5 --penalty group_lasso -o runs/cifar/grouped.h5
    debugnet fit-path runs/cifar/features.h5 --lam 0.01 -o runs/cifar/one.h5
    debugnet fit-path runs/cifar/features.h5 --lambda-min-ratio 1e-4 --extend
    debugnet fit-path runs/imagenet/features.h5 --gpus 8
    debugnet fit-path runs/cifar/features.h5 --method lassonet --sizes 5,10,20,50 -o runs/cifar/lassonet.h5
    """

    produces: ClassVar[str] = "path.h5"

    features: Path = argument("The feature file (features.h5), or - to read its path from stdin.")
    output: Path | None = option(
        None, "The path file to write (default: path.h5 beside the features).", flags=("-o", "--output"), in_key=False
    )
    method: str | None = option(
        None, "How the layer is made sparse (default: from --penalty).", choices=METHODS, group=_FIT
    )
    family: str = option("auto", "The loss; auto decides from the labels.", choices=FAMILIES, group=_FIT)
    penalty: str | None = option(
        None,
        "Sparse weights one by one, or a feature's weights over all classes together (default: elastic_net).",
        choices=PENALTIES,
        group=_FIT,
    )
    l1_ratio: float = option(0.99, "Share of the l1 part in the penalty, in (0, 1].", group=_FIT)
    class_weight: str | None = option(
        None, "balanced: weigh rows so that every class counts the same.", choices=("balanced",), group=_FIT
    )
    weights_file: Path | None = option(
        None, "Weights of the train rows, one per row: .npy, or text with one number a line.", group=_FIT, in_key=False
    )
    penalty_factors: Path | None = option(
        None,
        "Factors on lambda, one per feature (0: never penalized, inf: left out): .npy or text.",
        group=_FIT,
        in_key=False,
    )
    nonnegative: bool = option(False, "Allow no negative weights.", group=_FIT)
    allow_empty_class: bool = option(
        False, "Give a class without train rows a score that never wins, instead of refusing it.", group=_FIT
    )
    fit_intercept: bool = option(True, "Fit no bias.", flags=("--intercept",), group=_FIT)
    n_lambdas: int = option(100, "Number of lambdas, evenly spaced in log lambda.", group=_GRID)
    lambda_min_ratio: float = option(1e-3, "The smallest lambda as a fraction of the largest.", group=_GRID)
    lambdas: tuple[float, ...] | None = option(None, "These lambdas instead of a grid.", group=_GRID)
    lam: float | None = option(None, "One lambda only.", group=_GRID)
    lambda_zero: bool = option(False, "End with the unregularized layer (lambda 0).", group=_GRID)
    extend: bool = option(
        False,
        "Go on from the finished path that is there, to smaller or more lambdas; nothing is fitted twice.",
        group=_GRID,
        in_key=False,
    )
    max_features_per_class: int | None = option(
        None, "Stop at the first point with more features per class, on average.", metavar="K", group=_STOP
    )
    patience: int | None = option(
        None, "Stop after this many points without a better validation metric.", metavar="N", group=_STOP
    )
    tol: float = option(1e-6, "Duality gap to reach, relative to the objective of the null model.", group=_STOP)
    max_epochs: float = option(5000, "Passes over the data at one lambda, at most.", metavar="N", group=_STOP)
    allow_unconverged: bool = option(
        False, "Exit 0 even if a point missed --tol (it is marked in the path).", group=_STOP, in_key=False
    )
    sizes: tuple[int, ...] | None = option(
        None,
        "lassonet: numbers of features of the points (default: a ladder 1, 2, 3, 5, 8, 10, 15, 20, 30, 50 ...).",
        group=_OTHER,
    )
    stop_at: int = option(
        0, "lassonet: end when at most this many features are left; exactly so many are a point of the path.",
        metavar="K", group=_OTHER,
    )  # fmt: skip
    hierarchy: float = option(
        10.0, "lassonet: M; a feature's network weights are at most M times its linear ones.", metavar="M", group=_OTHER
    )
    hidden: tuple[int, ...] = option((100,), "lassonet: hidden widths of the network.", group=_OTHER)
    ratio: float = option(1.1, "lassonet: factor between lambdas, above 1.", group=_OTHER)
    drop_share: float | None = option(
        None,
        "lassonet: where the first feature would leave, hold lambda and take out this share of the features at a time, "
        "the weakest: for features that tell the same (0.05 is usual; default: they leave as lambda rises).",
        metavar="SHARE",
        group=_OTHER,
    )
    epochs: int = option(100, "lassonet: epochs of the dense start, at most.", metavar="N", group=_OTHER)
    batch_size: int = option(256, "lassonet: samples in a minibatch.", metavar="N", group=_OTHER)
    lr: float = option(1e-3, "lassonet: step size of the network.", group=_OTHER)
    steps: int = option(300, "spred: L-BFGS steps at each lambda, at most.", metavar="N", group=_OTHER)
    solver: str = option("auto", "The algorithm (debugnet list solvers).", group=_RUN)
    threads: int | None = option(None, "CPU threads (default: all).", metavar="N", group=_RUN, in_key=False)
    ranks: int | None = option(
        None,
        "Processes of this machine that share the rows: one GPU each, or on the CPU with --device cpu.",
        flags=("--ranks", "--gpus"),
        metavar="N",
        group=_RUN,
        in_key=False,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", group=_RUN, in_key=False)
    seed: int = option(0, "Seed of stochastic solvers.", group=_RUN)
