"""Fitting a whole path: ``fit_path``, ``iter_path`` and the prepared fit behind them."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debugnet.glm.design import SingleProcess
from debugnet.glm.lambda_grid import NullModel
from debugnet.glm.metrics import evaluate
from debugnet.glm.optimality import Certificate, certify, certify_many
from debugnet.glm.options import FitOptions, make_options
from debugnet.glm.preparation import Preparation, prepare
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import MAX_RETRIES, Solution
from debugnet.regularization_path import PathPoint, RegularizationPath

#: A solver that trusts itself is certified after so many lambdas, or so many seconds, at once.
BATCH, BATCH_SECONDS = 8, 10.0
#: A lambda below this share of the last one is approached through loosely solved ones in between.
LARGEST_JUMP = 0.4
LOOSE_TOL = 1e-3


def _takes_fit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show every option of :class:`FitOptions` in the signature (help, completion)."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    extra = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(FitOptions)
    ]
    function.__signature__ = signature.replace(parameters=own + extra)  # type: ignore[attr-defined]
    return function


@_takes_fit_options
def fit_path(X: np.ndarray | Tensor, y: Any, **options: Any) -> RegularizationPath:
    """Fit sparse linear models along a path of lambdas, each with its certificate.

    Minimizes ``(1/sum w) sum_i w_i l(y_i, W x_i + b + o_i) + lam (l1_ratio P1(W) + (1 - l1_ratio)/2
    ||W||_F^2)`` over standardized x, for descending lam (docs/architecture.md has l and P1).

    Parameters
    ----------
    X : ndarray or Tensor (n, d), float16, float32 or float64
        Raw features; a memory map is read by row blocks.  Never modified, never copied whole.
    y : array (n,) or (n, K)
        Labels 0..K-1, 0/1 per label, or values.
    **options
        The fields of :class:`debugnet.glm.FitOptions`.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    InputError, UsageError
        One line naming what cannot be fitted and the way out.
    """
    fit = PathFit(X, y, make_options(**options))
    return RegularizationPath.from_points(list(fit.points()), fit.standardizer, fit.meta)


@_takes_fit_options
def iter_path(X: np.ndarray | Tensor, y: Any, *, start: PathPoint | None = None, **options: Any) -> Iterator[PathPoint]:
    """Yield the points of :func:`fit_path` one by one; everything is checked before the first.

    Parameters
    ----------
    X, y, **options
        As :func:`fit_path` takes them: (n, d), (n,) or (n, K), and the fields of :class:`debugnet.glm.FitOptions`.
    start : PathPoint, optional
        A finished point of the same problem: only smaller lambdas are fitted, warm-started from
        it.  To resume pass the last point; to extend pass ``lambdas`` (or a smaller
        ``lambda_min_ratio``) as well; to refine pass the point above and the finer ``lambdas``.
    """
    return PathFit(X, y, make_options(**options)).points(start)


class PathFit:
    """A checked, standardized problem with its null model and grid, ready to be solved.

    Attributes
    ----------
    standardizer : Standardizer
    lambdas : ndarray (L,), float64
        Descending.
    meta : dict
        What the path records: family, penalty, l1_ratio, solver, solver_reason, tol, lambda_max, ...
    """

    def __init__(self, X: np.ndarray | Tensor, y: Any, options: FitOptions) -> None:
        self.options = options
        self.prepared: Preparation = prepare(X, y, options)
        self.problem: GLMProblem = self.prepared.problem
        self.null: NullModel = self.prepared.null
        self.standardizer = self.prepared.standardizer
        self.lambdas = self.prepared.lambdas
        self.meta = self.prepared.meta

    def points(self, start: PathPoint | None = None, enough: Callable[[], bool] | None = None) -> Iterator[PathPoint]:
        """Yield the points with lam below ``start``'s, warm-started from it (from the null model by default).

        ``enough`` is asked before each lambda is solved; once it says so, what is solved comes and nothing more.
        """
        # Another number of ranks, or of threads, moves the grid by a rounding error: not a new lambda.
        lambdas = self.lambdas if start is None else self.lambdas[self.lambdas < start.lam * (1 - 1e-9)]
        weight, bias = self.null.weight, self.null.bias
        if start is not None:
            weight, bias = self.prepared.outputs.compress(start, self.problem)
        lam = self.null.lambda_max if start is None else start.lam
        return self._stop_early(self._solve(lambdas, lam, weight, bias, enough))

    def warm_up(self) -> None:
        """Load, or once per installation compile, what the solver runs: some 20 seconds that belong to no lambda."""
        solver = self.prepared.solver
        if not getattr(solver, "compiled", False):
            return
        rng = np.random.default_rng(0)
        X = rng.normal(size=(40, 8)).astype(np.float32)
        y: Any = X[:, :2] + rng.normal(size=(40, 2))
        if self.problem.family.name == "multinomial":
            y = y.argmax(axis=1) + (rng.random(40) < 0.3)
        elif self.problem.family.name == "binomial":
            y = (y > 0).astype(int)
        o = self.options
        tiny = make_options(
            family=self.problem.family.name, penalty=o.penalty, l1_ratio=o.l1_ratio, solver=solver.name, n_lambdas=4,
            device="cpu",
        )  # fmt: skip
        list(PathFit(X, y, tiny).points())

    def _stop_early(self, points: Iterator[PathPoint]) -> Iterator[PathPoint]:
        options, best, quiet = self.options, -math.inf, 0
        name = "r2" if self.prepared.task == "regression" else "accuracy"
        for point in points:
            yield point
            if options.max_features_per_class is not None:
                if np.count_nonzero(point.weight) / len(point.weight) > options.max_features_per_class:
                    return
            if options.patience is not None:
                value = point.metrics["val"][name]
                best, quiet = (value, 0) if value > best else (best, quiet + 1)
                if quiet >= options.patience:
                    return

    def _solve(
        self, lambdas: np.ndarray, last: float, weight: Tensor, bias: Tensor, enough: Callable[[], bool] | None
    ) -> Iterator[PathPoint]:
        """Solve, certify (in batches where the solver allows) and yield."""
        solver = self.prepared.make_solver()
        batch_size = self._batch_size() if solver.trusts_itself else 1
        seconds = BATCH_SECONDS if isinstance(self.problem.communicator, SingleProcess) else math.inf  # clocks differ
        pending: list[_Pending] = []
        certificate = certify(self.problem, max(last, 1e-300), weight, bias)
        for lam in lambdas:
            if enough is not None and enough():
                break
            if not pending:
                began = time.perf_counter()
            point = self._approach(solver, float(lam), last, weight, bias, certificate)
            pending.append(point)
            weight, bias, last = point.solution.weight, point.solution.bias, float(lam)
            certificate = point.monitor.certificate
            if len(pending) >= batch_size or time.perf_counter() - began > seconds:
                finished = self._certify(solver, pending)
                certificate = pending[-1].monitor.certificate
                weight, bias = certificate.weight, certificate.bias
                pending = []
                yield from finished
        yield from self._certify(solver, pending)

    def _batch_size(self) -> int:
        """Lambdas per certificate pass, so that their scores and residuals take an eighth of X or 32 MB at most."""
        X, K, n = self.problem.design.X, self.problem.n_outputs, self.problem.total_rows  # the same on every rank
        return max(1, min(BATCH, max(n * X.shape[1] * X.element_size() // 8, 32 << 20) // (32 * n * K)))

    def _approach(
        self, solver: Any, lam: float, last: float, weight: Tensor, bias: Tensor, certificate: Certificate
    ) -> _Pending:
        """Solve one lambda, coming down to it in steps where it is far below the last."""
        began = time.perf_counter()
        epochs = 0.0
        saved = self.options.resume_state
        resume = _as_tensors(saved[1], self.problem.device) if saved is not None and saved[0] == lam else None
        if lam >= self.null.lambda_max:  # the null model is the solution: nothing to search
            monitor = PathMonitor(self, lam, self.options.tol, certificate)
            monitor.done(self.null.weight, self.null.bias)
            found = monitor.certificate
            solution = Solution(found.weight, found.bias, "converged", 0.0)
            return _Pending(lam, solution, monitor, 0.0, time.perf_counter() - began)
        for middle in () if resume is not None else _steps_down(last, lam, self.null.lambda_max):
            monitor = PathMonitor(self, middle, max(LOOSE_TOL, self.options.tol), certificate)
            loose = solver.solve(middle, weight, bias, monitor)
            if loose.status == "diverged":
                break
            weight, bias, epochs = loose.weight, loose.bias, epochs + loose.n_epochs
            certificate = monitor.certificate
        monitor = PathMonitor(self, lam, self.options.tol, certificate)
        solution = solver.solve(lam, weight, bias, monitor, resume)
        if solution.status == "diverged" or not bool(torch.isfinite(solution.weight).all()):
            solution = Solution(weight.clone(), bias.clone(), "diverged", solution.n_epochs)
        return _Pending(lam, solution, monitor, epochs, time.perf_counter() - began)

    def _certify(self, solver: Any, pending: list[_Pending]) -> list[PathPoint]:
        """Certify a batch in one pass over X; ask the solver again where a point misses the tolerance."""
        began = time.perf_counter()
        missing = [p for p in pending if not p.monitor.covers(p.solution)]
        if missing:
            points = [(p.lam, p.solution.weight, p.solution.bias) for p in missing]
            for p, certificate in zip(missing, certify_many(self.problem, points, self.options.tol), strict=True):
                p.monitor.take(p.solution.weight, certificate)
        shared = (time.perf_counter() - began) / max(1, len(pending))
        for p in pending:
            p.seconds += shared
            if solver.trusts_itself:
                self._retry(solver, p)
        return [self._point(p) for p in pending]

    def _retry(self, solver: Any, p: _Pending) -> None:
        tol = p.monitor.tol
        for _ in range(MAX_RETRIES):
            if p.monitor.met or p.solution.status == "diverged":
                return
            began = time.perf_counter()
            tol /= 10
            monitor = PathMonitor(self, p.lam, tol, p.monitor.certificate)
            again = solver.solve(p.lam, p.solution.weight, p.solution.bias, monitor)
            p.epochs += p.solution.n_epochs
            if again.status == "diverged":
                return
            p.solution = again
            p.monitor.take(again.weight, certify(self.problem, p.lam, again.weight, again.bias, tol))
            p.seconds += time.perf_counter() - began

    def _point(self, p: _Pending) -> PathPoint:
        """Make the public point, and forget the scores of its certificate."""
        certificate = p.monitor.certificate
        status = "converged" if p.monitor.met else p.solution.status
        if status == "converged" and not p.monitor.met:
            status = "stalled"  # the solver believed to be done; the certificate does not agree
        metrics = {"train": self._train_metrics(certificate)}
        weight, bias = self.prepared.outputs.expand(certificate.weight, certificate.bias)
        for name, split in self.prepared.evaluation.items():
            metrics[name] = split.metrics(weight, bias)
        return PathPoint(
            lam=p.lam,
            weight=weight.cpu().numpy(),
            bias=bias.cpu().numpy(),
            objective=certificate.objective,
            duality_gap=certificate.gap / max(self.null.objective, 1e-300),
            kkt_residual=certificate.kkt_residual,
            status=status,
            n_epochs=p.epochs + p.solution.n_epochs,
            seconds=p.seconds,
            metrics=metrics,
        )

    def _train_metrics(self, certificate: Certificate) -> dict[str, float]:
        problem = self.problem
        return evaluate(
            problem.family,
            self.prepared.task,
            certificate.scores,
            problem.target,
            problem.sample_weight,
            problem.communicator,
            loss=certificate.loss,
        )


class _Pending:
    """One lambda that has been solved and waits for its certificate."""

    def __init__(self, lam: float, solution: Solution, monitor: PathMonitor, epochs: float, seconds: float) -> None:
        self.lam, self.solution, self.monitor = lam, solution, monitor
        self.epochs, self.seconds = epochs, seconds


class PathMonitor:
    """The stopping rule and the checkpoint clock of one lambda (:class:`solvers.base.Monitor`)."""

    def __init__(self, fit: PathFit, lam: float, tol: float, certificate: Certificate) -> None:
        self._fit, self.lam, self.tol = fit, lam, tol
        self.null_objective = fit.null.objective
        self.max_epochs = fit.options.max_epochs
        self.certificate = certificate
        self._certified: Tensor | None = None
        self._next_checkpoint = time.monotonic() + fit.options.checkpoint_seconds

    def done(self, weight: Tensor, bias: Tensor) -> bool:
        """Certify and compare with the tolerance."""
        self.take(weight, certify(self._fit.problem, self.lam, weight, bias, self.tol))
        return self.met

    def take(self, weight: Tensor, certificate: Certificate) -> None:
        """Accept a certificate made elsewhere for ``weight``."""
        self.certificate, self._certified = certificate, weight.clone()

    def covers(self, solution: Solution) -> bool:
        """Whether the last certificate is of this very solution."""
        return self._certified is not None and torch.equal(self._certified, solution.weight)

    @property
    def met(self) -> bool:
        """Whether the last certificate meets the tolerance: by the gap, or where there is none by the KKT residual.

        Without a gap: ``sqrt(tol) / 10`` (1e-4 at the default) times lam, and at lam = 0 a gradient
        below ``tol`` times lambda_max.
        """
        certificate = self.certificate
        if self._certified is None:
            return False
        if not math.isnan(certificate.gap):
            return certificate.gap <= self.tol * self.null_objective
        if self.lam > 0:
            return certificate.kkt_residual <= 0.1 * math.sqrt(self.tol)
        return certificate.kkt_residual <= self.tol * self._fit.null.lambda_max

    def tick(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Hand a checkpoint to the caller when one is due."""
        callback = self._fit.options.checkpoint
        if callback is None or time.monotonic() < self._next_checkpoint:
            return
        callback(self.lam, {name: tensor.cpu().numpy() for name, tensor in state().items()})
        self._next_checkpoint = time.monotonic() + self._fit.options.checkpoint_seconds


def _steps_down(last: float, lam: float, lambda_max: float) -> list[float]:
    """Lambdas between ``last`` and ``lam``, so that no step is larger than :data:`LARGEST_JUMP`."""
    last = min(last, lambda_max)
    target = lam if lam > 0 else 1e-3 * lambda_max
    if last <= 0 or target >= LARGEST_JUMP * last:
        return []
    count = math.ceil(math.log(target / last) / math.log(LARGEST_JUMP))
    return [last * (target / last) ** (i / count) for i in range(1, count)]


def _as_tensors(state: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(device) for name, value in state.items()}
