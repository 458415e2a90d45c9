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
TOLERANCE = 1e-13
#: Below this it also stops as soon as they fall no further: what is left is rounding.
ROUNDING = 1e-11
#: Predicted decreases below this are taken without a look at the loss.
INVISIBLE = 1e-11
#: A slope below this is squared to rounding by the next step.
QUADRATIC = 1e-9
#: Largest number of unknowns K (1 + p) of a coupled family for a dense Hessian; above, conjugate gradients.
MAX_DENSE = 200
#: Most free features that are moved; above, they stay as given.
MAX_FREE = 200


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

    Sign-constrained features, or more than :data:`MAX_FREE`, stay as they are: only the bias moves.
    """
    free = torch.nonzero((problem.penalty.factor == 0) & problem.design.alive).ravel()
    if problem.penalty.nonnegative or len(free) > MAX_FREE:
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
    eta, loss, last = scores, None, torch.inf
    for _ in range(max_steps):
        mean = problem.family.mean(eta)
        residual = (mean - target) * problem.sample_weight[:, None]
        slope = problem.communicator.sum_(residual.T @ U)
        size = float(slope.abs().max())
        if size <= TOLERANCE or (size <= ROUNDING and size > 0.5 * last):
            break
        last = size
        step = _newton_step(problem, mean, slope, U)
        decrease = float((slope * step).sum())
        for _ in range(30):
            trial = scores + U @ (C + step).T
            if -decrease <= INVISIBLE:  # the loss cannot resolve this step, Newton's theory can
                value = None
                break
            loss = problem.loss(eta) if loss is None else loss
            value = problem.loss(trial)
            # A sum over many rows is exact to some 1e-14 of itself: less than that is no increase.
            if value <= loss + 1e-4 * decrease + 1e-14 * abs(loss):
                break
            step, decrease = step / 2, decrease / 2
        else:
            break
        C, eta, loss = C + step, trial, value
    return C


def _newton_step(problem: GLMProblem, mean: Tensor, slope: Tensor, U: Tensor) -> Tensor:
    """``-H^{-1} slope``; a Hessian that vanishes (saturated rows) falls back to its bound."""
    if problem.family.separable:
        step = _separable_step(problem, mean, slope, U)
    elif slope.numel() > MAX_DENSE:
        step = _conjugate_gradients(problem, mean, slope, U)
    else:
        step = _coupled_step(problem, mean, slope, U)
    good = bool(torch.isfinite(step).all()) and float((step * slope).sum()) < 0
    return step if good else -slope / problem.family.curvature


def _separable_step(problem: GLMProblem, mean: Tensor, slope: Tensor, U: Tensor) -> Tensor:
    """One small system per output."""
    weighted, variance = U * problem.sample_weight[:, None], problem.family.variance(mean)
    H = torch.stack([(U * variance[:, k : k + 1]).T @ weighted for k in range(len(slope))])
    return _solve(problem.communicator.sum_(H), -slope[:, :, None]).reshape(slope.shape)


def _coupled_step(problem: GLMProblem, mean: Tensor, slope: Tensor, U: Tensor) -> Tensor:
    """One system over all outputs, ``H_kl = U' diag(w (p_k [k = l] - p_k p_l)) U``."""
    K, p = slope.shape
    weighted = U * problem.sample_weight[:, None]
    each = (mean[:, :, None] * U[:, None, :]).flatten(1)  # (n, K p)
    H = -(each.T @ (each * problem.sample_weight[:, None]))
    for k in range(K):
        H[k * p : (k + 1) * p, k * p : (k + 1) * p] += (U * mean[:, k : k + 1]).T @ weighted
    problem.communicator.sum_(H)
    # The same column for all classes is a flat direction, in which the slope has no part.
    H += torch.kron(torch.ones((K, K)).to(H) / K**2, torch.eye(p).to(H))
    return _solve(H, -slope.reshape(-1, 1)).reshape(K, p)


def _solve(H: Tensor, right: Tensor) -> Tensor:
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(1e-15 + 1e-13 * diagonal.mean())
    return torch.linalg.solve_ex(H, right)[0]


def _conjugate_gradients(problem: GLMProblem, mean: Tensor, slope: Tensor, U: Tensor) -> Tensor:
    """Solve the coupled system without its matrix, preconditioned by its diagonal."""
    w = problem.sample_weight[:, None]
    diagonal = problem.communicator.sum_((w * problem.family.variance(mean)).T @ U.square()).clamp_(min=1e-300)

    def multiply(V: Tensor) -> Tensor:
        inner = mean * (U @ V.T)
        return problem.communicator.sum_((w * (inner - mean * inner.sum(dim=1, keepdim=True))).T @ U)

    step, rest = torch.zeros_like(slope), -slope
    direction = rest / diagonal
    product = float((rest * direction).sum())
    enough = 1e-12 * product
    for _ in range(50):
        image = multiply(direction)
        bend = float((direction * image).sum())
        if bend <= 0:
            break
        length = product / bend
        step, rest = step + length * direction, rest - length * image
        scaled = rest / diagonal
        product, before = float((rest * scaled).sum()), product
        if product <= enough:
            break
        direction = scaled + (product / before) * direction
    return step
