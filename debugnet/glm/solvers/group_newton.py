"""Proximal Newton for the group lasso: a penalty on each feature's weights to all outputs together.

At each lambda: extrapolate the last two solutions, then repeat {gradient on the cached columns; minimize the
penalized quadratic model (:mod:`.group_quadratic`); step} until the duality gap over the working set is below
tolerance; then one gradient over all features, which either certifies or names the violators to add.  The model has
one Hessian block per output: where outputs are coupled (softmax) the blocks are scaled by the largest eigenvalue seen
of the whole Hessian in their metric, 1 to 2, and a step reduces the gap three- to thirtyfold at a K-th of the cost.

Where one number per feature decides (one output, or two classes under softmax, which are (-v/2, v/2) by symmetry) the
norm is an absolute value and :class:`~debugnet.glm.solvers.prox_newton.ProxNewton` solves the same problem.

Sources: Yuan & Lin 2006 (group lasso); Lee, Sun & Saunders 2014 (proximal Newton); Tibshirani et al. 2012 (strong
rules); Tseng & Yun 2009 (block coordinate descent).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.penalties import ElasticNet, Penalty
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.group_curvature import GroupCurvature
from debugnet.glm.solvers.group_quadratic import group_gap, solve_groups
from debugnet.glm.solvers.prox_newton import ProxNewton
from debugnet.glm.solvers.row_losses import row_loss, row_weights
from debugnet.glm.solvers.step_costs import SWEEP, one_pass
from debugnet.glm.solvers.working_set import WorkingSet, needs_float64, refusal_of_newton

#: First guess of the largest eigenvalue of a softmax Hessian in the metric of its diagonal blocks, and its bound.
METRIC, LARGEST_METRIC = 1.4, 2.0
#: Steps at one lambda.
MAX_STEPS = 300
#: Most sweeps in a step, and the share of its gap that the model's solution may keep.
SWEEPS, LOOSE = 100, 0.05
#: Blocks are built again below this share of the lambda of the last time, or where the metric is beyond its bound, and
#: at one lambda so often at the most.
REBUILD, MOST_REBUILDS = 0.8, 2
#: Steps at a lambda with fresh blocks, sweeps in a step, and seconds per row and matrix entry of a build.
STEPS_USUAL, SWEEPS_USUAL, BUILD = 2, 15, 8e-12


class GroupNewton(WorkingSet):
    """See the module's docstring; the contract is :class:`debugnet.glm.solvers.base.Solver`."""

    name: ClassVar[str] = "group-newton"
    trusts_itself: ClassVar[bool] = True
    compiled: ClassVar[bool] = True

    def __init__(self, problem: GLMProblem) -> None:
        self.problem, self.exhausted = problem, False
        self.scalar = _ScalarGroups(problem) if _one_number_decides(problem) else None
        if self.scalar is None:
            self._start(problem, np.dtype(np.float64 if needs_float64(problem) else np.float32))

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem, or None."""
        if problem.penalty.entrywise:
            return "needs a penalty per feature (group_lasso)"
        if problem.penalty.nonnegative and problem.n_outputs > 1:
            return "cannot keep groups of weights non-negative"
        return refusal_of_newton(problem)

    def _start(self, problem: GLMProblem, dtype: np.dtype) -> None:
        offset = None if problem.offset is None else np.ascontiguousarray(problem.offset.numpy().T)
        rows = row_loss(problem, row_weights(problem, dtype), dtype)
        super().__init__(problem, rows, problem.n_outputs, offset, dtype)
        self.l1_weight, self.ridged = _norm_weight(problem), problem.penalty.l1_ratio < 1
        self.blocks = GroupCurvature(self.cache, self.K)
        self.built_at, self.wasted, self.length, self.metric = math.inf, 0.0, 0.0, METRIC
        self.returned: Tensor | None = None
        self.exhausted, self.rebuilt = False, 0
        self.counts |= {"blocks": 0, "extended": 0, "steps": 0, "sweeps": 0}

    # -- one lambda ------------------------------------------------------------------------------

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve at one lambda; see :mod:`debugnet.glm.solvers.base`."""
        if self.scalar is not None and lam > 0:
            weight, bias = (weight, bias) if resume is None else (resume["weight"], resume["bias"])
            return self.scalar.solve(lam, weight, bias, monitor)
        if self.exhausted and self.dtype == np.float32:  # then rounding is what kept it from converging
            self._start(self.problem, np.dtype(np.float64))
        return super().solve(lam, weight, bias, monitor, resume)

    def _iterate(self, lam: float, target: float, monitor: Monitor) -> str:
        old: tuple[np.ndarray, np.ndarray] | None = None
        self.rebuilt = 0
        for step in range(MAX_STEPS):
            self.wasted += step > STEPS_USUAL
            G = self._gradient()
            gap = self._gap(G)
            if not np.isfinite(gap):
                return "diverged"
            if gap <= target:
                if not self._add_violators(lam, gap, target, G):
                    return "converged"
                old = None
                continue
            if self.passes > monitor.max_epochs:
                return "max_iterations"
            monitor.tick(self._state)
            self._prepare_blocks(G, lam)
            if old is not None:
                self._measure_metric(*old, G)
            old = (self.W, G)
            if not self._step(G, gap, target):
                self.exhausted = True
                return "stalled"
        self.exhausted = True
        return "max_iterations"

    def _solution(self, status: str) -> Solution:
        weight = torch.zeros((self.K, self.d), dtype=torch.float64)
        weight[:, torch.from_numpy(self.cache.features[1:])] = torch.from_numpy(self.W[:, 1:])
        self.returned = weight
        return Solution(weight, torch.from_numpy(self.W[:, 0].copy()), status, self.passes)

    def _take_start(self, weight: Tensor, bias: Tensor) -> None:
        """Go on from (weight, bias) unless they are what was returned last."""
        if self.returned is None or not torch.equal(weight, self.returned):
            self._start_at(weight.numpy(), bias.numpy())

    # -- penalties, gaps -------------------------------------------------------------------------

    def _set_penalties(self, lam: float) -> None:
        """Weights (m,) of the norm and of the ridge of every cached column; 0 for the bias."""
        rho, factor = self.problem.penalty.l1_ratio, self._cached_factor()
        self.t, self.q = lam * self.l1_weight * factor, lam * (1 - rho) * factor
        self._set_floor(lam * max(1 - rho, 0.01))

    def _penalty_value(self, W: np.ndarray) -> float:
        norm = np.linalg.norm(W, axis=0)
        return float(self.t @ norm + 0.5 * self.q @ norm**2)

    def _screened_size(self, G: np.ndarray) -> np.ndarray:
        size: np.ndarray = np.linalg.norm(G, axis=0) / self.l1_weight
        return size

    def _excess(self, G: np.ndarray, lam: float) -> np.ndarray:
        return np.maximum(np.linalg.norm(G, axis=0, keepdims=True) - lam * self.l1_weight * self.factor, 0)

    def _turned(self, W1: np.ndarray, W0: np.ndarray, step: np.ndarray) -> np.ndarray:
        turned: np.ndarray = (((W1 + step) * W1).sum(axis=0) <= 0) | ~W0.any(axis=0)
        return turned

    def _gap(self, G: np.ndarray) -> float:
        """Duality gap over the cached columns."""
        return float(group_gap(G, self.W, self.t, self.q, self.floor, self.ridged))

    # -- steps ---------------------------------------------------------------------------------------

    def _prepare_blocks(self, G: np.ndarray, lam: float) -> None:
        """Bring the blocks up to the present working set; build them anew every few lambdas."""
        wanted = self.W.any(axis=0) | (np.linalg.norm(G, axis=0) > self.t * (1 - 1e-3)) | (self.t == 0)
        wanted[0] = self.problem.fit_intercept
        constant = self.problem.family.name == "gaussian"
        old = lam < REBUILD * self.built_at or self.metric > LARGEST_METRIC  # then they are of somewhere else
        old &= self.rebuilt < MOST_REBUILDS and not constant
        if len(self.blocks.column) == 0 or (old and self._rebuild_pays()):
            self.counts["blocks"] += 1
            self.rebuilt += 1
            self.wasted = 0.0
            self.built_at, self.metric = lam, METRIC if self.rows.coupled else 1.0
            outputs = range(1 if constant else self.K)
            self.blocks.rebuild(np.flatnonzero(wanted), (self.rows.curvature(self.state.mean, k) for k in outputs))
            return
        wanted[self.blocks.column] = False
        if wanted.any():
            self.counts["extended"] += 1
            self.blocks.extend(np.flatnonzero(wanted))

    def _measure_metric(self, W: np.ndarray, G: np.ndarray, G_new: np.ndarray) -> None:
        """Follow the Rayleigh quotient, in the blocks' metric, of the last movement (W, G) -> (self.W, G_new)."""
        if self.length > 0:
            quotient = float(((self.W - W) * (G_new - G)).sum()) / self.length
            self.metric = min(max(self.metric, 1.05 * quotient), 4.0)

    def _rebuild_pays(self) -> bool:
        """Whether the steps taken beyond the usual few since the blocks were built cost as much as building them."""
        s = len(self.blocks.column)
        step = one_pass(self.n, len(self.cache), self.K) + SWEEPS_USUAL * self.K * s * s * SWEEP
        return self.wasted * step > self.n * self.K * s * s * BUILD

    def _step(self, G: np.ndarray, gap: float, target: float) -> bool:
        """Minimizer of the penalized model with one block per output, backtracked; whether anything moved."""
        self.counts["steps"] += 1
        c = self.blocks.column
        V, R = np.ascontiguousarray(self.W[:, c]), np.ascontiguousarray(G[:, c])  # one layout: compiled once
        tol = max(0.3 * target, LOOSE * gap)
        self.counts["sweeps"] += solve_groups(
            self.blocks.buffer, self.metric, R, V, self.t[c], self.q[c], self.floor[c], self.ridged, SWEEPS, tol
        )
        change = np.zeros_like(self.W)
        change[:, c] = V - self.W[:, c]
        # Both gradients of the model differ by its Hessian times the step: the step's length in the blocks' metric.
        self.length = float((change[:, c] * (R - G[:, c])).sum()) / self.metric
        if self.rows.coupled:  # equal weights for all outputs change nothing but the penalty
            change -= (self.W + change).mean(axis=0)
        return self._move(change, target)

    def _move(self, change: np.ndarray, target: float) -> bool:
        """Step along ``change`` as far as the objective does not rise."""
        if not change.any():
            return False
        limit = self.state.loss + self._penalty_value(self.W) + 0.1 * target
        found = self._descend(change, self._add_scores(np.zeros_like(self.scores), change), limit)
        if found is None:
            return False
        self.length *= found[0] ** 2
        return True


class _ScalarGroups:
    """Groups of one number each, as an elastic net: ``||(-v/2, v/2)|| = (|w_1| + |w_2|) / sqrt(2)``."""

    def __init__(self, problem: GLMProblem) -> None:
        penalty = problem.penalty
        l1 = _norm_weight(problem) / math.sqrt(problem.n_outputs)
        self.unit = l1 + 1 - penalty.l1_ratio
        same = ElasticNet(l1 / self.unit, penalty.factor, penalty.nonnegative)
        self.solver = ProxNewton(problem.with_penalty(cast(Penalty, same)))

    def solve(self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor) -> Solution:
        """Solve at the lambda that means the same there."""
        return self.solver.solve(lam * self.unit, weight, bias, monitor)


def _norm_weight(problem: GLMProblem) -> float:
    """Weight of the norms over lam."""
    penalty = problem.penalty
    return penalty.l1_ratio * float(getattr(penalty, "group_weight", 1.0))


def _one_number_decides(problem: GLMProblem) -> bool:
    return problem.n_outputs == 1 or (problem.n_outputs == 2 and problem.family.name == "multinomial")
