"""Gaussian paths from the Gram matrix: the data are touched once, whatever the number of lambdas and targets.

With ``G = X'diag(w)X`` and ``C = X'diag(w)Y`` of the standardized, centred features, the objective of target k is
``w'Gw/2 - C_k'w`` plus the penalty, up to a constant, and the bias is ``mean(y) - w'mean(x)``.  Each target is
solved on a working set (sequential strong rule, Tibshirani et al. 2012) by :mod:`.quadratic` in float64, and checked
against the gradient of all features, which the Gram matrix gives too.  The path certifies the result on the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.fista import Fista
from debugnet.glm.solvers.quadratic import MAX_ROUNDS, StaleFactor, penalized_gap, solve_quadratic

#: Own tolerance relative to the one asked for.
SAFETY = 0.5
#: Rows of a block of the float32 product: short sums keep the noise down.
FLOAT32_ROWS = 512
#: Rows of the Gram matrix that are added to at a time.
PANEL = 256
#: Largest number of features: above, d x d products cost more than the passes they save.
MAX_FEATURES = 8192


class Gram:
    """See the module's docstring; the contract is :class:`debugnet.glm.solvers.base.Solver`."""

    name: ClassVar[str] = "gram"
    trusts_itself: ClassVar[bool] = True
    compiled: ClassVar[bool] = True

    def __init__(self, problem: GLMProblem) -> None:
        self.problem = problem
        self.alive = np.flatnonzero(problem.design.alive.cpu().numpy())
        self.factor = problem.penalty.factor.cpu().numpy()[self.alive]
        self.dtype = problem.design.dtype
        self.matrix: np.ndarray | None = None
        self.last: tuple[float, float] | None = None

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem, or None."""
        if problem.family.name != "gaussian":
            return "needs the gaussian family"
        if not problem.penalty.entrywise:
            return "needs a penalty per coefficient (elastic_net)"
        if problem.penalty.nonnegative and bool((problem.penalty.factor == 0).any()):
            return "cannot keep unpenalized weights non-negative"
        if problem.n_features > MAX_FEATURES:
            return f"needs at most {MAX_FEATURES} features"
        return None

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve every target at one lambda; see :mod:`debugnet.glm.solvers.base`."""
        if lam == 0:  # nothing is sparse, and the Gram matrix squares the condition of the data
            return Fista(self.problem).solve(lam, weight, bias, monitor, resume)
        epochs = 0.0
        again = self.last is not None and self.last[0] == lam and monitor.tol < self.last[1]
        if self.matrix is None or (again and self.dtype == torch.float32):
            self.dtype = torch.float64 if again else self.dtype
            self._measure()
            epochs = 1.0
        previous = self.last[0] if self.last is not None else np.inf
        self.last = lam, monitor.tol
        tol = SAFETY * monitor.tol * monitor.null_objective / self.problem.n_outputs
        if self.problem.penalty.l1_ratio == 1:  # the dual point has to shrink there, which costs more than the gap here
            tol *= 0.1
        found = np.array(weight.cpu().numpy())
        rounds = 0
        for k in range(len(found)):
            w = found[k, self.alive]
            rounds = max(rounds, self._solve_target(w, self.right[:, k], lam, previous, tol))
            found[k, self.alive] = w
        shift = np.zeros(len(found))
        if self.problem.fit_intercept:
            shift = self.target_mean - found[:, self.alive] @ self.mean
        status = "converged" if rounds < MAX_ROUNDS else "stalled"
        device = self.problem.device
        return Solution(torch.from_numpy(found).to(device), torch.as_tensor(shift, device=device), status, epochs)

    def _measure(self) -> None:
        """One pass over the data: the Gram matrix, the right-hand sides, and what centring leaves."""
        problem, design = self.problem, self.problem.design
        index = torch.from_numpy(self.alive).to(design.device)
        mean, scale = design.mean[index], design.inverse_scale[index]
        s, K = len(index), problem.n_outputs
        gram = torch.zeros((s, s), dtype=torch.float64, device=design.device)
        sides = torch.zeros((s + 1, K + 1), dtype=torch.float64, device=design.device)
        target = problem.target if problem.offset is None else problem.target - problem.offset
        root = problem.sample_weight.sqrt()[:, None]
        for rows, raw in design.blocks(design.X.dtype, FLOAT32_ROWS):
            raw = raw if s == raw.shape[1] else raw.index_select(1, index)
            block = raw.to(torch.float64, copy=True).sub_(mean).mul_(scale).mul_(root[rows])
            ends = torch.cat([target[rows] * root[rows], root[rows]], dim=1)
            sides[:-1] += block.T @ ends
            sides[-1] += root[rows].T[0] @ ends
            _add_upper(gram, block.to(self.dtype))
        problem.communicator.sum_(gram)
        problem.communicator.sum_(sides)
        centre, goal = sides[:-1, -1], sides[-1, :-1]  # the mean of what is standardized already is near 0
        right = sides[:-1, :-1]
        if problem.fit_intercept:
            gram.addr_(centre, centre, alpha=-1)
            right = right - centre[:, None] * goal
        _mirror(gram)
        self.matrix, self.right = gram.cpu().numpy(), right.cpu().numpy()
        self.mean, self.target_mean = centre.cpu().numpy(), goal.cpu().numpy()

    def _solve_target(self, w: np.ndarray, right: np.ndarray, lam: float, previous: float, tol: float) -> int:
        """Solve one target in place, w (s,) over the living features; returns the rounds of its last working set."""
        assert self.matrix is not None, "_measure comes first"
        rho, nonnegative = self.problem.penalty.l1_ratio, self.problem.penalty.nonnegative
        l1, l2 = lam * rho * self.factor, lam * (1 - rho) * self.factor
        least = lam * max(1 - rho, 0.01)
        floor = np.where(self.factor == 0, 1e-7 * least, least)  # the certificate moves no weight but the bias
        r = self._gradient(w, right)
        if math.isinf(previous):  # the first lambda: as if the last one had been the largest
            previous = float(np.divide(np.abs(r), rho * self.factor, out=np.zeros(len(r)), where=self.factor > 0).max())
        kept = (w != 0) | (np.abs(r) >= rho * (2 * lam - max(previous, lam)) * self.factor)
        while True:
            kept |= (-r if nonnegative else np.abs(r)) > l1
            chosen = np.flatnonzero(kept)
            v, g = w[chosen], r[chosen]
            H = np.ascontiguousarray(self.matrix[np.ix_(chosen, chosen)])
            rounds = solve_quadratic(
                H, g, v, l1[chosen], l2[chosen], tol=0.5 * tol, floor=floor[chosen], factor=StaleFactor(),
                nonnegative=nonnegative,
            )  # fmt: skip
            w[chosen] = v
            r = self._gradient(w, right)
            missed = ~kept & ((-r if nonnegative else np.abs(r)) > l1)
            if not missed.any() or penalized_gap(r, w, l1, l2, floor, nonnegative) <= tol:
                return rounds
            if rounds == MAX_ROUNDS:
                return rounds

    def _gradient(self, w: np.ndarray, right: np.ndarray) -> np.ndarray:
        """``G w - C_k`` (s,)."""
        assert self.matrix is not None, "_measure comes first"
        used = np.flatnonzero(w)
        return w[used] @ self.matrix[used] - right


def _add_upper(gram: Tensor, block: Tensor) -> None:
    """``gram += block.T @ block`` by panels, on and right of the diagonal blocks: no second matrix of that size."""
    for start in range(0, len(gram), PANEL):
        gram[start : start + PANEL, start:] += block[:, start : start + PANEL].T @ block[:, start:]


def _mirror(gram: Tensor) -> None:
    """Copy what is above the diagonal blocks to below them, in place."""
    for start in range(PANEL, len(gram), PANEL):
        gram[start : start + PANEL, :start] = gram[:start, start : start + PANEL].T
