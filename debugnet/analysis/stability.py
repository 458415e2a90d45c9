"""Stability of a support: in what share of resamples a feature is selected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from debugnet.analysis.intervals import wilson_interval


@dataclass(frozen=True)
class SelectionShares:
    """Selection counts over resamples (and penalty mixes).

    Attributes
    ----------
    counts : ndarray (K, d), int64
        Resamples in which the weight is non-zero.
    sign_agreement : ndarray (K, d), float64
        Share of those in which its sign is the more common one; NaN where never selected.
    n : int
        Number of resamples.
    """

    counts: np.ndarray
    sign_agreement: np.ndarray
    n: int

    @property
    def share(self) -> np.ndarray:
        """Share of resamples that select each weight, (K, d), fraction."""
        return self.counts / self.n


def count_selections(weights: Iterable[np.ndarray]) -> SelectionShares:
    """Count over resampled solutions.

    Parameters
    ----------
    weights : iterable of ndarray (K, d)
        One solution per resample, exact zeros off the support; at least one.

    References
    ----------
    Meinshausen & Buehlmann (2010), stability selection, without its false-discovery bound: the
    shares describe the fit, they are no test.
    """
    positive = negative = None
    n = 0
    for weight in weights:
        if positive is None or negative is None:
            positive, negative = np.zeros(weight.shape, dtype=np.int64), np.zeros(weight.shape, dtype=np.int64)
        positive += weight > 0
        negative += weight < 0
        n += 1
    if positive is None or negative is None:
        raise ValueError("no resample given")
    counts = positive + negative
    agreement = np.divide(np.maximum(positive, negative), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return SelectionShares(counts, agreement, n)


def bootstrap_weights(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one bootstrap resample as sample weights (n,), stratified by class.

    Stratified so that a rare class never vanishes; multi-label and regression targets are drawn plainly.
    """
    if y.ndim > 1 or not np.issubdtype(y.dtype, np.integer):
        return np.bincount(rng.integers(len(y), size=len(y)), minlength=len(y)).astype(np.float64)
    weights = np.zeros(len(y))
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        weights[members] = np.bincount(rng.integers(len(members), size=len(members)), minlength=len(members))
    return weights


def rank_unstable(shares: SelectionShares, chosen: np.ndarray, outputs: list[str]) -> list[dict[str, object]]:
    """List the chosen weights (K, d) bool from least to most stable, with intervals, JSON-able."""
    rows, columns = np.nonzero(chosen)
    order = np.argsort(shares.counts[rows, columns], kind="stable")
    return [
        {
            "output": outputs[rows[i]],
            "feature": int(columns[i]),
            "share": float(shares.counts[rows[i], columns[i]] / shares.n),
            "interval": list(wilson_interval(int(shares.counts[rows[i], columns[i]]), shares.n)),
            "sign_agreement": None
            if shares.counts[rows[i], columns[i]] == 0
            else float(shares.sign_agreement[rows[i], columns[i]]),
        }
        for i in order
    ]
