"""Proximal Newton on a working set of coefficients, with Hessians kept along the path.

At each lambda: extrapolate the last two solutions, then repeat {gradient on the cached columns; minimize the
quadratic model plus the penalty (:mod:`.quadratic`); step} until the duality gap over the working set is below
tolerance; then one gradient over all features, which either certifies or names the violators to add.  The Hessian
may be stale (the gradient never is): it is built again where the extra steps that its age costs would cost more.
Products run in float32 with float64 sums across row blocks; scores, weights and decisions are float64.

Two classes under softmax are solved as one logistic output: by symmetry the optimum is (-w/2, w/2).

Sources: Lee, Sun & Saunders 2014 (proximal Newton); Tibshirani et al. 2012 (strong rules); Friedman, Hastie &
Tibshirani 2010 (path, coordinate descent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.design import SingleProcess
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.curvature import CurvatureBlock
from debugnet.glm.solvers.fista import Fista
from debugnet.glm.solvers.quadratic import penalized_gap, solve_quadratic
from debugnet.glm.solvers.row_losses import BinomialRows, Evaluated, GaussianRows, MultinomialRows, RowLoss
from debugnet.glm.solvers.step_costs import blocks_are_cheaper, rebuild_pays
from debugnet.glm.solvers.subspace import Movements, best_combination

#: Own tolerance relative to the one asked for: room for the certificate's own view of the point.
SAFETY = 0.75
#: Scale of the per-class blocks of a softmax Hessian in the model; their largest relative eigenvalue is 2 at most.
METRIC = 1.3
TIGHT, LOOSE = 0.02, 0.001
#: Coefficients this near to their threshold join a Hessian that has to grow anyway.
NEAR = 0.95
#: Movements kept for the steps after.
MEMORY = 3
#: Gap left by a step from which the model counts as inexact.
SLOW = 0.1
#: Share of the threshold from which an extrapolated gradient brings its feature into the working set.
SCREEN = 0.98
#: Newton steps at one lambda.
MAX_STEPS = 200
#: Up to this many features all columns are gathered at once.
ALL_COLUMNS = 128
#: Below this tolerance float32 products are not exact enough.
FLOAT32_TOL = 3e-8


class ProxNewton:
    """See the module's docstring; the contract is :class:`debugnet.glm.solvers.base.Solver`."""

    name: ClassVar[str] = "prox-newton"
    trusts_itself: ClassVar[bool] = True
    compiled: ClassVar[bool] = True

    def __init__(self, problem: GLMProblem) -> None:
        self.problem = problem
        self.n, self.d = problem.design.shape
        exact = problem.design.far_from_zero or problem.design.X.dtype == torch.float64
        self.dtype = np.dtype(np.float64 if exact else np.float32)
        self._start()

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem, or None."""
        if not problem.penalty.entrywise:
            return "needs a penalty per coefficient (elastic_net)"
        if problem.penalty.nonnegative and bool((problem.penalty.factor == 0).any()):
            return "cannot keep unpenalized weights non-negative"
        if problem.device.type != "cpu":
            return "runs on the CPU"
        if not isinstance(problem.communicator, SingleProcess):
            return "needs all rows in one process"
        return None

    def _start(self) -> None:
        problem, penalty = self.problem, self.problem.penalty
        self.two_class = problem.family.name == "multinomial" and problem.n_outputs == 2 and not penalty.nonnegative
        self.K = 1 if self.two_class else problem.n_outputs
        weight = None if problem.uniform else (problem.sample_weight.numpy() * self.n).astype(self.dtype)
        self.weight = weight
        self.rows: RowLoss = self._row_loss(weight)
        self.coupled = self.rows.coupled
        offset = problem.offset
        if offset is None:
            self.offset: np.ndarray | None = None
        elif self.two_class:
            self.offset = (offset[:, 1:] - offset[:, :1]).numpy().T
        else:
            self.offset = np.ascontiguousarray(offset.numpy().T)
        self.cache = ColumnCache(problem.design, self.dtype)
        self.factor = penalty.factor.numpy()
        self.alive = np.flatnonzero(problem.design.alive.numpy())
        if len(self.alive) <= ALL_COLUMNS:
            self.cache.add(self.alive)
        free = self.alive[self.factor[self.alive] == 0]
        self.cache.add(free)
        self.blocks = (
            [CurvatureBlock(self.cache, True)]
            if self.coupled
            else [CurvatureBlock(self.cache, False) for _ in range(self.K)]
        )
        self.W = np.zeros((self.K, len(self.cache)))  # cached columns; column 0 is the bias
        self.scores = self._scores_of(self.W)
        self.state: Evaluated = self.rows.evaluate(self.scores)
        self.G: np.ndarray | None = None  # full gradients at the last two solutions
        self.G_before: np.ndarray | None = None
        self.last: tuple[float, np.ndarray] | None = None
        self.before: tuple[float, np.ndarray] | None = None
        self.returned: tuple[Tensor, Tensor] | None = None
        self.contraction = 0.0
        self.movements = Movements(MEMORY)
        self.passes = 0.0
        self.counts = {"hessians": 0, "steps": 0, "full": 0, "extended": 0, "halved": 0, "rounds": 0, "restarts": 0}

    def _row_loss(self, weight: np.ndarray | None) -> RowLoss:
        problem = self.problem
        name = problem.family.name
        if self.two_class:
            return BinomialRows(problem.target.numpy()[None], weight, self.dtype)
        if name == "multinomial":
            return MultinomialRows(problem.target.numpy(), weight, self.dtype)
        target = np.ascontiguousarray(problem.target.numpy().T)
        return (BinomialRows if name == "binomial" else GaussianRows)(target, weight, self.dtype)

    # -- scores, penalties, gaps ---------------------------------------------------------------

    def _scores_of(self, W: np.ndarray) -> np.ndarray:
        scores = np.zeros((self.K, self.n)) if self.offset is None else self.offset.copy()
        return self._add_scores(scores, W)

    def _add_scores(self, scores: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Add ``change @ columns`` to the scores, float32 products of the increments alone."""
        if change.any():
            scores += self.cache.scores(change)
            self.passes += np.count_nonzero(change.any(axis=0)) / max(1, self.d)
        return scores

    def _penalties(self, lam: float) -> None:
        """l1 and l2 of every cached column (m,); 0 for the bias."""
        rho = self.problem.penalty.l1_ratio
        factor = np.where(self.cache.features >= 0, self.factor[self.cache.features], 0.0)
        self.l1 = lam * rho * factor
        self.l2 = lam * (1 - rho) * factor * (0.5 if self.two_class else 1.0)
        least = lam * max(1 - rho, 0.01) * (0.5 if self.two_class else 1.0)
        # The certificate moves the bias to its optimum by itself, but not the weights of unpenalized features.
        free = (factor == 0) & (self.cache.features >= 0)
        self.floor = np.where(free, 1e-7 * least, least)
        self._tiled = tuple(np.tile(a, self.K) for a in (self.l1, self.l2, self.floor))

    def _penalty_value(self, W: np.ndarray) -> float:
        return float((np.abs(W) @ self.l1 + 0.5 * (W * W) @ self.l2).sum())

    def _gap(self, G: np.ndarray) -> float:
        """Duality gap over the cached columns (an indicator where rho = 1)."""
        gap = penalized_gap(G.ravel(), self.W.ravel(), *self._tiled, self.problem.penalty.nonnegative)
        if self.problem.penalty.l1_ratio == 1:  # theta has to shrink by the largest excess: that costs lam ||W||_1
            with np.errstate(divide="ignore", invalid="ignore"):
                excess = np.where(self.l1 > 0, np.abs(G) / self.l1 - 1, 0.0).max()
            gap += max(excess, 0.0) * self._penalty_value(self.W)
        return gap

    # -- one lambda ------------------------------------------------------------------------------

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve at one lambda; see :mod:`debugnet.glm.solvers.base`."""
        if lam == 0:  # nothing is sparse any more: a working set has no point
            return Fista(self.problem).solve(lam, weight, bias, monitor, resume)
        self.passes = 0.0
        self._want(monitor.tol)
        self._take_start(weight, bias)
        self._penalties(lam)
        target = SAFETY * monitor.tol * monitor.null_objective
        fresh = self.last is None or self.last[0] != lam
        if fresh:
            self._screen(lam)
            self._extrapolate(lam)
        status = self._iterate(lam, target, monitor)
        if fresh and self.last is not None:
            self.before = self.last
        self.last = (lam, self.W.copy())
        return self._solution(status)

    def _want(self, tol: float) -> None:
        """Change to float64 where the tolerance asks for it."""
        if tol >= FLOAT32_TOL or self.dtype == np.float64:
            return
        W, features = self.W, self.cache.features[1:]
        last, before, G = self.last, self.before, self.G
        self.dtype = np.dtype(np.float64)
        self._start()
        self.cache = ColumnCache(self.problem.design, np.float64)
        self.cache.add(features)
        for block in self.blocks:
            block.cache = self.cache
        self.W, self.last, self.before, self.G = W, last, before, G
        self.scores = self._scores_of(W)
        self.state = self.rows.evaluate(self.scores)

    def _take_start(self, weight: Tensor, bias: Tensor) -> None:
        """Go on from (weight, bias) unless they are what was returned last."""
        if self.returned is not None and torch.equal(weight, self.returned[0]):
            return
        W, b = weight.numpy(), bias.numpy()
        if self.two_class:
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        self.cache.add(np.flatnonzero(W.any(axis=0)))
        self.W = np.zeros((self.K, len(self.cache)))
        self.W[:, 0] = b
        self.W[:, 1:] = W[:, self.cache.features[1:]]
        self.scores = self._scores_of(self.W)
        self.state = self.rows.evaluate(self.scores)
        self.G = self.G_before = self.last = self.before = None

    def _screen(self, lam: float) -> None:
        """Cache the features whose gradient, gone on as between the last two lambdas, nearly reaches the threshold.

        Without two solutions to go by: those that the sequential strong rule keeps.  The full check that ends
        each lambda catches what either misses.
        """
        if self.G is None:
            self.G = self._full_gradient()
        rho, old = self.problem.penalty.l1_ratio, self.last[0] if self.last else lam
        if self.before is not None and self.G_before is not None:
            ratio = np.log(lam / old) / np.log(old / self.before[0])
            size, threshold = np.abs(self.G + ratio * (self.G - self.G_before)).max(axis=0), SCREEN * rho * lam
        else:
            size, threshold = np.abs(self.G).max(axis=0), rho * (2 * lam - old)
        self.G_before = self.G
        keep = size >= threshold * self.factor
        self._cache(np.flatnonzero(keep & self.problem.design.alive.numpy()), lam)

    def _cache(self, features: np.ndarray, lam: float) -> None:
        before = len(self.cache)
        self.cache.add(features)
        grown = len(self.cache) - before
        if grown:
            self.W = np.pad(self.W, ((0, 0), (0, grown)))
            self._penalties(lam)

    def _extrapolate(self, lam: float) -> None:
        """Go on in log lambda as between the last two solutions, for entries that keep their sign."""
        if self.last is None or self.before is None:
            return
        (lam1, W1), (lam0, W0) = self.last, self.before
        ratio = np.log(lam / lam1) / np.log(lam1 / lam0)
        if ratio > 2:
            return
        W0 = np.pad(W0, ((0, 0), (0, W1.shape[1] - W0.shape[1])))
        step = ratio * (W1 - W0)
        moved = W1 + step
        step[(W1 == 0) | (W0 == 0) | (moved * W1 <= 0)] = 0
        step[:, 0] = ratio * (W1 - W0)[:, 0]
        change = np.zeros_like(self.W)
        change[:, : step.shape[1]] = step
        self.W = self.W + change
        self.scores = self._add_scores(self.scores, change)
        self.state = self.rows.evaluate(self.scores)

    def _iterate(self, lam: float, target: float, monitor: Monitor) -> str:
        objective = self.state.loss + self._penalty_value(self.W)
        gap, self.rebuilt = np.inf, 0
        self.movements.clear()
        for step in range(MAX_STEPS):
            G = self.cache.gradient(self.state.residual) / self.n
            self.passes += len(self.cache) / max(1, self.d)
            if not self.problem.fit_intercept:
                G[:, 0] = 0
            previous, gap = gap, self._gap(G)
            if step and np.isfinite(previous):
                self.contraction = gap / previous
            if not np.isfinite(gap):
                return "diverged"
            if gap <= target:
                if not self._add_violators(lam, gap, target, G):
                    return "converged"
                continue
            if self.passes > monitor.max_epochs:
                return "max_iterations"
            self._prepare_curvature(G, gap, target)
            objective, moved = self._step(G, gap, target, objective)
            if not moved:
                return "stalled"
        return "max_iterations"

    def _full_gradient(self, G: np.ndarray | None = None) -> np.ndarray:
        """Gradient of all features (K, d), from that of the cached columns ``G`` where these are all."""
        if G is not None and len(self.cache) - 1 == len(self.alive):
            whole = np.zeros((self.K, self.d))
            whole[:, self.cache.features[1:]] = G[:, 1:]
            return whole
        self.passes += 1
        self.counts["full"] += 1
        return self.cache.full_gradient(self.state.residual) / self.n

    def _add_violators(self, lam: float, gap: float, target: float, G: np.ndarray) -> bool:
        """Check all features; cache those that would break the tolerance.  Returns whether there were any."""
        self.G = self._full_gradient(G)
        rho = self.problem.penalty.l1_ratio
        signed = -self.G if self.problem.penalty.nonnegative else np.abs(self.G)
        excess = np.maximum(signed - lam * rho * self.factor, 0)
        excess[:, self.cache.features[1:]] = 0
        if rho < 1:
            per_feature = (excess**2).sum(axis=0) / (2 * self.floor[0] * np.maximum(self.factor, 1e-300))
        else:
            per_feature = excess.max(axis=0) / lam * max(self._penalty_value(self.W), target)
        total = per_feature.sum() if rho < 1 else per_feature.max()
        if gap + total <= 1.25 * target:
            return False
        self._cache(np.flatnonzero(per_feature > 0), lam)
        return True

    # -- the model -------------------------------------------------------------------------------

    def _prepare_curvature(self, G: np.ndarray, gap: float, target: float) -> None:
        """Bring each block up to the present working set; rebuild where its age costs more than a rebuild."""
        size = -G if self.problem.penalty.nonnegative else np.abs(G)
        wanted = (self.W != 0) | (size > self.l1 * (1 - 1e-3)) | (self.l1 == 0)
        if not self.problem.fit_intercept:
            wanted[:, 0] = False
        if self.coupled and blocks_are_cheaper(self.n, len(self.cache), wanted.sum(axis=1)):
            self.coupled = False
            self.blocks = [CurvatureBlock(self.cache, False) for _ in range(self.K)]
        stale = self._is_stale(wanted, gap, target)
        self.rebuilt += stale
        for index, block in enumerate(self.blocks):
            mask = wanted if self.coupled else wanted[index : index + 1]
            missing = mask.copy()
            missing[block.output if self.coupled else 0, block.column] = False
            if stale or len(block) == 0:
                self.counts["hessians"] += 1
                self._rebuild(block, index, mask)
            elif missing.any():
                self.counts["extended"] += 1
                if not self.coupled:
                    near = mask | (size[index : index + 1] > NEAR * self.l1)
                    near[0, block.column] = False
                    missing = near
                k, c = np.nonzero(missing)
                block.extend(k + (0 if self.coupled else index), c)

    def _rebuild(self, block: CurvatureBlock, index: int, mask: np.ndarray) -> None:
        k, c = np.nonzero(mask)
        if self.coupled:
            block.rebuild(k, c, self.state.mean, self.weight)
        else:
            root = np.sqrt(self.rows.curvature(self.state.mean, index)).astype(self.dtype, copy=False)
            block.rebuild(k + index, c, root[None], None)

    def _is_stale(self, wanted: np.ndarray, gap: float, target: float) -> bool:
        """Whether a fresh Hessian pays; twice per lambda at the most, and never where it is constant."""
        if self.problem.family.name == "gaussian" or self.rebuilt >= 2:
            return False
        per_block = np.array([wanted.sum()]) if self.coupled else wanted.sum(axis=1)
        to_go = np.log(max(gap / target, 1.001))
        fresh = 1e-3 if self.coupled or not self.rows.coupled else 0.75
        return rebuild_pays(self.n, len(self.cache), self.K, per_block, to_go, self.contraction, fresh)

    @property
    def inexact(self) -> bool:
        """Whether the model's Hessian is known to be off: blocks of a coupled one, or one that contracts slowly."""
        return (self.rows.coupled and not self.coupled) or self.contraction > SLOW

    def _model_minimizer(self, G: np.ndarray, gap: float, target: float) -> np.ndarray:
        """Minimizer of the penalized quadratic model, (K, m)."""
        V = self.W.copy()
        tol = max(TIGHT * target, LOOSE * gap) if self.inexact else max(0.3 * target, 0.003 * gap)
        tol /= len(self.blocks)
        scale = METRIC if self.rows.coupled and not self.coupled else 1.0  # the model's Hessian is scale * block
        for block in self.blocks:
            k, c = block.output, block.column
            v, r = self.W[k, c], G[k, c] / scale
            self.counts["rounds"] += solve_quadratic(
                block.matrix,
                r,
                v,
                self.l1[c] / scale,
                self.l2[c] / scale,
                tol=tol / scale,
                floor=self.floor[c] / scale,
                factor=block.factor,
                nonnegative=self.problem.penalty.nonnegative,
            )
            V[k, c] = v
        return V

    def _step(self, G: np.ndarray, gap: float, target: float, objective: float) -> tuple[float, bool]:
        """One proximal Newton step with backtracking; returns (objective, whether anything moved)."""
        self.counts["steps"] += 1
        V = self._model_minimizer(G, gap, target)
        change = V - self.W
        if not change.any():
            return objective, False
        moved = self._add_scores(np.zeros(self.scores.shape, dtype=self.dtype), change)
        if self.inexact:
            value = self._combined_step(V, change, moved, G, objective + 0.1 * target)
            if value is not None:
                return value, True
            self.counts["restarts"] += 1
            self.movements.clear()
        for fraction in (1.0, 0.5, 0.25, 0.1, 0.02):
            W = self.W + fraction * change
            scores = self.scores + fraction * moved
            state = self.rows.evaluate(scores)
            value = state.loss + self._penalty_value(W)
            if value <= objective + 0.1 * target:
                self.W, self.scores, self.state = W, scores, state
                return value, True
            self.counts["halved"] += 1
            self.contraction = 1.0
        return objective, False

    def _combined_step(
        self, V: np.ndarray, change: np.ndarray, moved: np.ndarray, G: np.ndarray, limit: float
    ) -> float | None:
        """Go to the best point spanned by the step and the last movements; None where that does not descend."""
        directions = self.movements.directions(change, moved)
        sign = np.sign(np.where(V != 0, V, self.W))
        slope = G + self.l1 * sign + self.l2 * self.W
        coefficients = best_combination(directions, self.rows, self.state.mean, slope, self.l2)
        step = sum(c * d for c, (d, _) in zip(coefficients, directions, strict=True))
        moved = sum(self.dtype.type(c) * s for c, (_, s) in zip(coefficients, directions, strict=True))
        W = self.W + step
        crossed = ((V == 0) | (W * V < 0)) & (W != 0) & (self.l1 > 0)
        if crossed.any():  # the model's support holds
            moved = self._add_scores(moved, np.where(crossed, -W, 0.0))
            W[crossed] = 0.0
        scores = self.scores + moved
        state = self.rows.evaluate(scores)
        value = state.loss + self._penalty_value(W)
        if value > limit:
            return None
        self.movements.add(W - self.W, moved)
        self.W, self.scores, self.state = W, scores, state
        return value

    def _solution(self, status: str) -> Solution:
        weight = torch.zeros((self.problem.n_outputs, self.d), dtype=torch.float64)
        features = torch.from_numpy(self.cache.features[1:])
        W = torch.from_numpy(self.W)
        if self.two_class:
            W = torch.cat([-W / 2, W / 2])
        weight[:, features] = W[:, 1:]
        bias = W[:, 0].clone()
        self.returned = (weight, bias)
        return Solution(weight, bias, status, self.passes)
