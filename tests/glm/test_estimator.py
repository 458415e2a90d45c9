"""The scikit-learn estimator: scikit-learn's own checks, and the selection."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from debugnet.glm import SparseDecisionLayer

#: With a given lambda every check applies.
ESTIMATOR = SparseDecisionLayer(lam=0.01, device="cpu")


@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(ESTIMATOR)),
    ids=lambda value: getattr(getattr(value, "func", value), "__name__", ""),
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_check_list_of_the_default_estimator():
    """Selecting lambda on held-out rows passes what does not compare weights with repeated rows (another split)."""
    skipped = {"check_sample_weight_equivalence_on_dense_data", "check_sample_weights_invariance"}
    quick = {
        "check_classifiers_train",
        "check_fit2d_1sample",
        "check_estimators_pickle",
        "check_class_weight_classifiers",
    }
    for estimator, check in estimator_checks_generator(SparseDecisionLayer(n_lambdas=5, lambda_min_ratio=0.05)):
        if check.func.__name__ in quick - skipped:
            check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:700].astype(np.float32), y[:700]


def test_selects_the_sparsest_point_within_the_drop(digits):
    X, y = digits
    names = np.array(list("abcdefghij"))[y]
    model = SparseDecisionLayer(n_lambdas=15, lambda_min_ratio=0.02, drop=0.05, tol=1e-4).fit(X, names)
    accuracy = model.path_.metrics["val"]["accuracy"]
    chosen = int(np.flatnonzero(model.path_.lam == model.lam_)[0])
    assert accuracy[chosen] >= accuracy.max() - 0.05
    assert all(
        accuracy[i] < accuracy.max() - 0.05
        for i in range(len(accuracy))
        if model.path_.nnz[i] < model.path_.nnz[chosen]
    )
    assert set(model.predict(X)) <= set("abcdefghij")
    assert model.score(X, names) > 0.85
    assert (model.coef_ == 0).mean() > 0.5
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    np.testing.assert_array_equal(model.head_.logits(X), model.decision_function(X))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("family", ["multinomial", "binomial"])
def test_two_classes(digits, family):
    X, y = digits
    y = np.where(y > 4, "high", "low")
    model = SparseDecisionLayer(lam=0.01, family=family).fit(X, y)
    assert model.coef_.shape == ((2, 64) if family == "multinomial" else (1, 64))
    decision = model.decision_function(X)
    assert decision.shape == (700,)
    np.testing.assert_array_equal(model.predict(X), np.where(decision > 0, "low", "high"))
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)), atol=1e-12)


def test_multi_label(digits):
    X, y = digits
    labels = np.stack([y > 4, y % 2, y == 0], 1).astype(int)
    model = SparseDecisionLayer(lam=0.01).fit(X, labels)
    assert model.predict(X).shape == labels.shape
    assert (model.predict(X) == labels).mean() > 0.85


def test_works_in_a_pipeline_and_a_cross_validation(digits):
    X, y = digits
    pipeline = make_pipeline(FunctionTransformer(), SparseDecisionLayer(lam=0.02, tol=1e-3))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8


def test_refusals_are_value_errors(digits):
    X, y = digits
    with pytest.raises(ValueError, match="one class only"):
        SparseDecisionLayer(lam=0.1).fit(X, np.zeros(700))
    with pytest.raises(ValueError, match="l1_ratio"):
        SparseDecisionLayer(lam=0.1, l1_ratio=0).fit(X, y)
