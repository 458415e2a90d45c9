"""The work of ``fit-path``: points from the solver, their metrics, onto the disk one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from debugnet import interrupts
from debugnet.analysis.accuracy import DEFAULT_METRIC, evaluate
from debugnet.artifacts.feature_store import FeatureStore, load_features
from debugnet.artifacts.path_store import PathWriter, load_path, path_points
from debugnet.artifacts.provenance import Provenance, collect
from debugnet.errors import InputError, NotConverged, UsageError
from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from debugnet.heads import LinearHead
from debugnet.progress import Progress, log
from debugnet.recipes.fit_path import FitPath
from debugnet.regularization_path import PathPoint
from debugnet.stages.fit_ranks import ALONE, Ranks
from debugnet.stages.fit_state import STATE_FILE, keep_state, read_state
from debugnet.stages.inputs import has_rows, network_head, usable_rows
from debugnet.stages.row_weights import read_penalty_factors, train_weights

#: Two lambdas closer than this (relative) are the same one.
SAME_LAMBDA = 1e-9
#: Seconds after which a warm-up is said to be a compilation.
NOTE_AFTER = 2.0


def fit(
    options: FitPath,
    output: Path,
    provenance: Provenance,
    *,
    known: Path | None,
    force: bool,
    started: float,
    ranks: Ranks = ALONE,
) -> None:
    """Fit, store and publish; a partial path that is there is gone on with.

    Parameters
    ----------
    options : FitPath
        With method and penalty resolved.
    output : Path
    provenance : Provenance
        Its key names the partial path.
    known : Path or None
        A finished path whose points are kept (``--extend``).
    force : bool
        Discard a partial path made with other options.
    started : float
        ``time.monotonic()`` when the stage began.
    ranks : Ranks
        Who shares the rows; all but the one that leads fit along and write nothing.

    Raises
    ------
    NotConverged
        A network's training diverged before anything was reached; nothing is left behind.
    """
    store = load_features(options.features)
    splits = [name for name in ("train", "val", "test") if has_rows(store, name)]
    if "train" not in splits:
        raise InputError(f"{options.features} has no usable train row: nothing can be fitted")
    if options.patience is not None and "val" not in splits:
        raise UsageError(f"--patience needs validation rows, and {options.features} has none")
    if options.method == "lassonet":
        from debugnet.stages.fit_subsets import wanted_sizes

        wanted_sizes(options, store.n_features)  # refused before anything is trained
    with limited_threads(options.threads):
        problem = _prepare(options, store, splits, output, ranks)  # first: what is refused leaves nothing behind
        if not ranks.leads:
            for _ in _fitted_points(problem, ranks):
                pass
            return
        with PathWriter(output, provenance, force=force) as writer:
            try:
                _write(options, store, splits, problem, writer, provenance, known, started, ranks)
            except (NotConverged, UsageError):
                if options.method == "lassonet":  # its path is without a result: nothing to go on with
                    writer.discard()
                raise


def _write(
    options: FitPath,
    store: FeatureStore,
    splits: Sequence[str],
    problem: PathFit,
    writer: PathWriter,
    provenance: Provenance,
    known: Path | None,
    started: float,
    ranks: Ranks,
) -> None:
    """Solve what is not stored yet, and publish all of it."""
    done = writer.points()
    state = read_state(writer.folder / STATE_FILE)
    problem.options = dataclasses.replace(problem.options, resume_state=state)
    old = path_points(load_path(known)) if known is not None else []
    added = _new_lambdas(problem.lambdas, old, options)
    _announce(problem, done, old, added, ranks)
    scorer, more = Scorer(store, splits, problem), {}
    if options.method == "lassonet":
        from debugnet.stages.fit_subsets import fill_subsets

        more = fill_subsets(options, store, splits, problem, writer, scorer)
    elif options.method == "spred":
        from debugnet.stages.fit_spred import compare_spred, prepare_spred

        layers = prepare_spred(problem, writer.folder, options.steps)
        _fill(problem, writer, done, old, added, scorer, Stopping(options, store.task))
        more = {"spred": compare_spred(layers, writer.points())}
    else:
        _fill(problem, writer, done, old, added, scorer, Stopping(options, store.task), ranks)
    meta = (
        problem.meta
        | more
        | {
            "method": options.method,
            "class_names": store.class_names or _plain_names(problem.problem.n_outputs),
            "task": store.task,
            "n_samples": {name: int(store.splits[name].usable.sum()) for name in splits},
            "network_head": _network_metrics(store, splits),
            "class_weight": options.class_weight,
            "ranks": ranks.size,
        }
    )
    device = str(problem.meta["device"])
    seconds = time.monotonic() - started
    final = collect("path", options, provenance.inputs, seed=options.seed, device=device, seconds=seconds)
    writer.finish(problem.standardizer, meta, final)


def _prepare(options: FitPath, store: FeatureStore, splits: Sequence[str], output: Path, ranks: Ranks) -> PathFit:
    """Turn stored features and options into a problem that is ready to be solved."""
    train = store.split("train")
    weight = train_weights(train, options.class_weight, options.weights_file)
    rows = train.usable
    spread = None
    if weight is not None:
        spread = np.zeros(len(train))
        spread[rows] = weight
    factors = options.penalty_factors and read_penalty_factors(options.penalty_factors, store.n_features)
    evaluation = {s: (store.splits[s].X, store.splits[s].y, store.splits[s].usable) for s in splits if s != "train"}
    single = store.task == "single-label"
    state = output.with_name(f"{output.name}.partial") / STATE_FILE
    return PathFit(
        train.X,
        train.y,
        make_options(
            family=options.family,
            penalty=options.penalty,
            l1_ratio=options.l1_ratio,
            n_lambdas=options.n_lambdas,
            lambda_min_ratio=options.lambda_min_ratio,
            lambdas=[options.lam] if options.lam is not None else options.lambdas,
            lambda_zero=options.lambda_zero,
            tol=options.tol,
            solver=options.solver,
            max_epochs=options.max_epochs,
            sample_weight=spread,
            penalty_factor=factors,
            nonnegative=options.nonnegative,
            fit_intercept=options.fit_intercept,
            standardizer=store.standardizer if weight is None and options.fit_intercept else None,
            rows=rows,
            n_classes=len(store.class_names) if single else None,
            allow_empty_class=options.allow_empty_class,
            evaluation=evaluation if single else None,
            device=options.device,
            seed=options.seed,
            checkpoint=(lambda lam, arrays: keep_state(state, lam, arrays)) if ranks.leads else None,
            communicator=ranks.communicator,
        ),
    )


def _fill(
    problem: PathFit,
    writer: PathWriter,
    done: list[PathPoint],
    old: list[PathPoint],
    added: np.ndarray,
    scorer: Scorer,
    stopping: Stopping,
    ranks: Ranks = ALONE,
) -> None:
    """Append points in descending lambda, new ones and known ones merged, until the end or a stop."""
    ended = any([stopping.reached(point) for point in done])
    last = 0.0 if ended else done[-1].lam if done else np.inf
    waiting = [point for point in old if point.lam < last]
    problem.lambdas = added[added < last * (1 - SAME_LAMBDA)]
    above = [p for p in (*done, *old) if len(problem.lambdas) and p.lam > problem.lambdas[0]]
    start = min(above, key=lambda point: point.lam, default=None)
    total = len(done) + len(waiting) + len(problem.lambdas)
    if len(problem.lambdas):
        _warm_up(problem)
    with Progress(total, "fit-path", "lambda", initial=len(done)) as progress, interrupts.deferred():
        for point, is_new in _merged(waiting, _fitted_points(problem, ranks, start)):
            scored = scorer.complete(point) if is_new else point
            writer.append(scored)
            (writer.folder / STATE_FILE).unlink(missing_ok=True)
            per_class = np.count_nonzero(point.weight) / len(point.weight)
            progress.postfix(lam=f"{point.lam:.3g}", per_class=f"{per_class:.1f}", gap=f"{point.duality_gap:.0e}")
            progress.update()
            if ranks.communicator is not None:
                interrupts.check()
            if stopping.reached(scored):
                log(f"stopped after {progress.done} points: {stopping.reason}")
                ranks.stop()
                return


def _warm_up(problem: PathFit) -> None:
    """Compile the solver before the clock of the progress line starts; say so where it takes long."""
    message = "compiling the solver (once per installation)"
    timer = threading.Timer(NOTE_AFTER, log, [message])
    timer.daemon = True
    timer.start()
    try:
        problem.warm_up()
    finally:
        timer.cancel()


def _fitted_points(problem: PathFit, ranks: Ranks, start: PathPoint | None = None) -> Iterator[PathPoint]:
    """Fit on all ranks what the one that leads has found to be missing: its lambdas, from its start."""
    plan = ranks.share((problem.lambdas, start, problem.options.resume_state) if ranks.leads else None)
    problem.lambdas, start, state = plan
    problem.options = dataclasses.replace(problem.options, resume_state=state)
    if len(problem.lambdas):
        alone = ranks.communicator is None
        yield from ranks.together(problem.points(start, _is_signalled if alone else None))
        interrupts.check()  # a signal waits for the points at hand: none is solved twice


def _is_signalled() -> bool:
    return interrupts.received() is not None


def _merged(known: list[PathPoint], fitted: Iterator[PathPoint]) -> Iterator[tuple[PathPoint, bool]]:
    """Yield both in descending lambda, with whether the point is new."""
    waiting = list(known)
    for point in fitted:
        while waiting and waiting[0].lam > point.lam:
            yield waiting.pop(0), False
        yield point, True
    yield from ((point, False) for point in waiting)


def _new_lambdas(grid: np.ndarray, old: list[PathPoint], options: FitPath) -> np.ndarray:
    """Return the lambdas of the wanted grid that the known points do not have.

    Between known points lambdas are added only where a finer grid was asked for: a longer path
    alone keeps the upper part as it is.
    """
    if not old:
        return grid
    known = np.array([point.lam for point in old])
    new = np.array([lam for lam in grid if not np.isclose(lam, known, rtol=SAME_LAMBDA, atol=0).any()])
    explicit = options.lambdas is not None or options.lam is not None
    if explicit or _step(grid) < _step(known) * (1 - 1e-6):
        return new
    return new[new < known.min()]


def _step(lambdas: np.ndarray) -> float:
    """Median step of a grid in log lambda; infinite for a single point."""
    positive = lambdas[lambdas > 0]
    return float(np.median(-np.diff(np.log(positive)))) if len(positive) > 1 else np.inf


class Scorer:
    """Completes a point's metrics: those that the solver's own scoring does not have."""

    def __init__(self, store: FeatureStore, splits: Sequence[str], problem: PathFit) -> None:
        self._store, self._problem = store, problem
        self._rows = {name: usable_rows(store.splits[name]) for name in splits} if store.task != "single-label" else {}
        weight = problem.options.sample_weight
        self._weights = {"train": None if weight is None else weight[store.split("train").usable]}
        self._sizes = {name: int(store.splits[name].usable.sum()) for name in splits}

    def complete(self, point: PathPoint) -> PathPoint:
        """Return the point with the metrics of :mod:`debugnet.analysis.accuracy` on every split."""
        if self._store.task == "single-label":  # scored by the solver, on its device
            metrics = {name: dict(point.metrics[name]) for name in self._sizes}
            for name, values in metrics.items():
                accuracy = min(1.0, max(0.0, values["accuracy"]))
                values["accuracy_se"] = float(np.sqrt(accuracy * (1 - accuracy) / self._sizes[name]))
            return dataclasses.replace(point, metrics=metrics)
        standardizer = self._problem.standardizer
        raw = standardizer.to_raw(point.weight, point.bias)
        family = self._problem.meta["family"]
        names = self._store.class_names or _plain_names(len(point.weight))
        head = LinearHead(*raw, standardizer, family, names, self._store.task)
        metrics = {n: evaluate(head, X, y, sample_weight=self._weights.get(n)) for n, (X, y) in self._rows.items()}
        return dataclasses.replace(point, metrics=metrics)


class Stopping:
    """When a path has gone far enough."""

    def __init__(self, options: FitPath, task: str) -> None:
        self._most, self._patience = options.max_features_per_class, options.patience
        self._metric = DEFAULT_METRIC[task]
        self._best, self._quiet = -np.inf, 0
        self.reason = ""

    def reached(self, point: PathPoint) -> bool:
        """Take note of a point and say whether it is the last one."""
        per_class = np.count_nonzero(point.weight) / len(point.weight)
        if self._most is not None and per_class > self._most:
            self.reason = f"{per_class:.1f} features per class, more than {self._most}"
        if self._patience is not None:
            value = point.metrics["val"][self._metric]
            self._best, self._quiet = (value, 0) if value > self._best else (self._best, self._quiet + 1)
            if self._quiet >= self._patience:
                self.reason = f"no better validation {self._metric} for {self._quiet} points"
        return bool(self.reason)


def _network_metrics(store: FeatureStore, splits: Sequence[str]) -> dict[str, dict[str, float]] | None:
    """Score the network's own last layer, the other dense baseline, on every split."""
    head = network_head(store)
    return None if head is None else {name: evaluate(head, *usable_rows(store.splits[name])) for name in splits}


def _plain_names(n_outputs: int) -> list[str]:
    """Names for the outputs of a regression whose targets have none."""
    return ["value"] if n_outputs == 1 else [f"output {k}" for k in range(n_outputs)]


def _announce(problem: PathFit, done: list[PathPoint], old: list[PathPoint], added: np.ndarray, ranks: Ranks) -> None:
    n, d = problem.problem.total_rows, problem.problem.n_features
    spread = f" on {ranks.size} ranks" if ranks.size > 1 else ""
    log(
        f"{problem.meta['family']} on {n} rows{spread}, {d} features ({problem.meta['dead_features']} constant), "
        f"{problem.problem.n_outputs} outputs; solver {problem.meta['solver']}: {problem.meta['solver_reason']}"
    )
    if old:
        log(f"extending {len(old)} points by {len(added)}")
    if done:
        log(f"going on after {len(done)} points")


@contextlib.contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Limit the CPU threads of the numerical libraries inside the block."""
    if count is None:
        yield
        return
    if count < 1:
        raise UsageError(f"--threads {count}: at least 1")
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)
