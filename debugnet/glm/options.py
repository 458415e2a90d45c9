"""The options of a path fit, declared once for ``fit_path``, ``iter_path`` and the estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from debugnet.errors import UsageError
from debugnet.glm.design import Communicator
from debugnet.standardization import Standardizer


@dataclass(frozen=True)
class FitOptions:
    """How to fit a path.

    Attributes
    ----------
    family : {"auto", "multinomial", "binomial", "gaussian"}
    penalty : str
        A name in ``registry.PENALTIES``.
    l1_ratio : float
        Mix in (0, 1]; 1 is the lasso.
    group_weight : {"one", "sqrt"} or float
        Weight of each group of ``group_lasso``: 1, sqrt(K) (Yuan and Lin), or a number.
    n_lambdas, lambda_min_ratio, lambdas, lambda_zero
        The grid (:func:`debugnet.glm.lambda_grid.make_grid`).
    tol : float
        Duality gap relative to the objective of the null model.
    solver : str
        "auto" or a name in ``registry.SOLVERS``.
    max_epochs : float
        Budget of passes over the data per lambda.
    sample_weight : array (n,), optional
        Weights >= 0, used in the loss, the null model, lambda_max, the metrics and the
        standardization (an integer weight is the same as repeating the row).
    penalty_factor : array (d,), optional
        Multiplies lam per feature: 0 = never penalized, infinity = excluded.  Not rescaled.
    offset : array (n,) or (n, K), optional
        Added to the scores.
    nonnegative : bool
        Weights >= 0.
    fit_intercept : bool
        Without it features are scaled but not centred, so that raw weights need no bias either.
    standardize : bool
        Without it features are centred only.
    standardizer : Standardizer, optional
        Statistics to use instead of measuring them on the rows.
    rows : array, optional
        Boolean mask or indices of the rows of X, y, sample_weight and offset to use; the others
        are never looked at.
    n_classes : int, optional
        K, where y alone may not show it.
    allow_empty_class : bool
        Give a class without rows weight 0 and a score that never wins, instead of refusing it.
    max_features_per_class : float, optional
        Stop after the first point with more non-zeros per output (mean).
    evaluation : mapping, optional
        ``{"val": (X, y), ...}``, or (X, y, rows), or (X, y, rows, offset): scored at every point.
    validation : tuple, optional
        Short for ``evaluation={"val": ...}``.
    patience : int, optional
        Stop after so many points in a row without a better validation accuracy (r2).
    device : str
        "auto", "cpu", "cuda", "cuda:1".
    seed : int
    checkpoint : callable, optional
        Called with ``(lam, state)``, a dict of arrays, at most every ``checkpoint_seconds`` inside
        a long point; ``resume_state=(lam, state)`` goes on from there.
    checkpoint_seconds : float
    resume_state : (float, mapping), optional
    communicator : Communicator, optional
        Where the rows are spread over ranks (:mod:`debugnet.glm.distributed`).
    """

    family: str = "auto"
    penalty: str = "elastic_net"
    l1_ratio: float = 0.99
    group_weight: str | float = "one"
    n_lambdas: int = 100
    lambda_min_ratio: float = 1e-3
    lambdas: Sequence[float] | float | None = None
    lambda_zero: bool = False
    tol: float = 1e-6
    solver: str = "auto"
    max_epochs: float = 5000
    sample_weight: Any = None
    penalty_factor: Any = None
    offset: Any = None
    nonnegative: bool = False
    fit_intercept: bool = True
    standardize: bool = True
    standardizer: Standardizer | None = None
    rows: Any = None
    n_classes: int | None = None
    allow_empty_class: bool = False
    max_features_per_class: float | None = None
    evaluation: Mapping[str, Any] | None = None
    validation: tuple[Any, ...] | None = None
    patience: int | None = None
    device: str = "auto"
    seed: int = 0
    checkpoint: Callable[[float, dict[str, np.ndarray]], None] | None = None
    checkpoint_seconds: float = 60.0
    resume_state: tuple[float, Mapping[str, np.ndarray | Tensor]] | None = None
    communicator: Communicator | None = None

    def __post_init__(self) -> None:
        if not 0 < self.l1_ratio <= 1:
            raise UsageError(
                f"l1_ratio = {self.l1_ratio}: need (0, 1]; a ridge without l1 part has no lambda_max and is "
                "never sparse (0.01 is nearly one)"
            )
        if not (self.tol > 0 and math.isfinite(self.tol)):
            raise UsageError(f"tol = {self.tol}: need a positive relative duality gap (1e-6)")
        if self.patience is not None and "val" not in self.splits:
            raise UsageError("patience needs validation data: pass validation=(X, y)")
        if self.group_weight not in ("one", "sqrt") and not (
            isinstance(self.group_weight, int | float) and self.group_weight > 0
        ):
            raise UsageError(f"group_weight = {self.group_weight!r}: need 'one', 'sqrt' or a positive number")

    @property
    def splits(self) -> dict[str, Any]:
        """The evaluation sets by name."""
        named = dict(self.evaluation or {})
        if self.validation is not None:
            named["val"] = self.validation
        return named


def make_options(**options: Any) -> FitOptions:
    """Build :class:`FitOptions`; an unknown name is refused with the known ones."""
    known = [f.name for f in fields(FitOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"unknown option '{unknown[0]}': known: {', '.join(known)}")
    return FitOptions(**options)
