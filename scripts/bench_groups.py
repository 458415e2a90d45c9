"""Group lasso benchmark: this package's path beside adelie's, softmax loss, one group per feature over all classes.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python scripts/bench_groups.py --features ../features --problems p2 cifar10

adelie minimizes the loss divided by the number of classes, so that its lambda is ours divided by K; its group weights
are set to 1, its early stops (90 % of the deviance) are off.  Its tolerances are tightened until its worst gap is ours
or a run exceeds ``--budget``.  Every solution is judged by bench_evaluator.py, in float64.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
from bench_evaluator import lambda_grid, relative_gap, standardize
from bench_peers import Point, Run, cpu_seconds, say
from bench_problems import Problem, load

#: adelie's tol and irls_tol; 1e-7 is its default.
TOLERANCES = (1e-7, 1e-9, 1e-11, 1e-13)


def ours(problem: Problem, lambdas: np.ndarray, l1_ratio: float, tol: float, solver: str) -> Run:
    """Raw features in, certified path out; CPU seconds include standardization and certificates."""
    from debugnet.glm import fit_path

    start = time.process_time()
    path = fit_path(
        problem.X, problem.y, family="multinomial", penalty="group_lasso", l1_ratio=l1_ratio, lambdas=lambdas,
        tol=tol, solver=solver, device="cpu",
    )  # fmt: skip
    seconds = time.process_time() - start
    points = [(i, path.weight(i), path.bias(i)) for i in range(len(path))]
    return Run(f"{path.meta['solver']} tol {tol:.0e}", seconds, points, "")


def _adelie_process(X, y, K, lambdas, l1_ratio, tol, pipe) -> None:  # noqa: ANN001
    import adelie

    X = np.asfortranarray(X)
    start = time.process_time()
    state = adelie.grpnet(
        X, adelie.glm.multinomial(np.eye(K)[y]), alpha=l1_ratio, penalty=np.ones(X.shape[1]), lmda_path=lambdas / K,
        tol=tol, irls_tol=tol, adev_tol=1.0, ddev_tol=0.0, early_exit=False, n_threads=1, progress_bar=False,
    )  # fmt: skip
    seconds = time.process_time() - start
    W = state.betas.toarray().reshape(-1, X.shape[1], K).transpose(0, 2, 1)
    pipe.send((seconds, W, np.asarray(state.intercepts), np.asarray(state.lmdas), adelie.__version__))


def adelie_path(
    X: np.ndarray, y: np.ndarray, K: int, lambdas: np.ndarray, l1_ratio: float, tol: float, budget: float
) -> tuple[Run, bool]:
    """One run in a process of its own, ended after ``budget`` CPU seconds (then without points)."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_adelie_process, args=(X, y, K, lambdas, l1_ratio, tol, sender))
    process.start()
    while not receiver.poll(0.2):
        if not process.is_alive() or (cpu_seconds(process.pid) or 0.0) > budget:
            process.kill()
            return Run(f"tol {tol:.0e}", budget, [], ""), False
    seconds, W, b, solved, version = receiver.recv()
    process.join()
    points: list[Point] = [(int(np.argmin(np.abs(lambdas / K - lam))), W[i], b[i]) for i, lam in enumerate(solved)]
    return Run(f"tol {tol:.0e}", seconds, points, version), True


def judge(X: np.ndarray, problem: Problem, lambdas: np.ndarray, l1_ratio: float, name: str, run: Run) -> dict:
    """Worst gap over the points, features used at the end; one line of the table."""
    gaps = [relative_gap(X, problem.y, W, b, lambdas[i], l1_ratio, group=True)[0] for i, W, b in run.points]
    row = {
        "name": name, "setting": run.setting, "version": run.version, "seconds": run.seconds, "lambdas": len(gaps),
        "worst_gap": max(gaps), "median_gap": float(np.median(gaps)),
        "features": int(run.points[-1][1].any(axis=0).sum()),
    }  # fmt: skip
    n, d = problem.X.shape
    say(f"{problem.name:10s} {n} x {d} x {problem.n_classes}  {name} {run.version} {run.setting}: {run.seconds:.2f} s, "
        f"{len(gaps)} lambdas, worst gap {row['worst_gap']:.1e}, median {row['median_gap']:.1e}, "
        f"{row['features']} features")  # fmt: skip
    return row


def bench(problem: Problem, options: argparse.Namespace) -> list[dict]:
    """All solvers on one problem."""
    X, K, rho = standardize(problem.X), problem.n_classes, options.l1_ratio
    lambdas = lambda_grid(X, problem.y, K, rho, options.n_lambdas, 1e-3, group=True)
    best: list[dict] = []
    for solver in options.solvers:
        runs = [ours(problem, lambdas, rho, options.tol, solver) for _ in range(options.repeats)]
        best.append(judge(X, problem, lambdas, rho, "debugnet", min(runs, key=lambda run: run.seconds)))
    for tol in TOLERANCES if options.adelie else ():
        run, finished = adelie_path(X, problem.y, K, lambdas, rho, tol, options.budget)
        if not finished:
            say(f"{problem.name:10s} adelie tol {tol:.0e}: over {options.budget:.0f} s")
            break
        best.append(judge(X, problem, lambdas, rho, "adelie", run))
        if best[-1]["worst_gap"] <= best[0]["worst_gap"]:
            break
    return best


def main() -> None:
    """Parse options, run, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["p2", "cifar10", "imagenette"])
    parser.add_argument("--features", type=Path, default=Path("."))
    parser.add_argument("--solvers", nargs="+", default=["auto"], help="solvers of this package")
    parser.add_argument("--no-adelie", dest="adelie", action="store_false")
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--l1-ratio", type=float, default=0.99)
    parser.add_argument("--n-lambdas", type=int, default=100)
    parser.add_argument("--budget", type=float, default=300.0, help="CPU seconds per run of adelie")
    parser.add_argument("--repeats", type=int, default=2, help="best of so many runs of ours")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch
    from bench_problems import generate

    if options.adelie:
        import adelie  # noqa: F401  (better to know now)

    torch.set_num_threads(1)
    warm = generate("warm", "random", 300, 40, 3)  # compile outside of the clock
    ours(warm, lambda_grid(standardize(warm.X), warm.y, 3, 0.99, 20, 1e-2, group=True), 0.99, 1e-6, "auto")
    results = [row for name in options.problems for row in bench(load(name, options.features), options)]
    if options.output:
        options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
