"""Metrics against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from debugnet.analysis import accuracy
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer


def make_head(rng, n_outputs, family, task, d=6):
    standardizer = Standardizer(rng.normal(size=d), rng.uniform(0.5, 2, size=d))
    names = [f"class {k}" for k in range(max(2, n_outputs))]
    return LinearHead(rng.normal(size=(n_outputs, d)), rng.normal(size=n_outputs), standardizer, family, names, task)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_single_label_metrics_match_scikit_learn(rng, monkeypatch):
    monkeypatch.setattr(accuracy, "BLOCK_ROWS", 17)
    head = make_head(rng, 4, "multinomial", "single-label")
    X = rng.normal(size=(203, 6)).astype(np.float32)
    y = rng.integers(0, 3, size=203)  # class 3 never occurs
    got = accuracy.evaluate(head, X, y)
    scores = head.logits(X)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, head.predict(X)))
    recalls = [np.mean(head.predict(X)[y == k] == k) for k in range(3)]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert got["loss"] == pytest.approx(sk.log_loss(y, probabilities, labels=range(4)))
    assert got["accuracy_se"] == pytest.approx(np.sqrt(got["accuracy"] * (1 - got["accuracy"]) / 203))


def test_the_loss_is_weighted_and_the_counts_are_not(rng):
    head = make_head(rng, 3, "multinomial", "single-label")
    X, y = rng.normal(size=(40, 6)), rng.integers(0, 3, size=40)
    weight = rng.uniform(size=40)
    got = accuracy.evaluate(head, X, y, sample_weight=weight)
    losses = accuracy.row_losses(head.logits(X), y, "multinomial")
    assert got["loss"] == pytest.approx((weight * losses).sum() / weight.sum())
    assert got["accuracy"] == accuracy.evaluate(head, X, y)["accuracy"]


def test_one_row_binomial_and_one_vs_rest_losses(rng):
    X, y = rng.normal(size=(30, 6)), rng.integers(0, 2, size=30)
    single = make_head(rng, 1, "binomial", "single-label")
    p = 1 / (1 + np.exp(-single.logits(X)[:, 0]))
    assert accuracy.evaluate(single, X, y)["loss"] == pytest.approx(sk.log_loss(y, p))
    y = rng.integers(0, 4, size=30)
    several = make_head(rng, 4, "binomial", "single-label")
    p = 1 / (1 + np.exp(-several.logits(X)))
    expected = sum(sk.log_loss(y == k, p[:, k]) for k in range(4))
    assert accuracy.evaluate(several, X, y)["loss"] == pytest.approx(expected)


def test_multi_label_metrics_match_scikit_learn_and_skip_an_absent_label(rng):
    head = make_head(rng, 3, "binomial", "multi-label")
    X = rng.normal(size=(150, 6))
    y = (rng.uniform(size=(150, 3)) < [0.5, 0.1, 0.0]).astype(np.uint8)
    got = accuracy.evaluate(head, X, y)
    predicted, scores = head.predict(X), head.logits(X)
    for k in range(2):
        assert got[f"accuracy[{k}]"] == pytest.approx(sk.accuracy_score(y[:, k], predicted[:, k]))
        assert got[f"balanced_accuracy[{k}]"] == pytest.approx(sk.balanced_accuracy_score(y[:, k], predicted[:, k]))
        assert got[f"average_precision[{k}]"] == pytest.approx(sk.average_precision_score(y[:, k], scores[:, k]))
    assert np.isnan(got["balanced_accuracy[2]"])
    assert got["balanced_accuracy"] == pytest.approx((got["balanced_accuracy[0]"] + got["balanced_accuracy[1]"]) / 2)
    assert got["accuracy"] == pytest.approx((predicted == y).mean())
    assert got["exact_match"] == pytest.approx(sk.accuracy_score(y, predicted))


def test_regression_metrics_match_scikit_learn(rng):
    head = make_head(rng, 2, "gaussian", "regression")
    X = rng.normal(size=(50, 6))
    y = head.logits(X) + rng.normal(size=(50, 2))
    got = accuracy.evaluate(head, X, y)
    assert got["r2"] == pytest.approx(sk.r2_score(y, head.predict(X)))
    assert got["mse"] == pytest.approx(sk.mean_squared_error(y, head.predict(X)))
    assert got["loss"] == pytest.approx(0.5 * ((y - head.predict(X)) ** 2).sum(axis=1).mean())
    y[:, 1] = 3.0  # a constant output has no R2 and must not turn the mean into NaN
    assert accuracy.evaluate(head, X, y)["r2"] == pytest.approx(sk.r2_score(y[:, 0], head.predict(X)[:, 0]))
