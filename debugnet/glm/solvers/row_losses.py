"""Losses of scores laid out one output per row, (K, n): what a Newton step on the CPU asks of a family.

Storage is float32 unless more is asked for: probabilities carry 6e-8 of noise, which the sums over rows average
away; the loss is summed in float64.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Evaluated(NamedTuple):
    """Loss at some scores.

    Attributes
    ----------
    loss : float
        Weighted mean loss.
    residual : ndarray (K, n)
        Derivative of a row's loss in its scores, times n * weight.
    mean : ndarray (K, n)
        Probabilities (the scores themselves for gaussian).
    """

    loss: float
    residual: np.ndarray
    mean: np.ndarray


class RowLoss(Protocol):
    """A family in this layout; ``weight`` (n,) is n * sample_weight, or None where uniform."""

    coupled: bool

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """Loss, residual and mean at scores (K, n), float64."""

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """Second derivative (n,) of the row losses in one output's score, times weight."""

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Second derivative of the row losses, times weight, applied to scores (K, n)."""


class MultinomialRows:
    """Softmax cross-entropy; y int64 (n,)."""

    coupled = True

    def __init__(self, y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> None:
        self.y, self.weight, self.dtype = y, weight, dtype
        self._columns = np.arange(len(y))

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        mean = np.subtract(scores, scores.max(axis=0), dtype=np.float64).astype(self.dtype, copy=False)
        own = mean[self.y, self._columns]
        np.exp(mean, out=mean)
        total = mean.sum(axis=0)
        mean /= total
        losses = np.log(total).astype(np.float64) - own
        residual = mean.copy()
        residual[self.y, self._columns] -= 1
        if self.weight is None:
            return Evaluated(float(losses.mean()), residual, mean)
        residual *= self.weight
        return Evaluated(float(self.weight @ losses) / len(losses), residual, mean)

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """See :class:`RowLoss`."""
        p = mean[output]
        v = p * (1 - p)
        return v if self.weight is None else v * self.weight

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``(diag(p) - pp') s`` of each row."""
        out = mean * scores
        out -= mean * out.sum(axis=0)
        return out if self.weight is None else out * self.weight


class BinomialRows:
    """Logistic loss, summed over outputs; y 0/1 (K, n)."""

    coupled = False

    def __init__(self, y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> None:
        self.weight, self.dtype = weight, dtype
        self.y = y.astype(dtype)

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        z = scores.astype(self.dtype)
        small = np.exp(-np.abs(z))
        losses = (np.log1p(small) + np.maximum(z, 0) - self.y * z).sum(axis=0, dtype=np.float64)
        mean = np.where(z >= 0, 1, small) / (1 + small)
        residual = mean - self.y
        if self.weight is None:
            return Evaluated(float(losses.mean()), residual, mean)
        residual *= self.weight
        return Evaluated(float(self.weight @ losses) / len(losses), residual, mean)

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """See :class:`RowLoss`."""
        p = mean[output]
        v = p * (1 - p)
        return v if self.weight is None else v * self.weight

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``p (1 - p) s`` of each entry."""
        out = mean * (1 - mean) * scores
        return out if self.weight is None else out * self.weight


class GaussianRows:
    """Half squared error, summed over outputs; y float (K, n)."""

    coupled = False

    def __init__(self, y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> None:
        self.weight, self.dtype, self.y = weight, dtype, y
        self._ones = np.ones(y.shape[1], dtype=dtype) if weight is None else weight

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        residual = scores - self.y
        losses = 0.5 * np.einsum("kn,kn->n", residual, residual)
        residual = residual.astype(self.dtype, copy=False)
        if self.weight is None:
            return Evaluated(float(losses.mean()), residual, residual)
        return Evaluated(float(self.weight @ losses) / len(losses), residual * self.weight, residual)

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """See :class:`RowLoss`."""
        return self._ones

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``s``."""
        return scores if self.weight is None else scores * self.weight
