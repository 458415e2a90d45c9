"""A feature store with planted truth, written as ``debugnet extract`` would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts.feature_store import create_feature_store
from debugnet.artifacts.provenance import collect

#: The feature that decides for each class of the planted problem.
PLANTED = {0: 3, 1: 11, 2: 17}


def write_store(
    path: Path,
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    *,
    class_names: list[str],
    task: str = "single-label",
    dense_head: tuple[np.ndarray, np.ndarray] | None = None,
    dense_class_names: list[str] | None = None,
) -> Path:
    """Write arrays as a feature store; NaN rows become unusable ones."""
    provenance = collect("features", {"backbone": "planted", "name": path.name}, {}, seed=0, device="cpu", seconds=0.0)
    sizes = {name: len(X) for name, X in features.items()}
    d = features["train"].shape[1]
    with create_feature_store(path, sizes, d, provenance=provenance) as writer:
        for name, X in features.items():
            writer.write(name, 0, X.astype(np.float32))
        return writer.finish(
            labels=labels,
            ids={name: [f"{name}/{i}" for i in range(n)] for name, n in sizes.items()},
            task=task,
            class_names=class_names,
            config={},
            dense_head=dense_head,
            dense_class_names=dense_class_names,
        )


def planted_problem(seed: int = 0, *, permuted: bool = False, d: int = 30) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw features of which three decide the class, plus noise; permuted labels plant nothing."""
    rng = np.random.default_rng(seed)
    features, labels = {}, {}
    for name, n in {"train": 240, "val": 120, "test": 120}.items():
        y = rng.integers(0, 3, size=n)
        X = rng.normal(1.0, 1.0, size=(n, d)) * np.linspace(0.2, 5, d)
        for k, j in PLANTED.items():
            X[:, j] += (y == k) * 2.2 * np.linspace(0.2, 5, d)[j]
        X[:, 5] = 1.0  # constant
        features[name] = X.astype(np.float32)
        labels[name] = rng.permutation(y) if permuted else y
    features["train"][7, 2] = np.nan
    return features, labels
