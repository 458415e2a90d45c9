"""Small heads for the analysis tests."""

from __future__ import annotations

import numpy as np

from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer


def random_head(
    seed: int, *, n_outputs: int = 4, d: int = 12, density: float = 0.4, task: str = "single-label"
) -> LinearHead:
    """Return a sparse head with a non-trivial standardizer and one dead feature."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2.0, d)
    scale[-1] = 0.0
    standardizer = Standardizer(rng.normal(size=d), scale)
    weight = rng.normal(size=(n_outputs, d)) * (rng.random((n_outputs, d)) < density) * (scale > 0)
    raw, bias = standardizer.to_raw(weight, 0.3 * rng.normal(size=n_outputs))
    names = [f"class{k}" for k in range(max(n_outputs, 2))]
    family = "multinomial" if task == "single-label" and n_outputs > 1 else "binomial"
    return LinearHead(raw, bias, standardizer, family, names, task)


def random_samples(head: LinearHead, n: int, seed: int) -> np.ndarray:
    """Raw features (n, d) around the head's own means."""
    rng = np.random.default_rng(seed)
    return head.standardizer.mean + rng.normal(size=(n, head.weight.shape[1])) * head.standardizer.scale
