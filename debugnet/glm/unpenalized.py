"""Newton on what is never penalized: the bias, and features with penalty factor 0.

Given the penalized weights, the loss is minimized over ``C`` (K, 1 + p) in
``scores = fixed + U C'`` with ``U = [1, free columns]``: a small smooth problem, solved to
rounding, so that the residual is orthogonal to U and makes a dual point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem

#: Newton stops when no derivative exceeds this.
TOLERANCE = 1e-14
#: Largest number of unknowns K (1 + p) for a dense Newton step; above, features stay as given.
MAX_UNKNOWNS = 1500


@dataclass(frozen=True)
class Unpenalized:
    """A point whose unpenalized part is optimal.

    Attributes
    ----------
    weight : Tensor (K, d), float64
    bias : Tensor (K,), float64
        Centred to mean zero for multinomial, whose bias is free up to a constant.
    scores : Tensor (n, K), float64
        Offset included.
    """

    weight: Tensor
    bias: Tensor
    scores: Tensor


def fit_unpenalized(problem: GLMProblem, weight: Tensor, bias: Tensor, max_steps: int = 50) -> Unpenalized:
    """Move the bias and the unpenalized weights to their optimum for the rest of ``weight`` (K, d).

    Sign-constrained features, or more than :data:`MAX_UNKNOWNS` unknowns, leave only the bias to move.
    """
    free = torch.nonzero((problem.penalty.factor == 0) & problem.design.alive).ravel()
    if problem.penalty.nonnegative or problem.n_outputs * (1 + len(free)) > MAX_UNKNOWNS:
        free = free[:0]
    weight, bias = weight.clone(), bias.to(torch.float64)
    scores = problem.scores(weight, bias, torch.float64)
    if not problem.fit_intercept and len(free) == 0:
        return Unpenalized(weight, torch.zeros_like(bias), scores)
    U = problem.design.columns(free, torch.float64) if len(free) else scores.new_empty((len(scores), 0))
    if problem.fit_intercept:
        U = torch.cat([U.new_ones((len(U), 1)), U], dim=1)
    move = _newton(problem, scores, U, max_steps)
    scores += U @ move.T
    if problem.fit_intercept:
        bias, move = bias + move[:, 0], move[:, 1:]
        if not problem.family.separable:
            scores -= bias.mean()
            bias = bias - bias.mean()
    weight[:, free] += move
    return Unpenalized(weight, bias if problem.fit_intercept else torch.zeros_like(bias), scores)


def _newton(problem: GLMProblem, scores: Tensor, U: Tensor, max_steps: int) -> Tensor:
    """``argmin_C loss(scores + U C')`` by damped Newton: (K, columns of U)."""
    C = U.new_zeros((problem.n_outputs, U.shape[1]))
    target = problem.family.dense_target(problem.target, problem.n_outputs, torch.float64)
    eta, loss = scores, problem.loss(scores)
    for _ in range(max_steps):
        mean = problem.family.mean(eta)
        residual = (mean - target) * problem.sample_weight[:, None]
        slope = problem.communicator.sum_(residual.T @ U)
        if float(slope.abs().max()) <= TOLERANCE:
            break
        step = _newton_step(problem, mean, slope, U)
        decrease = float((slope * step).sum())
        for _ in range(30):
            trial = scores + U @ (C + step).T
            value = problem.loss(trial)
            if value <= loss + 1e-4 * decrease + 4e-16 * abs(loss):
                break
            step, decrease = step / 2, decrease / 2
        else:
            break
        settled = float(step.abs().max()) <= 1e-15 * (1 + float(C.abs().max()))
        C, eta, loss = C + step, trial, value
        if settled:
            break
    return C


def _newton_step(problem: GLMProblem, mean: Tensor, slope: Tensor, U: Tensor) -> Tensor:
    """``-H^{-1} slope``; a Hessian that vanishes (saturated rows) falls back to its bound."""
    K, p = slope.shape
    weighted = U * problem.sample_weight[:, None]
    if problem.family.separable:
        variance = problem.family.variance(mean)
        H = torch.stack([(U * variance[:, k : k + 1]).T @ weighted for k in range(K)])
        right = -slope[:, :, None]
    else:
        each = (mean[:, :, None] * U[:, None, :]).flatten(1)  # (n, K p)
        H = -(each.T @ (each * problem.sample_weight[:, None]))
        for k in range(K):
            H[k * p : (k + 1) * p, k * p : (k + 1) * p] += (U * mean[:, k : k + 1]).T @ weighted
        # The same column for all classes is a flat direction, in which the slope has no part.
        H += torch.kron(torch.ones((K, K), dtype=H.dtype, device=H.device) / K**2, torch.eye(p).to(H))
        right = -slope.reshape(-1, 1)
    H = problem.communicator.sum_(H)
    H.diagonal(dim1=-2, dim2=-1).add_(1e-15 + 1e-13 * H.diagonal(dim1=-2, dim2=-1).mean())
    step, info = torch.linalg.solve_ex(H, right)
    step = step.reshape(K, p)
    good = not bool((info != 0).any()) and bool(torch.isfinite(step).all()) and float((step * slope).sum()) < 0
    return step if good else -slope / problem.family.curvature
