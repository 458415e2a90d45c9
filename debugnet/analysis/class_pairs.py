"""Pairs of classes: confusion against overlap of supports, and the features that two classes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.heads import LinearHead


def confusion_matrix(y: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Count decisions: (K, K) int64, row = true class, column = predicted class."""
    counts = np.bincount(y.astype(np.int64) * n_classes + predictions.astype(np.int64), minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def confusion_rate(confusion: np.ndarray) -> np.ndarray:
    """Symmetric confusion of each pair: ``max(C_ij, C_ji)`` with C in shares of the true class.

    Parameters
    ----------
    confusion : ndarray (K, K)
        Counts, row = true class.

    Returns
    -------
    ndarray (K, K), float64
        Diagonal 0; NaN for pairs where a class has no samples.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    rates = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    pair = np.maximum(rates, rates.T)
    np.fill_diagonal(pair, 0.0)
    return pair


def support_overlap(head: LinearHead, measure: str = "jaccard") -> np.ndarray:
    """Overlap of the features two classes use, (K, K).

    Parameters
    ----------
    head : LinearHead
    measure : str
        "jaccard" (shared / union), "overlap" (shared / smaller support) or "count".
        Empty supports overlap with nothing.
    """
    support = head.support[:, head.used_features].astype(np.float32)
    shared = (support @ support.T).astype(np.float64)
    size = np.diag(shared).copy()
    if measure == "count":
        return shared
    smaller = np.minimum.outer(size, size)
    denominator = {"jaccard": np.add.outer(size, size) - shared, "overlap": smaller}[measure]
    return np.divide(shared, denominator, out=np.zeros_like(shared), where=denominator > 0)


@dataclass(frozen=True)
class Correlation:
    """A correlation over class pairs with its permutation p-value.

    Attributes
    ----------
    r : float
        NaN when one of the two sides does not vary.
    p_value : float
        Two-sided, ``(1 + #{|r_perm| >= |r|}) / (1 + n_permutations)``.
    n_pairs, n_permutations : int
    method : str
        "pearson" or "spearman".
    """

    r: float
    p_value: float
    n_pairs: int
    n_permutations: int
    method: str


def correlate_pairs(
    first: np.ndarray, second: np.ndarray, *, method: str = "pearson", n_permutations: int = 1000, seed: int = 0
) -> Correlation:
    """Correlate two symmetric class-by-class matrices over their pairs.

    The p-value permutes the *classes* of one matrix (Mantel 1967): pairs that share a class are not
    independent, so the textbook p-value of Pearson's r would be far too small.

    Parameters
    ----------
    first, second : ndarray (K, K)
        Symmetric; pairs where either is NaN are left out.
    method : str
        "pearson" or "spearman" (of the ranks).
    n_permutations : int
    seed : int
    """
    n_classes = len(first)
    upper = np.triu_indices(n_classes, k=1)
    known = np.isfinite(first[upper]) & np.isfinite(second[upper])
    rows, columns = upper[0][known], upper[1][known]
    a, b = first[rows, columns], second[rows, columns]
    if method == "spearman":
        from scipy.stats import rankdata

        a, b = rankdata(a), rankdata(b)
    elif method != "pearson":
        raise ValueError(f"method is '{method}'; use 'pearson' or 'spearman'")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(float("nan"), float("nan"), len(a), 0, method)
    a = (a - a.mean()) / a.std()
    full = np.full((n_classes, n_classes), np.nan)
    full[rows, columns] = full[columns, rows] = (b - b.mean()) / b.std()
    r = float(np.mean(a * full[rows, columns]))
    rng = np.random.default_rng(seed)
    extreme = 0
    for _ in range(n_permutations):
        order = rng.permutation(n_classes)
        permuted = full[order[rows], order[columns]]
        valid = np.isfinite(permuted)
        extreme += abs(_pearson(a[valid], permuted[valid])) >= abs(r) - 1e-12
    return Correlation(r, (1 + extreme) / (1 + n_permutations), len(a), n_permutations, method)


@dataclass(frozen=True)
class SharedFeature:
    """A feature that two classes both lean on.

    Attributes
    ----------
    classes : tuple of int
        The two outputs.
    feature : int
    weights : tuple of float
        Standardized weights.
    strength : float
        The smaller of the two weights relative to its class's (or the model's) largest weight.
    """

    classes: tuple[int, int]
    feature: int
    weights: tuple[float, float]
    strength: float


def shared_features(
    head: LinearHead, *, threshold: float = 0.05, relative_to: str = "class", limit: int | None = None, seed: int = 0
) -> list[SharedFeature]:
    """Pairs of classes with a feature whose weight is above a share of the maximum weight in both.

    Parameters
    ----------
    head : LinearHead
    threshold : float
        Share of the maximum weight, fraction (Wong et al. 2021, appendix E.2.1: 5%).
    relative_to : str
        "class" (maximum of that class) or "model".
    limit : int, optional
        Keep a seeded random sample of this many (the paper samples 1000); None keeps all.
    seed : int

    Returns
    -------
    list of SharedFeature
        Strongest first.
    """
    weight = head.standardized_weight
    positive = np.maximum(weight, 0)
    if relative_to not in ("class", "model"):
        raise ValueError(f"relative_to is '{relative_to}'; use 'class' or 'model'")
    top = positive.max(axis=1, keepdims=True) if relative_to == "class" else positive.max(keepdims=True)
    relative = np.divide(positive, top, out=np.zeros_like(positive), where=top > 0)
    features, first, second = [], [], []
    for shared in np.flatnonzero(((relative > threshold).sum(axis=0)) > 1):
        classes = np.flatnonzero(relative[:, shared] > threshold)
        i, j = np.triu_indices(len(classes), k=1)
        features.append(np.full(len(i), shared))
        first.append(classes[i])
        second.append(classes[j])
    if not features:
        return []
    feature, a, b = np.concatenate(features), np.concatenate(first), np.concatenate(second)
    if limit is not None and len(feature) > limit:
        kept = np.sort(np.random.default_rng(seed).choice(len(feature), size=limit, replace=False))
        feature, a, b = feature[kept], a[kept], b[kept]
    strength = np.minimum(relative[a, feature], relative[b, feature])
    return [
        SharedFeature(
            (int(a[i]), int(b[i])),
            int(feature[i]),
            (float(weight[a[i], feature[i]]), float(weight[b[i], feature[i]])),
            float(strength[i]),
        )
        for i in np.argsort(-strength, kind="stable").tolist()
    ]


def top_samples(z: np.ndarray, members: np.ndarray, k: int) -> np.ndarray:
    """Rows among ``members`` (indices into z) with the largest z, at most k, largest first."""
    k = min(k, len(members))
    if k == 0:
        return members[:0]
    best = np.argpartition(-z[members], k - 1)[:k]
    return members[best[np.argsort(-z[members[best]], kind="stable")]]


def rank_confused_pairs(
    confusion: np.ndarray, overlap: np.ndarray, class_names: Sequence[str], *, limit: int = 50
) -> list[dict[str, object]]:
    """Pairs by falling confusion, with their overlap and both directions' counts, JSON-able."""
    rate = confusion_rate(confusion)
    i, j = np.triu_indices(len(confusion), k=1)
    order = np.argsort(-np.nan_to_num(rate[i, j], nan=-1.0), kind="stable")[:limit]
    return [
        {
            "classes": [class_names[a], class_names[b]],
            "confusion": float(rate[a, b]),
            "counts": [int(confusion[a, b]), int(confusion[b, a])],
            "overlap": float(overlap[a, b]),
        }
        for a, b in zip(i[order], j[order], strict=True)
        if confusion[a, b] + confusion[b, a] > 0
    ]


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0
