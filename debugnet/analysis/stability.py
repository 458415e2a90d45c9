"""Stability of a support: in what share of resamples a feature is selected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from debugnet.analysis.intervals import wilson_interval


@dataclass(frozen=True)
class SelectionShares:
    """Selection counts over resamples (and penalty mixes); two of them add up.

    Attributes
    ----------
    positive, negative : ndarray (K, d), int64
        Resamples in which the weight is above and below zero.
    n : int
        Number of resamples.
    """

    positive: np.ndarray
    negative: np.ndarray
    n: int

    @property
    def counts(self) -> np.ndarray:
        """Resamples in which each weight is non-zero, (K, d), int64."""
        return np.asarray(self.positive + self.negative)

    @property
    def share(self) -> np.ndarray:
        """Share of resamples that select each weight, (K, d), fraction."""
        return self.counts / self.n

    @property
    def sign_agreement(self) -> np.ndarray:
        """Share of the selecting resamples in which the sign is the more common one, (K, d); NaN where never."""
        counts, more = self.counts, np.maximum(self.positive, self.negative)
        return np.divide(more, counts, out=np.full(counts.shape, np.nan), where=counts > 0)

    def __add__(self, other: SelectionShares) -> SelectionShares:
        return SelectionShares(self.positive + other.positive, self.negative + other.negative, self.n + other.n)


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
    total = None
    for weight in weights:
        one = SelectionShares((weight > 0).astype(np.int64), (weight < 0).astype(np.int64), 1)
        total = one if total is None else total + one
    if total is None:
        raise ValueError("no resample given")
    return total


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


def rank_unstable(
    shares: SelectionShares, chosen: np.ndarray, outputs: list[str], by_mix: dict[float, SelectionShares] | None = None
) -> list[dict[str, object]]:
    """List the chosen weights (K, d) bool from least to most stable, with intervals, JSON-able.

    ``by_mix`` holds the shares of each penalty mix by itself, by its l1_ratio.
    """
    rows, columns = np.nonzero(chosen)
    order = np.argsort(shares.counts[rows, columns], kind="stable")
    agreement = shares.sign_agreement
    return [
        {
            "output": outputs[rows[i]],
            "feature": int(columns[i]),
            "share": float(shares.counts[rows[i], columns[i]] / shares.n),
            "interval": list(wilson_interval(int(shares.counts[rows[i], columns[i]]), shares.n)),
            "sign_agreement": None
            if shares.counts[rows[i], columns[i]] == 0
            else float(agreement[rows[i], columns[i]]),
            "by_l1_ratio": {
                f"{mix:g}": int(part.counts[rows[i], columns[i]]) / part.n for mix, part in (by_mix or {}).items()
            },
        }
        for i in order
    ]
