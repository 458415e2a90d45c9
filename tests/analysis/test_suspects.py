"""Suspects: planted shortcuts are found with what goes with them, and nothing is found without one."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.analysis.misclassification import find_errors
from debugnet.analysis.suspects import find_companions, measure_reliance
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer

CARRIERS = (6, 7, 8)  # all of them carry the shortcut to class 1


def planted(seed: int, strength: float, *, binary: bool = False, holds: bool = False):
    """Fit a sparse layer where features 6-8 may tell class 1; draw samples where they do not any more."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    n_classes = 2 if binary else 3

    def draw(n: int, shortcut_holds: bool) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, n_classes, n)
        X = rng.normal(size=(n, 15))
        X[np.arange(n), y] += 1.5
        patched = (y == 1) if shortcut_holds else rng.random(n) < 0.3
        X[:, CARRIERS] += strength * patched[:, None] * np.array([1.0, 0.9, 0.8])
        return X, y

    X, y = draw(500, True)
    standardizer = Standardizer(X.mean(axis=0), X.std(axis=0))
    fit = LogisticRegression(C=0.05, l1_ratio=1.0, solver="saga", max_iter=300).fit(standardizer.transform(X), y)
    head = LinearHead(
        *standardizer.to_raw(fit.coef_, fit.intercept_), standardizer, "binomial" if binary else "multinomial",
        ["a", "b", "c"][:n_classes],
    )  # fmt: skip
    return (head, *draw(600, holds))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("binary", [False, True])
def test_a_carrier_is_the_first_suspect_and_its_companions_are_the_others(binary):
    for seed in range(4):
        head, X, y = planted(seed, 2.5, binary=binary)
        reliance = measure_reliance(head, X, head.logits(X), y)
        first = int(reliance.feature[reliance.z.argmax()])
        assert first in CARRIERS and reliance.p_value.min() < 0.05
        found = find_companions(head, X, y, find_errors(head, head.predict(X), y), first)
        assert set(found.feature) == set(CARRIERS) and found.misled >= 5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("strength, holds", [(0.0, False), (2.5, True)])
def test_false_alarms_are_rare(strength, holds):
    alarms = 0
    for seed in range(20):
        head, X, y = planted(seed, strength, holds=holds)
        alarms += measure_reliance(head, X, head.logits(X), y).p_value.min() < 0.05
    assert alarms <= 3  # 20 draws at 5%: more than 3 has probability 1.6%


def test_the_statistic_is_the_derivative_of_the_calibrated_loss():
    """Against finite differences of the loss by the scale of one feature's contribution."""
    head, X, y = planted(0, 2.5)
    scores = head.logits(X)
    reliance = measure_reliance(head, X, scores, y)
    from debugnet.analysis import suspects

    logits, target, weight = suspects._as_outputs(head, scores, y)
    residual, _ = suspects._calibrate(logits, target, False)
    Z = head.standardizer.transform(X)
    j = int(reliance.feature[0])
    contribution = Z[:, [j]] * weight[:, j]
    per_sample = (residual * contribution).sum(axis=1)
    expected = per_sample.mean() / (per_sample.std() / np.sqrt(len(y)))
    assert reliance.z[0] == pytest.approx(expected, rel=1e-6)
    assert residual.sum() == pytest.approx(0, abs=0.5)


def test_overconfidence_alone_is_no_suspect():
    head, X, y = planted(1, 0.0)
    loud = LinearHead(head.weight * 6, head.bias * 6, head.standardizer, head.family, head.class_names)
    reliance = measure_reliance(loud, X, loud.logits(X), y)
    assert reliance.temperature < 0.5 and reliance.p_value.min() > 0.01


def test_too_few_errors_say_nothing():
    head, X, y = planted(2, 0.0)
    found = find_companions(head, X, head.predict(X), find_errors(head, head.predict(X), head.predict(X)), 0)
    assert found.misled == 0 and len(found.feature) == 0
