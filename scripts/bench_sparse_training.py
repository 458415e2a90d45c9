"""LassoNet and the group lasso on the inputs against their peers: one run, the same data, splits and threads.

    python scripts/bench_sparse_training.py lassonet --data digits breast_cancer xor --seeds 5
    python scripts/bench_sparse_training.py protocol --data cifar10.npz runs/imagenette/features.h5 --seeds 1

lassonet: accuracy of the path's own models and of the same refit of every selection, at 5, 10, 20 and 50 features,
sizes met and CPU seconds of the path, ``package`` being the ``lassonet`` package (pip install lassonet).
protocol: 100%, 50%, 10% and 1% of the inputs: LassoNet itself, refitted, random; and k-NN, SVM, PCA + linear.
spred and the planted group lasso: scripts/bench_sparse_weights.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from debugnet.recipes.train_sparse import TrainSparse
from debugnet.stages import sparse_units, train_sparse

SIZES = (5, 10, 20, 50)
METHODS = ("lassonet", "package", "linear", "anova", "random")


def load(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """X, y and the task of one data set; generated ones are drawn anew for every seed."""
    from sklearn import datasets

    rng = np.random.default_rng(seed)
    if name in ("digits", "breast_cancer"):
        return *getattr(datasets, f"load_{name}")(return_X_y=True), "single-label"
    if name == "xor":
        X = rng.normal(size=(1000, 60))
        return X, (X[:, 0] * X[:, 1] > 0).astype(int), "single-label"
    if name == "friedman":
        X, y = datasets.make_friedman1(1000, n_features=60, noise=1.0, random_state=seed)
        return X, y, "regression"
    if name in ("planted", "twins"):  # two products, a fold and a line, in six features; three classes of equal size
        X = rng.normal(size=(1000, 60 if name == "planted" else 12))
        score = X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] + np.abs(X[:, 4]) + X[:, 5]
        if name == "twins":  # five of each feature, with correlations of 0.95
            X = np.repeat(X, 5, axis=1) * 0.95**0.5 + 0.05**0.5 * rng.normal(size=(1000, 60))
        return X, np.digitize(score, np.quantile(score, [1 / 3, 2 / 3])), "single-label"
    X, y = datasets.make_classification(
        1000, 60, n_informative=5, n_redundant=15, n_clusters_per_class=8, random_state=seed
    )
    return X, y, "single-label"


def split(X: np.ndarray, y: np.ndarray, task: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """80 / 20, stratified, the train part once more 90 / 10; standardized by train."""
    from sklearn.model_selection import train_test_split

    strata = y if task == "single-label" else None
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=seed, stratify=strata)
    strata = y if task == "single-label" else None
    X, X_val, y, y_val = train_test_split(X, y, test_size=0.1, random_state=seed, stratify=strata)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale[scale == 0] = 1
    parts = {"train": (X, y), "val": (X_val, y_val), "test": (X_test, y_test)}
    return {name: ((A - mean) / scale, b) for name, (A, b) in parts.items()}


def run_lassonet(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per data set, seed and method; ``--output`` is written as they come."""
    rows = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.data:
            X, y, task = load(name, seed)
            parts = split(X, y, task, seed)
            sizes = tuple(k for k in SIZES if k < X.shape[1])
            for method in args.methods:
                if method in ("lassonet", "package"):
                    make = _ours if method == "lassonet" else _package
                    rows.append(make(args, name, seed, task, parts, sizes))
                else:
                    rows.append(_baseline(method, name, seed, task, parts, sizes))
            if args.output:
                args.output.write_text(json.dumps(rows, indent=1, default=float))
    return rows


def _ours(args: argparse.Namespace, name: str, seed: int, task: str, parts: dict, sizes: tuple) -> dict[str, Any]:
    """LassoNet by the command; CPU seconds of all of it, and of dense start and path alone."""
    path_seconds, follow = [], sparse_units._fit

    def timed(*given: Any) -> Any:
        began = time.process_time()
        found = follow(*given)
        path_seconds.append(time.process_time() - began)
        return found

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(sparse_units, "_fit", timed):
        data, output = Path(folder) / "data.npz", Path(folder) / "sparse"
        np.savez(data, **{f"{a}_{s}": v for s, pair in parts.items() for a, v in zip("xy", pair, strict=True)})
        options = TrainSparse(
            "lassonet", "mlp:100", str(data), output, task=task, sizes=sizes, against=("none",),
            batch_size=args.batch_size, lr=args.lr, ratio=args.ratio, epochs=args.epochs,
            epochs_per_lambda=args.epochs_per_lambda, hierarchy=args.hierarchy, seed=seed, threads=1, device="cpu",
            drop_share=args.drop_share,
        )  # fmt: skip
        began = time.process_time()
        train_sparse.run(options)
        seconds = time.process_time() - began
        found = json.loads((output / "sparse.json").read_text())
        d = parts["train"][0].shape[1]
        with np.load(output / "masks.npz") as stored:
            masks = {k: np.unpackbits(stored[f"size-{k}"], count=d).astype(bool) for k in sizes}
    row: dict[str, Any] = {"data": name, "seed": seed, "method": "LassoNet", "cpu_seconds": seconds}
    row |= {"path_seconds": path_seconds[0]}
    row["sizes_met"] = len(set(found["summary"]["sizes_on_the_path"]) & set(range(1, d)))
    row["path"] = {r["size"]: r["metrics"]["test"]["accuracy"] for r in found["rows"]}
    row["relaxed"] = {r["size"]: r["relaxed"]["test"]["accuracy"] for r in found["rows"]}
    row["refit"] = {k: refit(parts, task, masks[k], seed) for k in sizes}
    return row


def _baseline(kind: str, name: str, seed: int, task: str, parts: dict, sizes: tuple) -> dict[str, Any]:
    from debugnet.sparse_training import baselines

    X, y = parts["train"]
    family = "gaussian" if task == "regression" else "multinomial"
    began = time.process_time()
    if kind == "random":
        order = baselines.random_order(X.shape[1], seed)
    else:
        order = {"anova": baselines.anova_order, "linear": baselines.linear_order}[kind](
            X, y, family, np.arange(X.shape[1])
        )
    seconds = time.process_time() - began
    scores = {k: refit(parts, task, baselines.top_mask(order, k), seed) for k in sizes}
    return {"data": name, "seed": seed, "method": kind, "cpu_seconds": seconds, "refit": scores}


def _package(args: argparse.Namespace, name: str, seed: int, task: str, parts: dict, sizes: tuple) -> dict[str, Any]:
    """The ``lassonet`` package with its defaults, on the same split and its validation rows."""
    import lassonet

    model_class = lassonet.LassoNetRegressor if task == "regression" else lassonet.LassoNetClassifier
    model = model_class(hidden_dims=(100,), M=args.hierarchy, random_state=seed, torch_seed=seed, verbose=0)
    X, y = parts["train"]
    X, y, X_val = X.astype(np.float32), y.astype(np.float32 if task == "regression" else np.int64), parts["val"]
    target = y.reshape(-1, 1) if task == "regression" else y
    y_val = X_val[1].astype(y.dtype)
    began = time.process_time()
    path = model.path(
        X, target, X_val=X_val[0].astype(np.float32), y_val=y_val.reshape(-1, 1) if task == "regression" else y_val,
        return_state_dicts=True,
    )  # fmt: skip
    seconds = time.process_time() - began
    row: dict[str, Any] = {"data": name, "seed": seed, "method": "lassonet package", "cpu_seconds": seconds}
    row["path_seconds"] = seconds
    counts = [int(point.selected.sum()) for point in path]
    row["sizes_met"] = len(set(counts) & set(range(1, X.shape[1])))
    row["path"], row["refit"], row["size_used"] = {}, {}, {}
    test_X, test_y = parts["test"]
    for k in sizes:
        point = next(p for p, count in zip(path, counts, strict=True) if count <= k)
        model.load(point.state_dict)
        with torch.no_grad():
            model.model.eval()
            outputs = model.model(torch.from_numpy(test_X.astype(np.float32)))
        row["path"][k] = _score(outputs.numpy(), test_y, task)
        row["size_used"][k] = int(point.selected.sum())
        row["refit"][k] = refit(parts, task, point.selected.numpy(), seed)
    return row


def _score(outputs: np.ndarray, y: np.ndarray, task: str) -> float:
    if task == "regression":
        return float(1 - np.square(outputs.ravel() - y).sum() / np.square(y - y.mean()).sum())
    return float((outputs.argmax(axis=1) == y).mean())


def refit(parts: dict, task: str, mask: np.ndarray, seed: int) -> float:
    """The same for every selection: a new network (100 hidden units) on the chosen features, stopped by validation."""
    from debugnet.sparse_training.losses import FamilyLoss
    from debugnet.sparse_training.networks import make_mlp
    from debugnet.sparse_training.proximal_training import (
        Batches,
        ProximalTrainer,
        evaluate,
        train_early_stopping,
    )

    torch.manual_seed(seed)
    family = "gaussian" if task == "regression" else "multinomial"
    y = parts["train"][1]
    shift, scale = (y.mean(), y.std()) if task == "regression" else (0, 1)
    batches = {
        name: Batches(
            torch.from_numpy(X[:, mask].astype(np.float32)),
            torch.from_numpy((b - shift) / scale if task == "regression" else b.astype(np.int64)),
            64,
            seed,
        )
        for name, (X, b) in parts.items()
    }
    network = make_mlp(int(mask.sum()), 1 if task == "regression" else int(y.max()) + 1, (100,))
    trainer = ProximalTrainer(
        network, [], FamilyLoss(family),
        optimizer=lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-4, fused=True),
    )  # fmt: skip
    train_early_stopping(trainer, batches["train"], batches["val"], family, max_epochs=60, patience=10)
    return evaluate(network, batches["test"], trainer.loss, family)["accuracy"]


def run_protocol(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The source's Table 2 and Figure 3 on every file of ``--data`` (.npz, or features.h5), scored on all test rows."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for given in args.data:
            data, name = _as_npz(Path(given), Path(folder)), Path(given).parent.name + "/" + Path(given).name
            with np.load(data) as stored:
                parts = {k: stored[k] for k in ("x_train", "y_train", "x_test", "y_test")}
            rows += [{"data": name, **row} for row in _classics(**parts)]
            d = int(np.prod(parts["x_train"].shape[1:]))
            sizes = tuple(max(1, round(d * share)) for share in (0.01, 0.1, 0.5))
            for seed in range(args.seeds):
                output = Path(args.keep or folder) / f"{Path(given).stem}-{seed}"
                options = TrainSparse(
                    "lassonet", "mlp:80,100", str(data), output, sizes=(*sizes, d), refit=True, seeds=3, seed=seed,
                    against=tuple(args.against), batch_size=args.batch_size, lr=args.lr, ratio=args.ratio, threads=1,
                    device=args.device, drop_share=args.drop_share,
                )  # fmt: skip
                began = time.process_time()
                train_sparse.run(options)
                row: dict[str, Any] = {"data": name, "method": "LassoNet", "seed": seed}
                row["cpu_seconds"] = time.process_time() - began
                found = json.loads((output / "sparse.json").read_text())
                row |= {"dense": found["summary"]["dense"], "rows": found["rows"]}
                rows.append(row)
                print(found["text"], file=sys.stderr)
    return rows


def _as_npz(path: Path, folder: Path) -> Path:
    """The file itself, or train and the last other split of a feature store as x_train ... y_test."""
    if path.suffix == ".npz":
        return path
    from debugnet.artifacts.feature_store import load_features

    store = load_features(path)
    names = {"train": "train", "test": next(name for name in ("test", "val") if name in store.splits)}
    out = folder / f"{path.parent.name}.npz"
    arrays = {}
    for name, source in names.items():
        split = store.split(source)
        arrays |= {f"x_{name}": np.asarray(split.X[split.usable], np.float32), f"y_{name}": split.y[split.usable]}
    np.savez(out, **arrays)
    return out


def _classics(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> list[dict[str, Any]]:
    """The source's baselines on all features."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    X, X_test = (x.reshape(len(x), -1).astype(np.float32) for x in (x_train, x_test))
    rows = []
    for name, model in (
        ("k-NN, k = 7", KNeighborsClassifier(7)),
        ("SVM (rbf)", SVC()),
        ("PCA 100 + linear", make_pipeline(PCA(100, random_state=0), LogisticRegression(max_iter=300))),
    ):
        began = time.process_time()
        fitted = make_pipeline(StandardScaler(), model).fit(X, y_train)
        accuracy = float((fitted.predict(X_test) == y_test).mean())
        rows.append({"method": name, "accuracy": accuracy, "cpu_seconds": time.process_time() - began})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard error over seeds, per data set, method and size."""
    lines = ["| data | method | CPU s | sizes met | " + " | ".join(f"{k}" for k in SIZES) + " |", "|---" * 8 + "|"]
    for data in dict.fromkeys(r["data"] for r in rows):
        for method in dict.fromkeys(r["method"] for r in rows if r["data"] == data):
            mine = [r for r in rows if r["data"] == data and r["method"] == method]
            for what in ("path", "relaxed", "refit"):
                if what not in mine[0]:
                    continue
                cells = [_cell([r[what].get(k, r[what].get(str(k))) for r in mine]) for k in SIZES]
                met = "/".join(str(r.get("sizes_met", "")) for r in mine)
                seconds = np.mean([r["cpu_seconds"] for r in mine])
                lines.append(f"| {data} | {method}, {what} | {seconds:.1f} | {met} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return ""
    error = f" ± {np.std(known, ddof=1) / np.sqrt(len(known)):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{error}"


def main() -> None:
    """Run one comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lassonet", "protocol"))
    parser.add_argument("--data", nargs="+", default=["digits"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--against", nargs="+", default=["random", "anova", "linear"], help="protocol: refitted beside")
    parser.add_argument("--keep", type=Path, help="protocol: folder for the artefacts")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ratio", type=float, default=1.1)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--epochs-per-lambda", type=int)
    parser.add_argument("--hierarchy", type=float, default=10.0)
    parser.add_argument("--drop-share", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="where to write all rows as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports of the first use stay outside of the clock
    __import__("matplotlib.figure")
    run = {"lassonet": run_lassonet, "protocol": run_protocol}[args.what]
    rows = run(args)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1, default=float))
    print(table(rows) if args.what == "lassonet" else json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
