"""Newton on what is never penalized: the bias, and features with penalty factor 0.

Given the penalized weights, the loss is minimized over ``C`` (K, 1 + p) in
``scores = fixed + U C'`` with ``U = [1, free columns]``: a small smooth problem, solved to
rounding, so that the residual is orthogonal to U and makes a dual point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    """P points whose unpenalized part is optimal.

    Attributes
    ----------
    weight : Tensor (P, K, d), float64
    bias : Tensor (P, K), float64
        Centred to mean zero for multinomial, whose bias is free up to a constant.
    scores : Tensor (P, n, K), float64
        Offset included.
    residual : Tensor (P, n, K), float64
        Derivative of the mean loss in the scores, sample weights included.
    loss : Tensor (P,), float64
        Mean loss.
    """

    weight: Tensor
    bias: Tensor
    scores: Tensor
    residual: Tensor
    loss: Tensor


def fit_unpenalized(problem: GLMProblem, weight: Tensor, bias: Tensor, scores: Tensor | None = None) -> Unpenalized:
    """Move the biases and the unpenalized weights to their optimum for the rest of ``weight``.

    Sign-constrained features, or more than :data:`MAX_FREE`, stay as they are: only the bias moves.

    Parameters
    ----------
    problem : GLMProblem
    weight : Tensor (P, K, d)
    bias : Tensor (P, K)
    scores : Tensor (P, n, K), float64, optional
        Those of (weight, bias) where they are known; written to.
    """
    weight, bias = weight.to(torch.float64), bias.to(torch.float64)
    if scores is None:
        points = zip(weight, bias, strict=True)
        scores = torch.stack([problem.scores(W, b, torch.float64) for W, b in points])
    free = problem.free_features
    if problem.penalty.nonnegative or len(free) > MAX_FREE:
        free = free[:0]
    if problem.fit_intercept and len(free) == 0:
        return _with_best_bias(problem, weight, bias, scores)
    if len(free):
        weight, bias = _fit_free_features(problem, free, weight, bias, scores)
    if not problem.fit_intercept:
        bias = torch.zeros_like(bias)
    return Unpenalized(weight, bias, scores, problem.residual(scores), problem.losses(scores))


def _with_best_bias(problem: GLMProblem, weight: Tensor, bias: Tensor, scores: Tensor) -> Unpenalized:
    model = _Bias(problem, scores)
    shift = _centred(problem, bias, _newton(problem, model))
    loss, residual = model.losses(shift), model.residual(shift)
    scores += shift[:, None]
    return Unpenalized(weight, bias + shift, scores, residual, loss)


def _fit_free_features(
    problem: GLMProblem, free: Tensor, weight: Tensor, bias: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """(new weight, new bias), point by point; ``scores`` are moved in place."""
    U = problem.design.columns(free, torch.float64)
    if problem.fit_intercept:
        U = torch.cat([U.new_ones((len(U), 1)), U], dim=1)
    weight, bias = weight.clone(), bias.clone()
    for i in range(len(weight)):
        move = _newton(problem, _FreeFeatures(problem, scores[i], U))[0]
        if problem.fit_intercept:
            shift = _centred(problem, bias[i][None], move[None, :, 0])[0]
            move = torch.cat([shift[:, None], move[:, 1:]], dim=1)
            bias[i] += shift
        weight[i][:, free] += move[:, len(move.T) - len(free) :]
        scores[i] += U @ move.T
    return weight, bias


def _centred(problem: GLMProblem, bias: Tensor, shift: Tensor) -> Tensor:
    """``shift`` (P, K) such that, where the same for all classes changes nothing, bias + shift has mean zero."""
    return shift if problem.family.separable else shift - (bias + shift).mean(dim=1, keepdim=True)


class _Smooth(Protocol):
    """The loss of P points in the unknowns C: (P, K) for the bias alone, or (1, K, p)."""

    start: Tensor

    def slope(self, C: Tensor) -> Tensor:
        """Gradient, shaped like C."""

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` at C."""

    def scores(self, C: Tensor) -> Tensor:
        """Scores (P, n, K) at C."""

    def longest(self, step: Tensor) -> Tensor:
        """Largest change of a score along a step: (P,)."""


def _newton(problem: GLMProblem, model: _Smooth) -> Tensor:
    """``argmin_C loss`` by damped Newton, all points side by side.

    The Hessian is kept while the slopes fall fast (chord steps); a point that is done moves no more.
    """
    C, solve = model.start, None
    each = (len(C),) + (1,) * (C.ndim - 1)  # a number per point beside C
    last = C.new_full((len(C),), math.inf)
    going = torch.ones_like(last, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        slope = model.slope(C)
        size = slope.flatten(1).abs().amax(dim=1)
        going &= (size > TOLERANCE) & ((size > ROUNDING) | (size <= 0.5 * last))
        if not bool(going.any()):
            break
        if solve is None or bool((going & (size > CHORD * last)).any()):
            solve = model.inverse_hessian(C)
        last = size
        step = -solve(slope)
        falls = (step * slope).flatten(1).sum(dim=1) < 0  # never so where a step is not finite
        if not bool(falls.all()):  # a Hessian that vanishes (saturated rows)
            step = torch.where(falls.view(each), step, -slope / problem.family.curvature)
        step = torch.where(going.view(each), step, 0.0)
        fraction = _descending_fraction(problem, model, C, step, slope)
        going &= fraction > 0
        C = C + fraction.view(each) * step
    return C


def _descending_fraction(problem: GLMProblem, model: _Smooth, C: Tensor, step: Tensor, slope: Tensor) -> Tensor:
    """How much of each point's step to take, (P,): all of a short one, else what lets the loss fall (Armijo), or 0."""
    fraction = C.new_ones(len(C))
    if problem.family.name == "gaussian":
        return fraction
    fine = model.longest(step) <= SAFE
    if bool(fine.all()):
        return fraction
    loss, decrease = problem.losses(model.scores(C)), (slope * step).flatten(1).sum(dim=1)
    for _ in range(30):
        value = problem.losses(model.scores(C + fraction.view((-1,) + (1,) * (C.ndim - 1)) * step))
        # A sum over many rows is exact to some 1e-14 of itself: less than that is no increase.
        fine |= value <= loss + 1e-4 * fraction * decrease + 1e-14 * loss.abs()
        if bool(fine.all()):
            return fraction
        fraction = torch.where(fine, fraction, fraction / 2)
    return torch.where(fine, fraction, 0.0)


class _Bias:
    """The biases alone, (P, K): all exponentials are taken once."""

    def __init__(self, problem: GLMProblem, scores: Tensor) -> None:
        self._problem, self._start = problem, scores
        self.start = scores.new_zeros((len(scores), scores.shape[2]))
        self._base, self._shifted = self.start, problem.family.shifted(scores)

    def _at(self, C: Tensor) -> tuple[ShiftedScores, Tensor]:
        shift = C - self._base
        if float(shift.abs().max()) > FAR:
            self._base, self._shifted = C, self._problem.family.shifted(self.scores(C))
            shift = torch.zeros_like(C)
        return self._shifted, shift

    def residual(self, C: Tensor) -> Tensor:
        shifted, shift = self._at(C)
        return self._problem.residual_of_mean(shifted.weighted_mean(shift, self._problem.sample_weight))

    def losses(self, C: Tensor) -> Tensor:
        shifted, shift = self._at(C)
        rows = shifted.loss(shift, self._problem.target)
        return self._problem.communicator.sum_(rows @ self._problem.sample_weight)

    def slope(self, C: Tensor) -> Tensor:
        shifted, shift = self._at(C)
        average = shifted.average(shift, self._problem.sample_weight)
        return self._problem.communicator.sum_(average) - self._problem.target_mass

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        problem, K = self._problem, C.shape[1]
        shifted, shift = self._at(C)
        if not problem.family.separable and K > MAX_DENSE:
            return self._many_classes(self.scores(C))
        H = problem.communicator.sum_(shifted.hessian(shift, problem.sample_weight).clone())
        if problem.family.separable:
            return lambda slope: slope / (H + 1e-15)
        inverse = _invert(H + 1 / K**2)  # the same shift for all classes is a flat direction
        return lambda slope: (inverse @ slope[:, :, None])[:, :, 0]

    def _many_classes(self, scores: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` without K x K matrices: H c = p'w * c - p'(w * (p c)), two passes over p."""
        w, total = self._problem.sample_weight, self._problem.communicator.sum_
        solvers = []
        for p in map(self._problem.family.mean, scores):
            mass = p.T @ w
            diagonal = total(mass - p.square().T @ w)

            def multiply(c: Tensor, p: Tensor = p, mass: Tensor = mass) -> Tensor:
                return total(mass * c - p.T @ (w * (p @ c)))

            solvers.append(partial(_conjugate_gradients, multiply, diagonal))
        return lambda slope: torch.stack([solve(s) for solve, s in zip(solvers, slope, strict=True)])

    def scores(self, C: Tensor) -> Tensor:
        return self._start + C[:, None]

    def longest(self, step: Tensor) -> Tensor:
        return step.abs().amax(dim=1)


class _FreeFeatures:
    """Unknowns C (1, K, p) of one point in ``scores + U C'``, scores (n, K), U (n, p)."""

    def __init__(self, problem: GLMProblem, scores: Tensor, U: Tensor) -> None:
        self._problem, self._start, self._U = problem, scores, U
        self._weighted = problem.sample_weight[:, None] * U
        self.start = U.new_zeros((1, problem.n_outputs, U.shape[1]))
        target = problem.family.dense_target(problem.target, problem.n_outputs, torch.float64)
        self._mass = problem.communicator.sum_(target.T @ self._weighted)

    def slope(self, C: Tensor) -> Tensor:
        mean = self._problem.family.mean(self.scores(C)[0])
        return (self._problem.communicator.sum_(mean.T @ self._weighted) - self._mass)[None]

    def inverse_hessian(self, C: Tensor) -> Callable[[Tensor], Tensor]:
        problem, U, (_, K, p) = self._problem, self._U, C.shape
        mean = problem.family.mean(self.scores(C)[0])
        if problem.family.separable:
            inverse = _invert(_separable_hessian(problem, mean, U))
            return lambda slope: (inverse @ slope[0, :, :, None]).reshape(1, K, p)
        if K * p > MAX_DENSE:
            return self._many_unknowns(mean)
        inverse = _invert(_coupled_hessian(problem, mean, U))
        return lambda slope: (inverse @ slope.reshape(-1, 1)).reshape(1, K, p)

    def _many_unknowns(self, mean: Tensor) -> Callable[[Tensor], Tensor]:
        """``slope -> H^{-1} slope`` of the coupled system without its matrix."""
        problem, U, w = self._problem, self._U, self._problem.sample_weight[:, None]
        diagonal = problem.communicator.sum_((w * problem.family.variance(mean)).T @ U.square())

        def multiply(V: Tensor) -> Tensor:
            inner = mean * (U @ V.T)
            return problem.communicator.sum_((w * (inner - mean * inner.sum(dim=1, keepdim=True))).T @ U)

        return lambda slope: _conjugate_gradients(multiply, diagonal, slope[0])[None]

    def scores(self, C: Tensor) -> Tensor:
        return (self._start + self._U @ C[0].T)[None]

    def longest(self, step: Tensor) -> Tensor:
        return self._problem.communicator.max_((self._U @ step[0].T).abs().max().reshape(1))


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
    diagonal.add_(1e-15 + 1e-13 * diagonal.mean(dim=-1, keepdim=True))
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
