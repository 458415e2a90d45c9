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

from debugnet.glm.design import SingleProcess
from debugnet.glm.penalties import ElasticNet, Penalty
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.fista import Fista
from debugnet.glm.solvers.group_curvature import GroupCurvature
from debugnet.glm.solvers.group_quadratic import group_gap, solve_groups
from debugnet.glm.solvers.prox_newton import ProxNewton
from debugnet.glm.solvers.row_losses import BinomialRows, Evaluated, GaussianRows, MultinomialRows, RowLoss
from debugnet.glm.solvers.step_costs import SWEEP, one_pass

#: Own tolerance relative to the one asked for: room for the certificate's own view of the point.
SAFETY = 0.75
#: First guess of the largest eigenvalue (at most 2) of a softmax Hessian in the metric of its diagonal blocks.
METRIC = 1.4
#: Share of the threshold from which an extrapolated gradient brings its feature into the working set.
SCREEN = 0.98
#: Steps at one lambda.
MAX_STEPS = 300
#: Most sweeps in a step, and the share of its gap that the model's solution may keep.
SWEEPS, LOOSE = 100, 0.05
#: Up to this many features all columns are gathered at once.
ALL_COLUMNS = 128
#: Below this tolerance float32 products are not exact enough.
FLOAT32_TOL = 3e-8
#: Blocks are built again below this share of the lambda of the last time at the earliest.
REBUILD = 0.8
#: Steps at a lambda with fresh blocks, sweeps in a step, and seconds per row and matrix entry of a build.
STEPS_USUAL, SWEEPS_USUAL, BUILD = 2, 15, 8e-12


class GroupNewton:
    """See the module's docstring; the contract is :class:`debugnet.glm.solvers.base.Solver`."""

    name: ClassVar[str] = "group-newton"
    trusts_itself: ClassVar[bool] = True
    compiled: ClassVar[bool] = True

    def __init__(self, problem: GLMProblem) -> None:
        self.problem = problem
        self.scalar = _ScalarGroups(problem) if _one_number_decides(problem) else None
        if self.scalar is None:
            design = problem.design
            far = design.dtype == torch.float64 and design.X.numel() > 4_000_000
            self._start(np.float64 if far or design.X.dtype == torch.float64 else np.float32)

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem, or None."""
        if problem.penalty.entrywise:
            return "needs a penalty per feature (group_lasso)"
        if problem.penalty.nonnegative and problem.n_outputs > 1:
            return "cannot keep groups of weights non-negative"
        if problem.penalty.nonnegative and bool((problem.penalty.factor == 0).any()):
            return "cannot keep unpenalized weights non-negative"
        if problem.device.type != "cpu":
            return "runs on the CPU"
        if not isinstance(problem.communicator, SingleProcess):
            return "needs all rows in one process"
        return None

    def _start(self, dtype: type[np.floating]) -> None:
        problem, penalty = self.problem, self.problem.penalty
        self.n, self.d = problem.design.shape
        self.K, self.dtype = problem.n_outputs, np.dtype(dtype)
        self.weight = None if problem.uniform else (problem.sample_weight.numpy() * self.n).astype(self.dtype)
        self.rows = _row_loss(problem, self.weight, self.dtype)
        self.offset = None if problem.offset is None else np.ascontiguousarray(problem.offset.numpy().T)
        self.factor, self.l1_weight = penalty.factor.numpy(), _norm_weight(problem)
        self.alive = problem.design.alive.numpy()
        self.cache = ColumnCache(problem.design, self.dtype)
        self.cache.add(np.flatnonzero(self.alive & ((self.factor == 0) | (self.alive.sum() <= ALL_COLUMNS))))
        self.blocks = GroupCurvature(self.cache, self.K)
        self.built_at, self.wasted, self.length = math.inf, 0.0, 0.0
        self.metric, self.passes = METRIC, 0.0
        self._place(np.zeros((self.K, len(self.cache))))
        self.G: np.ndarray | None = None  # full gradients at the last two solutions
        self.G_before: np.ndarray | None = None
        self.last: tuple[float, np.ndarray] | None = None
        self.before: tuple[float, np.ndarray] | None = None
        self.returned: Tensor | None = None
        self.counts = {"blocks": 0, "extended": 0, "steps": 0, "sweeps": 0, "full": 0, "halved": 0}

    # -- one lambda ------------------------------------------------------------------------------

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve at one lambda; see :mod:`debugnet.glm.solvers.base`."""
        if resume is not None:
            weight, bias = resume["weight"], resume["bias"]
        if lam == 0:  # nothing is sparse any more: a working set has no point
            return Fista(self.problem).solve(lam, weight, bias, monitor)
        if self.scalar is not None:
            return self.scalar.solve(lam, weight, bias, monitor)
        self.passes = 0.0
        if monitor.tol < FLOAT32_TOL and self.dtype == np.float32:
            self._start(np.float64)
        self._take_start(weight, bias)
        self._set_penalties(lam)
        fresh = self.last is None or self.last[0] != lam
        if fresh:
            self._screen(lam)
            self._extrapolate(lam)
        status = self._iterate(lam, SAFETY * monitor.tol * monitor.null_objective, monitor)
        if fresh and self.last is not None:
            self.before = self.last
        self.last = (lam, self.W.copy())
        return self._solution(status)

    def _iterate(self, lam: float, target: float, monitor: Monitor) -> str:
        old: tuple[np.ndarray, np.ndarray] | None = None
        for step in range(MAX_STEPS):
            self.wasted += step > STEPS_USUAL
            G = self._gradient()
            gap = self._gap(G)
            if not np.isfinite(gap):
                return "diverged"
            if gap <= target:
                if not self._add_violators(lam, gap, target):
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
                return "stalled"
        return "max_iterations"

    def _state(self) -> dict[str, Tensor]:
        found = self._solution("max_iterations")
        return {"weight": found.weight, "bias": found.bias}

    def _solution(self, status: str) -> Solution:
        weight = torch.zeros((self.K, self.d), dtype=torch.float64)
        weight[:, torch.from_numpy(self.cache.features[1:])] = torch.from_numpy(self.W[:, 1:])
        self.returned = weight
        return Solution(weight, torch.from_numpy(self.W[:, 0].copy()), status, self.passes)

    # -- where to begin ----------------------------------------------------------------------------

    def _take_start(self, weight: Tensor, bias: Tensor) -> None:
        """Go on from (weight, bias) unless they are what was returned last."""
        if self.returned is not None and torch.equal(weight, self.returned):
            return
        W = weight.numpy()
        self.cache.add(np.flatnonzero(W.any(axis=0)))
        self._place(np.column_stack([bias.numpy(), W[:, self.cache.features[1:]]]))
        self.G = self.G_before = self.last = self.before = None

    def _place(self, W: np.ndarray) -> None:
        self.W = np.ascontiguousarray(W)
        self.scores = np.zeros((self.K, self.n)) if self.offset is None else self.offset.copy()
        self._add_scores(self.scores, W)
        self.state: Evaluated = self.rows.evaluate(self.scores)

    def _screen(self, lam: float) -> None:
        """Cache the features whose gradient, gone on as between the last two lambdas, nearly reaches the threshold.

        Without two solutions to go by: those that the sequential strong rule keeps.  The full check that ends
        each lambda catches what either misses.
        """
        if self.G is None:
            self.G = self._full_gradient()
        old = self.last[0] if self.last else lam
        if self.before is not None and self.G_before is not None:
            ratio = np.log(lam / old) / np.log(old / self.before[0])
            ahead, threshold = self.G + ratio * (self.G - self.G_before), SCREEN * lam
        else:
            ahead, threshold = self.G, 2 * lam - old
        self.G_before = self.G
        strong = np.linalg.norm(ahead, axis=0) >= threshold * self.l1_weight * self.factor
        self._cache(np.flatnonzero(strong & self.alive), lam)

    def _cache(self, features: np.ndarray, lam: float) -> None:
        before = len(self.cache)
        self.cache.add(features)
        if len(self.cache) > before:
            self.W = np.pad(self.W, ((0, 0), (0, len(self.cache) - before)))
            self._set_penalties(lam)

    def _extrapolate(self, lam: float) -> None:
        """Go on in log lambda as between the last two solutions, for features that stay on their side of zero."""
        if self.last is None or self.before is None:
            return
        (lam1, W1), (lam0, W0) = self.last, self.before
        ratio = np.log(lam / lam1) / np.log(lam1 / lam0)
        if ratio > 2:
            return
        change = np.zeros_like(self.W)
        step = ratio * (W1 - np.pad(W0, ((0, 0), (0, W1.shape[1] - W0.shape[1]))))
        turned = ((W1 + step) * W1).sum(axis=0) <= 0
        turned[: W0.shape[1]] |= ~W0.any(axis=0)
        turned[W0.shape[1] :] = True
        turned[0] = False
        step[:, turned] = 0
        change[:, : step.shape[1]] = step
        self.W = self.W + change
        self._add_scores(self.scores, change)
        self.state = self.rows.evaluate(self.scores)

    # -- gradients, penalties, gaps ------------------------------------------------------------------

    def _add_scores(self, scores: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Add ``change @ columns`` in place: products of the increments alone, in the cache's dtype."""
        used = np.flatnonzero(change.any(axis=0))
        few = len(used) < 0.7 * change.shape[1]
        if len(used):
            scores += (change[:, used] if few else change).astype(self.dtype) @ self.cache.rows[used if few else ...]
        self.passes += len(used) / max(1, self.d)
        return scores

    def _gradient(self) -> np.ndarray:
        G = self.cache.gradient(self.state.residual) / self.n
        self.passes += len(self.cache) / max(1, self.d)
        if not self.problem.fit_intercept:
            G[:, 0] = 0
        return G

    def _full_gradient(self) -> np.ndarray:
        self.passes += 1
        self.counts["full"] += 1
        if len(self.cache) - 1 == self.alive.sum():
            G = np.zeros((self.K, self.d))
            G[:, self.cache.features[1:]] = self.cache.gradient(self.state.residual)[:, 1:] / self.n
            return G
        return self.cache.full_gradient(self.state.residual) / self.n

    def _set_penalties(self, lam: float) -> None:
        """Weights (m,) of the norm and of the ridge of every cached column; 0 for the bias."""
        rho = self.problem.penalty.l1_ratio
        factor = np.where(self.cache.features >= 0, self.factor[self.cache.features], 0.0)
        self.t, self.q = lam * self.l1_weight * factor, lam * (1 - rho) * factor
        least = lam * max(1 - rho, 0.01)
        # The certificate moves the bias to its optimum by itself, but not the weights of unpenalized features.
        self.floor = np.where((factor == 0) & (self.cache.features >= 0), 1e-7 * least, least)

    def _penalty_value(self, W: np.ndarray) -> float:
        norm = np.linalg.norm(W, axis=0)
        return float(self.t @ norm + 0.5 * self.q @ norm**2)

    def _gap(self, G: np.ndarray) -> float:
        """Duality gap over the cached columns (an indicator where l1_ratio = 1)."""
        gap = float(group_gap(G, self.W, self.t, self.q, self.floor))
        if self.problem.penalty.l1_ratio == 1:  # theta has to shrink by the largest excess: that costs the penalty
            with np.errstate(divide="ignore", invalid="ignore"):
                excess = np.where(self.t > 0, np.linalg.norm(G, axis=0) / self.t - 1, 0.0).max()
            gap += max(float(excess), 0.0) * self._penalty_value(self.W)
        return gap

    def _add_violators(self, lam: float, gap: float, target: float) -> bool:
        """Check all features; cache those that would break the tolerance.  Returns whether there were any."""
        self.G = self._full_gradient()
        rho = self.problem.penalty.l1_ratio
        excess = np.maximum(np.linalg.norm(self.G, axis=0) - lam * self.l1_weight * self.factor, 0)
        excess[self.cache.features[1:]] = 0
        if rho < 1:
            per_feature = excess**2 / (2 * lam * max(1 - rho, 0.01) * np.maximum(self.factor, 1e-300))
            total = float(per_feature.sum())
        else:
            per_feature = excess / lam * max(self._penalty_value(self.W), target)
            total = float(per_feature.max())
        if gap + total <= 1.25 * target:
            return False
        self._cache(np.flatnonzero(per_feature > 0), lam)
        return True

    # -- steps ---------------------------------------------------------------------------------------

    def _prepare_blocks(self, G: np.ndarray, lam: float) -> None:
        """Bring the blocks up to the present working set; build them anew every few lambdas."""
        wanted = self.W.any(axis=0) | (np.linalg.norm(G, axis=0) > self.t * (1 - 1e-3)) | (self.t == 0)
        wanted[0] = self.problem.fit_intercept
        constant = self.problem.family.name == "gaussian"
        if len(self.blocks.column) == 0 or (lam < REBUILD * self.built_at and self._rebuild_pays() and not constant):
            self.counts["blocks"] += 1
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
            self.blocks.buffer, self.metric, R, V, self.t[c], self.q[c], self.floor[c], SWEEPS, tol
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
        moved = self._add_scores(np.zeros_like(self.scores), change)
        for fraction in (1.0, 0.5, 0.25, 0.1, 0.02):
            W = self.W + fraction * change
            scores = self.scores + fraction * moved
            state = self.rows.evaluate(scores)
            if state.loss + self._penalty_value(W) <= limit:
                self.W, self.scores, self.state = W, scores, state
                self.length *= fraction**2
                return True
            self.counts["halved"] += 1
        return False


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


def _row_loss(problem: GLMProblem, weight: np.ndarray | None, dtype: np.dtype) -> RowLoss:
    if problem.family.name == "multinomial":
        return MultinomialRows(problem.target.numpy(), weight, dtype)
    target = np.ascontiguousarray(problem.target.numpy().T)
    return (BinomialRows if problem.family.name == "binomial" else GaussianRows)(target, weight, dtype)
