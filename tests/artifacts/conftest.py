"""A tiny feature store, written as an extraction would write it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.feature_store import create_feature_store
from debugnet.artifacts.provenance import Provenance, collect


@dataclasses.dataclass
class Extraction:
    """The arrays that go into a store, and the loop that writes them."""

    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    ids: dict[str, list[str]]
    provenance: Provenance
    batch: int = 8
    dtype: str = "float32"
    on_batch: Callable[[], None] = lambda: None

    def run(self, path: Path, force: bool = False) -> Path:
        """Write everything that is not there yet, and finish."""
        splits = {name: len(X) for name, X in self.features.items()}
        n_features = self.features["train"].shape[1]
        with create_feature_store(
            path, splits, n_features, self.dtype, provenance=self.provenance, force=force
        ) as writer:
            for name, X in self.features.items():
                while (start := writer.next_row(name)) < len(X):
                    writer.write(name, start, X[start : start + self.batch])
                    self.on_batch()
            return writer.finish(
                labels=self.labels,
                ids=self.ids,
                task="single-label",
                class_names=["cat", "dog"],
                config={"backbone": {"name": "x"}, "data": {"name": "y"}},
                groups={"train": self.labels["train"] % 2},
                group_names=["even", "odd"],
                dense_head=(np.arange(2 * n_features, dtype=np.float32).reshape(2, -1), np.ones(2, np.float32)),
            )


@pytest.fixture
def extraction() -> Extraction:
    rng = np.random.default_rng(0)
    features = {name: rng.normal(size=(n, 5)).astype(np.float32) for name, n in (("train", 37), ("test", 10))}
    features["train"][:, 3] = 0.1
    features["train"][9, 2] = np.nan
    return Extraction(
        features=features,
        labels={name: np.arange(len(X)) % 2 for name, X in features.items()},
        ids={name: [f"{name}/ä{i}" for i in range(len(X))] for name, X in features.items()},
        provenance=collect("features", {"backbone": "x"}, {}),
    )
