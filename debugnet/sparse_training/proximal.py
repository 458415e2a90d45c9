"""Proximal operators of the structured penalties, exact and vectorized over units.

A *unit* (an input feature, a group of features, a hidden unit) is one row of the tensors here.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
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

    At the solution (Lemhadri, Ruan, Abraham & Tibshirani, JMLR 22(127), 2021, Proposition 1) ``b`` keeps the
    direction of v, ``||b|| = c / M`` and ``w = sign(u) min(a, c)`` with ``a = (|u| - s)_+``, and the bound c >= 0
    is the root of the concave, piecewise linear, rising function

        F(c) = c - M^2 sum_i (a_i - c)_+ - M (||v|| - t)

    (zero where F(0) > 0).  A Newton step from anywhere lands left of the root, further ones rise to it, and few are
    needed from ``M ||v||``, the bound before the step; nothing is sorted, unlike in the paper's Algorithm 2.

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
    rows = hierarchical_prox_rows(
        torch.cat([V, U], dim=1), V.shape[1], threshold, hierarchy, l1_threshold=l1_threshold, direction=direction
    )
    return rows[:, : V.shape[1]], rows[:, V.shape[1] :]


def hierarchical_prox_rows(
    rows: Tensor,
    width: int,
    threshold: Tensor | float,
    hierarchy: float,
    *,
    l1_threshold: Tensor | float = 0.0,
    direction: Tensor | None = None,
) -> Tensor:
    """:func:`hierarchical_prox` of ``rows`` (g, p + q), whose first ``width`` = p columns are V; returns (b, w) so."""
    if rows.device.type != "cpu":
        group, l1 = (torch.as_tensor(t).to(rows).expand(len(rows)) for t in (threshold, l1_threshold))
        if direction is None:
            direction = torch.eye(1, width).to(rows)
        return torch.cat(_prox_tensors(rows[:, :width], rows[:, width:], group, l1, hierarchy, direction), dim=1)
    given = rows.contiguous().numpy()
    kept, group_, l1_ = np.empty_like(given), *(np.full(len(given), t, given.dtype) for t in (threshold, l1_threshold))
    axes = np.eye(1, width, dtype=given.dtype) if direction is None else direction.contiguous().numpy()
    _prox_rows(given, group_, l1_, axes, kept, float(hierarchy))
    return torch.from_numpy(kept)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _prox_rows(rows, threshold, l1, direction, kept, M):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """HIER-PROX row by row into ``kept``: a root that is found costs nothing more; inner loops have no branches."""
    p = direction.shape[1]
    for g in range(len(rows)):
        v, u, b, w = rows[g, :p], rows[g, p:], kept[g, :p], kept[g, p:]
        square = 0.0
        for i in range(len(v)):
            square += v[i] * v[i]
        norm = np.sqrt(square)
        offset = M * (norm - threshold[g])
        first, bound, trial = True, 0.0, M * norm
        while M > 0:
            excess, count, level = 0.0, 0.0, trial + l1[g]
            for i in range(len(u)):
                over = abs(u[i]) - level
                excess += max(over, 0.0)
                count += 1.0 if over > 0 else 0.0
            raised = trial + (offset + M * M * excess - trial) / (1 + M * M * count)
            if first:  # the first step may come from the right of the root
                raised, first = max(raised, offset, 0.0), False
            elif not raised > bound * (1 + 1e-12):
                break
            bound = trial = raised
        length = bound / M if M > 0 else max(norm - threshold[g], 0.0)
        for i in range(len(v)):
            b[i] = length * (v[i] / norm if norm > 0 else direction[g % len(direction), i])
        for i in range(len(u)):
            w[i] = np.copysign(min(max(abs(u[i]) - l1[g], 0.0), bound), u[i])


def _prox_tensors(
    V: Tensor, U: Tensor, threshold: Tensor, l1_threshold: Tensor, hierarchy: float, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """HIER-PROX by whole tensors, for a GPU."""
    norm = torch.linalg.vector_norm(V, dim=1)
    magnitude = (U.abs() - l1_threshold[:, None]).clamp(min=0)
    if not hierarchy:
        length, bound = (norm - threshold).clamp(min=0), torch.zeros_like(norm)
    else:
        bound = _hierarchy_bound(magnitude, hierarchy * norm, hierarchy * (norm - threshold), hierarchy**2)
        length = bound / hierarchy
    unit = torch.where(norm[:, None] > 0, V / norm[:, None].clamp(min=torch.finfo(V.dtype).tiny), direction)
    return length[:, None] * unit, U.sign() * torch.minimum(magnitude, bound[:, None])


def _hierarchy_bound(magnitude: Tensor, start: Tensor, offset: Tensor, square: float) -> Tensor:
    """Root (g,) of ``c - square * sum_i (a_i - c)_+ - offset``, not below 0, for every row a of ``magnitude``."""

    def newton(bound: Tensor) -> Tensor:
        excess = (magnitude - bound[:, None]).relu_()
        missing = offset + square * excess.sum(dim=1) - bound
        return bound + missing / (1 + square * excess.sign_().sum(dim=1))

    bound = torch.maximum(newton(start), offset).clamp(min=0)
    for _ in range(magnitude.shape[1] + 1):  # each step but the last takes at least one more a_i out of the sum
        raised = newton(bound)
        if not bool((raised > bound).any()):
            break
        bound = torch.maximum(raised, bound)
    return bound


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
