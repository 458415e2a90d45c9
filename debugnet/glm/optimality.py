"""The certificate of a point: duality gap and KKT residual, by code that knows no solver.

For a weight W the bias is first moved to its exact optimum (Newton), so that the weighted
residual columns sum to zero.  With u_i the derivative of the loss in the scores of row i,
``theta = s u`` (0 < s <= 1) is then a feasible dual point for every family: its conjugate is
finite between 0 and the residual, and the bias constraint is linear.  With G = X'(w u),

    gap(s) = penalty(W) + penalty*(-s G) + s <G, W> + sum_i w_i [l(eta_i) + l*(s u_i) - s <u_i, eta_i>]

where the bracket is exactly 0 at s = 1 (Fenchel-Young), so that no large numbers cancel.
``s < 1`` is needed where the conjugate is an indicator (l1_ratio = 1), and tried where it may
help.  By weak duality the optimum lies between ``objective - gap`` and ``objective``.

Only float64 decides, but the d x K products of large float32 designs run in float32 over blocks
of rows with float64 sums across blocks: their noise is about 1e-9 of the residual's size.

No dual point is at hand, and the gap is NaN, at lam = 0 and with features that are never
penalized unless their gradient vanishes to rounding; the KKT residual decides there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem

#: Newton on the bias stops when no residual column sum exceeds this.
BIAS_TOLERANCE = 1e-13
#: Gradients of unpenalized features below this (times the null objective) count as zero.
FREE_TOLERANCE = 1e-12
#: Rows of a block when products run in float32: short sums keep the noise down.
FLOAT32_ROWS = 1024


@dataclass(frozen=True)
class Certificate:
    """What is known for sure about one point.

    Attributes
    ----------
    objective : float
        Mean loss plus penalty at (weight, bias), float64.
    loss : float
        Mean loss alone.
    gap : float
        Absolute duality gap, an upper bound of objective - optimum; NaN where no dual is known.
    kkt_residual : float
        Largest violation of the subgradient condition (bias included), divided by lam (by 1 at lam = 0).
    bias : Tensor (K,), float64
        The exact optimum of the bias for the weight.
    gradient : Tensor (K, d), float64
        Gradient of the mean loss in W at (weight, bias).
    scores : Tensor (n, K), float64
        Scores of this process's rows, offset included.
    """

    objective: float
    loss: float
    gap: float
    kkt_residual: float
    bias: Tensor
    gradient: Tensor
    scores: Tensor


def certify(problem: GLMProblem, lam: float, weight: Tensor, bias: Tensor) -> Certificate:
    """Certify one point (see :func:`certify_many`)."""
    return certify_many(problem, [(lam, weight, bias)])[0]


def certify_many(problem: GLMProblem, points: Sequence[tuple[float, Tensor, Tensor]]) -> list[Certificate]:
    """Certify several points with one pass over the data for all of their gradients.

    Parameters
    ----------
    problem : GLMProblem
    points : sequence of (lam, weight (K, d), bias (K,))
        In standardized coordinates.

    Returns
    -------
    list of Certificate
    """
    scores, biases, residuals = [], [], []
    for _, weight, bias in points:
        eta = problem.scores(weight, None, torch.float64)
        best = fit_bias(problem, eta, bias) if problem.fit_intercept else torch.zeros_like(bias)
        eta += best
        scores.append(eta)
        biases.append(best)
        residuals.append(problem.residual(eta))
    gradients = _gradients(problem, residuals)
    return [
        _certificate(problem, lam, weight, best, eta, residual, gradient)
        for (lam, weight, _), best, eta, residual, gradient in zip(
            points, biases, scores, residuals, gradients, strict=True
        )
    ]


def _gradients(problem: GLMProblem, residuals: list[Tensor]) -> list[Tensor]:
    """Gradients of all points by one pass over X."""
    K = problem.n_outputs
    stacked = torch.cat(residuals, dim=1) if len(residuals) > 1 else residuals[0]
    rows = FLOAT32_ROWS if problem.design.dtype == torch.float32 else None
    return list(problem.design.gradient(stacked, max_rows=rows).split(K))


def _certificate(
    problem: GLMProblem, lam: float, weight: Tensor, bias: Tensor, eta: Tensor, residual: Tensor, gradient: Tensor
) -> Certificate:
    weight = weight.to(torch.float64)
    loss = problem.loss(eta)
    violation = problem.penalty.kkt_violation(weight, gradient, lam)
    slope = problem.bias_gradient(residual)
    worst = max(float(violation.max()), float(slope.abs().max()) if problem.fit_intercept else 0.0)
    gap = math.nan
    if lam > 0 and _free_features_are_optimal(problem, weight, gradient, loss):
        gap = _duality_gap(problem, lam, weight, eta, residual, gradient)
    return Certificate(
        objective=loss + problem.penalty.value(weight, lam),
        loss=loss,
        gap=gap,
        kkt_residual=worst / lam if lam > 0 else worst,
        bias=bias,
        gradient=gradient,
        scores=eta,
    )


def _free_features_are_optimal(problem: GLMProblem, weight: Tensor, gradient: Tensor, loss: float) -> bool:
    """Whether theta is orthogonal to every unpenalized feature (to rounding)."""
    free = problem.penalty.factor == 0
    if not bool(free.any()):
        return True
    slope = gradient[:, free]
    if problem.penalty.nonnegative:  # sup over w >= 0 of -<G, w> is 0 as soon as G >= 0
        slope = slope.clamp(max=0)
    return float(slope.abs().max()) <= FREE_TOLERANCE * max(loss, 1.0)


def _duality_gap(
    problem: GLMProblem, lam: float, weight: Tensor, eta: Tensor, residual: Tensor, gradient: Tensor
) -> float:
    """Smallest gap over a few shrinkages of the residual (module docstring)."""
    penalty, value = problem.penalty, problem.penalty.value(weight, lam)
    # Unpenalized features are optimal by now: leave their rounding out of the conjugate.
    free = gradient.clamp(min=0) if penalty.nonnegative else torch.zeros_like(gradient)
    gradient = torch.where(penalty.factor > 0, gradient, free)
    inner = float((gradient * weight).sum())
    best = value + penalty.conjugate(-gradient, lam) + inner
    feasible = penalty.feasible_scale(-gradient, lam)
    if feasible == 1.0:
        return max(best, 0.0)
    # At s = feasible the conjugate is 0; between it and 1 the ridge part may pay for itself.
    scales = (feasible,) if math.isinf(best) else ((1 + feasible) / 2, feasible)
    for s in scales:
        gap = value + penalty.conjugate(-s * gradient, lam) * (s > feasible) + s * inner
        best = min(best, gap + _fenchel_young(problem, eta, s))
    return max(best, 0.0)


def _fenchel_young(problem: GLMProblem, eta: Tensor, s: float) -> float:
    """``sum_i w_i [l(eta_i) + l*(s u_i) - s <u_i, eta_i>]`` >= 0."""
    u = problem.family.residual(eta, problem.target).mul_(s)
    rows = problem.family.loss(eta, problem.target) + problem.family.conjugate(u, problem.target)
    rows -= (u * eta).sum(dim=1)
    return float(problem.communicator.sum_(problem.sample_weight @ rows))


def fit_bias(problem: GLMProblem, eta: Tensor, bias: Tensor, max_steps: int = 50) -> Tensor:
    """Minimize the mean loss over the bias, for fixed scores without bias.

    Parameters
    ----------
    problem : GLMProblem
    eta : Tensor (n, K), float64
        Scores without bias, offset included.
    bias : Tensor (K,), float64
        Where Newton starts.

    Returns
    -------
    Tensor (K,), float64
        Centred to mean zero for multinomial, whose bias is free up to a constant.
    """
    coupled = not problem.family.separable
    bias = bias.to(torch.float64).clone()
    loss = problem.loss(eta + bias)
    for _ in range(max_steps):
        mean = problem.family.mean(eta + bias)
        target = problem.family.dense_target(problem.target, problem.n_outputs, torch.float64)
        slope = problem.communicator.sum_(problem.sample_weight @ (mean - target))
        if float(slope.abs().max()) <= BIAS_TOLERANCE:
            break
        step = _newton_step(problem, mean, slope)
        taken = _line_search(problem, eta, bias, step, loss, float(slope @ step))
        if taken is None:
            break
        bias, loss = taken
    return bias - bias.mean() if coupled else bias


def _newton_step(problem: GLMProblem, mean: Tensor, slope: Tensor) -> Tensor:
    """Newton step on the bias; a Hessian that vanishes (saturated rows) falls back to its bound."""
    weighted = mean * problem.sample_weight[:, None]
    if problem.family.separable:
        diagonal = problem.communicator.sum_(problem.sample_weight @ problem.family.variance(mean))
        return -slope / diagonal.clamp(min=1e-12)
    hessian = torch.diag(problem.communicator.sum_(weighted.sum(dim=0))) - problem.communicator.sum_(mean.T @ weighted)
    # The constant direction is flat and the slope has no part in it: give it the size of the rest.
    hessian += hessian.diagonal().mean() / len(slope) + 1e-300
    hessian.diagonal().add_(1e-14)
    step, info = torch.linalg.solve_ex(hessian, -slope)
    return step if int(info) == 0 and bool(torch.isfinite(step).all()) else -slope / problem.family.curvature


def _line_search(
    problem: GLMProblem, eta: Tensor, bias: Tensor, step: Tensor, loss: float, decrease: float
) -> tuple[Tensor, float] | None:
    """Halve the step until the loss falls (or cannot be told apart from falling); None if it never does."""
    for _ in range(30):
        trial = bias + step
        value = problem.loss(eta + trial)
        if value <= loss + 1e-4 * decrease + 4e-16 * abs(loss):
            return trial, value
        step, decrease = step / 2, decrease / 2
    return None
