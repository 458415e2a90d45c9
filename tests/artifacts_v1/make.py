"""Made the frozen files beside it, once, with schema 1; never run again over them.

A newer layout gets a folder of its own; the files here must stay readable as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from debugnet.artifacts.bundle import BundleWriter
from debugnet.artifacts.feature_store import create_feature_store
from debugnet.artifacts.head_store import save_head
from debugnet.artifacts.path_store import load_path, save_path
from debugnet.artifacts.provenance import Provenance, artifact_key, input_reference
from debugnet.heads import LinearHead
from debugnet.regularization_path import PathPoint, RegularizationPath
from debugnet.standardization import Standardizer


def features(n: int) -> np.ndarray:
    """Features (n, 3) that are the same on every machine; the last column is constant."""
    i = np.arange(n)
    return np.stack([i * 0.5, (i % 4) - 1.25, np.full(n, 2.0)], axis=1).astype(np.float32)


def points() -> list[PathPoint]:
    """Three points (2, 3), the first empty."""
    return [
        PathPoint(
            lam=0.5**i,
            weight=np.array([[0.25, 0, 0], [-0.25, 0.125 * (i > 1), 0]]) * i,
            bias=np.array([0.5, -0.5]),
            objective=0.5,
            duality_gap=1e-7,
            kkt_residual=1e-8,
            status=("converged", "converged", "max_iterations")[i],
            n_epochs=3.5,
            seconds=0.25,
            metrics={"val": {"loss": 0.75, "accuracy": 0.5}},
        )
        for i in range(3)
    ]


def provenance(kind: str, **inputs: Path) -> Provenance:
    """A provenance without this machine in it."""
    references = {role: {**input_reference(path), "path": path.name} for role, path in inputs.items()}
    key = artifact_key(kind, {"option": 1}, references)
    return Provenance(
        kind, 1, key, {"option": 1}, {"output": kind}, references, 0, "cpu", {"debugnet": "0.1.0"},
        ["debugnet", kind], "2026-11-21T00:00:00+00:00", 1.5, 1 << 20,
    )  # fmt: skip


def make(folder: Path) -> None:
    """Write features.h5, path.h5, head/ and analysis/ into ``folder``."""
    sizes = {"train": 6, "val": 2}
    with create_feature_store(folder / "features.h5", sizes, 3, provenance=provenance("features")) as writer:
        writer.write("train", 0, features(6), np.array([0, 0, 1, 0, 0, 0]))
        writer.write("val", 0, features(2))
        writer.finish(
            labels={name: np.arange(n) % 2 for name, n in sizes.items()},
            ids={name: [f"{name}-é{i}" for i in range(n)] for name, n in sizes.items()},
            task="single-label",
            class_names=["cat", "dog"],
            config={"backbone": {"name": "b"}, "data": {"name": "d"}},
            groups={"train": np.arange(6) // 3},
            group_names=["early", "late"],
            dense_head=(np.ones((2, 3), np.float32), np.zeros(2, np.float32)),
        )
    standardizer = Standardizer(np.array([1.0, 2, 3]), np.array([0.5, 2, 0]))
    meta = {"family": "multinomial", "class_names": ["cat", "dog"]}
    path = RegularizationPath.from_points(points(), standardizer, meta)
    save_path(folder / "path.h5", path, provenance("path", features=folder / "features.h5"))
    weight, bias = load_path(folder / "path.h5").raw(2)
    head = LinearHead(weight, bias, standardizer, "multinomial", ["cat", "dog"], meta={"rule": "index", "index": 2})
    save_head(folder / "head", head, provenance("head", path=folder / "path.h5"))
    with BundleWriter(folder / "analysis", provenance("analysis", head=folder / "head")) as bundle:
        bundle.add("one", {"value": 0.5}, {"array": np.arange(3)})
        bundle.finish()


if __name__ == "__main__":
    make(Path(__file__).parent)
