"""Losses against finite differences and against their conjugates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.glm.families import FAMILIES


def batch(name, n=7, K=3):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(3 * rng.normal(size=(n, K)))
    target = {
        "multinomial": torch.from_numpy(rng.integers(0, K, n)),
        "binomial": torch.from_numpy(rng.integers(0, 2, (n, K)).astype(np.float32)),
        "gaussian": torch.from_numpy(rng.normal(size=(n, K))),
    }[name]
    return scores, target


@pytest.mark.parametrize("name", list(FAMILIES))
def test_residual_is_the_derivative_of_the_loss(name):
    family, (scores, target) = FAMILIES[name], batch(name)
    residual, h = family.residual(scores, target), 1e-6
    for k in range(scores.shape[1]):
        shift = torch.zeros_like(scores)
        shift[:, k] = h
        slope = (family.loss(scores + shift, target) - family.loss(scores - shift, target)) / (2 * h)
        torch.testing.assert_close(residual[:, k], slope, atol=1e-8, rtol=0)
    dense = family.dense_target(target, scores.shape[1], torch.float64)
    torch.testing.assert_close(residual, family.mean(scores) - dense)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_curvature_bounds_the_hessian_and_variance_is_its_diagonal(name):
    family, (scores, target) = FAMILIES[name], batch(name)
    for i in range(len(scores)):
        row = scores[i].clone().requires_grad_()
        H = torch.autograd.functional.hessian(lambda s, i=i: family.loss(s[None], target[i : i + 1])[0], row)
        assert float(torch.linalg.eigvalsh(H)[-1]) <= family.curvature + 1e-12
        torch.testing.assert_close(H.diagonal(), family.variance(family.mean(scores))[i])
        assert family.separable == bool((H - torch.diag(H.diagonal())).abs().max() < 1e-12)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("s", [1.0, 0.4])
def test_conjugate(name, s):
    """Fenchel-Young: equality at the residual, an inequality with any other scores."""
    family, (scores, target) = FAMILIES[name], batch(name)
    dual = s * family.residual(scores, target)
    conjugate = family.conjugate(dual, target)
    slack = family.loss(scores, target) + conjugate - (dual * scores).sum(1)
    assert bool((slack >= -1e-12).all())
    if s == 1:
        torch.testing.assert_close(slack, torch.zeros_like(slack), atol=1e-10, rtol=0)
    other = scores + torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)).double()
    assert bool((family.loss(other, target) + conjugate - (dual * other).sum(1) >= -1e-12).all())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_extreme_scores_stay_finite(name):
    family, (scores, target) = FAMILIES[name], batch(name)
    for part in (family.loss(1e4 * scores, target), family.residual(1e4 * scores, target)):
        assert bool(torch.isfinite(part).all())
