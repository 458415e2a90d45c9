"""Suspects: planted shortcuts are found with what goes with them, and nothing is found without one."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.analysis.misclassification import ablate_features, find_errors
from debugnet.analysis.suspects import Samples, combine_evidence, find_companions, measure_reliance
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer

CARRIERS = (6, 7, 8)  # all of them carry the shortcut to class 1


def sample(head: LinearHead, X: np.ndarray, y: np.ndarray) -> Samples:
    return Samples(X, head.logits(X), y)


def suspicion(head: LinearHead, test: Samples, train: Samples) -> tuple[float, int]:
    """Smallest combined p-value, and its feature."""
    reliance = measure_reliance(head, test, train)
    p_value = combine_evidence(reliance, ablate_features(head, test.X, test.y))
    return float(p_value.min()), int(reliance.feature[p_value.argmin()])


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
    return head, Samples(X, head.logits(X), y), sample(head, *draw(600, holds))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("binary", [False, True])
def test_a_carrier_is_the_first_suspect_and_its_companions_are_the_others(binary):
    for seed in range(4):
        head, train, test = planted(seed, 2.5, binary=binary)
        X, y = test.X, test.y
        p_value, first = suspicion(head, test, train)
        assert first in CARRIERS and p_value < 0.01
        found = find_companions(head, X, y, find_errors(head, head.predict(X), y), first)
        assert set(found.feature) == set(CARRIERS) and found.misled >= 5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("strength, holds", [(0.0, False), (2.5, True)])
def test_false_alarms_are_rare(strength, holds):
    alarms = 0
    for seed in range(20):
        head, train, test = planted(seed, strength, holds=holds)
        alarms += suspicion(head, test, train)[0] < 0.05
    assert alarms <= 3  # 20 draws at 5%: more than 3 has probability 1.6%


def test_the_statistic_is_the_derivative_of_the_calibrated_loss():
    """Against finite differences of the loss by the scale of one feature's contribution."""
    from debugnet.analysis import suspects

    head, _, test = planted(0, 2.5)
    effect, temperature = suspects._contribution_effects(head, test, head.used_features)
    logits, weight = suspects._as_outputs(head, test.scores)
    target = np.eye(logits.shape[1])[test.y]
    Z = head.standardizer.transform(test.X)
    shifts = np.log(target.mean(axis=0))  # any shift will do: only the residual at the optimum is compared

    def calibrated_loss(v: np.ndarray, scores: np.ndarray) -> float:
        scaled = temperature * scores + v
        return float((np.log(np.exp(scaled).sum(axis=1)) - (target * scaled).sum(axis=1)).mean())

    from scipy.optimize import minimize

    shift = minimize(calibrated_loss, shifts, args=(logits,)).x
    for at, j in enumerate(head.used_features[:3]):
        step = 1e-4
        up, down = (calibrated_loss(shift, logits + s * Z[:, [j]] * weight[:, j]) for s in (step, -step))
        calibration = suspects._calibrate(logits, test.y)
        residual = temperature * suspects._loss_and_residual(logits, test.y, calibration)[1]
        spread = ((residual @ weight[:, [j]]) * Z[:, [j]]).std()
        assert effect[at] * spread == pytest.approx((up - down) / (2 * step), abs=2e-3)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_calibration_gradient_is_that_of_its_loss(multilabel):
    from scipy.optimize import approx_fprime

    from debugnet.analysis import suspects

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4))
    y = rng.integers(0, 2, (50, 4)) if multilabel else rng.integers(0, 4, 50)
    v = rng.normal(size=5) * 0.3
    _, residual = suspects._loss_and_residual(logits, y, v)
    found = np.concatenate([[np.exp(v[0]) * np.vdot(residual, logits)], residual.sum(axis=0)])
    assert np.allclose(found, approx_fprime(v, lambda u: suspects._loss_and_residual(logits, y, u)[0]), atol=1e-4)


def test_overconfidence_alone_is_no_suspect():
    head, train, test = planted(1, 0.0)
    loud = LinearHead(head.weight * 6, head.bias * 6, head.standardizer, head.family, head.class_names)
    reliance = measure_reliance(loud, sample(loud, test.X, test.y), sample(loud, train.X, train.y))
    assert reliance.temperature < 0.5 and reliance.p_value.min() > 0.01


def test_too_few_errors_say_nothing():
    head, _, test = planted(2, 0.0)
    X = test.X
    found = find_companions(head, X, head.predict(X), find_errors(head, head.predict(X), head.predict(X)), 0)
    assert found.misled == 0 and len(found.feature) == 0
