"""Why a sample was misclassified: exact decompositions, the score gamma, and what one feature explains.

Everything is a statement about a linear layer, so all of it is exact.  Coordinates: ``standardized``
measures a feature from its train mean (turning it off = the train mean), ``raw`` from zero.

Errors of every kind of head are one thing here: a row of the layer that should be lower and a row
that should be higher.  With argmax these are the predicted and the true class; for a label that is
predicted wrongly (multi-label, or a one-row binomial head) one of the two is the constant 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from debugnet.analysis.intervals import holm, sign_test
from debugnet.heads import LinearHead

#: In ``Errors.wrong`` and ``Errors.right``: the constant score 0 instead of a row of the layer.
ZERO_ROW = -1
_BLOCK = 4096
#: Best classes kept per sample: a feature that moves all of them needs the whole row of scores.
_LEADERS = 8


@dataclass(frozen=True)
class Coordinates:
    """A head's layer in the coordinates in which a feature is turned off to zero.

    Attributes
    ----------
    weight : ndarray (K, d), float64
    bias : ndarray (K,), float64
    shift, factor : ndarray (d,), float64
        ``(x - shift) * factor`` maps raw features to these coordinates.
    """

    weight: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, head: LinearHead, off: str = "mean") -> Coordinates:
        """Coordinates of ``head`` for turning features off to their train "mean" or to "zero" (raw)."""
        if off == "mean":
            standardizer = head.standardizer
            return cls(head.standardized_weight, head.standardized_bias, standardizer.mean, standardizer.inverse_scale)
        if off == "zero":
            d = head.weight.shape[1]
            return cls(head.weight, head.bias, np.zeros(d), np.ones(d))
        raise ValueError(f"off is '{off}'; use 'mean' or 'zero'")

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Map raw features (n, d) to these coordinates, float64."""
        return (X.astype(np.float64) - self.shift) * self.factor


@dataclass(frozen=True)
class Errors:
    """Misclassifications, one entry per wrong decision.

    Attributes
    ----------
    sample : ndarray (m,), int64
        Row of X.
    wrong, right : ndarray (m,), int64
        Output row that won and output row that should have, or :data:`ZERO_ROW`.
    """

    sample: np.ndarray
    wrong: np.ndarray
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)


def find_errors(head: LinearHead, predictions: np.ndarray, y: np.ndarray) -> Errors:
    """List the wrong decisions.

    Parameters
    ----------
    head : LinearHead
        Only its task and shape are read.
    predictions, y : ndarray
        (n,) class indices, or 0/1 (n, K) for a multi-label head.
    """
    if head.task == "multi-label":
        sample, row = np.nonzero(predictions != y)
        over = predictions[sample, row] == 1
        return Errors(sample, np.where(over, row, ZERO_ROW), np.where(over, ZERO_ROW, row))
    sample = np.flatnonzero(predictions != y)
    wrong, right = predictions[sample].astype(np.int64), y[sample].astype(np.int64)
    if len(head.weight) == 1:  # class 1 is the row, class 0 the constant score 0
        return Errors(sample, np.where(wrong == 1, 0, ZERO_ROW), np.where(right == 1, 0, ZERO_ROW))
    return Errors(sample, wrong, right)


def decompose(head: LinearHead, x: np.ndarray, wrong: int, right: int, *, off: str = "mean") -> dict[str, object]:
    """Write one logit gap as a sum over features.

    ``logit[wrong] - logit[right] = sum_j (w_wrong,j - w_right,j) z_j + (b_wrong - b_right)``.

    Parameters
    ----------
    head : LinearHead
    x : ndarray (d,)
        Raw features of one sample.
    wrong, right : int
        Output rows, or :data:`ZERO_ROW` for the constant 0.
    off : str
        "mean" (standardized coordinates) or "zero" (raw).

    Returns
    -------
    dict
        features (indices by falling absolute contribution), contributions, bias, gap (from the raw
        layer), residual (gap minus the sum: rounding only).
    """
    coordinates = Coordinates.of(head, off)
    weight, bias = _difference(coordinates, np.array([wrong]), np.array([right]))
    contributions = weight[0] * coordinates.transform(x[None])[0]
    features = np.flatnonzero(weight[0])
    features = features[np.argsort(-np.abs(contributions[features]), kind="stable")]
    scores = np.append(head.logits(x[None])[0], 0.0)  # index -1 is ZERO_ROW
    gap = float(scores[wrong] - scores[right])
    return {
        "features": features,
        "contributions": contributions[features],
        "bias": float(bias[0]),
        "gap": gap,
        "residual": gap - float(contributions.sum() + bias[0]),
    }


@dataclass(frozen=True)
class ErrorCauses:
    """The single features behind each error.

    Attributes
    ----------
    feature_wrong, gamma_wrong : ndarray (m,)
        Feature that pushes most to the wrong output, and its gamma (logit units).
    feature_right, gamma_right : ndarray (m,)
        Feature that pushes most to the right output, and its gamma (negative).
    fixed : ndarray (m,), bool
        Whether turning ``feature_wrong`` off makes this decision right.
    """

    feature_wrong: np.ndarray
    gamma_wrong: np.ndarray
    feature_right: np.ndarray
    gamma_right: np.ndarray
    fixed: np.ndarray


def explain_errors(
    head: LinearHead, X: np.ndarray, errors: Errors, *, off: str = "mean", scores: np.ndarray | None = None
) -> ErrorCauses:
    """Score every feature's part in every error, and turn the worst one off.

    ``gamma_i = W[p, i] f_i(x) - W[l, i] f_i(x)`` (Wong et al. 2021, appendix G.1, eq. 8), p the wrong
    and l the right output; turning feature i off lowers logit[p] - logit[l] by exactly gamma_i.

    Parameters
    ----------
    head : LinearHead
    X : ndarray (n, d)
        Raw features; only the rows of ``errors`` are read.
    errors : Errors
    off : str
        "mean" or "zero": the value that "off" stands for.
    scores : ndarray (n, K), optional
        ``head.logits(X)``, where it is there already.

    Notes
    -----
    Works in blocks of a few thousand errors: memory is O(block * (d + K)), never n * K * d.
    """
    coordinates = Coordinates.of(head, off)
    parts: list[tuple[np.ndarray, ...]] = []
    for block in _blocks(len(errors)):
        wrong, right = errors.wrong[block], errors.right[block]
        Z = coordinates.transform(np.asarray(X[errors.sample[block]]))
        weight, _ = _difference(coordinates, wrong, right)
        gamma = weight * Z
        rows = np.arange(len(Z))
        worst, best = gamma.argmax(axis=1), gamma.argmin(axis=1)
        sample = errors.sample[block]
        before = head.logits(np.asarray(X[sample])) if scores is None else scores[sample]
        fixed = _decides(head, before - coordinates.weight.T[worst] * Z[rows, worst, None], wrong, right)
        parts.append((worst, gamma[rows, worst], best, gamma[rows, best], fixed))
    if not parts:
        index, value = np.empty(0, dtype=np.int64), np.empty(0)
        return ErrorCauses(index, value, index, value, np.empty(0, dtype=bool))
    return ErrorCauses(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Ablation:
    """What happens to all decisions when one feature is turned off, per used feature.

    Attributes
    ----------
    feature : ndarray (f,), int64
    fixed, broken : ndarray (f,), int64
        Decisions that become right, and that become wrong.
    p_value : ndarray (f,), float64
        Exact one-sided sign test that fixed > broken, Holm-corrected over the features.
    """

    feature: np.ndarray
    fixed: np.ndarray
    broken: np.ndarray
    p_value: np.ndarray


def ablate_features(
    head: LinearHead, X: np.ndarray, y: np.ndarray, *, off: str = "mean", scores: np.ndarray | None = None
) -> Ablation:
    """Turn every used feature off, one at a time, on every sample.

    A feature whose removal fixes significantly more decisions than it breaks works against the
    layer on this data: the mark of a shortcut that held in training and does not hold here.

    Parameters
    ----------
    head : LinearHead
    X : ndarray (n, d)
        Raw features.
    y : ndarray
        (n,) class indices, or 0/1 (n, K).
    off : str
        "mean" or "zero": the value that "off" stands for.
    scores : ndarray (n, K), optional
        ``head.logits(X)``, where it is there already.

    Notes
    -----
    One pass over X for the scores.  Per feature only the rows where turning it off could change the
    decision are looked at (a score moves by at most ``(max_k w_kj - min_k w_kj) |z_j|`` relative to another),
    and of those only the scores of the classes that use the feature.
    """
    coordinates = Coordinates.of(head, off)
    used = head.used_features
    scores = head.logits(X) if scores is None else scores
    right = _correct(head, scores, y)
    by_class = head.task != "multi-label" and scores.shape[1] > 1
    leaders = _leaders(scores) if by_class else np.empty((len(scores), 0), dtype=np.int64)
    margin = _gap(scores, leaders) if by_class else np.abs(scores).min(axis=1)
    fixed, broken = np.zeros(len(used), dtype=np.int64), np.zeros(len(used), dtype=np.int64)
    for i, feature in enumerate(used):
        column = coordinates.weight[:, feature]
        z = (np.asarray(X[:, feature], dtype=np.float64) - coordinates.shift[feature]) * coordinates.factor[feature]
        rows = np.flatnonzero(margin <= np.abs(z) * (np.ptp(column) if by_class else np.abs(column).max()))
        for block in _blocks(len(rows)):
            chosen = rows[block]
            if by_class and 2 * np.count_nonzero(column) < len(column):
                after = _winner(scores, leaders, chosen, z, column) == y[chosen]
            else:
                after = _correct(head, scores[chosen] - z[chosen, None] * column, y[chosen])
            fixed[i] += np.count_nonzero(after & ~right[chosen])
            broken[i] += np.count_nonzero(~after & right[chosen])
    return Ablation(used, fixed, broken, holm(sign_test(fixed, broken)) if len(used) else np.empty(0))


def _leaders(scores: np.ndarray) -> np.ndarray:
    """Classes of the largest scores of each row, largest first (ties: the lower class), (n, at most _LEADERS)."""
    kept = min(_LEADERS, scores.shape[1])
    leaders = np.empty((len(scores), kept), dtype=np.int64)
    for block in _blocks(len(scores)):
        some = scores[block]
        best = np.sort(np.argpartition(-some, kept - 1, axis=1)[:, :kept], axis=1)
        order = np.argsort(-np.take_along_axis(some, best, axis=1), axis=1, kind="stable")
        leaders[block] = np.take_along_axis(best, order, axis=1)
    return leaders


def _gap(scores: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Distance of the best from the second score, (n,)."""
    rows = np.arange(len(scores))
    return np.asarray(scores[rows, leaders[:, 0]] - scores[rows, leaders[:, 1]])


def _winner(scores: np.ndarray, leaders: np.ndarray, rows: np.ndarray, z: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Class that wins each of ``rows`` when ``z * column`` is taken off, looking only at the scores that move."""
    moving = np.flatnonzero(column)
    still = ~np.isin(leaders[rows], moving)
    best = leaders[rows, still.argmax(axis=1)]
    best_score = scores[rows, best]
    moved = scores[rows[:, None], moving] - z[rows, None] * column[moving]
    top = moved.argmax(axis=1)
    top_score, top = moved[np.arange(len(rows)), top], moving[top]
    winner = np.where((top_score > best_score) | ((top_score == best_score) & (top < best)), top, best)
    unsure = ~still.any(axis=1)  # every leader moves: the best of the others is not known
    winner[unsure] = (scores[rows[unsure]] - z[rows[unsure], None] * column).argmax(axis=1)
    return winner


def _difference(coordinates: Coordinates, wrong: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight (m, d) and bias (m,) of ``logit[wrong] - logit[right]``."""
    present_wrong, present_right = (wrong != ZERO_ROW)[:, None], (right != ZERO_ROW)[:, None]
    weight = coordinates.weight[wrong] * present_wrong - coordinates.weight[right] * present_right
    bias = coordinates.bias[wrong] * present_wrong[:, 0] - coordinates.bias[right] * present_right[:, 0]
    return weight, bias


def _decides(head: LinearHead, scores: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether each row of scores (m, K) now decides for ``right`` (m,) bool."""
    rows = np.arange(len(scores))
    if head.task != "multi-label" and scores.shape[1] > 1:
        return scores.argmax(axis=1) == right
    label = np.where(right == ZERO_ROW, wrong, right)
    return (scores[rows, label] > 0) == (right != ZERO_ROW)


def _correct(head: LinearHead, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Right decisions: (n,) bool, or (n, K) per label."""
    if head.task == "multi-label":
        return (scores > 0) == (y == 1)
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0) == (y == 1)
    return scores.argmax(axis=1) == y


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, start + _BLOCK)
