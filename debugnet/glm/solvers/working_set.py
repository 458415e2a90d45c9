"""What the Newton solvers share: weights on cached columns, and how they go from one lambda to the next.

A solver keeps the columns of the features that may take part (:class:`.columns.ColumnCache`), weights and scores on
them, and the last two solutions with their full gradients.  At a new lambda both are extrapolated: the gradients to
name the features that come in (screening), the weights to start from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.design import SingleProcess
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.fista import Fista
from debugnet.glm.solvers.row_losses import Evaluated, RowLoss

#: Own tolerance relative to the one asked for: room for the certificate's own view of the point.
SAFETY = 0.75
#: Share of the threshold from which an extrapolated gradient brings its feature into the working set.
SCREEN = 0.98
#: Up to this many features all columns are gathered at once.
ALL_COLUMNS = 128
#: Below this tolerance float32 products are not exact enough.
FLOAT32_TOL = 3e-8
#: Parts of a step that are tried in turn until the objective does not rise.
FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.02)


class WorkingSet:
    """Base of the Newton solvers; they say what a weight's penalty is.

    Parameters
    ----------
    problem : GLMProblem
    rows : RowLoss
        Loss of the outputs that are solved for.
    n_outputs : int
        K.
    offset : ndarray (K, n) or None
    dtype : numpy dtype
        Of the cached columns and of products with them; weights and scores are float64.
    """

    def __init__(
        self, problem: GLMProblem, rows: RowLoss, n_outputs: int, offset: np.ndarray | None, dtype: np.dtype
    ) -> None:
        self.problem, self.rows, self.K, self.offset, self.dtype = problem, rows, n_outputs, offset, dtype
        self.n, self.d = problem.design.shape
        self.factor = problem.penalty.factor.numpy()
        self.alive = problem.design.alive.numpy()
        self.cache = ColumnCache(problem.design, dtype)
        self.cache.add(np.flatnonzero(self.alive & ((self.factor == 0) | (self.alive.sum() <= ALL_COLUMNS))))
        self.passes = 0.0
        self.counts = {"full": 0, "halved": 0}
        self.floor = np.empty(0)  # ridge (m,) that the gap assumes of each column
        self.G: np.ndarray | None = None  # full gradients at the last two solutions
        self.G_before: np.ndarray | None = None
        self.last: tuple[float, np.ndarray] | None = None
        self.before: tuple[float, np.ndarray] | None = None
        self._place(np.zeros((self.K, len(self.cache))))  # cached columns; column 0 is the bias

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve at one lambda; see :mod:`debugnet.glm.solvers.base`."""
        if lam == 0:  # nothing is sparse any more: a working set has no point
            return Fista(self.problem).solve(lam, weight, bias, monitor, resume)
        if resume is not None:
            weight, bias = resume["weight"], resume["bias"]
        self.passes = 0.0
        if monitor.tol < FLOAT32_TOL and self.dtype == np.float32:
            self._start(self.problem, np.dtype(np.float64))
        self._take_start(weight, bias)
        self._set_penalties(lam)
        fresh = self._enter(lam)
        status = self._iterate(lam, SAFETY * monitor.tol * monitor.null_objective, monitor)
        self._leave(lam, fresh)
        return self._solution(status)

    # -- what a solver says of itself and its penalty --------------------------------------------

    def _start(self, problem: GLMProblem, dtype: np.dtype) -> None:
        """Begin, or begin again in another dtype."""
        raise NotImplementedError

    def _take_start(self, weight: Tensor, bias: Tensor) -> None:
        """Go on from weights (K, d) and a bias (K,) unless they are what was returned last."""
        raise NotImplementedError

    def _iterate(self, lam: float, target: float, monitor: Monitor) -> str:
        """Step until the duality gap is within ``target``; returns the status."""
        raise NotImplementedError

    def _set_penalties(self, lam: float) -> None:
        """Set the penalties of every cached column for this lambda, and ``floor``."""
        raise NotImplementedError

    def _penalty_value(self, W: np.ndarray) -> float:
        """Penalty of weights (K, m)."""
        raise NotImplementedError

    def _screened_size(self, G: np.ndarray) -> np.ndarray:
        """Size (d,) of each feature's gradient (K, d), to be compared with lambda."""
        raise NotImplementedError

    def _excess(self, G: np.ndarray, lam: float) -> np.ndarray:
        """How far gradients (K, d) are beyond what keeps a weight at zero, (K, d) or (1, d), at least 0."""
        raise NotImplementedError

    def _turned(self, W1: np.ndarray, W0: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Entries (K, m) or features (m,) of which an extrapolation would leave zero, come from it or cross it."""
        raise NotImplementedError

    def _solution(self, status: str) -> Solution:
        """Where it stands, as all features see it."""
        raise NotImplementedError

    def _state(self) -> dict[str, Tensor]:
        """What a stopped solve goes on from."""
        found = self._solution("max_iterations")
        return {"weight": found.weight, "bias": found.bias}

    # -- weights and scores ----------------------------------------------------------------------

    def _place(self, W: np.ndarray) -> None:
        """Stand at the weights (K, m)."""
        self.W = np.ascontiguousarray(W)
        scores = np.zeros((self.K, self.n)) if self.offset is None else self.offset.copy()
        self.scores = self._add_scores(scores, self.W)
        self.state: Evaluated = self.rows.evaluate(self.scores)

    def _start_at(self, W: np.ndarray, bias: np.ndarray) -> None:
        """Stand at weights (K, d) and a bias (K,) from elsewhere; what is known of earlier lambdas is forgotten."""
        self.cache.add(np.flatnonzero(W.any(axis=0)))
        self._place(np.column_stack([bias, W[:, self.cache.features[1:]]]))
        self.G = self.G_before = self.last = self.before = None

    def _add_scores(self, scores: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Add ``change @ columns`` in place: products of the increments alone, in the columns' dtype."""
        if change.any():
            scores += self.cache.scores(change)
            self.passes += np.count_nonzero(change.any(axis=0)) / max(1, self.d)
        return scores

    def _cache(self, features: np.ndarray, lam: float) -> None:
        before = len(self.cache)
        self.cache.add(features)
        if len(self.cache) > before:
            self.W = np.pad(self.W, ((0, 0), (0, len(self.cache) - before)))
            self._set_penalties(lam)

    def _cached_factor(self) -> np.ndarray:
        """Penalty factor (m,) of every cached column; 0 for the bias."""
        return np.where(self.cache.features >= 0, self.factor[self.cache.features], 0.0)

    def _set_floor(self, least: float) -> None:
        # The certificate moves the bias to its optimum by itself, but not the weights of unpenalized features.
        free = (self._cached_factor() == 0) & (self.cache.features >= 0)
        self.floor = np.where(free, 1e-7 * least, least)

    # -- gradients -------------------------------------------------------------------------------

    def _gradient(self) -> np.ndarray:
        """Gradient of the loss on the cached columns (K, m)."""
        G = self.cache.gradient(self.state.residual) / self.n
        self.passes += len(self.cache) / max(1, self.d)
        if not self.problem.fit_intercept:
            G[:, 0] = 0
        return G

    def _full_gradient(self, G: np.ndarray | None = None) -> np.ndarray:
        """Gradient of all features (K, d), from that of the cached columns ``G`` where these are all."""
        if G is not None and len(self.cache) - 1 == self.alive.sum():
            whole = np.zeros((self.K, self.d))
            whole[:, self.cache.features[1:]] = G[:, 1:]
            return whole
        self.passes += 1
        self.counts["full"] += 1
        return self.cache.full_gradient(self.state.residual) / self.n

    def _add_violators(self, lam: float, gap: float, target: float, G: np.ndarray) -> bool:
        """Check all features; cache those that would break the tolerance.  Returns whether there were any."""
        self.G = self._full_gradient(G)
        excess = self._excess(self.G, lam)
        excess[:, self.cache.features[1:]] = 0
        if self.problem.penalty.l1_ratio < 1:
            per_feature = (excess**2).sum(axis=0) / (2 * self.floor[0] * np.maximum(self.factor, 1e-300))
            total = per_feature.sum()
        else:
            per_feature = excess.max(axis=0) / lam * max(self._penalty_value(self.W), target)
            total = per_feature.max()
        if gap + total <= 1.25 * target:
            return False
        self._cache(np.flatnonzero(per_feature > 0), lam)
        return True

    def _descend(self, change: np.ndarray, moved: np.ndarray, limit: float) -> tuple[float, float] | None:
        """Go along ``change`` (scores: ``moved``) as far as the objective stays within ``limit``.

        Returns (fraction, objective), or None where nothing of it does.
        """
        for fraction in FRACTIONS:
            W = self.W + fraction * change
            scores = self.scores + fraction * moved
            state = self.rows.evaluate(scores)
            value = state.loss + self._penalty_value(W)
            if value <= limit:
                self.W, self.scores, self.state = W, scores, state
                return fraction, value
            self.counts["halved"] += 1
        return None

    # -- from one lambda to the next -------------------------------------------------------------

    def _enter(self, lam: float) -> bool:
        """Screen and extrapolate where ``lam`` is a new one; returns whether it is."""
        fresh = self.last is None or self.last[0] != lam
        if fresh:
            self._screen(lam)
            self._extrapolate(lam)
        return fresh

    def _leave(self, lam: float, fresh: bool) -> None:
        """Remember the solution."""
        if fresh and self.last is not None:
            self.before = self.last
        self.last = (lam, self.W.copy())

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
        self._cache(np.flatnonzero((self._screened_size(ahead) >= threshold * self.factor) & self.alive), lam)

    def _extrapolate(self, lam: float) -> None:
        """Go on in log lambda as between the last two solutions, for entries that stay on their side of zero.

        Not where that is worse than the last solution: far apart on the path lines mislead.
        """
        if self.last is None or self.before is None:
            return
        (lam1, W1), (lam0, W0) = self.last, self.before
        ratio = np.log(lam / lam1) / np.log(lam1 / lam0)
        if ratio > 2:
            return
        W0 = np.pad(W0, ((0, 0), (0, W1.shape[1] - W0.shape[1])))
        step = ratio * (W1 - W0)
        bias = step[:, 0].copy()
        step[np.broadcast_to(self._turned(W1, W0, step), step.shape)] = 0
        step[:, 0] = bias  # it may cross zero as it likes
        change = np.zeros_like(self.W)
        change[:, : step.shape[1]] = step
        W, scores = self.W + change, self._add_scores(self.scores.copy(), change)
        state = self.rows.evaluate(scores)
        if state.loss + self._penalty_value(W) <= self.state.loss + self._penalty_value(self.W):
            self.W, self.scores, self.state = W, scores, state


def refusal_of_newton(problem: GLMProblem) -> str | None:
    """Why no Newton solver can solve this problem, or None."""
    if problem.penalty.nonnegative and bool((problem.penalty.factor == 0).any()):
        return "cannot keep unpenalized weights non-negative"
    if problem.device.type != "cpu":
        return "runs on the CPU"
    if not isinstance(problem.communicator, SingleProcess):
        return "needs all rows in one process"
    return None


def needs_float64(problem: GLMProblem) -> bool:
    """Whether float32 columns would lose what matters: features far from zero, or given in float64."""
    return problem.design.far_from_zero or problem.design.X.dtype == torch.float64
