"""Minibatch SAGA: Algorithm 1 of "Leveraging Sparse Linear Layers" (ICML 2021), as matrix products.

A table keeps, for every row, the K-vector ``a_i`` of the derivative of its loss in the scores:
the gradient of row i is ``a_i x_i'``, so that a minibatch B updates

    W    <- prox(W - step (g - g_old + g_mean)),   g = A_B' X_B / |B|,  g_old from the table
    g_mean <- g_mean + |B|/n (g - g_old)

with two products per batch.  The step is not tuned: it is 1/(3 L_B), where L_B is the expected
smoothness of a batch drawn without replacement (Gazagnadou, Gower and Salmon 2019, section 3),

    L_B = n (|B| - 1) / (|B| (n - 1)) L + (n - |B|) / (|B| (n - 1)) L_max

from L, the Lipschitz constant of the whole loss, and L_max, that of the worst row.  One row per
batch gives SAGA's own 1/(3 L_max), all rows a gradient step.  W, table and mean gradient are
warm-started along the path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from debugnet.glm.design import SingleProcess
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.fista import largest_eigenvalue

BATCH_SIZE = 512
#: First tolerance on the gradient mapping (with the table's mean gradient), relative to lam.
FIRST_TOLERANCE = 1e-2
#: Failed certificates in a row without progress before the solver calls itself stalled.
PATIENCE = 6


class Saga:
    """Minibatch SAGA with a k-vector gradient table (module docstring)."""

    name: ClassVar[str] = "saga"
    trusts_itself: ClassVar[bool] = False

    def __init__(self, problem: GLMProblem, batch_size: int = BATCH_SIZE) -> None:
        self.problem = problem
        n = problem.n_samples
        # A quarter of the rows at most: a batch of all of them would be plain gradient descent.
        self.batch_size = min(batch_size, max(1, n // 4))
        self.generator = torch.Generator().manual_seed(problem.seed)
        self.relative_weight = problem.sample_weight * n
        self.tau = largest_eigenvalue(problem)  # the bias moves in units that give it the same curvature
        self.step = 1 / (3 * self._expected_smoothness())
        self.filled = False
        self.table: Tensor
        self.mean_gradient: Tensor
        self.mean_slope: Tensor

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """One process only: minibatches do not scale over ranks."""
        if not isinstance(problem.communicator, SingleProcess):
            return "it runs in one process (minibatches do not scale over ranks)"
        return None

    def _expected_smoothness(self) -> float:
        n, b, c = self.problem.n_samples, self.batch_size, self.problem.family.curvature
        if n == 1:
            return c * self.tau
        largest = 0.0
        for start in range(0, n, 4096):
            index = torch.arange(start, min(n, start + 4096), device=self.problem.device)
            norms = self.problem.design.take_rows(index, torch.float64).square().sum(dim=1) + self.tau
            largest = max(largest, float((norms * self.relative_weight[index]).max()))
        # Power iteration sees the largest eigenvalue from below; 1.1 covers what it misses.
        whole = 1.1 * c * self.tau
        return n * (b - 1) / (b * (n - 1)) * whole + (n - b) / (b * (n - 1)) * c * largest

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Epochs of minibatches until the certificate holds."""
        weight, bias = weight.clone(), bias.clone()
        if resume is not None:
            weight, bias = resume["weight"].clone(), resume["bias"].clone()
        epochs = self._fill_table(weight, bias)
        tolerance, best, misses = FIRST_TOLERANCE, math.inf, 0
        unit = lam if lam > 0 else monitor.null_objective * 1e-3
        while True:
            size = self._epoch(lam, weight, bias)
            epochs += 1
            monitor.tick(lambda: {"weight": weight, "bias": bias})
            if not math.isfinite(size):
                return Solution(weight, bias, "diverged", epochs)
            if size > tolerance * unit and epochs < monitor.max_epochs:
                continue
            if monitor.done(weight, bias):
                return Solution(weight, bias, "converged", epochs)
            if epochs >= monitor.max_epochs:
                return Solution(weight, bias, "max_iterations", epochs)
            tolerance /= 4
            residual = monitor.certificate.kkt_residual
            misses = misses + 1 if residual > 0.5 * best else 0
            best = min(best, residual)
            if misses >= PATIENCE:
                return Solution(weight, bias, "stalled", epochs)

    def _fill_table(self, weight: Tensor, bias: Tensor) -> float:
        """Derivatives of all rows at the warm start, once per path; returns the epochs it took."""
        if self.filled:
            return 0.0
        self.filled = True
        residual = self.problem.residual(self.problem.scores(weight, bias))
        self.table = residual * self.problem.n_samples
        self.mean_gradient = self.problem.gradient(residual)
        self.mean_slope = self.problem.bias_gradient(residual)
        return 1.0

    def _epoch(self, lam: float, weight: Tensor, bias: Tensor) -> float:
        """One pass over all rows, in place; returns the size of the gradient mapping at its end."""
        problem, n = self.problem, self.problem.n_samples
        order = torch.randperm(n, generator=self.generator).to(problem.device)
        for index in order.split(self.batch_size):
            x = problem.design.take_rows(index)
            eta = x @ weight.to(x.dtype).T + bias.to(x.dtype)
            if problem.offset is not None:
                eta += problem.offset[index]
            new = problem.family.residual(eta, problem.target[index]) * self.relative_weight[index, None]
            change = (new - self.table[index]).to(x.dtype)
            self.table[index] = new.to(self.table.dtype)
            g, slope = (change.T @ x).to(torch.float64), change.sum(dim=0, dtype=torch.float64)
            b = len(index)
            moved = weight - self.step * (g / b + self.mean_gradient)
            weight.copy_(problem.penalty.prox(moved, lam, self.step))
            bias.sub_(self.step * self.tau * (slope / b + self.mean_slope) * problem.fit_intercept)
            self.mean_gradient += g / n
            self.mean_slope += slope / n
        mapped = problem.penalty.prox(weight - self.step * self.mean_gradient, lam, self.step)
        size = float((mapped - weight).abs().max()) / self.step
        return max(size, float(self.mean_slope.abs().max())) if problem.fit_intercept else size
