"""Losses of scores laid out one output per row, (K, n): what a Newton step on the CPU asks of a family.

Storage is float32 unless more is asked for: probabilities carry 6e-8 of noise, which the sums over rows average
away; the loss is summed in float64.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from debugnet.glm.problem import GLMProblem


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


class _Rows:
    """What the families share: sample weights, and the curvature of a probability."""

    def __init__(self, y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> None:
        self.y, self.weight, self.dtype = y, weight, dtype

    def _weighted(self, values: np.ndarray) -> np.ndarray:
        return values if self.weight is None else values * self.weight

    def _evaluated(self, losses: np.ndarray, residual: np.ndarray, mean: np.ndarray) -> Evaluated:
        total = losses.sum() if self.weight is None else self.weight @ losses
        return Evaluated(float(total) / len(losses), self._weighted(residual), mean)

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """``p (1 - p)``; see :class:`RowLoss`."""
        p = mean[output]
        return self._weighted(p * (1 - p))


class MultinomialRows(_Rows):
    """Softmax cross-entropy; y int64 (n,)."""

    coupled = True

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        columns = np.arange(len(self.y))
        mean = np.subtract(scores, scores.max(axis=0), dtype=np.float64).astype(self.dtype, copy=False)
        own = mean[self.y, columns]
        np.exp(mean, out=mean)
        total = mean.sum(axis=0)
        mean /= total
        losses = np.log(total).astype(np.float64) - own
        residual = mean.copy()
        residual[self.y, columns] -= 1
        return self._evaluated(losses, residual, mean)

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``(diag(p) - pp') s`` of each row."""
        out = mean * scores
        out -= mean * out.sum(axis=0)
        return self._weighted(out)


class BinomialRows(_Rows):
    """Logistic loss, summed over outputs; y 0/1 (K, n)."""

    coupled = False

    def __init__(self, y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> None:
        super().__init__(y.astype(dtype), weight, dtype)

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        z = scores.astype(self.dtype)
        small = np.exp(-np.abs(z))
        losses = (np.log1p(small) + np.maximum(z, 0) - self.y * z).sum(axis=0, dtype=np.float64)
        mean = np.where(z >= 0, 1, small) / (1 + small)
        return self._evaluated(losses, mean - self.y, mean)

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``p (1 - p) s`` of each entry."""
        return self._weighted(mean * (1 - mean) * scores)


class GaussianRows(_Rows):
    """Half squared error, summed over outputs; y float (K, n)."""

    coupled = False

    def evaluate(self, scores: np.ndarray) -> Evaluated:
        """See :class:`RowLoss`."""
        residual = scores - self.y
        losses = 0.5 * np.einsum("kn,kn->n", residual, residual)
        residual = residual.astype(self.dtype, copy=False)
        return self._evaluated(losses, residual, residual)

    def curvature(self, mean: np.ndarray, output: int) -> np.ndarray:
        """Ones times the weights; see :class:`RowLoss`."""
        return self._weighted(np.ones(self.y.shape[1], dtype=self.dtype))

    def curved(self, mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """``s``."""
        return self._weighted(scores)


def row_loss(
    problem: GLMProblem, weight: np.ndarray | None, dtype: np.dtype, *, two_class: bool = False
) -> MultinomialRows | BinomialRows | GaussianRows:
    """Return the problem's family in this layout; with ``two_class`` softmax of two is one logistic output."""
    target = problem.target.numpy()
    if two_class:
        return BinomialRows(target[None], weight, dtype)
    if problem.family.name == "multinomial":
        return MultinomialRows(target, weight, dtype)
    rows = BinomialRows if problem.family.name == "binomial" else GaussianRows
    return rows(np.ascontiguousarray(target.T), weight, dtype)


def row_weights(problem: GLMProblem, dtype: np.dtype) -> np.ndarray | None:
    """Return n * sample_weight (n,), or None where uniform."""
    n = problem.design.shape[0]
    return None if problem.uniform else (problem.sample_weight.numpy() * n).astype(dtype)
