"""Suspects: features that a layer leans on more than other data bear out, and the features that go with them.

A shortcut learned in training shows on data where it may fail: the layer would do better with less of
that feature there.  Nothing here knows what the shortcut is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, stats

from debugnet.analysis.intervals import holm
from debugnet.analysis.misclassification import Ablation, Coordinates, Errors
from debugnet.heads import LinearHead

#: A companion differs by at least this much (within-class standard deviations) ...
COMPANION_EFFECT = 1.0
#: ... and with a corrected p-value below this.
COMPANION_P = 1e-3
_BLOCK = 1024


@dataclass(frozen=True)
class Reliance:
    """Over-reliance of a layer on each feature it uses.

    Attributes
    ----------
    feature : ndarray (f,), int64
    z : ndarray (f,), float64
        Score statistic, standard normal where the layer relies on the feature as it should;
        positive: less of it would lower the loss.
    p_value : ndarray (f,), float64
        One-sided, Holm-corrected over the features.
    temperature : float
        Factor on the scores that fits these data best.
    """

    feature: np.ndarray
    z: np.ndarray
    p_value: np.ndarray
    temperature: float


@dataclass(frozen=True)
class Samples:
    """Samples with the layer's scores on them.

    Attributes
    ----------
    X : ndarray (n, d)
        Raw features.
    scores : ndarray (n, K)
        ``head.logits(X)``.
    y : ndarray
        (n,) class indices or 0/1 (n, K).
    """

    X: np.ndarray
    scores: np.ndarray
    y: np.ndarray


def measure_reliance(head: LinearHead, samples: Samples, reference: Samples) -> Reliance:
    """Test for every feature whether the layer leans on it more than ``samples`` bear out.

    The layer is calibrated on both sets, each by itself (one factor on all scores and a shift per
    output): an l1 norm leaves a layer underconfident, a network that knows its training rows by
    heart makes it overconfident, and neither is a shortcut.  At the calibrated layer the derivative
    of the mean loss by the scale of feature j's contribution is
    ``mean_i sum_k (p_ik - y_ik) w_kj z_ij``: positive where less of the feature would lower the
    loss.  Divided by the standard deviation over samples it does not depend on the calibration's
    scale; its difference between the two sets over ``sqrt(1/n + 1/n_ref)`` is the statistic (a score
    test, Rao 1948, in two samples).  The reference is needed because an l1 norm shrinks weak
    weights more than strong ones, so that the derivative is not zero where nothing is wrong.

    Parameters
    ----------
    head : LinearHead
        Single-label or multi-label.
    samples : Samples
        Where a shortcut may fail.
    reference : Samples
        Where it held: rows like those of training.
    """
    used = head.used_features
    effect, temperature = _contribution_effects(head, samples, used)
    expected, _ = _contribution_effects(head, reference, used)
    z = (effect - expected) / np.sqrt(1 / len(samples.y) + 1 / len(reference.y))
    return Reliance(used, z, holm(stats.norm.sf(z)) if len(used) else z, temperature)


def _contribution_effects(head: LinearHead, samples: Samples, used: np.ndarray) -> tuple[np.ndarray, float]:
    """Derivative of the calibrated loss by each contribution's scale: mean / standard deviation (f,); temperature."""
    coordinates = Coordinates.of(head)
    logits, weight = _as_outputs(head, samples.scores)
    calibration = _calibrate(logits, samples.y)
    layer = weight[:, used].T
    if np.count_nonzero(layer) < 0.1 * layer.size:
        layer = sparse.csr_array(layer)
    shift, factor = coordinates.shift[used], coordinates.factor[used]
    n = len(logits)
    total, square = np.zeros(len(used)), np.zeros(len(used))
    for rows in _blocks(n):
        residual = _loss_and_residual(logits[rows], samples.y[rows], calibration)[1]
        Z = (np.asarray(samples.X[rows], dtype=np.float64)[:, used] - shift) * factor
        part = (layer @ residual.T).T * Z
        total += part.sum(axis=0)
        square += np.square(part).sum(axis=0)
    temperature = float(np.exp(calibration[0]))
    mean = temperature * total / n
    spread = np.sqrt(np.maximum(temperature**2 * square / n - mean**2, 0))
    return np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0), temperature


def combine_evidence(reliance: Reliance, ablation: Ablation) -> np.ndarray:
    """Corrected p-value of each used feature from both tests, (f,).

    The score test sees small over-reliance in all samples, but loses power where a shortcut spoils
    most decisions, because the calibration takes it for overconfidence; there the sign test on
    decisions fixed and broken by the feature's removal is strong.  Twice the smaller one
    (Bonferroni over the two) keeps the family-wise error.
    """
    return np.minimum(1.0, 2 * np.minimum(reliance.p_value, ablation.p_value))


@dataclass(frozen=True)
class Companions:
    """Features that stand out in the samples a suspect misleads.

    Attributes
    ----------
    misled : int
        Number of those samples.
    output : int
        The output they are wrongly given to.
    feature : ndarray (c,), int64
        Largest effect first; often the suspect itself is among them.
    effect : ndarray (c,), float64
        Mean difference to right decisions of the same true class, in their standard deviations.
    """

    misled: int
    output: int
    feature: np.ndarray
    effect: np.ndarray


def find_companions(
    head: LinearHead, X: np.ndarray, y: np.ndarray, errors: Errors, feature: int, *, min_samples: int = 5
) -> Companions:
    """Find what else is unusual where a feature misleads the layer.

    A shortcut is rarely one feature: take the first one away, and a layer fitted again picks up the
    next one that carries the same thing.  The samples that the suspect's class gets wrongly while
    the suspect speaks for it are compared, feature by feature (used by the layer or not), with the
    right decisions of the same true classes (Welch's t, Holm-corrected over all features).

    Parameters
    ----------
    head : LinearHead
        Single-label.
    X : ndarray (n, d)
        Raw features.
    y : ndarray (n,)
    errors : Errors
        Of this head on these samples.
    feature : int
        The suspect.
    min_samples : int
        With fewer misled samples than this nothing is said.
    """
    coordinates = Coordinates.of(head)
    column = coordinates.weight[:, feature]
    output = int(column.argmax()) if len(column) > 1 else (0 if column[0] > 0 else -1)
    z = (np.asarray(X[errors.sample, feature], dtype=np.float64) - coordinates.shift[feature]) * coordinates.factor[
        feature
    ]
    speaks = z * (1.0 if len(column) > 1 or column[0] > 0 else -1.0) > 0
    misled = errors.sample[(errors.wrong == output) & speaks]
    right = np.ones(len(y), dtype=bool)
    right[errors.sample] = False
    inside, outside = [], []
    for label in np.unique(y[misled]):
        reference = np.flatnonzero(right & (y == label))
        if len(reference) < 2:
            continue
        peers = coordinates.transform(np.asarray(X[reference]))
        centre = peers.mean(axis=0)
        inside.append(coordinates.transform(np.asarray(X[misled[y[misled] == label]])) - centre)
        outside.append(peers - centre)
    n_misled = sum(map(len, inside))
    if n_misled < min_samples:
        return Companions(n_misled, output, np.empty(0, dtype=np.int64), np.empty(0))
    a, b = np.concatenate(inside), np.concatenate(outside)
    test = stats.ttest_ind(a, b, axis=0, equal_var=False, alternative="greater")
    spread = b.std(axis=0)
    effect = np.divide(a.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 1e-9)
    p_value = holm(np.nan_to_num(np.asarray(test.pvalue), nan=1.0))
    found = np.flatnonzero((p_value < COMPANION_P) & (effect > COMPANION_EFFECT))
    found = found[np.argsort(-effect[found], kind="stable")]
    return Companions(n_misled, output, found, effect[found])


def _as_outputs(head: LinearHead, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, K) and standardized weights (K, d), a one-row single-label head as two classes."""
    weight = head.standardized_weight
    if head.task != "multi-label" and scores.shape[1] == 1:
        scores, weight = np.hstack([np.zeros_like(scores), scores]), np.vstack([np.zeros_like(weight), weight])
    return scores, weight


def _loss_and_residual(logits: np.ndarray, y: np.ndarray, calibration: np.ndarray) -> tuple[float, np.ndarray]:
    """Summed loss of ``exp(t) logits + b``, calibration = (t, b); and probabilities minus targets (n, K)."""
    scaled = np.exp(calibration[0]) * logits + calibration[1:]
    if y.ndim == 2:
        loss = float((np.logaddexp(0, scaled) - y * scaled).sum())
        return loss, np.asarray(1 / (1 + np.exp(-np.clip(scaled, -500, 500))) - y)
    rows = np.arange(len(y))
    scaled -= scaled.max(axis=1, keepdims=True)
    own = scaled[rows, y].sum()
    np.exp(scaled, out=scaled)
    norm = scaled.sum(axis=1, keepdims=True)
    scaled /= norm
    scaled[rows, y] -= 1
    return float(np.log(norm).sum() - own), scaled


def _calibrate(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fit ``exp(t) logits + b`` to the labels, class indices (n,) or 0/1 (n, K); returns (t, b), (1 + K,)."""
    n, k = logits.shape
    frequency = y.mean(axis=0) if y.ndim == 2 else np.bincount(y, minlength=k) / n
    # The curvature along b_k is about the class's frequency: with a thousand classes these steps even it out.
    unit = np.concatenate([[1.0], 1 / np.sqrt(np.maximum(frequency, 1 / n))])

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        v = u * unit
        loss, slope, shift = 0.0, 0.0, np.zeros(k)
        for rows in _blocks(n):
            part, residual = _loss_and_residual(logits[rows], y[rows], v)
            loss += part
            slope += float(np.vdot(residual, logits[rows]))
            shift += residual.sum(axis=0)
        gradient = np.concatenate([[np.exp(v[0]) * slope / n], shift / n])
        # A trace of ridge keeps the optimum finite where every sample is right.
        return loss / n + 1e-4 * float(v @ v), (gradient + 2e-4 * v) * unit

    bounds = np.array([[-6.0, 6.0]] + [[-50.0, 50.0]] * k) / unit[:, None]
    found = optimize.minimize(objective, np.zeros(1 + k), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x * unit)


def _blocks(n: int) -> Iterator[slice]:
    """Rows in blocks that stay in the cache with a thousand classes."""
    for start in range(0, n, _BLOCK):
        yield slice(start, start + _BLOCK)
