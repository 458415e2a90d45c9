"""Newton on what is never penalized: the bias, and features with penalty factor 0.

Given the penalized weights, the loss is minimized over ``C`` (K, 1 + p) in
``scores = fixed + U C'`` with ``U = [1, free columns]``: a small smooth problem, solved to
rounding, so that the residual is orthogonal to U and makes a dual point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem
from debugnet.glm.shifted_scores import ShiftedScores

#: Newton steps at the most.
MAX_STEPS = 50
#: Newton stops when no derivative exceeds this.
TOLERANCE = 1e-13
#: Below this it also stops as soon as they fall no further: what is left is rounding.
ROUNDING = 1e-11
#: Steps that move no score by more than this descend by themselves: the Hessian of every family changes by less
#: than a factor of 2 along them (self-concordance, Bach 2010, Proposition 1).
SAFE = 0.25
#: A Hessian is used again as long as the slope falls to this share in a step.
CHORD = 0.03
#: From this shift on the exponentials are taken anew.
FAR = 100.0
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
    mean : Tensor (n, K), float64
        Mean of the family at the scores.
    """

    weight: Tensor
    bias: Tensor
    scores: Tensor
    mean: Tensor


def fit_unpenalized(problem: GLMProblem, weight: Tensor, bias: Tensor, scores: Tensor | None = None) -> Unpenalized:
    """Move the bias and the unpenalized weights to their optimum for the rest of ``weight`` (K, d).

    Sign-constrained features, or more than :data:`MAX_FREE`, stay as they are: only the bias moves.
    ``scores`` (n, K), float64, of (weight, bias) are taken over, and written to, where they are known.
    """
    bias = bias.to(torch.float64)
    scores = problem.scores(weight, bias, torch.float64) if scores is None else scores
    free = problem.free_features
    if problem.penalty.nonnegative or len(free) > MAX_FREE:
        free = free[:0]
    if len(free) == 0:
        if not problem.fit_intercept:
            return Unpenalized(weight, torch.zeros_like(bias), scores, problem.family.mean(scores))
        model = _Bias(problem, scores)
        shift = _newton(problem, model)
        mean = model.mean(shift)
        scores += shift
        bias = bias + shift
    else:
        move, scores, mean = _fit_free_features(problem, free, scores)
        weight = weight.clone()
        weight[:, free] += move[:, len(move.T) - len(free) :]
        bias = bias + move[:, 0] if problem.fit_intercept else torch.zeros_like(bias)
    if problem.fit_intercept and not problem.family.separable:
        middle = bias.mean()
        scores -= middle
        bias = bias - middle
    return Unpenalized(weight, bias, scores, mean)


def _fit_free_features(problem: GLMProblem, free: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(move of bias and free weights (K, 1 + p) or (K, p), new scores, new mean)."""
    U = problem.design.columns(free, torch.float64)
    if problem.fit_intercept:
        U = torch.cat([U.new_ones((len(U), 1)), U], dim=1)
    move = _newton(problem, _FreeFeatures(problem, scores, U))
    scores = scores + U @ move.T
    return move, scores, problem.family.mean(scores)


class _Smooth(Protocol):
    """The loss in the unknowns C: (K,) for the bias alone, or (K, p)."""

    start: Tensor

    def slope(self, C: Tensor) -> Tensor:
        """Gradient, shaped like C."""

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` at C."""

    def scores(self, C: Tensor) -> Tensor:
        """Scores (n, K) at C."""

    def longest(self, step: Tensor) -> float:
        """Largest change of a score along a step."""


def _newton(problem: GLMProblem, model: _Smooth) -> Tensor:
    """``argmin_C loss`` by damped Newton; the Hessian is kept while the slope falls fast (chord steps)."""
    C, solve, last = model.start, None, math.inf
    for _ in range(MAX_STEPS):
        slope = model.slope(C)
        size = float(slope.abs().max())
        if size <= TOLERANCE or (size <= ROUNDING and size > 0.5 * last):
            break
        if solve is None or size > CHORD * last:
            solve = model.inverse_hessian(C)
        last = size
        step = -solve(slope)
        if not bool(torch.isfinite(step).all()) or float((step * slope).sum()) >= 0:
            step = -slope / problem.family.curvature  # a Hessian that vanishes (saturated rows)
        fraction = _descending_fraction(problem, model, C, step, slope)
        if fraction == 0:
            break
        C = C + fraction * step
    return C


def _descending_fraction(problem: GLMProblem, model: _Smooth, C: Tensor, step: Tensor, slope: Tensor) -> float:
    """How much of a step to take: all of a short one, else what lets the loss fall (Armijo); 0 where nothing does."""
    if problem.family.name == "gaussian" or model.longest(step) <= SAFE:
        return 1.0
    loss, decrease, fraction = problem.loss(model.scores(C)), float((slope * step).sum()), 1.0
    for _ in range(30):
        value = problem.loss(model.scores(C + fraction * step))
        # A sum over many rows is exact to some 1e-14 of itself: less than that is no increase.
        if value <= loss + 1e-4 * fraction * decrease + 1e-14 * abs(loss):
            return fraction
        fraction /= 2
    return 0.0


class _Bias:
    """The bias alone: all exponentials are taken once."""

    def __init__(self, problem: GLMProblem, scores: Tensor) -> None:
        self._problem, self._start = problem, scores
        self.start = scores.new_zeros(scores.shape[1])
        self._base, self._shifted = self.start, problem.family.shifted(scores)

    def _at(self, C: Tensor) -> tuple[ShiftedScores, Tensor]:
        shift = C - self._base
        if float(shift.abs().max()) > FAR:
            self._base, self._shifted = C, self._problem.family.shifted(self._start + C)
            shift = torch.zeros_like(C)
        return self._shifted, shift

    def mean(self, C: Tensor) -> Tensor:
        shifted, shift = self._at(C)
        return shifted.mean(shift)

    def slope(self, C: Tensor) -> Tensor:
        shifted, shift = self._at(C)
        average = shifted.average(shift, self._problem.sample_weight)
        return self._problem.communicator.sum_(average) - self._problem.target_mass

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        problem = self._problem
        shifted, shift = self._at(C)
        if not problem.family.separable and len(C) > MAX_DENSE:
            return self._many_classes(shifted.mean(shift))
        H = problem.communicator.sum_(shifted.hessian(shift, problem.sample_weight).clone())
        if problem.family.separable:
            return lambda slope: slope / (H + 1e-15)
        inverse = _invert(H + 1 / len(H) ** 2)  # the same shift for all classes is a flat direction
        return lambda slope: inverse @ slope

    def _many_classes(self, mean: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` without a K x K matrix: H c = p'w * c - p'(w * (p c)), two passes over p."""
        w, total = self._problem.sample_weight, self._problem.communicator.sum_
        mass = mean.T @ w
        diagonal = total(mass - mean.square().T @ w)

        def multiply(c: Tensor) -> Tensor:
            return total(mass * c - mean.T @ (w * (mean @ c)))

        return lambda slope: _conjugate_gradients(multiply, diagonal, slope)

    def scores(self, C: Tensor) -> Tensor:
        return self._start + C

    def longest(self, step: Tensor) -> float:
        return float(step.abs().max())


class _FreeFeatures:
    """Unknowns C (K, p) in ``scores + U C'``, U (n, p)."""

    def __init__(self, problem: GLMProblem, scores: Tensor, U: Tensor) -> None:
        self._problem, self._start, self._U = problem, scores, U
        self._weighted = problem.sample_weight[:, None] * U
        self.start = U.new_zeros((problem.n_outputs, U.shape[1]))
        target = problem.family.dense_target(problem.target, problem.n_outputs, torch.float64)
        self._mass = problem.communicator.sum_(target.T @ self._weighted)

    def slope(self, C: Tensor) -> Tensor:
        mean = self._problem.family.mean(self.scores(C))
        return self._problem.communicator.sum_(mean.T @ self._weighted) - self._mass

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        problem, U, (K, p) = self._problem, self._U, C.shape
        mean = problem.family.mean(self.scores(C))
        if problem.family.separable:
            inverse = _invert(_separable_hessian(problem, mean, U))
            return lambda slope: (inverse @ slope[:, :, None]).reshape(K, p)
        if K * p > MAX_DENSE:
            return self._many_unknowns(mean)
        inverse = _invert(_coupled_hessian(problem, mean, U))
        return lambda slope: (inverse @ slope.reshape(-1, 1)).reshape(K, p)

    def _many_unknowns(self, mean: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` (K, p) of the coupled system without its matrix."""
        problem, U, w = self._problem, self._U, self._problem.sample_weight[:, None]
        diagonal = problem.communicator.sum_((w * problem.family.variance(mean)).T @ U.square())

        def multiply(V: Tensor) -> Tensor:
            inner = mean * (U @ V.T)
            return problem.communicator.sum_((w * (inner - mean * inner.sum(dim=1, keepdim=True))).T @ U)

        return lambda slope: _conjugate_gradients(multiply, diagonal, slope)

    def scores(self, C: Tensor) -> Tensor:
        return self._start + self._U @ C.T

    def longest(self, step: Tensor) -> float:
        return float(self._problem.communicator.max_((self._U @ step.T).abs().max()))


def _separable_hessian(problem: GLMProblem, mean: Tensor, U: Tensor) -> Tensor:
    """One small matrix per output: (K, p, p)."""
    weighted, variance = U * problem.sample_weight[:, None], problem.family.variance(mean)
    H = torch.stack([(U * variance[:, k : k + 1]).T @ weighted for k in range(problem.n_outputs)])
    return problem.communicator.sum_(H)


def _coupled_hessian(problem: GLMProblem, mean: Tensor, U: Tensor) -> Tensor:
    """One matrix over all outputs, ``H_kl = U' diag(w (p_k [k = l] - p_k p_l)) U``: (K p, K p)."""
    K, p = problem.n_outputs, U.shape[1]
    weighted = U * problem.sample_weight[:, None]
    each = (mean[:, :, None] * U[:, None, :]).flatten(1)  # (n, K p)
    H = -(each.T @ (each * problem.sample_weight[:, None]))
    for k in range(K):
        H[k * p : (k + 1) * p, k * p : (k + 1) * p] += (U * mean[:, k : k + 1]).T @ weighted
    problem.communicator.sum_(H)
    # The same column for all classes is a flat direction, in which the slope has no part.
    return H + torch.kron(torch.ones((K, K)).to(H) / K**2, torch.eye(p).to(H))


def _invert(H: Tensor) -> Tensor:
    """Inverse of symmetric matrices (..., p, p), damped by rounding."""
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(1e-15 + 1e-13 * diagonal.mean())
    return torch.linalg.inv_ex(H)[0]


def _conjugate_gradients(multiply: Callable[[Tensor], Tensor], diagonal: Tensor, slope: Tensor) -> Tensor:
    """``H^{-1} slope``, preconditioned by the diagonal of H; all shaped like ``slope``."""
    diagonal = diagonal.clamp(min=1e-300)
    step, rest = torch.zeros_like(slope), slope
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
