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

Only float64 decides, but the d x K products of float32 designs that are large, or whose gaps are compared with no less
than :data:`FLOAT32_TOL`, run in float32 over blocks of rows with float64 sums across blocks: their noise is about 1e-9
of the residual's size.

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
from debugnet.glm.unpenalized import fit_unpenalized

#: Gradients of bias and unpenalized features below this (per unit of loss) count as zero.
FREE_TOLERANCE = 1e-10
#: Rows of a block when products run in float32: short sums keep the noise down.
FLOAT32_ROWS = 1024
#: The noise of float32 products, about 1e-9, is nothing beside a tolerance from here on.
FLOAT32_TOL = 1e-7


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


def certify(problem: GLMProblem, lam: float, weight: Tensor, bias: Tensor, tol: float = 0.0) -> Certificate:
    """Certify one point (see :func:`certify_many`)."""
    return certify_many(problem, [(lam, weight, bias)], tol)[0]


def certify_many(
    problem: GLMProblem, points: Sequence[tuple[float, Tensor, Tensor]], tol: float = 0.0
) -> list[Certificate]:
    """Certify several points with one pass over the data for all of their gradients.

    Parameters
    ----------
    problem : GLMProblem
    points : sequence of (lam, weight (K, d), bias (K,))
        In standardized coordinates.
    tol : float
        What the gaps will be compared with.  From :data:`FLOAT32_TOL` on small designs, too, take their gradients
        from float32 products.

    Returns
    -------
    list of Certificate
    """
    lam = torch.tensor([lam for lam, _, _ in points], dtype=torch.float64, device=problem.device)
    weight = torch.stack([weight for _, weight, _ in points])
    bias = torch.stack([bias for _, _, bias in points])
    best = fit_unpenalized(problem, weight, bias, _scores(problem, weight, bias))
    losses, slopes = best.loss, problem.bias_gradient(best.residual) * problem.fit_intercept
    gradients = _gradients(problem, best.residual, tol)
    part = _Judged(problem, lam, best.weight, gradients)
    values = part.penalty.value(part.weight, lam)
    worst = part.violations(slopes) / torch.where(lam > 0, lam, 1.0)
    gaps = part.gaps(values, best.scores)
    gaps[(lam <= 0) | ~_free_features_are_optimal(problem, slopes, gradients, losses)] = math.nan
    numbers = zip((losses + values).tolist(), losses.tolist(), gaps.tolist(), worst.tolist(), strict=True)
    tensors = zip(best.weight, best.bias, gradients, best.scores, strict=True)
    return [Certificate(*each, *rest) for each, rest in zip(numbers, tensors, strict=True)]


def _scores(problem: GLMProblem, weight: Tensor, bias: Tensor) -> Tensor:
    """Scores (P, n, K), float64, of all points by one pass over the columns that any of them uses."""
    scores = problem.design.scores(weight.flatten(0, 1), bias.flatten(), torch.float64)
    scores = scores.unflatten(1, bias.shape).transpose(0, 1)
    return scores if problem.offset is None else scores + problem.offset


def _gradients(problem: GLMProblem, residual: Tensor, tol: float) -> Tensor:
    """Gradients (P, K, d) of all points by one pass over X."""
    design = problem.design
    single = design.dtype == torch.float32 or (tol >= FLOAT32_TOL and design.single_is_safe)
    stacked = residual.transpose(0, 1).flatten(1)
    gradient = (
        design.gradient(stacked, torch.float32, FLOAT32_ROWS) if single else design.gradient(stacked, torch.float64)
    )
    return gradient.unflatten(0, (len(residual), -1))


def _free_features_are_optimal(problem: GLMProblem, slopes: Tensor, gradients: Tensor, losses: Tensor) -> Tensor:
    """Whether theta is orthogonal to the ones and to every unpenalized feature (to rounding): (P,)."""
    free = gradients[:, :, problem.free_features]
    if problem.penalty.nonnegative:  # sup over w >= 0 of -<G, w> is 0 as soon as G >= 0
        free = free.clamp(max=0)
    worst = torch.cat([slopes, free.flatten(1)], dim=1).abs().amax(dim=1)
    return worst <= FREE_TOLERANCE * losses.clamp(min=1e-3)


class _Judged:
    """The features that can add to a gap or a violation: in use at some point, above its threshold, or unpenalized."""

    def __init__(self, problem: GLMProblem, lam: Tensor, weight: Tensor, gradient: Tensor) -> None:
        penalty = problem.penalty
        above = penalty.strength(gradient) >= (lam * penalty.l1_ratio)[:, None]
        index = torch.nonzero((above | (weight != 0).any(dim=1)).any(dim=0) | (penalty.factor == 0)).ravel()
        self.problem, self.lam, self.penalty = problem, lam, penalty.select(index)
        self.weight, self.gradient = weight[:, :, index], gradient[:, :, index]

    def violations(self, slopes: Tensor) -> Tensor:
        """Largest violation of the subgradient condition, bias included: (P,)."""
        features = self.penalty.kkt_violation(self.weight, self.gradient, self.lam)
        return torch.cat([features, slopes.abs()], dim=1).amax(dim=1)

    def gaps(self, values: Tensor, scores: Tensor) -> Tensor:
        """Smallest gaps over a few shrinkages of the residual (module docstring), (P,); ``values`` of the penalties."""
        penalty, lam, gradient = self.penalty, self.lam, self.gradient
        if penalty.factor.numel() and not bool(penalty.factor.all()):
            # The unpenalized are optimal by now: leave their rounding out of the conjugate.
            free = gradient.clamp(min=0) if penalty.nonnegative else torch.zeros_like(gradient)
            gradient = torch.where(penalty.factor > 0, gradient, free)
        inner = (gradient * self.weight).sum(dim=(1, 2))
        best = values + penalty.conjugate(-gradient, lam) + inner
        feasible = penalty.feasible_scale(-gradient, lam)
        # At s = feasible the conjugate is 0; between it and 1 the ridge part may pay for itself.
        for s in ((1 + feasible) / 2, feasible):
            conjugate = 0.0 if s is feasible else penalty.conjugate(-s[:, None, None] * gradient, lam)
            without_loss = values + conjugate + s * inner
            for i in torch.nonzero(without_loss < best).ravel().tolist():  # what the loss adds is not negative
                whole = without_loss[i] + _fenchel_young(self.problem, scores[i], float(s[i]))
                best[i] = torch.minimum(best[i], whole)
        return best.clamp(min=0)


def _fenchel_young(problem: GLMProblem, eta: Tensor, s: float) -> float:
    """``sum_i w_i [l(eta_i) + l*(s u_i) - s <u_i, eta_i>]`` >= 0."""
    u = problem.family.residual(eta, problem.target).mul_(s)
    rows = problem.family.loss(eta, problem.target) + problem.family.conjugate(u, problem.target)
    rows -= (u * eta).sum(dim=1)
    return float(problem.communicator.sum_(problem.sample_weight @ rows))
