"""FISTA: accelerated proximal gradient on the full data, for every family, penalty and option.

Beck and Teboulle 2009 with the gradient-based restart of O'Donoghue and Candes 2015 and a step
that adapts in both directions.  The bias moves in its own unit (tau below), because centred
features leave it a curvature of 1 where the weights see the largest eigenvalue of X'X/n.

Each lambda is solved on a working set of features (the support and those the sequential strong
rule keeps, Tibshirani et al. 2012); the certificate's gradient over all features then admits
violators, so the answer is that of the full problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from debugnet.glm.design import Design
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution

#: Gathered columns may take this share of the features, or so many entries; above it the whole design is used.
MAX_GATHERED, MAX_GATHERED_ENTRIES = 1 / 8, 8_000_000
#: Products over more entries than this start in float32.
LARGE = 250_000
#: Iterations in float32 without a smaller gradient mapping before it counts as rounding noise.
NOISE_PATIENCE = 300
#: First inner tolerance on the gradient mapping, relative to lam; falls until the certificate holds.
FIRST_TOLERANCE = 1e-3
#: Rounds without a better certificate before float32 gives way to float64, or the solver gives up.
PATIENCE = 3


@dataclass
class Momentum:
    """Everything FISTA carries from one iteration to the next, on the features it works on."""

    weight: Tensor
    bias: Tensor
    scores: Tensor
    ahead_weight: Tensor
    ahead_bias: Tensor
    ahead_scores: Tensor
    t: float
    lipschitz: float

    @classmethod
    def at_rest(cls, problem: GLMProblem, weight: Tensor, bias: Tensor, lipschitz: float) -> Momentum:
        """No speed yet."""
        scores = problem.scores(weight, bias, torch.float64)
        return cls(weight, bias, scores, weight, bias, scores, 1.0, lipschitz)


class Fista:
    """Full-gradient accelerated proximal gradient (module docstring)."""

    name: ClassVar[str] = "fista"
    trusts_itself: ClassVar[bool] = False

    def __init__(self, problem: GLMProblem) -> None:
        self.problem = problem
        self.tau = largest_eigenvalue(problem)
        self.lipschitz = problem.family.curvature * self.tau
        self.previous_lam = math.inf

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Nothing is refused."""
        return None

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Alternate FISTA on a working set with the certificate on everything."""
        weight, bias = weight.clone(), bias.clone()
        kept = self._strong_set(lam, weight, monitor)
        if resume is not None:
            weight, bias, kept = resume["weight"].clone(), resume["bias"].clone(), resume["kept"].clone()
        dtype, tolerance, best, misses, epochs = None, FIRST_TOLERANCE, math.inf, 0, 0.0
        unit = lam if lam > 0 else min(self.previous_lam, self.lipschitz) / 10
        self.previous_lam = lam
        while True:
            run = _Run(self, lam, kept, dtype)
            epochs += run.minimize(weight, bias, tolerance * unit, monitor, monitor.max_epochs - epochs)
            bias = run.state.bias
            if not run.finite:
                return Solution(weight, bias, "diverged", epochs)
            if monitor.done(weight, bias):
                return Solution(weight, bias, "converged", epochs)
            if epochs >= monitor.max_epochs:
                return Solution(weight, bias, "max_iterations", epochs)
            bias = monitor.certificate.bias.clone()
            violators = self._violators(lam, weight, monitor, kept)
            kept |= violators
            size = monitor.certificate.kkt_residual
            if not violators.any():
                tolerance /= 8
                misses = misses + 1 if size > 0.5 * best else 0
                best = min(best, size)
            if run.noisy:
                dtype, misses = torch.float64, 0
            elif misses >= PATIENCE:
                if run.dtype == torch.float64:
                    return Solution(weight, bias, "stalled", epochs)
                dtype, misses = torch.float64, 0

    def _strong_set(self, lam: float, weight: Tensor, monitor: Monitor) -> Tensor:
        """Boolean (d,): the support and what the sequential strong rule does not discard."""
        penalty, alive = self.problem.penalty, self.problem.design.alive
        strength = penalty.strength(monitor.certificate.gradient)
        previous = min(self.previous_lam, float(strength.max()) / penalty.l1_ratio)
        strong = strength >= penalty.l1_ratio * (2 * lam - previous)
        return alive & (strong | (weight != 0).any(dim=0) | (penalty.factor == 0))

    def _violators(self, lam: float, weight: Tensor, monitor: Monitor, kept: Tensor) -> Tensor:
        """Boolean (d,): discarded features whose zero weight is not optimal."""
        violation = self.problem.penalty.kkt_violation(weight, monitor.certificate.gradient, lam)
        return (violation > 0) & ~kept & self.problem.design.alive


class _Run:
    """FISTA on one working set at one lambda, until the gradient mapping is small."""

    def __init__(self, solver: Fista, lam: float, kept: Tensor, dtype: torch.dtype | None) -> None:
        self.solver, self.lam, self.kept = solver, lam, kept
        full = solver.problem
        self.index = torch.nonzero(kept).ravel()
        entries = full.total_rows * len(self.index)
        few = len(self.index) <= MAX_GATHERED * full.n_features or entries <= MAX_GATHERED_ENTRIES
        self.share = len(self.index) / full.n_features if few else 1.0
        if few:  # standardized before they are rounded: float32 loses nothing to a large mean
            self.dtype = dtype or (torch.float32 if entries > LARGE else torch.float64)
            design = Design.standardized(full.design.columns(self.index, self.dtype), full.communicator)
            self.problem = replace(full, design=design, penalty=full.penalty.select(self.index))
        else:
            self.dtype = dtype or full.design.dtype
            self.index, self.problem = torch.arange(full.n_features, device=full.device), full
        self.finite, self.noisy = True, False
        self.state: Momentum

    def minimize(self, weight: Tensor, bias: Tensor, threshold: float, monitor: Monitor | None, budget: float) -> float:
        """Iterate from (weight, bias), write the result into ``weight``, and return the epochs spent."""
        self.state = Momentum.at_rest(self.problem, weight[:, self.index], bias, self.solver.lipschitz)
        epochs, size, smallest, quiet = self.share / 2, math.inf, math.inf, 0
        while size > threshold and epochs < budget and not self.noisy:
            size, products = self._step()
            smallest, quiet = (size, 0) if size < smallest else (smallest, quiet + 1)
            self.noisy = self.dtype == torch.float32 and quiet > NOISE_PATIENCE
            epochs += products * self.share / 2
            self.finite = math.isfinite(size)
            if not self.finite:
                break
            if monitor is not None:
                monitor.tick(lambda: self._checkpoint(weight))
        weight[:, self.index] = self.state.weight
        self.solver.lipschitz = self.state.lipschitz
        return epochs

    def _checkpoint(self, weight: Tensor) -> dict[str, Tensor]:
        whole = weight.clone()
        whole[:, self.index] = self.state.weight
        return {"weight": whole, "bias": self.state.bias, "kept": self.kept}

    def _step(self) -> tuple[float, int]:
        """One accelerated step: (size of the gradient mapping in the units of a gradient, products with X)."""
        s, problem = self.state, self.problem
        residual = problem.residual(s.ahead_scores)
        gradient = problem.gradient(residual, self.dtype)
        slope = problem.bias_gradient(residual) * problem.fit_intercept
        tau, products = self.solver.tau, 1
        while True:
            weight = problem.penalty.prox(s.ahead_weight - gradient / s.lipschitz, self.lam, 1 / s.lipschitz)
            bias = s.ahead_bias - slope * (tau / s.lipschitz)
            d_weight, d_bias = weight - s.ahead_weight, bias - s.ahead_bias
            change = problem.design.scores(d_weight, d_bias, self.dtype).to(torch.float64)
            scores = s.ahead_scores + change
            products += 1
            bent = problem.communicator.sum_(((problem.residual(scores) - residual) * change).sum())
            length = d_weight.square().sum() + d_bias.square().sum() / tau
            # Monotone gradients: exact for a quadratic, and free of the cancellation in f(x) - f(z).
            if not bool(bent > s.lipschitz * length * (1 + 1e-10)) or not bool(torch.isfinite(bent)):
                break
            s.lipschitz *= 1.5
        size = s.lipschitz * float(torch.cat([d_weight.ravel(), d_bias / tau]).abs().max())
        self._extrapolate(weight, bias, scores)
        return size, products

    def _extrapolate(self, weight: Tensor, bias: Tensor, scores: Tensor) -> None:
        """Move on to the new point with momentum, or restart where the momentum points uphill."""
        s, tau = self.state, self.solver.tau
        uphill = ((s.ahead_weight - weight) * (weight - s.weight)).sum()
        uphill += ((s.ahead_bias - bias) * (bias - s.bias)).sum() / tau
        t = 1.0 if float(uphill) > 0 else (1 + math.sqrt(1 + 4 * s.t * s.t)) / 2
        beta = 0.0 if t == 1.0 else (s.t - 1) / t
        self.state = Momentum(
            weight=weight,
            bias=bias,
            scores=scores,
            ahead_weight=weight + beta * (weight - s.weight),
            ahead_bias=bias + beta * (bias - s.bias),
            ahead_scores=scores + beta * (scores - s.scores),
            t=t,
            lipschitz=s.lipschitz * 0.98,
        )


def minimize(
    problem: GLMProblem, lam: float, weight: Tensor, bias: Tensor, *, threshold: float, max_epochs: float
) -> tuple[Tensor, Tensor]:
    """Plain FISTA in float64 without a certificate, until no entry of the gradient mapping exceeds ``threshold``."""
    run = _Run(Fista(problem), lam, problem.design.alive, torch.float64)
    run.minimize(weight, bias, threshold, None, max_epochs)
    return weight, run.state.bias


def largest_eigenvalue(problem: GLMProblem, steps: int = 12) -> float:
    """Largest eigenvalue of ``X' diag(w) X`` by power iteration: a Lipschitz constant over the curvature.

    An estimate from below; the adaptive step does not depend on it being tight.
    """
    generator = torch.Generator().manual_seed(problem.seed)
    v = torch.randn((1, problem.n_features), generator=generator, dtype=torch.float64).to(problem.device)
    v *= problem.design.alive
    value = 1.0
    for _ in range(steps):
        norm = float(torch.linalg.vector_norm(v))
        if norm == 0:
            return 1.0
        product = problem.design.scores(v / norm)
        v = problem.gradient(product * problem.sample_weight[:, None])
        value = float(torch.linalg.vector_norm(v))
    return max(value, 1e-12)
