"""Problems for the solver benchmark: generated deep-feature-like ones, and real features from files.

``trained``: ReLU features of a small network trained to (nearly) 100 % train accuracy, then spoilt the way
real feature matrices are: near-duplicate, heavy-tailed and constant columns.  Supports stay small.
``random``: random ReLU features with label noise: dense supports, the hard end for second-order methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Raw features X (n, d) float32, labels y (n,) int64 in 0..n_classes-1."""

    name: str
    X: np.ndarray
    y: np.ndarray
    n_classes: int


#: name -> (kind, n, d, K)
GENERATED = {
    "p1": ("trained", 1_000, 512, 10),
    "p2": ("trained", 5_000, 512, 10),
    "p4": ("trained", 20_000, 2_048, 10),
    "p5": ("trained", 20_000, 512, 100),
    "p6": ("random", 8_000, 1_024, 10),
    "p50k": ("trained", 50_000, 2_048, 10),
}


def generate(name: str, kind: str, n: int, d: int, n_classes: int, seed: int = 0) -> Problem:
    """Draw a generated problem; the same arguments give the same arrays on one machine."""
    if kind == "trained":
        return _trained(name, n, d, n_classes, seed)
    return _random(name, n, d, n_classes, seed)


def _random(name: str, n: int, d: int, n_classes: int, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 64), dtype=np.float32)
    teacher = rng.standard_normal((64, n_classes), dtype=np.float32)
    y = np.argmax(latent @ teacher, axis=1)
    noisy = rng.random(n) < 0.15
    y[noisy] = rng.integers(n_classes, size=int(noisy.sum()))
    hidden = rng.standard_normal((64, d), dtype=np.float32) / 8
    X = np.maximum(latent @ hidden + 0.5 * rng.standard_normal(d, dtype=np.float32), 0)
    return Problem(name, X, y.astype(np.int64), n_classes)


def _trained(name: str, n: int, d: int, n_classes: int, seed: int) -> Problem:
    import torch

    torch.manual_seed(seed)
    centres = torch.randn(4 * n_classes, 64) * 0.55  # four clusters per class: not linearly separable at the input
    cluster = torch.randint(len(centres), (n,))
    inputs = centres[cluster] + torch.randn(n, 64)
    y = cluster % n_classes
    trunk = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, d), torch.nn.ReLU())
    head = torch.nn.Linear(d, n_classes)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(60):
        correct = 0
        for rows in torch.randperm(n).split(256):
            logits = head(trunk(inputs[rows]))
            loss = torch.nn.functional.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((logits.argmax(1) == y[rows]).sum())
        if correct >= 0.999 * n:
            break
    with torch.no_grad():
        X = trunk(inputs).numpy()
    return Problem(name, _spoil(X, np.random.default_rng(seed)), y.numpy(), n_classes)


def _spoil(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In place: 4 % near-duplicates, 4 % heavy-tailed, 4 % constant columns."""
    n, d = X.shape
    columns = rng.permutation(d)
    share = max(1, d // 25)
    for copy, original in zip(columns[:share], columns[share : 2 * share], strict=True):
        X[:, copy] = X[:, original] * 2 + 0.02 * X[:, original].std() * rng.standard_normal(n, dtype=np.float32)
    for heavy in columns[2 * share : 3 * share]:
        X[:, heavy] *= np.exp(2 * rng.standard_normal(n, dtype=np.float32))
    X[:, columns[3 * share : 4 * share]] = rng.random(share, dtype=np.float32)
    return X


def load(name: str, folder: Path) -> Problem:
    """A problem by name: generated, or real features from ``folder/name.npz`` (arrays X and y) or ``name.h5``."""
    if name in GENERATED:
        cached = folder / f"{name}.npz"
        if cached.exists():
            stored = np.load(cached)
            return Problem(name, stored["X"], stored["y"], GENERATED[name][3])
        return generate(name, *GENERATED[name])
    if (folder / f"{name}.h5").exists():
        from debugnet.artifacts.feature_store import load_features

        store = load_features(folder / f"{name}.h5")
        split = store.split("train")
        return Problem(name, np.asarray(split.X)[split.usable], split.y[split.usable], len(store.class_names))
    stored = np.load(folder / f"{name}.npz")
    return Problem(name, stored["X"], stored["y"], int(stored["y"].max()) + 1)
