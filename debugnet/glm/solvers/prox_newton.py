"""Proximal Newton on a working set of coefficients, with Hessians kept along the path.

At each lambda: extrapolate the last two solutions, then repeat {gradient on the cached columns; minimize the
quadratic model plus the penalty (:mod:`.quadratic`); step} until the duality gap over the working set is below
tolerance; then one gradient over all features, which either certifies or names the violators to add.  The Hessian
may be stale (the gradient never is): it is built again where the extra steps that its age costs would cost more.
Where the support of a softmax is so dense that its Hessian costs too much, :mod:`.shift_metric` takes its place.
Products run in float32 with float64 sums across row blocks; scores, weights and decisions are float64.

Two classes under softmax are solved as one logistic output: by symmetry the optimum is (-w/2, w/2).

Sources: Lee, Sun & Saunders 2014 (proximal Newton); Tibshirani et al. 2012 (strong rules); Friedman, Hastie &
Tibshirani 2010 (path, coordinate descent).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.curvature import CurvatureBlock
from debugnet.glm.solvers.quadratic import penalized_gap, solve_quadratic
from debugnet.glm.solvers.row_losses import row_loss, row_weights
from debugnet.glm.solvers.shift_metric import ShiftMetric
from debugnet.glm.solvers.step_costs import metric_is_cheaper, rebuild_pays
from debugnet.glm.solvers.subspace import LastMovement, best_combination
from debugnet.glm.solvers.working_set import WorkingSet, needs_float64, refusal_of_newton

TIGHT, LOOSE = 0.02, 0.001
#: Coefficients this near to their threshold join a Hessian that has to grow anyway.
NEAR = 0.95
#: Gap left by a step from which the model counts as inexact.
SLOW = 0.1
#: Steps without a smaller gap that count as no progress.
PATIENCE = 200
#: The shift metric may cost so many times a lambda with the whole Hessian before that takes over again.
PERSISTENCE = 4
#: Curvature that the gap assumes of unpenalized features in the shift metric, as a share of the others' ridge.
FREE_FLOOR = 1e-3


class ProxNewton(WorkingSet):
    """See the module's docstring; the contract is :class:`debugnet.glm.solvers.base.Solver`."""

    name: ClassVar[str] = "prox-newton"
    trusts_itself: ClassVar[bool] = True
    compiled: ClassVar[bool] = True
    metric_tried: bool = False

    def __init__(self, problem: GLMProblem) -> None:
        self._start(problem, np.dtype(np.float64 if needs_float64(problem) else np.float32))

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem, or None."""
        if not problem.penalty.entrywise:
            return "needs a penalty per coefficient (elastic_net)"
        return refusal_of_newton(problem)

    def _start(self, problem: GLMProblem, dtype: np.dtype) -> None:
        multinomial = problem.family.name == "multinomial"
        self.two_class = multinomial and problem.n_outputs == 2 and not problem.penalty.nonnegative
        offset = None if problem.offset is None else np.ascontiguousarray(problem.offset.numpy().T)
        if offset is not None and self.two_class:
            offset = offset[1:] - offset[:1]
        self.weight = row_weights(problem, dtype)
        rows = row_loss(problem, self.weight, dtype, two_class=self.two_class)
        super().__init__(problem, rows, 1 if self.two_class else problem.n_outputs, offset, dtype)
        self.coupled = rows.coupled
        self.blocks = [CurvatureBlock(self.cache, self.coupled) for _ in range(1 if self.coupled else self.K)]
        self.returned: Tensor | None = None
        self.contraction = 0.0
        self.movement = LastMovement()
        self.metric: ShiftMetric | None = None
        self.counts |= {"hessians": 0, "steps": 0, "extended": 0, "rounds": 0, "restarts": 0, "metric": 0}

    # -- penalties, gaps -------------------------------------------------------------------------

    def _set_penalties(self, lam: float) -> None:
        """l1 and l2 of every cached column (m,); 0 for the bias."""
        rho, half = self.problem.penalty.l1_ratio, 0.5 if self.two_class else 1.0
        factor = self._cached_factor()
        self.l1, self.l2 = lam * rho * factor, lam * (1 - rho) * factor * half
        self._set_floor(lam * max(1 - rho, 0.01) * half)
        self._tile()

    def _tile(self) -> None:
        self._tiled = tuple(np.tile(a, self.K) for a in (self.l1, self.l2, self.floor))

    def _penalty_value(self, W: np.ndarray) -> float:
        return float((np.abs(W) @ self.l1 + 0.5 * (W * W) @ self.l2).sum())

    def _screened_size(self, G: np.ndarray) -> np.ndarray:
        size: np.ndarray = np.abs(G).max(axis=0) / self.problem.penalty.l1_ratio
        return size

    def _excess(self, G: np.ndarray, lam: float) -> np.ndarray:
        penalty = self.problem.penalty
        signed = -G if penalty.nonnegative else np.abs(G)
        return np.maximum(signed - lam * penalty.l1_ratio * self.factor, 0)

    def _turned(self, W1: np.ndarray, W0: np.ndarray, step: np.ndarray) -> np.ndarray:
        return (W1 == 0) | (W0 == 0) | ((W1 + step) * W1 <= 0)

    def _gap(self, G: np.ndarray) -> float:
        """Duality gap over the cached columns (an indicator where rho = 1)."""
        gap = penalized_gap(G.ravel(), self.W.ravel(), *self._tiled, self.problem.penalty.nonnegative)
        if self.problem.penalty.l1_ratio == 1:  # theta has to shrink by the largest excess: that costs lam ||W||_1
            with np.errstate(divide="ignore", invalid="ignore"):
                excess = np.where(self.l1 > 0, np.abs(G) / self.l1 - 1, 0.0).max()
            gap += max(excess, 0.0) * self._penalty_value(self.W)
        return gap

    # -- one lambda ------------------------------------------------------------------------------

    def _take_start(self, weight: Tensor, bias: Tensor) -> None:
        """Go on from (weight, bias) unless they are what was returned last."""
        if self.returned is not None and torch.equal(weight, self.returned):
            return
        W, b = weight.numpy(), bias.numpy()
        self._start_at(*((W[1:] - W[:1], b[1:] - b[:1]) if self.two_class else (W, b)))

    def _iterate(self, lam: float, target: float, monitor: Monitor) -> str:
        objective = self.state.loss + self._penalty_value(self.W)
        gap, least, waited, self.rebuilt, self.in_metric = np.inf, np.inf, 0, 0, 0
        self.movement.clear()
        if self.metric is not None:
            self._begin_metric()
        while waited < PATIENCE:
            G = self._gradient()
            previous, gap = gap, self._gap(G)
            least, waited = (gap, 0) if gap < least else (least, waited + 1)
            if np.isfinite(previous):
                self.contraction = gap / previous
            if not np.isfinite(gap):
                return "diverged"
            if gap <= target:
                if not self._add_violators(lam, gap, target, G):
                    return "converged"
                least = np.inf
                continue
            if self.passes > monitor.max_epochs:
                return "max_iterations"
            monitor.tick(self._state)
            self._prepare_model(G, gap, target)
            objective, moved = self._step(G, gap, target, objective)
            if not moved:
                break
        return "stalled"

    # -- the model -------------------------------------------------------------------------------

    def _prepare_model(self, G: np.ndarray, gap: float, target: float) -> None:
        """Bring the model up to the present working set, or change it: to the shift metric, and back if that crawls.

        A Hessian is built again where its age costs more than that.
        """
        if self.metric is not None and not self._leaves_metric():
            return
        size = -G if self.problem.penalty.nonnegative else np.abs(G)
        wanted = (self.W != 0) | (size > self.l1 * (1 - 1e-3)) | (self.l1 == 0)
        if not self.problem.fit_intercept:
            wanted[:, 0] = False
        if (
            self.coupled
            and not self.metric_tried
            and metric_is_cheaper(self.n, len(self.cache), self.K, int(wanted.sum()))
        ):
            self.metric_tried, self.blocks = True, []
            self._begin_metric()
            return
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

    def _begin_metric(self) -> None:
        """Take the curvatures of the shift metric where it stands."""
        scale = 1.0 if self.metric is None else self.metric.scale
        self.metric = ShiftMetric(self.cache, self.state.mean, self.weight, scale)
        # Steps of first order cannot take the slope of unpenalized weights to rounding; the certificate does.
        self.floor = np.maximum(self.floor, FREE_FLOOR * self.floor[0])
        self._tile()
        self.movement.clear()

    def _leaves_metric(self) -> bool:
        """Keep the metric up to the working set; back to the Hessian, for good, where it took too many steps."""
        assert self.metric is not None
        self.in_metric += 1
        size = int(np.count_nonzero(self.W))
        if not metric_is_cheaper(self.n, len(self.cache), self.K, size, self.in_metric / PERSISTENCE):
            self.metric, self.blocks, self.contraction = None, [CurvatureBlock(self.cache, True)], 0.0
            self.movement.clear()
            return True
        if len(self.metric) < len(self.cache):
            self._begin_metric()
        return False

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
        return rebuild_pays(self.n, len(self.cache), self.K, per_block, to_go, self.contraction)

    @property
    def inexact(self) -> bool:
        """Whether the model's Hessian is known to be off: a metric in its place, or one that contracts slowly."""
        return self.metric is not None or self.contraction > SLOW

    def _proposal(self, G: np.ndarray, gap: float, target: float) -> np.ndarray:
        """Where the present model is least, (K, m)."""
        if self.metric is None:
            return self._model_minimizer(G, gap, target)
        self.counts["metric"] += 1
        return self.metric.minimizer(self.W, G, self.l1, self.l2, self.problem.penalty.nonnegative)

    def _model_minimizer(self, G: np.ndarray, gap: float, target: float) -> np.ndarray:
        """Minimizer of the penalized quadratic model, (K, m)."""
        V = self.W.copy()
        tol = max(TIGHT * target, LOOSE * gap) if self.inexact else max(0.3 * target, 0.003 * gap)
        tol /= len(self.blocks)
        for block in self.blocks:
            k, c = block.output, block.column
            v, r = self.W[k, c], G[k, c]
            self.counts["rounds"] += solve_quadratic(
                block.matrix,
                r,
                v,
                self.l1[c],
                self.l2[c],
                tol=tol,
                floor=self.floor[c],
                factor=block.factor,
                nonnegative=self.problem.penalty.nonnegative,
            )
            V[k, c] = v
        return V

    def _step(self, G: np.ndarray, gap: float, target: float, objective: float) -> tuple[float, bool]:
        """One proximal Newton step with backtracking; returns (objective, whether anything moved)."""
        self.counts["steps"] += 1
        V = self._proposal(G, gap, target)
        change = V - self.W
        if not change.any():
            return objective, False
        moved = self._add_scores(np.zeros(self.scores.shape, dtype=self.dtype), change)
        if self.inexact:
            value = self._combined_step(V, change, moved, G, objective + 0.1 * target)
            if value is not None:
                return value, True
            self.counts["restarts"] += 1
            self.movement.clear()
        found = self._descend(change, moved, objective + 0.1 * target)
        if found is None:
            return objective, False
        fraction, value = found
        if fraction < 1:
            self.contraction = 1.0
            if self.metric is not None:
                self.metric.learn(fraction)
        return value, True

    def _combined_step(
        self, V: np.ndarray, change: np.ndarray, moved: np.ndarray, G: np.ndarray, limit: float
    ) -> float | None:
        """Go to the best point spanned by the step and the last movement; None where that does not descend."""
        directions = self.movement.directions(change, moved)
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
        self.movement.keep(W - self.W, moved)
        if self.metric is not None:
            self.metric.learn(coefficients[0])
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
        self.returned = weight
        return Solution(weight, bias, status, self.passes)
