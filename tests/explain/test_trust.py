"""The deletion check: it confirms what is there and refuses what is not."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.explain.surrogate import Moments, fit_surrogate
from debugnet.explain.trust import deletion_masks, fit_flags, judge, strongest_parts


def explained(function, n_parts: int = 12, n: int = 600):
    random = np.random.RandomState(0)
    switches = random.rand(n, n_parts) > 0.5
    switches[0] = True
    whole = function(np.ones((1, n_parts), bool))
    halves = np.stack([np.arange(n) % 2 == h for h in range(2)]).astype(float)
    moments = Moments.of_switches(switches, np.ones(n), halves, whole.shape[1])
    moments.add(switches, np.ones(n), halves, function(switches) - whole)
    return fit_surrogate(moments)


def check(function, sides, n_random=20):
    surrogate = explained(function)
    switches = deletion_masks(surrogate.effect, sides, n_removed=3, n_random=n_random, seed=0)
    change = function(switches) - function(np.ones((1, switches.shape[1]), bool))
    return judge(sides, surrogate, switches, change)


def linear(switches):
    weights = np.array([3.0, 2.0, 1.0, -3.0, -2.0, -1.0, *np.zeros(6)])
    return np.repeat((switches @ weights)[:, None], 2, axis=1)


def test_a_linear_feature_passes_on_both_sides():
    up, down = check(linear, ["positive", "negative"])
    assert up.flags == down.flags == ()
    assert (up.measured, down.measured) == (-6, 6)
    assert up.predicted == pytest.approx(-6, abs=0.1) and down.predicted == pytest.approx(6, abs=0.1)
    assert up.random_as_strong == 0 and abs(up.random_mean) < 3


def test_noise_is_refused():
    random = np.random.RandomState(3)
    verdicts = check(lambda z: random.randn(len(z), 8), ["positive", "negative"] * 4)
    assert all(verdict.flags for verdict in verdicts)


def test_a_fit_that_the_network_contradicts_is_refused():
    """Parity: no part matters on its own, so whatever the fit names, deletion does not bear it out."""
    (verdict,) = check(lambda z: ((z.sum(axis=1) % 2)[:, None]).astype(float), ["positive"])
    assert verdict.flags


def test_a_feature_that_never_moves_says_so():
    (verdict,) = check(lambda z: np.zeros((len(z), 1)), ["positive"])
    assert verdict.flags == ("the feature does not react to this sample's parts",)


def test_masks_have_one_size_and_take_the_strongest():
    effect = np.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 0.0], [0.0, 3.0]])
    masks = deletion_masks(effect, ["positive", "negative"], n_removed=3, n_random=5, seed=1)
    assert masks.shape == (7, 4) and ((~masks).sum(axis=1) == 2).all()  # at most half of the parts
    assert set(np.flatnonzero(~masks[0])) == {0, 1} and set(np.flatnonzero(~masks[1])) == {0, 2}
    assert strongest_parts(np.array([np.nan, 1.0, -1.0]), "positive", 1).tolist() == [1]


def test_fit_flags_need_both_fit_and_agreement():
    assert fit_flags(0.9, 0.95) == ()
    assert fit_flags(0.1, 0.95) and fit_flags(0.9, 0.5) and fit_flags(0.9, float("nan"))
