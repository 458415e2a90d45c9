"""The refit on a given support against cvxpy, scikit-learn and least squares."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.errors import NotConverged
from debugnet.glm.masked_refit import refit_on_support
from debugnet.standardization import Standardizer


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    X = rng.normal(1.0, [1, 2, 0.5, 3, 1, 1], size=(90, 6))
    X[:, 5] = 4.0  # dead
    standardizer = Standardizer(X.mean(axis=0), np.where(np.arange(6) == 5, 0, X.std(axis=0)))
    y = (X @ rng.normal(size=(6, 3)) + rng.gumbel(size=(90, 3)) * 2).argmax(axis=1)
    mask = np.array([[1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]], dtype=bool)
    return X, y, mask, standardizer, rng.uniform(0.2, 2, size=90)


def test_multinomial_matches_cvxpy(data):
    import cvxpy as cp

    X, y, mask, standardizer, w = data
    Z, l2 = standardizer.transform(X), 0.02
    W, b = cp.Variable((3, 6)), cp.Variable(3)
    S = Z @ W.T + np.ones((90, 1)) @ cp.reshape(b, (1, 3), order="C")
    losses = cp.log_sum_exp(S, axis=1) - cp.sum(cp.multiply(S, np.eye(3)[y]), axis=1)
    objective = w @ losses / w.sum() + l2 / 2 * cp.sum_squares(W)
    problem = cp.Problem(cp.Minimize(objective), [cp.multiply(W, ~mask | (np.arange(6) == 5)) == 0])
    problem.solve(solver="CLARABEL")
    weight, bias = refit_on_support(X, y, mask, standardizer=standardizer, family="multinomial", l2=l2, sample_weight=w)
    np.testing.assert_allclose(weight, W.value, atol=2e-4)
    np.testing.assert_allclose(bias - bias.mean(), b.value - b.value.mean(), atol=2e-4)
    assert (weight[~mask] == 0).all() and (weight[:, 5] == 0).all()


def test_one_row_binomial_matches_scikit_learn(data):
    from sklearn.linear_model import LogisticRegression

    X, y, mask, standardizer, w = data
    target = (y == 2).astype(int)
    columns = [0, 3, 4]
    only = np.isin(np.arange(6), columns)[None]
    weight, bias = refit_on_support(
        X, target, only, standardizer=standardizer, family="binomial", l2=0.1, sample_weight=w
    )
    model = LogisticRegression(C=1 / (0.1 * w.sum()), tol=1e-10, max_iter=10000)
    model.fit(standardizer.transform(X)[:, columns], target, sample_weight=w)
    np.testing.assert_allclose(weight[0, columns], model.coef_[0], atol=1e-5)
    np.testing.assert_allclose(bias, model.intercept_, atol=1e-5)


def test_gaussian_matches_ridge_in_closed_form_from_any_start(data):
    X, y, mask, standardizer, _ = data
    targets = np.stack([y, X[:, 0] * 2, np.sin(y)], axis=1)
    Z = standardizer.transform(X)
    for start in (None, np.ones((3, 6))):
        weight, bias = refit_on_support(
            X, targets, mask, standardizer=standardizer, family="gaussian", l2=0.3, start=start
        )
        for k in range(3):
            columns = np.flatnonzero(mask[k] & standardizer.alive)
            A = Z[:, columns]
            expected = np.linalg.solve(A.T @ A / 90 + 0.3 * np.eye(len(columns)), A.T @ targets[:, k] / 90)
            np.testing.assert_allclose(weight[k, columns], expected, atol=1e-6)
        np.testing.assert_allclose(bias, targets.mean(axis=0), atol=1e-6)


def test_separable_classes_keep_finite_weights_and_a_cut_short_refit_says_so(data):
    X, y, mask, standardizer, _ = data
    separable = (standardizer.transform(X)[:, :2] @ [1.0, 1.0] > 0).astype(int)
    mask = np.array([[1, 1, 0, 0, 0, 0]], dtype=bool)
    common = dict(standardizer=standardizer, family="binomial", l2=1e-4)
    weight, _ = refit_on_support(X, separable, mask, **common)
    assert 1 < np.abs(weight).max() < 1e4
    with pytest.raises(NotConverged, match="--refit-l2"):
        refit_on_support(X, separable, mask, **common, max_iterations=2)
