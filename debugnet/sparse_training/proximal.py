"""Proximal operators of the structured penalties, exact and vectorized over units.

A *unit* (an input feature, a group of features, a hidden unit) is one row of the tensors here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from debugnet.glm.prox import group_soft_threshold, soft_threshold


def hierarchical_prox(
    V: Tensor,
    U: Tensor,
    threshold: Tensor | float,
    hierarchy: float,
    *,
    l1_threshold: Tensor | float = 0.0,
    direction: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """HIER-PROX of LassoNet, for all units at once.

    Per unit, with v its skip weights and u its first-layer weights::

        minimize  1/2 ||v - b||^2 + 1/2 ||u - w||^2 + t ||b||_2 + s ||w||_1
        s.t.      ||w||_inf <= M ||b||_2

    Closed form (Lemhadri, Ruan, Abraham & Tibshirani, JMLR 22(127), 2021, Algorithm 2): with
    ``a`` the falling sorted ``(|u| - s)_+``, ``r_m = [||v|| + M sum_{i<=m} a_i - t]_+ / (1 + m M^2)``
    and ``w_m = M r_m``, take the m with ``a_{m+1} <= w_m <= a_m``; then ``b = r_m v/||v||`` and
    ``w = sign(u) min((|u| - s)_+, w_m)``.

    Parameters
    ----------
    V : Tensor (g, p)
        Skip weights after the gradient step.
    U : Tensor (g, q)
        First-layer weights after the gradient step.
    threshold : Tensor (g,) or float
        t: step times lambda, >= 0.
    hierarchy : float
        M >= 0.
    l1_threshold : Tensor (g,) or float
        s: step times an l1 strength on the first layer.
    direction : Tensor (g, p), optional
        Unit vectors used where v = 0, where any direction is optimal; the first axis otherwise.

    Returns
    -------
    (b, w) : Tensors (g, p), (g, q)
    """
    norm = torch.linalg.vector_norm(V, dim=1)
    magnitude = (U.abs() - _column(l1_threshold)).clamp(min=0)
    ordered = magnitude.sort(dim=1, descending=True).values
    zero = ordered.new_zeros(len(ordered), 1)
    partial = torch.cat([zero, ordered.cumsum(dim=1)], dim=1)
    m = torch.arange(partial.shape[1], device=U.device, dtype=U.dtype)
    r = (norm[:, None] + hierarchy * partial - _column(threshold)).clamp(min=0) / (1 + m * hierarchy**2)
    bound = hierarchy * r
    # a_{m+1} > w_m holds for every m before the one that is sought, and for none after it.
    chosen = (torch.cat([ordered, zero], dim=1) > bound).sum(dim=1, keepdim=True).clamp(max=partial.shape[1] - 1)
    r, bound = r.gather(1, chosen), bound.gather(1, chosen)
    if direction is None:
        direction = torch.zeros_like(V)
        direction[:, 0] = 1.0
    unit = torch.where(norm[:, None] > 0, V / norm[:, None].clamp(min=torch.finfo(V.dtype).tiny), direction)
    return r * unit, U.sign() * torch.minimum(magnitude, bound)


def survival(V: Tensor, U: Tensor, hierarchy: float, *, l1_threshold: Tensor | float = 0.0) -> Tensor:
    """Threshold that a unit survives: HIER-PROX keeps it iff ``||v|| + M ||(|u| - s)_+||_1 > t``.

    Parameters
    ----------
    V : Tensor (g, p)
    U : Tensor (g, q)
    hierarchy : float
    l1_threshold : Tensor (g,) or float
        As in :func:`hierarchical_prox`.

    Returns
    -------
    Tensor (g,)
    """
    magnitude = (U.abs() - _column(l1_threshold)).clamp(min=0)
    return torch.linalg.vector_norm(V, dim=1) + hierarchy * magnitude.sum(dim=1)


def sparse_group_prox(W: Tensor, group_threshold: Tensor, l1_threshold: float = 0.0) -> Tensor:
    """Prox of ``sum_g t_g ||w_g||_2 + s ||w||_1``: soft-threshold first, then each block.

    Parameters
    ----------
    W : Tensor (g, q)
        One unit per row.
    group_threshold : Tensor (g,)
        t_g: step times lambda times the unit's weight (sqrt of its size).
    l1_threshold : float
        s.

    References
    ----------
    Simon, Friedman, Hastie & Tibshirani (2013), eq. (12).
    """
    inner = soft_threshold(W, l1_threshold) if l1_threshold else W
    return group_soft_threshold(inner, group_threshold, dim=1)


def _column(threshold: Tensor | float) -> Tensor | float:
    return threshold[:, None] if isinstance(threshold, Tensor) and threshold.ndim else threshold
