"""Taking pairs of words out beforehand: nothing changes in expectation, and much less noise."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.explain.interactions import control_interactions, pure_interactions
from debugnet.explain.surrogate import Moments, fit_surrogate, kernel_weights
from debugnet.explain.word_subsets import Neighbourhood, draw_subsets

K = 9
RANDOM = np.random.RandomState(0)
LINEAR, PAIRS = RANDOM.randn(K, 3), 0.5 * RANDOM.randn(K * (K - 1) // 2, 3)
PAIRS[:, 2] = 0.0


def answers(switches: np.ndarray) -> np.ndarray:
    """Linear and pairwise effects, and a little of threes; the third feature has no pairs."""
    first, second = np.triu_indices(K, 1)
    threes = (switches[:, :1] & switches[:, 1:2] & switches[:, 2:3]) * np.array([[0.3, 0.0, 0.0]])
    y = switches @ LINEAR + (switches[:, first] & switches[:, second]) @ PAIRS + threes
    return (y - y[0]).astype(np.float32)


def kernel(switches: np.ndarray) -> np.ndarray:
    return kernel_weights(switches, 25.0, 100.0)


SIZES = kernel(np.tri(K + 1, K, -1, dtype=bool))


def moments_of(near: Neighbourhood) -> Moments:
    weights, y = kernel(near.switches), answers(near.switches)
    moments = Moments.of_switches(near.switches, weights, near.counts, 3, near.noise)
    moments.add(near.switches, weights, near.counts, y)
    return moments


def controlled(near: Neighbourhood) -> Moments:
    return control_interactions(moments_of(near), near, kernel(near.switches), SIZES, answers(near.switches))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return fit_surrogate(moments_of(draw_subsets(K, 2**K, 0)), ridge=1e-9).effect


def test_pure_interactions_have_no_linear_effect():
    near = draw_subsets(K, 2**K, 0)
    v = near.counts.sum(axis=0) * kernel(near.switches)
    design = np.concatenate([np.ones((len(v), 1)), near.switches], axis=1)
    found = pure_interactions(near.switches, SIZES) @ (design * v[:, None])
    np.testing.assert_allclose(found, 0, atol=1e-3)


def test_unbiased_and_several_times_more_precise(truth):
    plain, better = [], []
    for seed in range(60):
        near = draw_subsets(K, 250, seed)
        plain.append(fit_surrogate(moments_of(near), ridge=1e-9).effect)
        better.append(fit_surrogate(controlled(near), ridge=1e-9).effect)
    for j in range(2):
        before, after = (np.mean((np.array(e) - truth)[:, :, j] ** 2) for e in (plain, better))
        assert before > 4 * after
    spread = np.std(better, axis=0) / np.sqrt(60)
    assert (np.abs(np.mean(better, axis=0) - truth) < 4.5 * spread + 1e-6).all()


def test_standard_errors_are_those_of_the_better_estimate():
    effects, errors = [], []
    for seed in range(80):
        fitted = fit_surrogate(controlled(draw_subsets(K, 150, seed)), ridge=1e-9)
        effects.append(fitted.effect[:, 0])
        errors.append(fitted.standard_error[:, 0])
    assert np.mean(errors) == pytest.approx(np.std(effects, axis=0).mean(), rel=0.35)


def test_r2_stays_that_of_the_answers(truth):
    near = draw_subsets(K, 2**K, 0)
    exact = fit_surrogate(moments_of(near), ridge=1e-9).r2
    found = [fit_surrogate(controlled(draw_subsets(K, 200, seed))).r2 for seed in range(20)]
    np.testing.assert_allclose(np.mean(found, axis=0), exact, atol=0.04)


def test_a_feature_without_interactions_is_left_as_it_is(truth):
    fitted = fit_surrogate(controlled(draw_subsets(K, 150, 3)), ridge=1e-9)
    np.testing.assert_allclose(fitted.effect[:, 2], truth[:, 2], atol=1e-4)
    assert fitted.split_half[2] == pytest.approx(1, abs=1e-6)


def test_noise_is_not_made_to_agree():
    """Both halves' coefficients come from the other half: of pure noise they must not agree."""
    agreement = []
    for seed in range(30):
        near, weights = draw_subsets(12, 200, seed), None
        weights = kernel(near.switches)
        y = np.random.RandomState(seed).randn(len(near.switches), 20).astype(np.float32)
        moments = Moments.of_switches(near.switches, weights, near.counts, 20, near.noise)
        moments.add(near.switches, weights, near.counts, y)
        sizes = kernel(np.tri(13, 12, -1, dtype=bool))
        agreement.append(fit_surrogate(control_interactions(moments, near, weights, sizes, y)).split_half)
    assert np.mean(agreement) < 0.5


def test_enumerated_short_and_very_long_texts_are_left_alone():
    for n_words, n_samples in ((3, 8), (K, 2**K), (40, 60)):
        near = draw_subsets(n_words, n_samples, 0)
        moments = Moments.of_switches(near.switches, np.ones(len(near.switches)), near.counts, 1)
        sizes = np.ones(n_words + 1)
        y = np.zeros((len(near.switches), 1), np.float32)
        assert control_interactions(moments, near, np.ones(len(y)), sizes, y) is moments
