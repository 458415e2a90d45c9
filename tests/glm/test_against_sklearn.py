"""Against scikit-learn on its own ground."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import ElasticNet, LogisticRegression, MultiTaskElasticNet

from debugnet.glm import fit_path
from tests.oracles.glm_cvxpy import standardize


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:500].astype(np.float32), y[:500]


@pytest.mark.parametrize("l1_ratio", [0.99, 0.3])
def test_multinomial_elastic_net_matches_logistic_regression(digits, l1_ratio):
    X, y = digits
    path = fit_path(X, y, l1_ratio=l1_ratio, n_lambdas=5, lambda_min_ratio=0.05, tol=1e-8)
    lam = path.lam[-1]
    model = LogisticRegression(
        C=1 / (len(X) * lam), l1_ratio=l1_ratio, solver="saga", tol=1e-7, max_iter=20000, random_state=0
    )
    Z = standardize(X)
    model.fit(Z, y)
    logp = model.predict_log_proba(Z)[np.arange(len(y)), y]
    W = model.coef_
    theirs = -logp.mean() + lam * (l1_ratio * np.abs(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum())
    assert path.objective[-1] <= theirs + 1e-8 * path.meta["null_objective"]
    assert path.objective[-1] == pytest.approx(theirs, abs=1e-5)
    np.testing.assert_allclose(path.weight(4), W, atol=0.02)
    X_raw, raw = X.astype(np.float64), path.raw(4)
    assert (np.argmax(X_raw @ raw[0].T + raw[1], 1) == y).mean() == pytest.approx(path.metrics["train"]["accuracy"][-1])


def test_gaussian_matches_elastic_net(digits):
    X, y = digits
    target = y + 0.1 * np.sin(np.arange(len(y)))
    path = fit_path(X, target, n_lambdas=5, lambda_min_ratio=0.02, l1_ratio=0.7, tol=1e-10)
    model = ElasticNet(alpha=path.lam[-1], l1_ratio=0.7, tol=1e-12, max_iter=100000).fit(standardize(X), target)
    np.testing.assert_allclose(path.weight(4)[0], model.coef_, atol=2e-5)
    assert path.bias(4)[0] == pytest.approx(model.intercept_, abs=1e-9)
    assert path.metrics["train"]["r2"][-1] == pytest.approx(model.score(standardize(X), target), abs=1e-6)


def test_group_lasso_matches_multi_task_elastic_net(digits):
    X, y = digits
    targets = np.eye(10)[y] + 0.01 * np.cos(np.arange(10))
    path = fit_path(
        X,
        targets,
        family="gaussian",
        penalty="group_lasso",
        n_lambdas=5,
        lambda_min_ratio=0.05,
        l1_ratio=0.7,
        tol=1e-10,
    )
    model = MultiTaskElasticNet(alpha=path.lam[-1], l1_ratio=0.7, tol=1e-12, max_iter=100000).fit(
        standardize(X), targets
    )
    np.testing.assert_allclose(path.weight(4), model.coef_, atol=2e-5)
    assert ((path.weight(4) != 0).any(0) == (model.coef_ != 0).any(0)).all()


def test_two_classes_as_one_row(digits):
    """Binomial with one row is half of the two-class softmax's difference: same fit as liblinear's objective."""
    X, y = digits
    y = (y > 4).astype(int)
    path = fit_path(X, y, family="binomial", l1_ratio=1.0, n_lambdas=5, lambda_min_ratio=0.05, tol=1e-9)
    assert path.n_outputs == 1
    model = LogisticRegression(
        C=1 / (len(X) * path.lam[-1]), l1_ratio=1.0, solver="saga", tol=1e-7, max_iter=20000, random_state=0
    ).fit(standardize(X), y)
    np.testing.assert_allclose(path.weight(4), model.coef_, atol=2e-3)
