"""The certificate of a point: duality gap and KKT residual, by code that knows no solver.

For given penalized weights the bias and the weights of never penalized features are first moved
to their exact optimum (:mod:`debugnet.glm.unpenalized`), so that the weighted residual is
orthogonal to them.  With u_i the derivative of the loss in the scores of row i,
``theta = s u`` (0 < s <= 1) is then a feasible dual point for every family: its conjugate is
finite between 0 and the residual, and the orthogonality is linear.  With G = X'(w u),

    gap(s) = penalty(W) + penalty*(-s G) + s <G, W> + sum_i w_i [l(eta_i) + l*(s u_i) - s <u_i, eta_i>]

where the bracket is exactly 0 at s = 1 (Fenchel-Young), so that no large numbers cancel.
``s < 1`` is needed where the conjugate is an indicator (l1_ratio = 1), and tried where it may
help.  By weak duality the optimum lies between ``objective - gap`` and ``objective``.

Only float64 decides, but the d x K products of large float32 designs run in float32 over blocks
of rows with float64 sums across blocks: their noise is about 1e-9 of the residual's size.

No dual point is at hand, and the gap is NaN, at lam = 0 and with never penalized features that
Newton could not finish (too many, separable data, sign constraints); the KKT residual decides there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem
from debugnet.glm.unpenalized import Unpenalized, fit_unpenalized

#: Gradients of bias and unpenalized features below this (per unit of loss) count as zero.
FREE_TOLERANCE = 1e-10
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
    weight : Tensor (K, d), float64
        The weight certified: the one given, with never penalized features moved to their optimum.
    bias : Tensor (K,), float64
        The optimum of the bias for that weight.
    gradient : Tensor (K, d), float64
        Gradient of the mean loss in W at (weight, bias).
    scores : Tensor (n, K), float64
        Scores of this process's rows, offset included.
    """

    objective: float
    loss: float
    gap: float
    kkt_residual: float
    weight: Tensor
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
    scores = _scores(problem, points)
    moved = [
        fit_unpenalized(problem, weight.to(torch.float64), bias, scores=eta)
        for (_, weight, bias), eta in zip(points, scores, strict=True)
    ]
    residuals = [problem.residual_of_mean(part.mean) for part in moved]
    gradients = _gradients(problem, residuals)
    return [
        _certificate(problem, lam, part, residual, gradient)
        for (lam, _, _), part, residual, gradient in zip(points, moved, residuals, gradients, strict=True)
    ]


def _scores(problem: GLMProblem, points: Sequence[tuple[float, Tensor, Tensor]]) -> list[Tensor]:
    """Scores (n, K), float64, of all points by one pass over the columns that any of them uses."""
    weight = torch.cat([weight for _, weight, _ in points])
    bias = torch.cat([bias for _, _, bias in points])
    scores = problem.design.scores(weight, bias, torch.float64).split(problem.n_outputs, dim=1)
    return [eta if problem.offset is None else eta + problem.offset for eta in scores]


def _gradients(problem: GLMProblem, residuals: list[Tensor]) -> list[Tensor]:
    """Gradients of all points by one pass over X."""
    K = problem.n_outputs
    stacked = torch.cat(residuals, dim=1) if len(residuals) > 1 else residuals[0]
    rows = FLOAT32_ROWS if problem.design.dtype == torch.float32 else None
    return list(problem.design.gradient(stacked, max_rows=rows).split(K))


def _certificate(
    problem: GLMProblem, lam: float, point: Unpenalized, residual: Tensor, gradient: Tensor
) -> Certificate:
    loss = problem.loss(point.scores)
    violation = problem.penalty.kkt_violation(point.weight, gradient, lam)
    slope = problem.bias_gradient(residual) * problem.fit_intercept
    worst = max(float(violation.max()), float(slope.abs().max()))
    gap = math.nan
    if lam > 0 and _free_features_are_optimal(problem, slope, gradient, loss):
        gap = _duality_gap(problem, lam, point, gradient)
    return Certificate(
        objective=loss + problem.penalty.value(point.weight, lam),
        loss=loss,
        gap=gap,
        kkt_residual=worst / lam if lam > 0 else worst,
        weight=point.weight,
        bias=point.bias,
        gradient=gradient,
        scores=point.scores,
    )


def _free_features_are_optimal(problem: GLMProblem, slope: Tensor, gradient: Tensor, loss: float) -> bool:
    """Whether theta is orthogonal to the ones and to every unpenalized feature (to rounding)."""
    free = gradient[:, problem.free_features]
    if problem.penalty.nonnegative:  # sup over w >= 0 of -<G, w> is 0 as soon as G >= 0
        free = free.clamp(max=0)
    return float(torch.cat([slope, free.ravel()]).abs().max()) <= FREE_TOLERANCE * max(loss, 1e-3)


def _duality_gap(problem: GLMProblem, lam: float, point: Unpenalized, gradient: Tensor) -> float:
    """Smallest gap over a few shrinkages of the residual (module docstring)."""
    weight = point.weight
    penalty, value = problem.penalty, problem.penalty.value(weight, lam)
    if len(problem.free_features):  # they are optimal by now: leave their rounding out of the conjugate
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
        conjugate = penalty.conjugate(-s * gradient, lam) if s > feasible else 0.0
        without_loss = value + conjugate + s * inner
        if without_loss < best:  # what the loss adds is not negative
            best = min(best, without_loss + _fenchel_young(problem, point.scores, s))
    return max(best, 0.0)


def _fenchel_young(problem: GLMProblem, eta: Tensor, s: float) -> float:
    """``sum_i w_i [l(eta_i) + l*(s u_i) - s <u_i, eta_i>]`` >= 0."""
    u = problem.family.residual(eta, problem.target).mul_(s)
    rows = problem.family.loss(eta, problem.target) + problem.family.conjugate(u, problem.target)
    rows -= (u * eta).sum(dim=1)
    return float(problem.communicator.sum_(problem.sample_weight @ rows))
