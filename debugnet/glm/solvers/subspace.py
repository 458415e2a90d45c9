"""The best point in the plane of a step and the movement before it, at the price of no pass over the data.

A proximal Newton step with an inexact Hessian (a metric in its place, or one from an earlier lambda) is a
preconditioner. Minimizing over what it proposes *and* the last movement makes conjugate gradients of the
iteration (locally optimal, as in Knyazev 2001), with nothing to tune: the scores of both directions
are known, so their exact Hessian is a matter of a few products of (K, n).
"""

from __future__ import annotations

import numpy as np

from debugnet.glm.solvers.row_losses import RowLoss


class LastMovement:
    """The last movement of the iterate, with its scores."""

    def __init__(self) -> None:
        self._past: list[tuple[np.ndarray, np.ndarray]] = []

    def clear(self) -> None:
        """Forget it."""
        self._past = []

    def keep(self, change: np.ndarray, scores: np.ndarray) -> None:
        """Remember a movement (K, m) and what it did to the scores (K, n)."""
        self._past = [(change, scores)]

    def directions(self, change: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The proposed step first, then the past; both as wide as the step."""
        width = change.shape[1]
        past = [(np.pad(d, ((0, 0), (0, width - d.shape[1]))), s) for d, s in self._past]
        return [(change, scores), *past]


def best_combination(
    directions: list[tuple[np.ndarray, np.ndarray]],
    rows: RowLoss,
    mean: np.ndarray,
    gradient: np.ndarray,
    ridge: np.ndarray,
) -> np.ndarray:
    """Newton step in the span of the directions: their coefficients.

    Parameters
    ----------
    directions : list of ((K, m), (K, n))
    rows : RowLoss
    mean : ndarray (K, n)
        Where the second derivative is taken.
    gradient : ndarray (K, m)
        Of the objective with the signs held fixed.
    ridge : ndarray (m,)
        l2 of each column.

    Returns
    -------
    ndarray (number of directions,)
    """
    count, n = len(directions), mean.shape[1]
    H, slope = np.empty((count, count)), np.empty(count)
    for i, (d, s) in enumerate(directions):
        slope[i] = np.vdot(d, gradient)
        bent, pulled = rows.curved(mean, s), d * ridge
        for j, (other, scores) in enumerate(directions[: i + 1]):
            H[i, j] = H[j, i] = np.vdot(bent, scores) / n + np.vdot(pulled, other)
    scale = np.sqrt(np.maximum(H.diagonal(), 1e-300))
    H = H / scale / scale[:, None] + 1e-7 * np.eye(count)
    return -np.linalg.solve(H, slope / scale) / scale
