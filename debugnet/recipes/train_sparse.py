"""Options of ``debugnet train-sparse``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.errors import UsageError
from debugnet.recipes.fields import option

METHODS = ("lassonet", "group-lasso", "spred")
PENALIZE = ("inputs", "hidden", "both")
AGAINST = ("random", "anova", "linear")

_DATA, _UNITS, _SPRED, _TRAINING = "The data", "lassonet and group-lasso", "spred", "Training"


@dataclass(frozen=True)
class TrainSparse:
    """Train a network that uses few of its inputs (or hidden units, or weights), along a whole path.

    lassonet: theta'x + network, where an input reaches the network only through its linear weight.  group-lasso: the
    weights that read an input, or make a hidden unit, vanish together.  spred: every weight named by --sparsify is a
    product of two factors under weight decay, an l1 penalty in disguise, finished by proximal steps.

    One run gives a subset of every size; the networks, their refits and the same refit of random, ANOVA and linear
    group-lasso selections are kept for --sizes.  A size is chosen on validation and scored once on test.
    The folder is itself a network, the chosen one: extract --backbone takes it, and the whole chain after it.
    An interrupted run goes on when the same command is given again.

    Examples
    --------
    debugnet train-sparse --method lassonet --network mlp:100 --data digits.npz --sizes 5,10,20
    debugnet train-sparse --method group-lasso --penalize both --shrink --network mlp:64,64 --data digits.npz
    debugnet train-sparse --method spred --sparsify "layer*" --network cifar_resnet20 --data cifar10.npz
    debugnet train-sparse --method spred --network cifar_resnet20 --weights resnet20.th --epochs 0 --data cifar10.npz
    debugnet train-sparse --method lassonet --network python:mynets:make --data genes.npz --groups pathways.npy
    """

    produces: ClassVar[str] = "sparse"

    method: str = option(MISSING, "How the network is made sparse.", choices=METHODS)
    network: str = option(
        MISSING,
        "mlp:WIDTH,WIDTH..., python:package.module:factory, cifar_resnetNN, or a debugnet network folder.",
        in_key=False,
    )
    data: str = option(
        MISSING,
        "Images or numbers: an .npz (x_train, y_train, x_test ...; tables as a 2-d float x_train), a folder or zip of "
        "images, torchvision:NAME, demo:NAME.",
        in_key=False,
        kind="demo",
    )
    output: Path | None = option(
        None, "The folder to write (default: runs/sparse-METHOD/sparse).", flags=("-o", "--output"), in_key=False
    )
    weights: str | None = option(
        None, "Weights file of --network, if it does not begin untrained.", metavar="FILE", in_key=False
    )
    val_fraction: float = option(0.1, "Share of train that becomes val where there is none.", group=_DATA)
    task: str = option(
        "auto", "What the labels are.", choices=("auto", "single-label", "multi-label", "regression"), metavar="NAME",
        group=_DATA,
    )  # fmt: skip
    limit: int | None = option(None, "At most so many rows per split, drawn stratified.", group=_DATA)

    sizes: tuple[int, ...] = option(
        (), "Numbers of units whose networks are kept and refitted (default: 1, 2, 3, 5, 8, 10, 20 ...).", group=_UNITS
    )
    stop_at: int = option(
        0, "End when at most so many units are left; the network of exactly so many is kept.", metavar="K", group=_UNITS
    )
    penalize: str = option("inputs", "group-lasso: which units.", choices=PENALIZE, group=_UNITS)
    input_units: str = option(
        "auto",
        "What an input unit is: a feature of the first Linear layer, a channel of a Conv2d, or (gate) any element.",
        choices=("auto", "linear", "channels", "gate"),
        group=_UNITS,
    )
    groups: Path | None = option(
        None, "Groups of input features: .npy or text, one id from 0 per feature.", group=_UNITS, in_key=False
    )
    hierarchy: float = option(
        10.0, "lassonet: M; first-layer weights are at most M times the linear ones.", metavar="M", group=_UNITS
    )
    l1_share: float = option(0.0, "group-lasso: share of the plain l1 norm (sparse group lasso).", group=_UNITS)
    unit_weights: str = option(
        "sqrt", "Lambda of a unit: times the square root of its size, or not.", choices=("sqrt", "none"), group=_UNITS
    )
    ratio: float = option(1.1, "Factor between lambdas, above 1.", group=_UNITS)
    lambda_start: float | None = option(None, "First lambda (default: found).", group=_UNITS)
    drop_share: float | None = option(
        None,
        "Where the first unit would leave, hold lambda and take out this share of the units at a time, the weakest: "
        "for inputs that tell the same, such as pixels (0.05 is usual; default: they leave as lambda rises).",
        metavar="SHARE",
        group=_UNITS,
    )
    prox_every: int = option(1, "Proximal step after every so many gradient steps.", metavar="N", group=_UNITS)
    refit: bool = option(False, "Retrain the plain network on the kept inputs of every one of --sizes.", group=_UNITS)
    against: tuple[str, ...] = option(
        ("random", "anova", "linear"), "Selections refitted beside (random, anova, linear, or none).", group=_UNITS
    )
    shrink: bool = option(
        False, "group-lasso, and spred with --structure: export physically smaller networks.", group=_TRAINING
    )

    sparsify: tuple[str, ...] = option(
        ("*",), "Names of the modules or weights, with wildcards (*conv*, fc.*).", metavar="PATTERN", group=_SPRED
    )
    structure: str = option(
        "element", "What becomes zero: weights, or whole rows or columns.", choices=("element", "row", "column"),
        group=_SPRED,
    )  # fmt: skip
    lambdas: tuple[float, ...] = option(
        (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "Strengths, trained in ascending order.", group=_SPRED
    )

    epochs: int = option(
        100, "Epochs of the dense start (0 for a trained network), and of a refit, at most.", metavar="N",
        group=_TRAINING,
    )  # fmt: skip
    epochs_per_lambda: int | None = option(
        None, "Epochs at each lambda (default: 20 steps; spred: 20 epochs, half as many of polish and relaxing).",
        metavar="N", group=_TRAINING,
    )  # fmt: skip
    optimizer: str = option(
        "adam", "torch's optimizer by name, of all weights that take no proximal step; spred: with coupled decay only.",
        metavar="NAME", group=_TRAINING,
    )  # fmt: skip
    batch_size: int = option(256, "Samples in a minibatch.", metavar="N", group=_TRAINING)
    lr: float = option(1e-3, "Step size.", group=_TRAINING)
    seeds: int = option(3, "Repetitions of the refits and the random selections.", metavar="N", group=_TRAINING)
    seed: int = option(0, "Seed of the split, the path and the first refit.", group=_TRAINING)
    amp: bool = option(
        False,
        "Training passes in bfloat16, for GPUs; weights, proximal steps, scores and certificates stay in float32.",
        group=_TRAINING,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", group=_TRAINING, in_key=False)
    threads: int | None = option(None, "CPU threads (default: all).", metavar="N", group=_TRAINING, in_key=False)

    def __post_init__(self) -> None:
        for name in ("epochs_per_lambda", "batch_size", "seeds", "prox_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1")
        if not 0 < self.hierarchy < float("inf"):
            raise UsageError(f"--hierarchy {self.hierarchy}: M is a finite number above 0 (10 is usual)")
        if not 1 < self.ratio <= 10:
            raise UsageError(f"--ratio {self.ratio}: the factor between lambdas is above 1 and at most 10")
        if self.drop_share is not None and not 0 < self.drop_share <= 0.5:
            raise UsageError(f"--drop-share {self.drop_share:g}: a share above 0 and at most 0.5 (0.05 is usual)")
        if not 0 <= self.l1_share < 1:
            raise UsageError(f"--l1-share {self.l1_share}: a fraction from 0 up to, not with, 1")
        for name in ("lr", "lambda_start"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name):g}: a number above 0")
        if min(self.lambdas, default=0) <= 0:
            raise UsageError(f"--lambdas {','.join(f'{lam:g}' for lam in self.lambdas)}: numbers above 0")
        for name in ("epochs", "stop_at"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 0")
        if min(self.sizes, default=self.stop_at + 1) < max(self.stop_at, 1):
            least = f"--stop-at {self.stop_at}: the path ends before it" if self.stop_at else "at least 1"
            raise UsageError(f"--sizes {min(self.sizes)}: {least}")
        unknown = set(self.against) - {*AGAINST, "none"}
        if unknown:
            raise UsageError(f"--against {sorted(unknown)[0]}: known are {', '.join(AGAINST)} and none")
        if self.method != "group-lasso" and (self.penalize != "inputs" or self.l1_share):
            raise UsageError(f"--penalize and --l1-share belong to --method group-lasso, not {self.method}")
        if self.shrink and (self.method == "lassonet" or self.method == "spred" and self.structure == "element"):
            raise UsageError("--shrink needs units that vanish: --method group-lasso, or spred with --structure")
