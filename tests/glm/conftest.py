"""Small problems shared by the tests of the path fit."""

from __future__ import annotations

import numpy as np
import pytest

FAMILIES = ("multinomial", "binomial", "multi-label", "one-vs-rest", "gaussian", "gaussian-1")


def make_problem(kind: str, n: int = 60, d: int = 6, K: int = 3, seed: int = 0):
    """(X float64, y, family name): correlated features and a sparse truth."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d))) * rng.uniform(0.5, 3, d) + rng.normal(
        size=d
    )
    truth = rng.normal(size=(K, d)) * (rng.random((K, d)) < 0.6)
    scores = (X - X.mean(0)) / X.std(0) @ truth.T + 0.8 * rng.gumbel(size=(n, K))
    if kind == "multinomial":
        return X, _all_present(scores.argmax(1), K), "multinomial"
    if kind == "binomial":
        return X, (scores[:, 0] > scores[:, 1]).astype(np.int64), "binomial"
    if kind == "multi-label":
        return X, (scores > 0.5).astype(np.int64), "binomial"
    if kind == "one-vs-rest":
        return X, _all_present(scores.argmax(1), K), "binomial"
    if kind == "gaussian":
        return X, scores, "gaussian"
    return X, scores[:, 0], "gaussian"


def _all_present(labels, K):
    labels[:K] = np.arange(K)
    return labels


@pytest.fixture(params=FAMILIES)
def problem(request):
    """One problem of each kind."""
    return make_problem(request.param)
