"""The joint solve against scikit-learn, and what its uncertainty figures mean."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from debugnet.explain.surrogate import Moments, fit_surrogate, kernel_weights


def neighbourhood(n: int = 400, k: int = 7, d: int = 5, noise: float = 0.0, seed: int = 0):
    random = np.random.RandomState(seed)
    switches = random.rand(n, k) > 0.5
    switches[0] = True
    truth = random.randn(k, d)
    y = (switches - 1.0) @ truth + noise * random.randn(n, d)
    return switches, y, truth


def moments_of(switches: np.ndarray, y: np.ndarray, weights: np.ndarray, batch: int = 33) -> Moments:
    halves = np.stack([np.arange(len(y)) % 2 == h for h in range(2)]).astype(float)
    moments = Moments.of_switches(switches, weights, halves, y.shape[1])
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        moments.add(switches[rows], weights[rows], halves[:, rows], y[rows])
    return moments


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 10.0])
def test_solves_the_stated_weighted_ridge(ridge):
    switches, y, _ = neighbourhood(noise=0.3)
    weights = kernel_weights(switches, 0.25)
    fitted = fit_surrogate(moments_of(switches, y, weights), ridge=ridge)
    model = Ridge(alpha=ridge).fit(switches, y, sample_weight=weights)
    np.testing.assert_allclose(fitted.effect, model.coef_.T, atol=1e-10)
    np.testing.assert_allclose(fitted.intercept, model.intercept_, atol=1e-10)
    for j in range(y.shape[1]):
        score = Ridge(alpha=ridge).fit(switches, y[:, j], sample_weight=weights).score(switches, y[:, j], weights)
        assert fitted.r2[j] == pytest.approx(score, abs=1e-10)


def test_a_feature_asked_for_later_gets_the_same_numbers():
    switches, y, _ = neighbourhood(noise=0.3)
    moments = moments_of(switches, y, kernel_weights(switches, 0.25))
    stored = Moments.from_arrays(moments.arrays(np.float64))
    late = fit_surrogate(stored, np.array([3]))
    np.testing.assert_array_equal(late.effect[:, 0], fit_surrogate(moments).effect[:, 3])


def test_storing_in_float32_costs_less_than_a_millionth():
    switches, y, _ = neighbourhood(noise=0.3)
    moments = moments_of(switches, y, kernel_weights(switches, 0.25))
    stored = Moments.from_arrays(moments.arrays())
    np.testing.assert_allclose(fit_surrogate(stored).effect, fit_surrogate(moments).effect, atol=2e-6)


def test_standard_errors_match_the_spread_over_repeated_draws():
    effects, errors = [], []
    for seed in range(200):
        random = np.random.RandomState(seed)
        switches = random.rand(150, 4) > 0.5
        y = (switches @ np.array([1.0, 0.0, -1.0, 0.5]))[:, None] + random.randn(150, 1)
        fitted = fit_surrogate(moments_of(switches, y, kernel_weights(switches, 0.25)), ridge=1e-6)
        effects.append(fitted.effect[:, 0])
        errors.append(fitted.standard_error[:, 0])
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(effects, axis=0), rtol=0.15)


def test_split_half_tells_signal_from_noise():
    switches, y, _ = neighbourhood(n=1000, noise=0.1)
    clean = fit_surrogate(moments_of(switches, y, np.ones(1000)))
    assert (clean.split_half > 0.99).all()
    noise = np.random.RandomState(1).randn(1000, 40)
    empty = fit_surrogate(moments_of(switches, noise, np.ones(1000)))
    assert np.abs(empty.split_half.mean()) < 0.2
    assert (empty.r2 < 0.05).all()


def test_a_feature_that_never_moves_has_no_r2():
    switches, y, _ = neighbourhood()
    fitted = fit_surrogate(moments_of(switches, np.zeros_like(y), np.ones(len(y))))
    assert np.isnan(fitted.r2).all() and (fitted.effect == 0).all() and np.isnan(fitted.split_half).all()
