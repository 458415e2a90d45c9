"""Proximal gradient steps under softmax, in a metric that does not feel what softmax does not feel.

The same move of a feature's weights for all classes leaves every probability as it is: the Hessian is flat along it,
and nearly flat along what many features do to all classes together.  A step in a metric that bends there (the
identity, or Hessian blocks per class) crawls.  This one has the flatness built in, as the bound of Boehning 1992 has;
for the K weights of feature j it is

    M_j = L (diag(c_j) - c_j c_j' / sum(c_j)),    c_jk = second derivative of the loss in weight (k, j).

Its proximal operator with an elastic net is one equation per feature, in the common move m:

    w_k = soft(u_k + m, l1 / (L c_jk)) / (1 + l2 / (L c_jk)),    sum_k c_jk (u_k + m - w_k) = 0,

whose left side rises with m and is piecewise linear.  A step costs two products with the columns and no matrix; it is
combined with the last movement (:mod:`.subspace`), which makes conjugate gradients of it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from debugnet.glm.solvers.columns import ColumnCache

#: Curvatures below this share of the largest one count as that.
LEAST = 1e-3
#: Rows of a chunk of columns that is squared at once.
CHUNK = 1024
#: How far one step may change the scale of the metric, and how small it may get.
TURN, SMALLEST = 2.0, 0.1


class ShiftMetric:
    """The metric of the module's docstring on the cached columns.

    Parameters
    ----------
    cache : ColumnCache
    mean : ndarray (K, n)
        Probabilities where the curvatures are taken.
    weight : ndarray (n,) or None
        n * sample_weight, None where uniform.
    scale : float
        L to start with.
    """

    def __init__(self, cache: ColumnCache, mean: np.ndarray, weight: np.ndarray | None, scale: float = 1.0) -> None:
        variance = mean * (1 - mean) if weight is None else mean * (1 - mean) * weight
        curvature = _weighted_squares(cache, variance) / variance.shape[1]
        self._curvature = np.maximum(curvature, max(LEAST * curvature.max(), 1e-12))
        self.scale = scale

    def __len__(self) -> int:
        return self._curvature.shape[1]

    def minimizer(self, W: np.ndarray, G: np.ndarray, l1: np.ndarray, l2: np.ndarray, nonnegative: bool) -> np.ndarray:
        """Where the linear model at W plus the metric and the penalty is least.

        Parameters
        ----------
        W, G : ndarray (K, m), float64
            Weights and the gradient of the loss there, whose columns sum to 0.
        l1, l2 : ndarray (m,)
            Penalty of each column; 0 and 0 for unpenalized ones.
        nonnegative : bool
            Whether penalized weights are kept at 0 or above.

        Returns
        -------
        ndarray (K, m)
        """
        curvature = self.scale * self._curvature
        out = np.empty(W.shape)
        _proximal(np.ascontiguousarray(W - G / curvature), curvature, l1, l2, nonnegative, out)
        return out

    def learn(self, coefficient: float) -> None:
        """Bring the scale nearer to what would have made the step's coefficient in a combination 1.

        A Hessian is at most twice the number of columns times its diagonal's metric, so that more is never needed.
        """
        scale = self.scale / min(max(coefficient, 1 / TURN), TURN)
        self.scale = min(max(scale, SMALLEST), 2.0 * len(self))


def _weighted_squares(cache: ColumnCache, variance: np.ndarray) -> np.ndarray:
    """``sum_i variance_ki x_ij^2``: (K, n) -> (K, m), float64."""
    n, m = variance.shape[1], len(cache)
    samples, columns, zeros = np.arange(n), np.arange(m), np.zeros(m, dtype=np.int64)
    ones = np.ones((1, n), dtype=cache.dtype)
    total, chunk = np.zeros((len(variance), m)), min(CHUNK, cache.most_samples)
    for start in range(0, n, chunk):
        stop = min(n, start + chunk)
        part = cache.scaled(columns, samples, ones, zeros, start, stop)
        total += variance[:, start:stop] @ np.square(part, out=part).T
    return total


@njit(cache=True, nogil=True)
def _shrunk(v, t, r, nonnegative):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    if v > t:
        return (v - t) / (1.0 + r)
    if v < -t and not nonnegative:
        return (v + t) / (1.0 + r)
    return 0.0


# With its types: compiled once per installation when this is imported, not inside the first lambda that needs it.
@njit("(f8[:, ::1], f8[:, ::1], f8[::1], f8[::1], b1, f8[:, ::1])", cache=True, nogil=True)
def _proximal(U, c, l1, l2, nonnegative, W):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Fill W (K, m) from U and L c (K, m), as in the module's docstring: Newton on m, between bounds that close."""
    K = U.shape[0]
    for j in range(U.shape[1]):
        if l1[j] == 0.0 and l2[j] == 0.0:
            W[:, j] = U[:, j]
            continue
        # At -max(U) no u + m is positive and at -min(U) none is negative.
        low, high = -U[:, j].max(), -U[:, j].min()
        m = min(max(0.0, low), high)
        for _ in range(100):
            total, slope = 0.0, 0.0
            for k in range(K):
                r = l2[j] / c[k, j]
                v = U[k, j] + m
                w = _shrunk(v, l1[j] / c[k, j], r, nonnegative)
                total += c[k, j] * (v - w)
                slope += c[k, j] * (1.0 if w == 0.0 else r / (1.0 + r))
            if abs(total) <= 1e-12 * l1[j]:
                break
            if total > 0.0:
                high = m
            else:
                low = m
            new = m - total / slope if slope > 0.0 else low
            if not low < new < high:
                new = 0.5 * (low + high)
            if new == m:
                break
            m = new
        for k in range(K):
            W[k, j] = _shrunk(U[k, j] + m, l1[j] / c[k, j], l2[j] / c[k, j], nonnegative)
