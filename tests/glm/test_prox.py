"""Every prox against a grid search of its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from debugnet.glm.prox import group_soft_threshold, nonnegative_soft_threshold, soft_threshold
from debugnet.registry import PENALTIES


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("name", list(PENALTIES))
@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_prox_minimizes_its_definition(name, nonnegative, l1_ratio):
    """No point of a fine grid around it beats the prox (two outputs, two features, factors 0.5 and 2)."""
    penalty = PENALTIES.load(name)(l1_ratio=l1_ratio, factor=torch.tensor([0.5, 2.0]).double(), nonnegative=nonnegative)
    lam, step = 0.7, 0.6
    offsets = np.linspace(-0.5, 0.5, 21)
    for seed in range(8):
        V = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 2)))
        W = penalty.prox(V, lam, step)

        def value(w, V=V):
            return float((w - V).square().sum()) / (2 * step) + penalty.value(w, lam)

        assert not nonnegative or bool((W >= 0).all())
        best = value(W)
        for j, (a, b) in itertools.product(range(2), itertools.product(offsets, offsets)):
            trial = W.clone()
            trial[:, j] += torch.tensor([a, b])
            if nonnegative and bool((trial < 0).any()):
                continue
            assert value(trial) >= best - 1e-12


def test_thresholds_give_exact_zeros():
    V = torch.tensor([[0.5, -0.2], [3.0, 0.1]], dtype=torch.float64)
    assert soft_threshold(V, 0.5).tolist() == [[0.0, 0.0], [2.5, 0.0]]
    assert nonnegative_soft_threshold(V, 0.1).tolist() == [[0.4, 0.0], [2.9, 0.0]]
    assert group_soft_threshold(V, 0.3)[:, 1].tolist() == [0.0, 0.0]


def test_group_threshold_of_a_dead_feature_is_zero_and_not_nan():
    assert group_soft_threshold(torch.zeros((3, 2)).double(), 0.0).tolist() == [[0.0, 0.0]] * 3
