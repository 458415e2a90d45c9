"""Error causes and ablations against a sample-by-sample rewrite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from debugnet.analysis.misclassification import (
    ZERO_ROW,
    Coordinates,
    ablate_features,
    decompose,
    explain_errors,
    find_errors,
)
from debugnet.heads import LinearHead
from tests.analysis.heads import random_head, random_samples

KINDS = {"multinomial": (4, "single-label"), "binary": (1, "single-label"), "labels": (3, "multi-label")}


@pytest.fixture(params=KINDS)
def case(request) -> tuple[LinearHead, np.ndarray, np.ndarray]:
    n_outputs, task = KINDS[request.param]
    head = random_head(3, n_outputs=n_outputs, task=task)
    X = random_samples(head, 200, seed=4)
    rng = np.random.default_rng(5)
    y = head.predict(X)
    flip = rng.random(y.shape) < 0.3
    n_classes = 2 if n_outputs == 1 or task == "multi-label" else n_outputs
    return head, X, np.where(flip, rng.integers(0, n_classes, y.shape), y)


def with_feature_off(head: LinearHead, X: np.ndarray, feature: int, off: str) -> np.ndarray:
    """Oracle: replace the raw feature by its train mean or by zero, and predict again."""
    X = X.copy()
    X[:, feature] = head.standardizer.mean[feature] if off == "mean" else 0.0
    return head.predict(X)


@pytest.mark.parametrize("off", ["mean", "zero"])
def test_causes_match_a_plain_rewrite(case, off):
    head, X, y = case
    predictions = head.predict(X)
    errors = find_errors(head, predictions, y)
    causes = explain_errors(head, X, errors, off=off)
    assert len(errors) == np.count_nonzero(predictions != y) > 5
    coordinates = Coordinates.of(head, off)
    rows = np.vstack([coordinates.weight, np.zeros(coordinates.weight.shape[1])])
    for i in range(len(errors)):
        x = X[errors.sample[i]]
        z = (x - coordinates.shift) * coordinates.factor
        gamma = np.array([rows[errors.wrong[i], j] * z[j] - rows[errors.right[i], j] * z[j] for j in range(len(z))])
        assert causes.feature_wrong[i] == gamma.argmax()
        assert causes.feature_right[i] == gamma.argmin()
        assert causes.gamma_wrong[i] == pytest.approx(gamma.max())
        after = with_feature_off(head, x[None], int(gamma.argmax()), off)[0]
        truth = y[errors.sample[i]]
        if head.task == "multi-label":
            label = max(errors.wrong[i], errors.right[i])
            after, truth = after[label], truth[label]
        assert causes.fixed[i] == (after == truth)


@pytest.mark.parametrize("off", ["mean", "zero"])
def test_ablation_counts_match_predicting_everything_again(case, off):
    head, X, y = case
    result = ablate_features(head, X, y, off=off)
    before = head.predict(X) == y
    for feature, fixed, broken in zip(result.feature, result.fixed, result.broken, strict=True):
        after = with_feature_off(head, X, feature, off) == y
        assert (fixed, broken) == (np.count_nonzero(after & ~before), np.count_nonzero(~after & before))


@pytest.mark.parametrize("users", [1, 3, 9])
def test_ablation_of_a_sparse_layer_with_many_classes(users):
    """9 of 20 classes use each feature: more than there are leaders, so that some rows have no leader that stays."""
    rng = np.random.default_rng(users)
    dense = random_head(6, n_outputs=20, task="single-label")
    weight = np.zeros_like(dense.weight)
    for j in range(weight.shape[1]):
        classes = rng.choice(20, size=users, replace=False)
        weight[classes, j] = 3 * dense.weight[classes, j]
    head = replace(dense, weight=weight)
    X = random_samples(head, 300, seed=7)
    y = np.where(rng.random(300) < 0.5, head.predict(X), rng.integers(0, 20, 300))
    result, before = ablate_features(head, X, y), head.predict(X) == y
    assert result.fixed.sum() + result.broken.sum() > 20
    for feature, fixed, broken in zip(result.feature, result.fixed, result.broken, strict=True):
        after = with_feature_off(head, X, feature, "mean") == y
        assert (fixed, broken) == (np.count_nonzero(after & ~before), np.count_nonzero(~after & before))


def test_turning_a_feature_off_lowers_the_gap_by_gamma(case):
    head, X, y = case
    errors = find_errors(head, head.predict(X), y)
    causes = explain_errors(head, X, errors)
    x = X[errors.sample[0]].copy()
    before = decompose(head, x, int(errors.wrong[0]), int(errors.right[0]))
    x[causes.feature_wrong[0]] = head.standardizer.mean[causes.feature_wrong[0]]
    after = decompose(head, x, int(errors.wrong[0]), int(errors.right[0]))
    assert before["gap"] - after["gap"] == pytest.approx(causes.gamma_wrong[0])


@pytest.mark.parametrize("off", ["mean", "zero"])
def test_decomposition_sums_to_the_logit_gap(case, off):
    head, X, _ = case
    parts = decompose(head, X[0], 0, ZERO_ROW if len(head.weight) == 1 else 1, off=off)
    assert parts["gap"] == pytest.approx(parts["contributions"].sum() + parts["bias"])
    assert abs(parts["residual"]) < 1e-9


def test_no_error_gives_empty_causes():
    head = random_head(1)
    X = random_samples(head, 20, seed=2)
    errors = find_errors(head, head.predict(X), head.predict(X))
    assert len(errors) == 0 and len(explain_errors(head, X, errors).fixed) == 0


def planted(seed: int, shortcut: bool) -> tuple[LinearHead, np.ndarray, np.ndarray]:
    """A fitted two-class layer whose feature 3 tells class 1 in training and nothing afterwards."""
    from sklearn.linear_model import LogisticRegression

    from debugnet.standardization import Standardizer

    rng = np.random.default_rng(seed)

    def draw(n: int, holds: bool) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 3, n)
        X = rng.normal(size=(n, 10))
        X[np.arange(n), y] += 2.0
        if shortcut:
            X[:, 3] += 3.0 * ((y == 1) if holds else (rng.random(n) < 0.4))
        return X, y

    X, y = draw(600, True)
    fit = LogisticRegression(C=0.3).fit(X, y)
    head = LinearHead(fit.coef_, fit.intercept_, Standardizer(X.mean(0), X.std(0)), "multinomial", ["a", "b", "c"])
    return head, *draw(400, False)


def test_a_planted_shortcut_is_the_first_suspect():
    for seed in range(5):
        result = ablate_features(*planted(seed, shortcut=True))
        assert result.feature[result.p_value.argmin()] == 3 and result.p_value.min() < 1e-3


def test_without_a_shortcut_nothing_is_suspected():
    alarms = [ablate_features(*planted(seed, shortcut=False)).p_value.min() < 0.05 for seed in range(20)]
    assert sum(alarms) <= 1
