"""What linearity costs on deep features: a linear layer beside theta'x + network at equal numbers of features.

    python scripts/bench_linearity.py runs/cifar/features.h5 runs/imagenette_resnet50/features.h5 --seeds 3

``fit-path --method lassonet`` over seeds (network and minibatches; the splits are the store's) gives the subsets, the
linear layer on each, and theta'x + network on the same features, at its lambda and trained on without penalty.
``fit-path --method group-lasso`` lets features in one by one; a linear layer is fitted again on the first of them.
All linear layers are at the smallest lambda of one grid.  Accuracy on test, or on val where there is no test split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts.feature_store import FeatureStore, load_features
from debugnet.artifacts.path_store import load_path
from debugnet.glm import fit_path as fit_layer
from debugnet.recipes.fit_path import FitPath
from debugnet.regularization_path import RegularizationPath
from debugnet.stages import fit_path

SIZES = (2, 5, 10, 20, 50, 100)


def compare(features: Path, seeds: int, batch_size: int) -> dict[str, Any]:
    """Accuracies by number of features: one per seed of LassoNet's, one of the group lasso's; CPU seconds of both."""
    store = load_features(features)
    scored = "test" if "test" in store.splits else "val"
    sizes = tuple(k for k in SIZES if k < store.n_features)
    found: dict[str, Any] = {"features": str(features), "split": scored, "n": int(store.split(scored).usable.sum())}
    with tempfile.TemporaryDirectory() as folder:
        group, found["group_seconds"] = _fitted(features, Path(folder) / "group.h5", method="group-lasso")
        names = {"linear": "accuracy", "network": "network_accuracy", "relaxed": "network_relaxed_accuracy"}
        found |= {name: {k: [] for k in sizes} for name in names} | {"lassonet_seconds": []}
        for seed in range(seeds):
            path, seconds = _fitted(
                features, Path(folder) / f"{seed}.h5", method="lassonet", sizes=sizes, seed=seed, batch_size=batch_size
            )
            found["lassonet_seconds"].append(seconds)
            for name, metric in names.items():
                for k, value in zip(path.meta["lassonet"]["sizes"], path.metrics[scored][metric], strict=True):
                    found[name][k].append(float(value))
    order, lam = _entry_order(group), path.meta["lassonet"]["refit_lam"]
    found["group"] = {k: _linear_layer(store, scored, order[:k], lam) for k in sizes}
    return found


def _entry_order(path: RegularizationPath) -> np.ndarray:
    """Features as they come in, those of one point by their weights there."""
    norms = np.array([np.linalg.norm(path.weight(i), axis=0) for i in range(len(path))])
    first = np.where(norms.any(axis=0), (norms > 0).argmax(axis=0), len(path) - 1)
    return np.lexsort((-norms[first, np.arange(norms.shape[1])], first))


def _fitted(features: Path, output: Path, **options: Any) -> tuple[RegularizationPath, float]:
    began = time.process_time()
    path = load_path(fit_path.run(FitPath(features, output, threads=1, **options)).path)
    return path, time.process_time() - began


def _linear_layer(store: FeatureStore, scored: str, columns: np.ndarray, lam: float) -> float:
    """Accuracy of a certified decision layer on these features alone."""
    train, other = store.split("train"), store.split(scored)
    path = fit_layer(train.X[train.usable][:, columns], train.y[train.usable], lambdas=[lam], l1_ratio=0.99)
    weight, bias = path.raw(0)
    outputs = other.X[other.usable][:, columns] @ weight.T + bias
    predicted = outputs.argmax(axis=1) if outputs.shape[1] > 1 else outputs.ravel() > 0
    return float((predicted == other.y[other.usable]).mean())


def table(found: dict[str, Any]) -> str:
    """Mean and standard error over seeds; the difference is paired by seed."""
    lines = [
        f"{found['features']}, {found['n']} {found['split']} rows: {np.mean(found['lassonet_seconds']):.0f} CPU s for "
        f"LassoNet, {found['group_seconds']:.0f} for the group lasso",
        "| features | linear, the group lasso's | linear, LassoNet's | theta'x + network | at its lambda "
        "| network less linear |",
        "|---" * 6 + "|",
    ]
    for k, group in found["group"].items():
        linear, relaxed, network = (np.array(found[name][k]) for name in ("linear", "relaxed", "network"))
        cells = [_cell(values) for values in (linear, relaxed, network, relaxed - linear)]
        lines.append(f"| {k} | {group:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: np.ndarray) -> str:
    if not len(values):
        return ""
    error = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{error}"


def main() -> None:
    """Print one table per feature file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--output", type=Path, help="where to write all figures as JSON")
    args = parser.parse_args()
    rows = []
    for features in args.features:
        rows.append(compare(features, args.seeds, args.batch_size))
        if args.output:
            args.output.write_text(json.dumps(rows, indent=1))
        print(table(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
