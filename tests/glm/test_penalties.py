"""Contract of every registered penalty: conjugate, optimality residual, lambda_max strength."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from debugnet.registry import PENALTIES

CASES = [(name, rho, neg) for name in PENALTIES for rho in (1.0, 0.3) for neg in (False, True)]


def make(name, rho, neg, d=3):
    return PENALTIES.load(name)(l1_ratio=rho, factor=torch.linspace(0.5, 2, d).double(), nonnegative=neg)


def tensor(seed, shape=(2, 3)):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("name", "rho", "neg"), CASES)
def test_fenchel_young(name, rho, neg):
    """penalty(W) + penalty*(C) >= <W, C> for every pair."""
    penalty = make(name, rho, neg)
    for seed in range(20):
        W, C = tensor(seed), tensor(seed + 100)
        W = W.abs() if neg else W
        assert penalty.value(W, 0.7) + penalty.conjugate(C, 0.7) >= float((W * C).sum()) - 1e-12


@pytest.mark.parametrize(("name", "rho", "neg"), CASES)
def test_kkt_violation_vanishes_exactly_at_a_prox_point(name, rho, neg):
    """W = prox(V) is optimal for the loss ||W - V||^2 / 2 and nothing near it is."""
    penalty = make(name, rho, neg)
    for seed in range(20):
        V = 2 * tensor(seed)
        W = penalty.prox(V, 0.7, 1.0)
        assert float(penalty.kkt_violation(W, W - V, 0.7).max()) < 1e-12
        other = W + 0.05 * (W != 0)
        if (W != 0).any():
            assert float(penalty.kkt_violation(other, other - V, 0.7).max()) > 1e-3


@pytest.mark.parametrize(("name", "rho", "neg"), CASES)
def test_conjugate_is_attained_where_there_is_a_ridge(name, rho, neg):
    """At rho < 1 the supremum is at W = prox-like soft threshold; at rho = 1 it is 0 or infinite."""
    penalty = make(name, rho, neg)
    C, lam = tensor(1), 0.7
    if rho == 1:
        assert math.isinf(penalty.conjugate(100 * C, lam))
        assert penalty.conjugate(penalty.feasible_scale(-C, lam) * -C, lam) == 0
        return
    # argmax <C, W> - penalty(W): the prox of C/ridge with the matching step, found by ascent here
    W = torch.zeros_like(C)
    for _ in range(4000):
        W = penalty.prox(W + 0.05 * C, lam, 0.05)
    assert float(penalty.conjugate(C, lam)) == pytest.approx(float((C * W).sum() - penalty.value(W, lam)), abs=1e-9)


@pytest.mark.parametrize(("name", "rho", "neg"), CASES)
def test_strength_is_where_zero_stops_being_optimal(name, rho, neg):
    penalty = make(name, rho, neg)
    G, zero = tensor(5), torch.zeros((2, 3)).double()
    lam = float(penalty.strength(G).max()) / rho
    assert float(penalty.kkt_violation(zero, G, lam * 1.0001).max()) == 0
    assert float(penalty.kkt_violation(zero, G, lam * 0.999).max()) > 0


def test_sqrt_group_weight_multiplies_the_group_norm():
    one = PENALTIES.load("group_lasso")(l1_ratio=1.0, factor=torch.ones(3).double())
    four = PENALTIES.load("group_lasso")(l1_ratio=1.0, factor=torch.ones(3).double(), group_weight=2.0)
    assert float(four.value(tensor(0), 1.0)) == pytest.approx(2 * float(one.value(tensor(0), 1.0)))
    assert float(four.strength(tensor(0)).max()) == pytest.approx(float(one.strength(tensor(0)).max()) / 2)


@pytest.mark.parametrize(("name", "rho", "neg"), CASES)
def test_points_side_by_side_are_the_points_alone(name, rho, neg):
    penalty = make(name, rho, neg)
    W, G, lam = tensor(1, (4, 2, 3)).abs(), tensor(2, (4, 2, 3)), torch.tensor([0.9, 0.5, 0.2, 0.1]).double()
    W[1, :, 0] = 0
    for method in (penalty.kkt_violation, lambda W, G, lam: penalty.conjugate(0.1 * G, lam)):
        alone = torch.stack([method(W[i], G[i], float(lam[i])) for i in range(4)])
        torch.testing.assert_close(method(W, G, lam), alone)
    for method in (penalty.value, penalty.feasible_scale):
        torch.testing.assert_close(method(W, lam), torch.stack([method(W[i], float(lam[i])) for i in range(4)]))
    torch.testing.assert_close(penalty.strength(G), torch.stack([penalty.strength(G[i]) for i in range(4)]))
