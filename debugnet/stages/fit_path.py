"""``debugnet fit-path``: features -> a certified regularization path (``path.h5``)."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import (
    check_output,
    collect,
    describe_difference,
    input_reference,
    read_provenance,
)
from debugnet.errors import InputError, NotConverged, OutputExists, UsageError
from debugnet.recipes.fit_path import FitPath
from debugnet.stages.result import Result
from debugnet.stages.row_weights import file_reference

if TYPE_CHECKING:
    from debugnet.artifacts.provenance import Provenance
    from debugnet.regularization_path import RegularizationPath

#: Options that choose lambdas, and leave what happens at one lambda alone.
GRID_OPTIONS = (
    "n_lambdas", "lambda_min_ratio", "lambdas", "lam", "lambda_zero", "max_features_per_class", "patience",
)  # fmt: skip


def run(options: FitPath, *, force: bool = False) -> Result:
    """Fit the path of ``options.features`` and publish it.

    Raises
    ------
    NotConverged
        A point missed its tolerance; the path is published all the same.
    OutputExists
        The output is there, made with other options.
    """
    options = _resolve(options)
    if launched():
        return _run_launched(options, force)
    output, inputs, reused = _look(options, force)
    if not reused:
        _fit(options, output, inputs, force)
    return _result(output, options, reused)


def launched() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _run_launched(options: FitPath, force: bool) -> Result:
    """Fit as one of torchrun's ranks: the first one looks, decides, writes and reports."""
    if options.ranks is not None:
        raise UsageError(f"--ranks {options.ranks} under torchrun, which has started the ranks already: drop it")
    from debugnet.stages.fit_ranks import join, leave

    ranks = join(options.device)
    looked: Any = None
    if ranks.leads:
        try:
            looked = _look(options, force)
        except BaseException as error:
            ranks.share(getattr(error, "exit_code", 1))
            raise
    looked = ranks.share(looked)
    if isinstance(looked, int):
        raise SystemExit(looked)  # the first rank says why
    output, inputs, reused = looked
    if not reused:
        _fit(options, output, inputs, force, ranks=ranks)
    leave(ranks)
    return _result(output, options, reused) if ranks.leads else Result(output, {}, reused, "")


def _fit(options: FitPath, output: Path, inputs: dict[str, dict[str, str]], force: bool, **more: Any) -> None:
    started = time.monotonic()
    known = output if options.extend and output.exists() and not force else None
    provenance = collect("path", options, inputs, seed=options.seed, device=options.device, seconds=0.0)
    if options.ranks is not None:
        from debugnet.stages.fit_ranks import fit_on_ranks

        fit_on_ranks(options, output, provenance, known=known, force=force, started=started)
        return
    from debugnet.stages.fit_points import fit

    fit(options, output, provenance, known=known, force=force, started=started, **more)


def _look(options: FitPath, force: bool) -> tuple[Path, dict[str, dict[str, str]], bool]:
    """Return where the path goes, what it is made from, and whether it is there already."""
    inputs = {"features": input_reference(options.features)}
    if inputs["features"]["kind"] != "features":
        raise InputError(
            f"{options.features} is of kind {inputs['features']['kind']}; fit-path needs features (extract)"
        )
    for role in ("weights_file", "penalty_factors"):
        if getattr(options, role) is not None:
            inputs[role] = file_reference(getattr(options, role))
    output = options.output or Path(options.features).parent / "path.h5"
    return output, inputs, _is_there(output, options, inputs, force)


def _resolve(options: FitPath) -> FitPath:
    """Make method and penalty agree; refuse contradictory grids."""
    if sum(value is not None for value in (options.lam, options.lambdas)) > 1:
        raise UsageError("--lam and --lambdas are two grids: give one")
    implied = {"elastic-net": "elastic_net", "group-lasso": "group_lasso"}
    penalty = options.penalty or implied.get(options.method or "elastic-net", "elastic_net")
    method = options.method or next(m for m, p in implied.items() if p == penalty)
    if implied.get(method, penalty) != penalty:
        raise UsageError(
            f"--method {method} has the penalty {implied[method]}, and --penalty {penalty} was given: drop one"
        )
    _check_other_methods(options, method)
    for name in ("patience", "max_features_per_class", "steps", "epochs", "batch_size", "ranks"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1")
    return dataclasses.replace(options, penalty=penalty, method=method)


def _check_other_methods(options: FitPath, method: str) -> None:
    if method in ("spred", "lassonet") and options.extend:
        raise UsageError(f"--extend does not go with --method {method}: its path is trained as a whole")
    if method in ("spred", "lassonet") and (options.ranks is not None or launched()):
        raise UsageError(f"--method {method} trains in one process: drop --ranks or torchrun")
    if method == "spred" and options.nonnegative:
        raise UsageError("--method spred knows no sign constraints: drop --nonnegative")
    if method == "spred" and (options.lambda_zero or 0 in (options.lambdas or ()) or options.lam == 0):
        raise UsageError("--method spred has no lambda 0: without weight decay a product of factors is no penalty")
    if method != "lassonet":
        return
    weighted = options.class_weight or options.weights_file or options.penalty_factors
    if weighted or options.lambdas or options.lam is not None or options.lambda_zero:
        raise UsageError(
            "--method lassonet finds its own lambdas and has neither row weights nor penalty factors: drop --lambdas, "
            "--lam, --lambda-zero, --class-weight, --weights-file and --penalty-factors"
        )
    if not 0 < options.hierarchy < float("inf"):
        raise UsageError(f"--hierarchy {options.hierarchy}: M is a finite number above 0 (10 is usual)")
    if options.drop_share is not None and not 0 < options.drop_share <= 0.5:
        raise UsageError(f"--drop-share {options.drop_share:g}: a share above 0 and at most 0.5 (0.05 is usual)")
    if not 1 < options.ratio <= 10:
        raise UsageError(f"--ratio {options.ratio}: the factor between lambdas is above 1, at most 10 (1.1 is usual)")
    if options.lr <= 0 or options.stop_at < 0:
        raise UsageError(f"--lr {options.lr:g} --stop-at {options.stop_at}: a step above 0, and at least 0 features")
    if min(options.hidden or (1,)) < 1:
        raise UsageError(f"--hidden {min(options.hidden)}: at least 1")
    if min(options.sizes or (options.stop_at + 1,)) < max(options.stop_at, 1):
        least = f"--stop-at {options.stop_at}: the path ends before it" if options.stop_at else "at least 1"
        raise UsageError(f"--sizes {min(options.sizes or ())}: {least}")


def _is_there(output: Path, options: FitPath, inputs: dict[str, dict[str, str]], force: bool) -> bool:
    try:
        return check_output(output, "path", options, inputs, force=force)
    except OutputExists:
        if not options.extend:
            raise
        found = read_provenance(output)
        grid: dict[str, Any] = {name: found.options.get(name) for name in GRID_OPTIONS}
        grid["lambdas"] = None if grid["lambdas"] is None else tuple(grid["lambdas"])
        wanted = dataclasses.replace(options, **grid)
        if difference := describe_difference(found, collect("path", wanted, inputs)):
            raise OutputExists(
                f"{output} cannot be extended: it was made with {difference}; choose another output, or --force"
            ) from None
        return False


def _result(output: Path, options: FitPath, reused: bool) -> Result:
    from debugnet.artifacts.path_store import load_path

    path = load_path(output)
    summary = summarize(path, read_provenance(output))
    if summary["unconverged"] and not options.allow_unconverged:
        first = next(i for i, status in enumerate(path.status) if status != "converged")
        raise NotConverged(
            f"{summary['unconverged']} of {len(path)} points missed --tol {path.meta['tol']:g} (first: lambda "
            f"{path.lam[first]:.3g}, {path.status[first]} at gap {path.duality_gap[first]:.1e}); all are in {output}: "
            "a larger --max-epochs or --tol or another --solver, or accept them with --allow-unconverged"
        )
    return Result(output, summary, reused, describe(summary))


def summarize(path: RegularizationPath, provenance: Provenance) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    import numpy as np

    from debugnet.analysis.accuracy import DEFAULT_METRIC

    metric, per_class = DEFAULT_METRIC[path.meta["task"]], path.nnz_per_output.mean(axis=1)
    split = next((name for name in ("val", "train") if metric in path.metrics.get(name, {})), None)
    best = int(np.nanargmax(path.metrics[split][metric])) if split else len(path) - 1
    gaps = path.duality_gap[np.isfinite(path.duality_gap)]
    return {
        "points": len(path),
        "lambda_max": path.meta["lambda_max"],
        "lam": [float(path.lam[0]), float(path.lam[-1])],
        "solver": path.meta["solver"],
        "solver_reason": path.meta["solver_reason"],
        "worst_gap": float(gaps.max()) if len(gaps) else None,
        "worst_kkt_residual": float(np.max(path.kkt_residual)),
        "unconverged": sum(status != "converged" for status in path.status),
        "metric": metric,
        "best": {
            "index": best,
            "lam": float(path.lam[best]),
            "features_per_class": float(per_class[best]),
            **{name: float(path.metrics[name][metric][best]) for name in path.metrics if metric in path.metrics[name]},
        },
        "network_head": path.meta.get("network_head"),
        "fit_seconds": float(path.seconds.sum()),
        "seconds": provenance.seconds,
        "peak_memory": provenance.peak_memory,
    }


def describe(summary: dict[str, Any]) -> str:
    """Write the fit in three lines."""
    from debugnet.progress import duration

    best, metric = summary["best"], summary["metric"].replace("_", " ")
    scores = ", ".join(f"{name} {best[name]:.4f}" for name in ("train", "val", "test") if name in best)
    gap = "no gap known" if summary["worst_gap"] is None else f"worst gap {summary['worst_gap']:.1e}"
    high, low = summary["lam"]
    return "\n".join(
        [
            f"{summary['points']} points, lambda {high:.4g} to {low:.4g}, by {summary['solver']}; {gap}",
            f"best {metric}: {scores}, at lambda {best['lam']:.4g} "
            f"with {best['features_per_class']:.1f} features per class",
            f"{duration(summary['seconds'])}, of it {duration(summary['fit_seconds'])} in the solver; "
            f"peak memory {summary['peak_memory'] / 2**20:.0f} MiB",
        ]
    )
