"""Proximal operators: ``prox_t(V) = argmin_W ||W - V||^2 / 2 + t(W)`` in closed form.

Rows of V are outputs, columns are features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(V: Tensor, threshold: Tensor | float) -> Tensor:
    """Prox of ``sum threshold |w|``: shrink every entry towards 0; threshold broadcasts against V."""
    return V - V.clamp(min=-torch.as_tensor(threshold), max=torch.as_tensor(threshold))


def nonnegative_soft_threshold(V: Tensor, threshold: Tensor | float) -> Tensor:
    """Prox of ``sum threshold |w|`` on ``w >= 0``."""
    return (V - threshold).clamp(min=0)


def group_soft_threshold(V: Tensor, threshold: Tensor | float, *, dim: int = 0) -> Tensor:
    """Prox of ``sum_j threshold_j ||w_j||_2`` with one group per column (``dim=0``).

    A zero column stays zero (no 0/0), so a dead feature is harmless.

    Parameters
    ----------
    V : Tensor (K, d)
    threshold : Tensor (d,) or float
    dim : int
        The dimension inside a group.
    """
    norm = torch.linalg.vector_norm(V, dim=dim, keepdim=True)
    keep = norm - (threshold if isinstance(threshold, float | int) else threshold.unsqueeze(dim))
    return V * torch.where(keep > 0, keep / norm.clamp(min=torch.finfo(V.dtype).tiny), torch.zeros_like(norm))
