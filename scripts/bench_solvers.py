"""Solver benchmark: this package's path beside its peers, in one run, on the same objective and machine.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python scripts/bench_solvers.py --features ../features --output out.json

Real features are ``NAME.npz`` (arrays X, y) or ``NAME.h5`` (from ``debugnet extract``) in ``--features``; p1 .. p50k
are generated (bench_problems.py).  Every solution is judged by bench_evaluator.py, in float64, and the accuracy
that each peer reaches is printed beside its CPU seconds.  A peer that exceeds ``--budget`` is cut off; lambdas it
did not reach are counted as costing as much as those it did (it is then marked "extrapolated").
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_evaluator import lambda_grid, relative_gap, standardize
from bench_peers import PEERS, Run, glmnet
from bench_problems import GENERATED, Problem, generate, load

REAL = ("cifar10", "imagenette", "sst2_mean", "sst2_cls", "agnews")
THRESHOLDS = (1e-7, 1e-9, 1e-10, 1e-11, 1e-12)


class Ours(NamedTuple):
    """A path of ours: what it took, by which solver, how much of that certificates took, bytes it took beside X."""

    run: Run
    solver: str
    certificates: float
    memory: int | None


def resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def fit_ours(problem: Problem, lambdas: np.ndarray, l1_ratio: float, solver: str, tol: float) -> Ours:
    """Raw features in, certified path out; CPU seconds include standardization and certificates."""
    from importlib.metadata import PackageNotFoundError, version
    from unittest import mock

    from debugnet.glm import fit_path
    from debugnet.glm import path as module

    spent = []

    def clocked(*arguments: Any) -> Any:
        began = time.process_time()
        certificates = certify_many(*arguments)
        spent.append(time.process_time() - began)
        return certificates

    certify_many = module.certify_many

    try:
        number = version("debugnet")
    except PackageNotFoundError:
        number = "checkout"
    on_linux = Path("/proc/self/clear_refs").exists()
    if on_linux:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far was another's
    with mock.patch.object(module, "certify_many", clocked):
        start = time.process_time()
        path = fit_path(
            problem.X, problem.y, family="multinomial", l1_ratio=l1_ratio, lambdas=lambdas, tol=tol, solver=solver,
            device="cpu",
        )  # fmt: skip
        seconds = time.process_time() - start
    memory = resident("VmHWM") - before if on_linux else None
    points = [(i, path.weight(i), path.bias(i)) for i in range(len(path))]
    return Ours(Run(f"tol {tol:.0e}", seconds, points, number), path.meta["solver"], sum(spent) / seconds, memory)


def judge(X: np.ndarray, problem: Problem, lambdas: np.ndarray, l1_ratio: float, run: Run, every: int) -> dict:
    """Worst and median gap over the points, CPU seconds, and seconds extrapolated to all lambdas."""
    chosen = [p for p in run.points if p[0] % every == 0 or p[0] == len(lambdas) - 1]
    judged = [relative_gap(X, problem.y, W, b, lambdas[i], l1_ratio) for i, W, b in chosen]
    gaps = [g for g, _ in judged] or [np.nan]
    done = len(run.points)
    return {
        "setting": run.setting,
        "version": run.version,
        "seconds": run.seconds,
        "lambdas": done,
        "of": len(lambdas),
        "extrapolated": run.seconds * len(lambdas) / done if done else None,
        "worst_gap": float(np.max(gaps)),
        "median_gap": float(np.median(gaps)),
        "worst_kkt": float(max((k for _, k in judged), default=np.nan)),
        "nnz": int((run.points[-1][1] != 0).sum()) if done else 0,
        "judged": len(chosen),
    }


def seconds_at(gap: float, rows: list[dict]) -> float | None:
    """CPU seconds of a swept peer at a worst gap, log-log between its two nearest settings (no extrapolation)."""
    rows = sorted((r for r in rows if r["worst_gap"] > 0), key=lambda r: -r["worst_gap"])
    for looser, tighter in zip(rows, rows[1:], strict=False):
        if looser["worst_gap"] >= gap >= tighter["worst_gap"]:
            x = np.log([tighter["worst_gap"], looser["worst_gap"]])
            return float(np.exp(np.interp(np.log(gap), x, np.log([tighter["seconds"], looser["seconds"]]))))
    return None


def bench(problem: Problem, options: argparse.Namespace) -> dict:
    """All solvers on one problem."""
    X = standardize(problem.X)
    K, rho = problem.n_classes, options.l1_ratio
    lambdas = lambda_grid(X, problem.y, K, rho, options.n_lambdas, 1e-3)[: options.first]
    every = max(1, int(X.size * K * len(lambdas) / 2e10)) if not options.all_points else 1
    result: dict = {"name": problem.name, "shape": [*problem.X.shape, K], "rows": {}}
    runs = [fit_ours(problem, lambdas, rho, options.solver, options.tol) for _ in range(options.repeats)]
    best = min(runs, key=lambda ours: ours.run.seconds)
    ours = judge(X, problem, lambdas, rho, best.run, every)
    result["rows"][f"debugnet {best.solver}"] = [ours]
    ours |= {"certificates": best.certificates, "memory": runs[0].memory}
    report(problem, f"debugnet {best.solver}", ours)
    say(f"{problem.name:10s} certificates: {best.certificates:.0%} of these seconds")
    if runs[0].memory is not None:
        extra, features = (size / 2**20 for size in (runs[0].memory, problem.X.nbytes))
        say(f"{problem.name:10s} memory: {extra:.0f} MB beside {features:.0f} MB of features")
    if "glmnet" in options.peers:
        result["rows"]["glmnet"] = sweep_glmnet(X, problem, lambdas, ours, every, options)
        equal = seconds_at(ours["worst_gap"], result["rows"]["glmnet"])
        result["glmnet_at_equal_gap"] = equal
        if equal:
            ratio = equal / ours["seconds"]
            say(f"{problem.name:10s} glmnet at gap {ours['worst_gap']:.1e}: {equal:.2f} s, {ratio:.1f} x")
    for name in options.peers:
        if name not in PEERS:
            continue
        try:
            run = PEERS[name](X, problem.y, K, lambdas, rho, options.budget)
        except ImportError as missing:
            say(f"{name}: left out ({missing})")
            continue
        result["rows"][name] = [judge(X, problem, lambdas, rho, run, every)]
        report(problem, name, result["rows"][name][0])
    return result


def sweep_glmnet(X, problem, lambdas, ours, every, options) -> list[dict]:  # noqa: ANN001
    """Tighten glmnet's threshold until it is as accurate as ours."""
    rows: list[dict] = []
    for thresh in options.thresholds:
        try:
            run = glmnet(X, problem.y, problem.n_classes, lambdas, options.l1_ratio, thresh, options.budget)
        except subprocess.TimeoutExpired:
            say(f"{problem.name:10s} glmnet thresh {thresh:.0e}: over {options.budget:.0f} s")
            break
        rows.append(judge(X, problem, lambdas, options.l1_ratio, run, every))
        report(problem, "glmnet", rows[-1])
        if rows[-1]["worst_gap"] <= ours["worst_gap"]:
            break
    return rows


def report(problem: Problem, name: str, row: dict) -> None:
    """One line of the table."""
    n, d = problem.X.shape
    partial = 0 < row["lambdas"] < row["of"]
    extra = f" (extrapolated {row['extrapolated']:.0f})" if partial else ""
    say(
        f"{problem.name:10s} {n} x {d} x {problem.n_classes}  {name} {row['version']} {row['setting']}: "
        f"{row['seconds']:.2f} s{extra}, {row['lambdas']} lambdas, worst gap {row['worst_gap']:.1e}, "
        f"median {row['median_gap']:.1e}, KKT {row['worst_kkt']:.1e} lam, {row['nnz']} non-zeros"
    )


def curves(options: argparse.Namespace) -> list[dict]:
    """Cost of this package's path against n, d, K and the number of lambdas, around one generated problem."""
    base = {"n": 4000, "d": 512, "K": 10, "L": 50}
    rows = []
    for axis, values in {"n": (1000, 2000, 4000, 8000, 16000), "d": (128, 256, 512, 1024), "K": (3, 10, 30),
                         "L": (25, 50, 100, 200)}.items():  # fmt: skip
        for value in values:
            at = base | {axis: value}
            problem = generate("curve", "trained", at["n"], at["d"], at["K"])
            X = standardize(problem.X)
            lambdas = lambda_grid(X, problem.y, at["K"], options.l1_ratio, at["L"], 1e-3)
            run, solver, *_ = fit_ours(problem, lambdas, options.l1_ratio, options.solver, options.tol)
            row = judge(X, problem, lambdas, options.l1_ratio, run, 10)
            rows.append({**at, "axis": axis, "solver": solver, "seconds": run.seconds, "worst_gap": row["worst_gap"],
                         "nnz": row["nnz"]})  # fmt: skip
            say(f"{axis} = {value}: {run.seconds:.2f} s, worst gap {row['worst_gap']:.1e}, {row['nnz']} non-zeros")
    return rows


def draw_curves(rows: list[dict], file: Path) -> None:
    """Seconds against n, d, K and the number of lambdas, both axes logarithmic, beside a cost that is linear."""
    import matplotlib.pyplot as plt

    names = {"n": "rows", "d": "features", "K": "classes", "L": "lambdas"}
    figure, panels = plt.subplots(1, len(names), figsize=(11, 2.8), sharey=True, layout="constrained")
    for panel, (axis, name) in zip(panels, names.items(), strict=True):
        x, y = zip(*[(row[axis], row["seconds"]) for row in rows if row["axis"] == axis], strict=True)
        panel.loglog(x, y, "o-", color="#1f5fa8")
        panel.loglog(x, [y[0] * v / x[0] for v in x], ":", color="0.5")
        panel.set_xticks(x, [f"{v:,}" for v in x])
        panel.minorticks_off()
        panel.set_xlabel(name)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CPU seconds of the path")
    panels[0].text(0.62, 0.9, "linear", color="0.4", transform=panels[0].transAxes)
    figure.savefig(file, dpi=150)


def say(line: str) -> None:
    """Print at once: a benchmark is watched."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Parse options, run, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="*", default=[*REAL, "p1", "p2"], help=f"real or {', '.join(GENERATED)}")
    parser.add_argument("--peers", nargs="*", default=["glmnet", *PEERS])
    parser.add_argument("--features", type=Path, default=Path("."))
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--l1-ratio", type=float, default=0.99)
    parser.add_argument("--n-lambdas", type=int, default=100)
    parser.add_argument("--first", type=int, help="only so many of the lambdas, for all solvers (what peers finish)")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS, help="of glmnet, tightened in turn")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds per peer run")
    parser.add_argument("--repeats", type=int, default=2, help="best of so many runs of ours")
    parser.add_argument("--all-points", action="store_true", help="judge every point on large problems too")
    parser.add_argument("--quick", action="store_true", help="one small problem, glmnet alone")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.problems, options.peers, options.repeats = ["p1"], ["glmnet"], 1
    import torch

    torch.set_num_threads(1)
    warm = generate("warm", "random", 300, 40, 3)  # compile outside of the clock
    start = time.process_time()
    for K in (3, 2):
        y = np.minimum(warm.y, K - 1)
        grid = lambda_grid(standardize(warm.X), y, K, 0.99, 20, 1e-2)
        fit_ours(Problem("warm", warm.X, y, K), grid, 0.99, "auto", 1e-6)
    say(f"warm-up, compilation or its cache included: {time.process_time() - start:.1f} s")
    results = {"problems": [bench(load(name, options.features), options) for name in options.problems]}
    if options.curves:
        results["curves"] = curves(options)
        if options.picture:
            draw_curves(results["curves"], options.picture)
    results["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.output:
        options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
