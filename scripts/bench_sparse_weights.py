"""spred and the group lasso for networks: against certified solutions, planted truth and magnitude pruning.

    python scripts/bench_sparse_weights.py layer --features runs/cifar/features.h5 features.npz
    python scripts/bench_sparse_weights.py genes --seeds 5
    python scripts/bench_sparse_weights.py planted --seeds 20

layer: relative gap of spred's own layer, and of what ``fit-path --method spred`` returns (polished), to the certified
solution at five lambdas; CPU seconds of all three.  genes: 200 rows, 5,000 features, 20 of them planted: which features
spred and the lasso (scikit-learn) keep, at the lambda that is best on validation rows.  planted: how often the group
lasso finds exactly the planted inputs, hidden units, both, or user-given groups; and what --shrink changes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.spred_layer import FactoredLayer, polishing_solver, train_factored
from debugnet.stages import train_sparse


def run_layer(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Gap of spred to the certified solution at five lambdas, and the CPU seconds of both."""
    rows = []
    for name, X, y in _feature_sets(args.features):
        options = make_options(lambda_min_ratio=args.lambda_min_ratio, n_lambdas=6, device="cpu")
        fit = PathFit(X, y, options)
        list(PathFit(X[:200], y[:200], options).points())  # compiled code is loaded before the clock runs
        fit.lambdas = fit.lambdas[1:]
        exact, exact_seconds = _timed(lambda fit=fit: {p.lam: p for p in fit.points()})
        layers, own_seconds = _timed(
            lambda fit=fit: {layer.lam: layer for layer in train_factored(fit.problem, fit.lambdas, steps=args.steps)}
        )
        fit = _with_polish(X, y, options, layers)
        polished, polish_seconds = _timed(lambda fit=fit: {p.lam: p for p in fit.points()})
        for lam, point in exact.items():
            rows.append(
                {
                    "data": name, "shape": [*X.shape, len(point.weight)], "lam": lam, "objective": point.objective,
                    "own_gap": layers[lam].objective / point.objective - 1,
                    "polished_gap": polished[lam].objective / point.objective - 1,
                    "exact_nnz": int(np.count_nonzero(point.weight)), "above_1e-3": layers[lam].above_threshold,
                    "polished_nnz": int(np.count_nonzero(polished[lam].weight)),
                    "same_support": bool(((polished[lam].weight != 0) == (point.weight != 0)).all()),
                    "steps": layers[lam].steps, "exact_seconds": exact_seconds, "own_seconds": own_seconds,
                    "polish_seconds": polish_seconds,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def _with_polish(X: np.ndarray, y: np.ndarray, options: Any, layers: dict[float, FactoredLayer]) -> PathFit:
    """The problem whose points start from spred's layers, as ``fit-path --method spred`` solves it."""
    import dataclasses

    fit = PathFit(X, y, options)
    fit.lambdas = np.array(sorted(layers, reverse=True))
    fit.prepared = dataclasses.replace(fit.prepared, solver=polishing_solver(layers))
    return fit


def _timed(work: Any) -> tuple[Any, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def _feature_sets(paths: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    if not paths:
        from sklearn.datasets import load_digits

        yield ("digits", *load_digits(return_X_y=True))
    for path in paths:
        if path.endswith(".npz"):
            with np.load(path) as stored:
                yield Path(path).stem, stored["X"], stored["y"]
            continue
        from debugnet.artifacts.feature_store import load_features

        train = load_features(path).split("train")
        yield path, np.asarray(train.X[train.usable]), train.y[train.usable]


def run_genes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Support recovery where features outnumber rows, features in correlated blocks of ten."""
    from sklearn.linear_model import lasso_path

    rows = []
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        planted = rng.choice(args.n_features, 20, replace=False)
        truth = np.zeros(args.n_features)
        truth[planted] = rng.choice([-1, 1], 20) * rng.uniform(0.5, 1.5, 20)
        shared = np.repeat(rng.normal(size=(400, args.n_features // 10)), 10, axis=1)
        X = np.sqrt(0.3) * shared + np.sqrt(0.7) * rng.normal(size=(400, args.n_features))
        y = X @ truth + rng.normal(size=400)
        mean, scale = X[:200].mean(axis=0), X[:200].std(axis=0)
        X = (X - mean) / scale
        X, X_val, y, y_val = X[:200], X[200:], y[:200], y[200:]
        options = make_options(family="gaussian", l1_ratio=1.0, lambda_min_ratio=0.02, n_lambdas=20, device="cpu")
        fit = PathFit(X, y, options)
        fit.lambdas = fit.lambdas[1:]
        (_, coefficients, _), lasso_seconds = _timed(
            lambda fit=fit, X=X, y=y: lasso_path(X, y - y.mean(), alphas=fit.lambdas, tol=1e-6, max_iter=20_000)
        )
        layers, own_seconds = _timed(lambda fit=fit: {q.lam: q for q in train_factored(fit.problem, fit.lambdas)})
        fit = _with_polish(X, y, options, layers)
        points, polish_seconds = _timed(lambda fit=fit: list(fit.points()))
        own = np.stack([layers[lam].weight.numpy()[0] for lam in fit.lambdas])
        found = {
            "lasso (scikit-learn)": (coefficients.T, lasso_seconds),
            "spred, products of at least 1e-3": (own * (np.abs(own) >= 1e-3), own_seconds),
            "spred, polished": (np.stack([p.weight[0] for p in points]), own_seconds + polish_seconds),
        }
        for method, (weights, seconds) in found.items():
            errors = np.square(X_val @ weights.T + y.mean() - y_val[:, None]).mean(axis=0)
            best = int(errors.argmin())
            kept = set(np.flatnonzero(weights[best]).tolist())
            hit = len(kept & set(planted.tolist()))
            strongest = set(np.argsort(-np.abs(weights[best]))[:20].tolist())
            rows.append(
                {
                    "seed": seed, "method": method, "lam": float(fit.lambdas[best]), "kept": len(kept),
                    "precision": hit / max(len(kept), 1), "recall": hit / 20, "val_mse": float(errors[best]),
                    "precision_of_20_largest": len(strongest & set(planted.tolist())) / 20, "seconds": seconds,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


#: What is planted: what is penalized, number of inputs, relevant groups of them, inputs per group.
PLANTED = {
    "inputs": ("inputs", 20, 3, 1),
    "groups": ("inputs", 24, 2, 3),
    "hidden": ("hidden", 4, 4, 1),
    "both": ("both", 10, 3, 1),
}
TEACHER_WIDTH = 3


def run_planted(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Group lasso on what three ReLU units make of few inputs: does it find those inputs and that width?"""
    rows = []
    for kind in args.kinds:
        for seed in range(args.seeds):
            rows.append(_planted(kind, seed))
            print(json.dumps(rows[-1]), file=sys.stderr)
    for kind in args.kinds:
        mine = [row for row in rows if row["kind"] == kind]
        found, chosen = (sum(bool(row[name]) for row in mine) for name in ("found", "chosen"))
        print(f"{kind}: found {found}, chosen on validation too {chosen}, of {len(mine)}")
    return rows


def _planted(kind: str, seed: int) -> dict[str, Any]:
    penalize, d, relevant, per_group = PLANTED[kind]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1500, d))
    groups = rng.permutation(np.repeat(np.arange(d // per_group), per_group))
    chosen = rng.choice(d // per_group, relevant, replace=False)
    inputs = np.flatnonzero(np.isin(groups, chosen))
    directions = np.linalg.qr(rng.normal(size=(len(inputs), TEACHER_WIDTH)))[0]
    y = np.maximum(X[:, inputs] @ directions + 0.3, 0) @ np.array([1.0, -1.0, 1.0]) + 0.05 * rng.normal(size=len(X))
    n_inputs, n_hidden = (relevant, 0) if penalize == "inputs" else (0, TEACHER_WIDTH)
    if penalize == "both":
        n_inputs = relevant
    size = n_inputs + n_hidden
    with tempfile.TemporaryDirectory() as folder:
        data, group_file = Path(folder) / "data.npz", Path(folder) / "groups.npy"
        np.savez(data, x_train=X[:1000], y_train=y[:1000], x_test=X[1000:], y_test=y[1000:])
        np.save(group_file, groups)
        options = TrainSparse(
            "group-lasso", "mlp:12", str(data), Path(folder) / "sparse", task="regression", val_fraction=0.25,
            groups=group_file if kind == "groups" else None, sizes=tuple(range(max(1, size - 2), size + 3)),
            against=("none",), epochs=60, batch_size=64, lr=0.01, ratio=1.15, epochs_per_lambda=4, seed=seed,
            penalize=penalize, shrink=True, threads=1, device="cpu",
        )  # fmt: skip
        result, seconds = _timed(lambda: train_sparse.run(options))
        found = json.loads((result.path / "sparse.json").read_text())
        with np.load(result.path / "masks.npz") as stored:
            mask = np.unpackbits(stored[f"size-{size}"], count=int(stored["n_units"])).astype(bool)
    split = 0 if penalize == "hidden" else d // per_group
    truth = set() if penalize == "hidden" else set(chosen if kind == "groups" else inputs)
    right = set(np.flatnonzero(mask[:split])) == truth and int(mask[split:].sum()) == n_hidden
    row = next(row for row in found["rows"] if row["size"] == size)
    return {
        "kind": kind, "seed": seed, "found": right, "chosen": right and found["summary"]["chosen"] == size,
        "chosen_size": found["summary"]["chosen"], "r2": row["relaxed"]["test"]["r2"],
        "widths": row["shrunk"]["widths"], "seconds": seconds,
        "largest_difference": max(r["shrunk"]["largest_output_difference"] for r in found["rows"]),
    }  # fmt: skip


def main() -> None:
    """Run one comparison and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layer", "genes", "planted"))
    parser.add_argument("--features", nargs="*", default=[], help="features.h5, or .npz with X and y (default: digits)")
    parser.add_argument("--kinds", nargs="+", default=list(PLANTED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-features", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lambda-min-ratio", type=float, default=0.01)
    parser.add_argument("--output", type=Path, help="where to write all rows as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {"layer": run_layer, "genes": run_genes, "planted": run_planted}[args.what](args)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
