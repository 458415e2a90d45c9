"""Adam with one step size per unit, so that a unit's proximal operator stays exact."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor


class UnitAdam:
    """Adam with one step size per unit, so that a unit's proximal operator stays exact.

    Adam's per-coordinate step would change the metric inside a unit, in which HIER-PROX and the
    block soft threshold have no closed form.  Here the second moment is the mean square gradient of
    the unit: the metric is a multiple of the identity within each unit, and the prox with threshold
    ``step_j lam`` is exact.  The first moment is an average of gradients (not a velocity), so the
    fixed points are those of ``loss + lam penalty`` with this very lambda, whatever ``betas`` are.

    Parameters
    ----------
    lr : float
        Step of a unit whose gradient is steady.
    betas : tuple of float
    eps : float
    """

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def step(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient step: rows (g, q) and their gradient -> (new rows, step sizes (g,))."""
        first, second = self.moments(rows)
        self.count += 1
        first_bias, second_bias = (1 - decay**self.count for decay in self.betas)
        if rows.device.type == "cpu":  # one pass over the memory instead of a dozen small tensor operations
            moved, step = torch.empty_like(first), torch.empty_like(second)
            arrays = (rows.detach().contiguous(), gradient.contiguous(), first, second, moved, step)
            _step_rows(*(t.numpy() for t in arrays), *self.betas, first_bias, second_bias, self.lr, self.eps)
            return moved, step
        first_decay, second_decay = self.betas
        first.mul_(first_decay).add_(gradient, alpha=1 - first_decay)
        second.mul_(second_decay).add_(gradient.square().mean(dim=1), alpha=1 - second_decay)
        step = self.lr / ((second / second_bias).sqrt() + self.eps)
        return rows - step[:, None] * (first / first_bias), step

    def moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """First (g, q) and second moments (g,), begun at zero for rows shaped like these."""
        if self.first is None or self.second is None:
            self.first, self.second = rows.new_zeros(rows.shape), rows.new_zeros(len(rows))
        return self.first, self.second


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _step_rows(  # type: ignore[no-untyped-def]
    rows, gradient, first, second, moved, step, first_decay, second_decay, first_bias, second_bias, lr, eps
):  # pragma: no cover - compiled
    """Adam row by row into ``moved`` and ``step``; the moments are brought up to date."""
    for g in range(len(rows)):
        row, slope, average, out = rows[g], gradient[g], first[g], moved[g]
        square = 0.0
        for i in range(len(row)):
            square += slope[i] * slope[i]
            average[i] = first_decay * average[i] + (1 - first_decay) * slope[i]
        second[g] = second_decay * second[g] + (1 - second_decay) * square / len(row)
        step[g] = lr / (np.sqrt(second[g] / second_bias) + eps)
        rate = step[g] / first_bias
        for i in range(len(row)):
            out[i] = row[i] - rate * average[i]
