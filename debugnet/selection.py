"""Which point of a regularization path becomes the decision layer.

The paper's rule (appendix D.1.1) is the sparsest layer whose validation accuracy is no more than
5% below the best one.  Here "sparsest" is the fewest non-zero weights (ties: the larger lambda),
"5%" is percentage points, and the other reading is one option away.  Every rule looks at the
validation metrics of the path and at nothing else: the test split is never read in this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from debugnet.analysis.accuracy import DEFAULT_METRIC
from debugnet.errors import InputError, NotConverged, UsageError
from debugnet.regularization_path import RegularizationPath

#: Slack of accuracy comparisons: .75 - .05 must not lose a point at .70 to rounding.
ROUNDING = 1e-9

REFERENCES = ("best", "dense")

#: Of a point that a rule may take: at its tolerance, or a network, whose problem has no certificate.
GOOD = ("converged", "trained")


class Points(Protocol):
    """What the rules read of a path: of linear layers (:class:`RegularizationPath`), or of networks."""

    def __len__(self) -> int: ...

    @property
    def lam(self) -> np.ndarray:
        """Strengths (L,)."""
        ...

    @property
    def nnz(self) -> np.ndarray:
        """What the sparsest point has the least of, (L,)."""
        ...

    @property
    def status(self) -> Sequence[str]:
        """One per point; any other than :data:`GOOD` must be allowed."""
        ...

    @property
    def metrics(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """``{split: {name: (L,)}}``."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """With the task, or the family."""
        ...


@dataclass(frozen=True)
class Selection:
    """A point of the path and why it was taken.

    Attributes
    ----------
    index : int
        Point of the path.
    rule : str
        "drop", "relative-drop", "one-standard-error", "features-per-class", "index" or "lam".
    reference : str or None
        "best" (highest validation metric on the path) or "dense" (its least regularized point).
    reference_index : int or None
    metric : str or None
        Validation metric that the rule compared.
    drop : float or None
        Allowed loss: in units of the metric ("drop", "one-standard-error"), or as a fraction of
        the reference ("relative-drop").
    threshold : float or None
        Smallest metric that the rule accepts.
    features_per_class : int or None
        The k of "features-per-class".
    """

    index: int
    rule: str
    reference: str | None = None
    reference_index: int | None = None
    metric: str | None = None
    drop: float | None = None
    threshold: float | None = None
    features_per_class: int | None = None


def sparsest_within(metric: np.ndarray, nnz: np.ndarray, threshold: float) -> int:
    """Return the point with the fewest non-zeros among those whose metric reaches ``threshold``.

    Parameters
    ----------
    metric, nnz : ndarray (L,)
        In the order of the path (descending lambda), so that a tie goes to the larger lambda.
    threshold : float

    Notes
    -----
    Procedures of the paper's code that this replaces took the point *nearest* the threshold, from
    below, over the whole path, and so could return a dense, over-fitted tail.
    """
    good = np.flatnonzero(metric >= threshold - ROUNDING)
    return int(good[np.argmin(nnz[good])])


def validation_metric(path: Points, metric: str | None = None) -> tuple[str, np.ndarray]:
    """Return the name and the values (L,) of the validation metric that rules compare.

    Parameters
    ----------
    path : Points
    metric : str, optional
        Default: accuracy; balanced accuracy for multi-label data (with rare labels the layer
        without any feature has a high accuracy, and every rule would choose it); R2 for
        regression.

    Raises
    ------
    InputError
        If the path has no validation split.
    UsageError
        If it has no such metric.
    """
    task = path.meta.get("task") or ("regression" if path.meta["family"] == "gaussian" else "single-label")
    name = metric or DEFAULT_METRIC[task]
    if not path.metrics.get("val"):
        raise InputError(
            "the path has no validation metrics (its features have no usable val rows): "
            "extract with a validation split, or choose with --index or --lam"
        )
    if name not in path.metrics["val"]:
        raise UsageError(f"no validation metric '{name}' on this path: it has {', '.join(path.metrics['val'])}")
    values = np.asarray(path.metrics["val"][name], dtype=float)
    if not np.isfinite(values).any():
        raise InputError(f"validation metric '{name}' is not finite at any point of the path")
    return name, np.where(np.isfinite(values), values, -np.inf)


def select_by_drop(
    path: Points,
    drop: float = 0.05,
    *,
    relative: bool = False,
    reference: str = "best",
    metric: str | None = None,
    allow_unconverged: bool = False,
) -> Selection:
    """Take the sparsest point that loses at most ``drop`` against the reference (paper, D.1.1).

    Parameters
    ----------
    path : Points
    drop : float
        0.05 = 5 percentage points of accuracy; with ``relative``, 5% of the reference.
    relative : bool
    reference : str
        "best": the highest validation metric on the path; "dense": the least regularized point.
    metric : str, optional
        See :func:`validation_metric`.
    allow_unconverged : bool

    Raises
    ------
    UsageError
        If ``drop`` is not a fraction between 0 and 1, or the reference is unknown.
    NotConverged
        If a point of the path did not reach its tolerance.
    """
    if not 0 <= drop <= 1:
        raise UsageError(f"a drop of {drop:.4g} is not between 0% and 100%: write 5% or 0.05")
    require_converged(path, range(len(path)), allow_unconverged)
    name, values = validation_metric(path, metric)
    at = _reference_index(path, values, reference)
    threshold = values[at] - drop * abs(values[at]) if relative else values[at] - drop
    index = sparsest_within(values, path.nnz, threshold)
    return Selection(index, "relative-drop" if relative else "drop", reference, at, name, drop, float(threshold))


def select_one_standard_error(
    path: Points, *, reference: str = "best", metric: str | None = None, allow_unconverged: bool = False
) -> Selection:
    """Take the sparsest point within one standard error of the reference's validation accuracy.

    The standard error is that of the reference point's accuracy over the validation rows
    (``accuracy_se``), so the rule exists for the metric "accuracy" alone.
    """
    require_converged(path, range(len(path)), allow_unconverged)
    name, values = validation_metric(path, metric or "accuracy")
    if name != "accuracy":
        raise UsageError(f"--one-standard-error compares accuracies, not '{name}': use --drop with --metric {name}")
    at = _reference_index(path, values, reference)
    error = float(path.metrics["val"]["accuracy_se"][at])
    index = sparsest_within(values, path.nnz, values[at] - error)
    return Selection(index, "one-standard-error", reference, at, name, error, float(values[at] - error))


def select_index(path: Points, index: int, *, allow_unconverged: bool = False) -> Selection:
    """Take point ``index`` (negative counts from the least regularized end)."""
    if not -len(path) <= index < len(path):
        raise UsageError(f"index {index} is outside the path: it has {len(path)} points, 0 to {len(path) - 1}")
    index = range(len(path))[index]
    require_converged(path, [index], allow_unconverged)
    return Selection(index, "index")


def select_lam(path: Points, lam: float, *, allow_unconverged: bool = False) -> Selection:
    """Take the point whose lambda is nearest to ``lam`` (in log lambda; 0 matches only 0)."""
    if lam < 0 or (lam == 0 and path.lam[-1] > 0):
        raise UsageError(f"no point at lambda {lam:g}: the path runs from {path.lam[0]:.4g} to {path.lam[-1]:.4g}")
    positive = path.lam[path.lam > 0]
    index = len(path) - 1 if lam == 0 else int(np.argmin(np.abs(np.log(positive) - np.log(lam))))
    require_converged(path, [index], allow_unconverged)
    return Selection(index, "lam")


def select_features_per_class(path: RegularizationPath, k: int, *, allow_unconverged: bool = False) -> Selection:
    """Take the first point at which every output has at least ``k`` features.

    It is the start of "give me k features per class": its support is cut to the k largest weights
    of each output (:func:`debugnet.analysis.top_features.largest_per_output`), and the weights are
    fitted again on what is left.
    """
    if k < 1:
        raise UsageError(f"--features-per-class {k}: ask for at least 1")
    smallest = path.nnz_per_output.min(axis=1)
    enough = np.flatnonzero(smallest >= k)
    if len(enough) == 0:
        at = int(smallest.argmax())
        name = _output_name(path, int(path.nnz_per_output[at].argmin()))
        raise UsageError(
            f"--features-per-class {k}: no point of the path has {k} features in every class (at best "
            f"{smallest[at]}, at lambda {path.lam[at]:.3g}, where class '{name}' has the fewest): ask for fewer, "
            "or fit on to a smaller --lambda-min-ratio with --extend"
        )
    index = int(enough[0])
    require_converged(path, range(index + 1), allow_unconverged)
    return Selection(index, "features-per-class", features_per_class=k)


def require_converged(path: Points, indices: range | list[int], allow_unconverged: bool) -> None:
    """Raise :class:`NotConverged` if a point that a rule would consider missed its tolerance."""
    bad = [i for i in indices if path.status[i] not in GOOD]
    if bad and not allow_unconverged:
        raise NotConverged(
            f"{len(bad)} of the {len(indices)} points that the rule considers did not converge (first: point {bad[0]}, "
            f"lambda {path.lam[bad[0]]:.3g}, {path.status[bad[0]]}): fit again with more epochs or a larger --tol, "
            "or accept them with --allow-unconverged"
        )


def _reference_index(path: Points, values: np.ndarray, reference: str) -> int:
    if reference not in REFERENCES:
        raise UsageError(f"unknown reference '{reference}': known: {', '.join(REFERENCES)}")
    return int(values.argmax()) if reference == "best" else len(path) - 1


def _output_name(path: RegularizationPath, k: int) -> str:
    names = path.meta.get("class_names") or range(path.n_outputs)
    return str(names[-1] if path.n_outputs == 1 else names[k])
