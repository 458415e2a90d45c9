"""Awkward data: every point is certified, or labelled as what it is."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.glm import fit_path

RNG = np.random.default_rng(7)


def separable():
    X = RNG.normal(size=(80, 5))
    return X, (X[:, 0] > 0).astype(int), {}


def rare_class():
    X, y = RNG.normal(size=(500, 10)), RNG.integers(0, 3, 500)
    y[:3] = 3
    return X, y, {}


def imbalanced():
    X, y = RNG.normal(size=(2000, 6)), np.zeros(2000, int)
    y[:2] = 1
    return X, y, {}


def imbalanced_binomial():
    X, y, _ = imbalanced()
    return X, y, {"family": "binomial"}


def wide():
    return RNG.normal(size=(20, 300)), np.arange(20) % 4, {}


def one_feature():
    X = RNG.normal(size=(60, 1))
    return X, (X[:, 0] + RNG.normal(size=60) > 0).astype(int), {}


def thousand_classes():
    return RNG.normal(size=(1000, 4)), np.arange(1000), {"lambda_min_ratio": 0.6, "n_lambdas": 3}


def correlated():
    common = RNG.normal(size=(200, 1))
    X = np.sqrt(0.999) * common + np.sqrt(0.001) * RNG.normal(size=(200, 15))
    return X, (common[:, 0] + 0.5 * RNG.normal(size=200) > 0).astype(int), {}


def heavy_tails():
    X = RNG.normal(size=(400, 8))
    X[RNG.random(X.shape) < 0.003] *= 1e4
    return X.astype(np.float32), RNG.integers(0, 3, 400), {}


def float16():
    X = RNG.gamma(0.3, size=(400, 8)).astype(np.float16)
    return X, (X[:, 0] > X[:, 1]).astype(int), {}


def far_from_zero():
    X = 1e5 + RNG.normal(size=(300, 6))
    return X.astype(np.float32), (X[:, 0] > 1e5).astype(int), {}


def huge_targets():
    X = RNG.normal(size=(100, 5))
    return X, 1e6 + 1e5 * X[:, 0] + 1e4 * RNG.normal(size=100), {}


def tiny_targets():
    X = RNG.normal(size=(100, 5))
    return X, 1e-7 * X[:, 0] + 1e-8 * RNG.normal(size=100), {}


@pytest.mark.parametrize("penalty", ["elastic_net", "group_lasso"])
@pytest.mark.parametrize(
    "make",
    [
        separable,
        rare_class,
        imbalanced,
        imbalanced_binomial,
        wide,
        one_feature,
        thousand_classes,
        correlated,
        heavy_tails,
        float16,
        far_from_zero,
        huge_targets,
        tiny_targets,
    ],
    ids=lambda f: f.__name__,
)
def test_certified_or_labelled(make, penalty):
    X, y, options = make()
    path = fit_path(X, y, penalty=penalty, **{"n_lambdas": 8, "lambda_min_ratio": 0.01, "max_epochs": 2000, **options})
    assert np.isfinite(path.data).all() and np.isfinite(path.biases).all() and np.isfinite(path.objective).all()
    for status, gap in zip(path.status, path.duality_gap, strict=True):
        assert (status == "converged") == (gap <= 1e-6), (status, gap)
    # all of these are within reach of the default solver
    assert set(path.status) == {"converged"}


def test_no_optimum_at_lambda_zero_is_labelled():
    """Separable data have no maximum likelihood fit: the last point says it did not converge."""
    X, y, _ = separable()
    path = fit_path(X, y, n_lambdas=4, lambda_min_ratio=0.05, lambda_zero=True, max_epochs=50)
    assert path.status[:4] == ["converged"] * 4
    assert path.status[4] != "converged"
    assert path.metrics["train"]["accuracy"][4] > 0.95
