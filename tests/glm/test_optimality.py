"""The certificate: a true lower bound at any point, tight at the optimum, and blind to how the point was found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.glm.optimality import certify, certify_many
from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from debugnet.glm.problem import GLMProblem
from debugnet.glm.unpenalized import fit_unpenalized
from tests.glm.conftest import make_problem
from tests.oracles import glm_cvxpy


def prepared(X, y, **options):
    return PathFit(X, y, make_options(device="cpu", solver="fista", **options))


@pytest.mark.parametrize("penalty", ["elastic_net", "group_lasso"])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.99, 0.2])
@pytest.mark.parametrize("kind", ["multinomial", "multi-label", "gaussian"])
def test_dual_value_never_exceeds_the_optimum(kind, l1_ratio, penalty):
    """At random points, near and far, objective - gap <= optimum <= objective."""
    X, y, family = make_problem(kind, n=30, d=4)
    fit = prepared(X, y, family=family, penalty=penalty, l1_ratio=l1_ratio)
    lam = 0.2 * fit.null.lambda_max
    W, b, optimum = glm_cvxpy.solve(glm_cvxpy.standardize(X), y, family, lam, penalty=penalty, l1_ratio=l1_ratio)
    rng = np.random.default_rng(0)
    gaps = []
    for noise in (0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0):
        point = torch.from_numpy(W + noise * rng.normal(size=W.shape))
        certificate = certify(fit.problem, lam, point, torch.from_numpy(b))
        assert certificate.objective >= optimum - 1e-8
        assert certificate.objective - certificate.gap <= optimum + 1e-8
        gaps.append(certificate.gap)
    assert gaps[0] < 2e-5  # what the oracle leaves in its tiny weights
    assert gaps == sorted(gaps)


def test_several_points_share_a_pass_and_change_nothing():
    X, y, family = make_problem("multinomial")
    fit = prepared(X, y, family=family)
    rng = np.random.default_rng(1)
    points = [(lam, torch.from_numpy(rng.normal(size=(3, 6))), torch.zeros(3).double()) for lam in (0.1, 0.05, 0.01)]
    for alone, together in zip(
        [certify(fit.problem, *p) for p in points], certify_many(fit.problem, points), strict=True
    ):
        assert together.gap == pytest.approx(alone.gap, rel=1e-12)
        torch.testing.assert_close(together.gradient, alone.gradient, rtol=0, atol=1e-14)


def test_bias_is_moved_to_its_optimum():
    X, y, family = make_problem("multinomial")
    fit = prepared(X, y, family=family)
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 6)))
    point = fit_unpenalized(fit.problem, weight[None], torch.tensor([[5.0, -9.0, 3.0]]))
    assert float(fit.problem.bias_gradient(fit.problem.residual(point.scores)).abs().max()) < 1e-13
    assert float(point.bias.mean()) == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(point.scores[0], fit.problem.scores(point.weight[0], point.bias[0], torch.float64))


def test_unpenalized_features_are_moved_too_and_give_a_gap():
    X, y, family = make_problem("multinomial")
    fit = prepared(X, y, family=family, penalty_factor=[0, 1, 1, 0, 1, 1])
    certificate = certify(fit.problem, 0.05, *fit.problem.zeros())
    assert float(certificate.gradient[:, [0, 3]].abs().max()) < 1e-12
    assert certificate.gap > 0
    assert not np.isnan(certificate.gap)


def test_gap_is_nan_where_no_dual_is_known():
    X, y, family = make_problem("multinomial")
    fit = prepared(X, y, family=family, penalty_factor=[0, 1, 1, 1, 1, 1], nonnegative=True)
    assert np.isnan(certify(fit.problem, 0.05, *fit.problem.zeros()).gap)
    assert np.isnan(certify(prepared(X, y, family=family).problem, 0.0, *fit.problem.zeros()).gap)


def test_float32_products_agree_with_float64():
    """The certificate of a float32 design is that of the same numbers in float64."""
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(3000, 40)).astype(np.float32)
    y = rng.integers(0, 4, 3000)
    y[X[:, 0] > 1] = 0
    fit = prepared(X, y, n_lambdas=8, lambda_min_ratio=0.02)
    lam, point = fit.lambdas[-1], list(fit.points())[-1]
    weight, bias = torch.from_numpy(point.weight), torch.from_numpy(point.bias)
    exact = certify(fit.problem, lam, weight, bias)
    single = certify(fit.problem, lam, weight, bias, tol=1e-6)
    assert not torch.equal(single.gradient, exact.gradient)
    assert single.gap == pytest.approx(exact.gap, abs=1e-9)
    assert float((single.gradient - exact.gradient).abs().max()) < 1e-7


def test_rounding_of_the_loss_does_not_cost_the_gap(monkeypatch):
    """Newton on the bias goes on where the loss, a sum over many rows, no longer tells falling from rising."""
    X, y, family = make_problem("multinomial")
    fit = prepared(X, y, family=family)
    exact, calls = GLMProblem.losses, []

    def rounded(self, scores):
        calls.append(1)
        return exact(self, scores) * (1 + 3e-15 * len(calls))  # ever so slightly worse each time

    monkeypatch.setattr(GLMProblem, "losses", rounded)
    near = fit.null.bias + torch.tensor([1e-8, 0, -2e-8])
    point = fit_unpenalized(fit.problem, fit.null.weight[None], near[None])
    assert float(fit.problem.bias_gradient(fit.problem.residual(point.scores)).abs().max()) < 1e-13
    assert len(calls) < 12
