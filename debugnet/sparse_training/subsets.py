"""What a path over units is asked for, and what it leaves behind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

#: Steps in which weights follow a lambda that rises by a tenth: with fewer, units that noise holds and units that carry
#: an interaction fall in one wave, long after the lambda that would have parted them.
STEPS_PER_LAMBDA = 20


@dataclass(frozen=True)
class PathOptions:
    """How a path is followed.

    Attributes
    ----------
    lambda_start : float or None
        None finds one: a value at which nothing is dropped yet.
    ratio : float
        lambda <- ratio * lambda, > 1.
    epochs_per_lambda : int or None
        None: as many as make :data:`STEPS_PER_LAMBDA` minibatch steps.
    dense_epochs, dense_patience : int
        Of the dense start (lambda 0).
    stop_at : int
        The path ends when at most this many units are left.
    max_drop : float
        A stage that drops more than this share of the living units is done again with a smaller
        step in lambda.
    drop_share : float or None
        Where the first unit would leave, lambda stays; before every further stage this share of the units, the weakest,
        is taken out for good.  Inputs that tell the same leave a penalty together, but take over from each other
        where some are taken out.  None: units leave as lambda rises.
    sizes : tuple of int
        Subset sizes whose networks are kept (masks are kept for all); all units: the dense network.
    max_stages : int
        A bound that a healthy path does not meet.
    """

    lambda_start: float | None = None
    ratio: float = 1.1
    epochs_per_lambda: int | None = None
    dense_epochs: int = 100
    dense_patience: int = 10
    stop_at: int = 0
    max_drop: float = 0.2
    drop_share: float | None = None
    sizes: tuple[int, ...] = ()
    max_stages: int = 2000


@dataclass(frozen=True)
class Stage:
    """One lambda of the path.

    Attributes
    ----------
    lam : float
    n_units : int
        Living units at its end.
    train_loss : float
        Mean minibatch loss of its last epoch.
    validation : dict
        Metrics of the path's own network.
    epochs : int
    """

    lam: float
    n_units: int
    train_loss: float
    validation: dict[str, float]
    epochs: int


@dataclass(frozen=True)
class Subset:
    """The units kept at one size, and the network at that point.

    The optimality condition of a dropped unit j is ``pull_j <= lam`` (:meth:`UnitPenalty.pull`).
    It is about the weights as they are at ``lam``; once the kept units are trained on alone
    (``polished``), the loss gradient at the dropped ones is another, and it is measured again.

    Attributes
    ----------
    size : int
    lam : float
        Lambda at which this mask was reached.
    mask : ndarray (n_units,), bool
    settled : bool
        Whether a stage ended with this mask; else the path only went through it between two stages.
    state : dict or None
        The network (only for the sizes asked for).
    network_lam : float
        Lambda of that network.  Of a mask that no stage ended with, it is the one before: what the
        network becomes on these units at ``lam`` itself is on its way to losing more of them.
    validation : dict
        Metrics of that network.
    max_violation : float
        Largest ``pull / lam - 1`` over the dropped units, all train rows, at the path's own network:
        <= 0 certifies all of them; NaN = not computed.
    violators : int
        Dropped units whose condition does not hold there.
    polished_violation : float
        ``max_violation`` of the network after polishing; NaN where there was none.
    """

    size: int
    lam: float
    mask: np.ndarray
    settled: bool = False
    state: dict[str, Tensor] | None = None
    network_lam: float = math.nan
    validation: dict[str, float] = field(default_factory=dict)
    max_violation: float = math.nan
    violators: int = -1
    polished_violation: float = math.nan


@dataclass
class UnitPath:
    """A finished path.

    Attributes
    ----------
    stages : list of Stage
    subsets : dict
        ``{size: Subset}``, every size that the path went through.
    death : ndarray (n_units,), float64
        Lambda at which each unit was last dropped; with ``drop_share`` how often the units had been halved then.
        inf where it survived the path's end.
    dense : dict
        Validation metrics of the dense network.
    status : str
        "complete", or "diverged": what was reached is kept.
    """

    stages: list[Stage] = field(default_factory=list)
    subsets: dict[int, Subset] = field(default_factory=dict)
    death: np.ndarray = field(default_factory=lambda: np.empty(0))
    dense: dict[str, float] = field(default_factory=dict)
    status: str = "complete"

    @property
    def importance(self) -> np.ndarray:
        """Unit importance: ``death``, (n_units,)."""
        return self.death
