"""Lasso benchmark: this package's path beside celer's and skglm's, one output, logistic or gaussian.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python scripts/bench_lasso.py --features ../features

celer and skglm have no softmax; celer's logistic regression has no intercept and no ridge, so that the logistic lasso
is compared without intercept.  The gaussian target is the label as a number, centred (an intercept is then 0).  Peers
get standardized float64 features in column order; their tolerances are tightened until their worst gap is ours or a
path exceeds ``--budget``.  Every solution is judged by bench_evaluator.py, in float64.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_evaluator import scalar_gap, standardize
from bench_peers import say
from bench_problems import load

TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
#: One solved lambda: w (d,), b.
Solved = list[tuple[np.ndarray, float]]


def ours(X, y, lambdas, rho, family, intercept, tol, budget) -> Solved:  # noqa: ANN001
    """Standardizes once more what is standardized already; certificates included."""
    from debugnet.glm import fit_path

    path = fit_path(
        X, y.astype(np.int64) if family == "binomial" else y, family=family, l1_ratio=rho, lambdas=lambdas, tol=tol,
        fit_intercept=intercept, device="cpu",
    )  # fmt: skip
    return [(path.weight(i)[0], float(path.bias(i)[0])) for i in range(len(path))]


def celer_path(X, y, lambdas, rho, family, intercept, tol, budget) -> Solved:  # noqa: ANN001
    """celer: lasso (rho = 1), logistic by its proximal Newton; warm starts."""
    from celer import celer_path as run

    logistic = family == "binomial"
    problem, unit = ("logreg", len(y)) if logistic else ("lasso", 1)
    solved: Solved = []
    w, start = np.zeros(X.shape[1]), time.process_time()
    for lam in lambdas:
        _, found, _ = run(
            X, 2 * y - 1 if logistic else y, problem, alphas=[lam * unit], coef_init=w, tol=tol, max_iter=200,
            max_epochs=100_000, use_PN=logistic,
        )  # fmt: skip
        w = found[:, 0].copy()
        solved.append((w, 0.0))
        if time.process_time() - start > budget:
            break
    return solved


def skglm_path(X, y, lambdas, rho, family, intercept, tol, budget) -> Solved:  # noqa: ANN001
    """skglm: coordinate descent with Anderson acceleration (gaussian), proximal Newton (logistic), warm starts."""
    from skglm import GeneralizedLinearEstimator
    from skglm.datafits import Logistic, Quadratic
    from skglm.penalties import L1, L1_plus_L2
    from skglm.solvers import AndersonCD, ProxNewton

    gaussian = family == "gaussian"
    if gaussian:
        solver = AndersonCD(tol=tol, fit_intercept=intercept, warm_start=True, max_iter=200, max_epochs=100_000)
    else:
        solver = ProxNewton(tol=tol, fit_intercept=intercept, warm_start=True, max_iter=200)
    model = GeneralizedLinearEstimator(Quadratic() if gaussian else Logistic(), L1(1.0), solver)
    solved, start = [], time.process_time()
    for lam in lambdas:
        model.penalty = L1(lam) if rho == 1 else L1_plus_L2(lam, rho)
        model.fit(X, y if gaussian else 2 * y - 1)
        solved.append((model.coef_.ravel().copy(), float(np.ravel(model.intercept_)[0]) if intercept else 0.0))
        if time.process_time() - start > budget:
            break
    return solved


def versions() -> dict[str, str]:
    """Versions of the peers that are there."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("celer", "skglm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            say(f"{name}: not installed, left out")
    return found


def bench(name: str, X: np.ndarray, y: np.ndarray, rho: float, family: str, options: argparse.Namespace) -> list[dict]:
    """Ours, then each peer at tightening tolerances."""
    intercept = family == "gaussian"
    centre = y.mean() if family == "gaussian" else 0.5
    largest = np.abs(X.T @ (y - centre)).max() / len(y) / rho
    lambdas = largest * 1e-3 ** (np.arange(options.n_lambdas) / (options.n_lambdas - 1)) * (1 - 1e-12)
    rows: list[dict] = []
    runners: dict[str, Callable[..., Solved]] = {"debugnet": ours}
    peers = {"celer": celer_path, "skglm": skglm_path}
    runners |= {peer: peers[peer] for peer in versions() if peer != "celer" or rho == 1}
    for peer, run in runners.items():
        few = np.asfortranarray(X[:200])
        run(few, y[:200], lambdas[:3], rho, family, intercept, 1e-3, 10)  # compile outside of the clock
        for tol in TOLERANCES if peer != "debugnet" else (options.tol,):
            start = time.process_time()
            solved = run(X, y, lambdas, rho, family, intercept, tol, options.budget)
            seconds = time.process_time() - start
            gaps = [
                scalar_gap(X, y, w, b, lam, rho, family, intercept)
                for lam, (w, b) in zip(lambdas, solved, strict=False)
            ]
            rows.append({
                "problem": name, "family": family, "l1_ratio": rho, "peer": peer, "tol": tol, "seconds": seconds,
                "lambdas": len(solved), "worst_gap": max(gaps), "nnz": int((solved[-1][0] != 0).sum()),
            })  # fmt: skip
            say(f"{name} {family} l1_ratio {rho}: {peer} tol {tol:.0e}: {seconds:.2f} s, {len(solved)} lambdas, "
                f"worst gap {max(gaps):.1e}, {rows[-1]['nnz']} non-zeros")  # fmt: skip
            if max(gaps) <= rows[0]["worst_gap"] or seconds > options.budget:
                break
    return rows


def main() -> None:
    """Parse options, run, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["sst2_mean"], help="features with two or more classes")
    parser.add_argument("--cases", nargs="+", default=["binomial:1", "binomial:0.99", "gaussian:1"])
    parser.add_argument("--features", type=Path, default=Path("."))
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--n-lambdas", type=int, default=100)
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds per path of a peer")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows = []
    for name in options.problems:
        problem = load(name, options.features)
        X = np.asfortranarray(standardize(problem.X))
        for case in options.cases:
            family, _, rho = case.partition(":")
            target = (problem.y % 2).astype(np.float64) if family == "binomial" else problem.y - problem.y.mean()
            rows += bench(name, X, target, float(rho), family, options)
    if options.output:
        options.output.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
