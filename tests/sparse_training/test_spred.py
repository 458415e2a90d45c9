"""spred's equivalence with the lasso and the group lasso, and what breaks it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.errors import UsageError
from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from debugnet.sparse_training.spred import Spred
from debugnet.sparse_training.spred_layer import train_factored
from debugnet.sparse_training.weight_path import ProximalPolish


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 12))
    y = X @ np.concatenate([[2.0, -1.5, 0.7, -0.5], np.zeros(8)]) + 0.5 * rng.normal(size=300)
    return X - X.mean(axis=0), y - y.mean()


def train(linear: nn.Linear, spred: Spred, X: np.ndarray, y: np.ndarray, lam: float, steps: int = 1200) -> None:
    optimizer = torch.optim.Adam(spred.parameter_groups(lam), lr=0.02)
    spred.check_optimizer(optimizer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, t = torch.tensor(X), torch.tensor(y).reshape(len(y), -1)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (linear(x) - t).square().sum() / len(t)).backward()
        optimizer.step()
        schedule.step()


def test_weight_decay_lam_is_the_lasso_at_lam():
    from sklearn.linear_model import Lasso

    X, y = problem()
    torch.manual_seed(0)
    linear = nn.Linear(12, 1, bias=False).double()
    spred = Spred(linear, ["*"])
    train(linear, spred, X, y, lam=0.2)
    exact = Lasso(alpha=0.2, fit_intercept=False, tol=1e-12).fit(X, y).coef_
    np.testing.assert_allclose(linear.weight.detach().numpy()[0], exact, atol=2e-3)
    assert float(spred.penalty()) == pytest.approx(np.abs(exact).sum(), rel=1e-2)
    spred.collapse()
    x, t = torch.tensor(X), torch.tensor(y)[:, None]
    polish = ProximalPolish(spred, "sgd", 0.05, 0.2)
    for _ in range(300):
        linear.zero_grad()
        (0.5 * (linear(x) - t).square().sum() / len(t)).backward()
        polish.step(1.0)
    weight = linear.weight.detach().numpy()[0]
    np.testing.assert_array_equal(weight != 0, exact != 0)
    np.testing.assert_allclose(weight, exact, atol=1e-6)


def test_balanced_factors_keep_every_sign():
    X, y = problem()
    torch.manual_seed(0)
    linear = nn.Linear(12, 1, bias=False).double()
    with torch.no_grad():
        linear.weight.abs_()
        linear.weight[0, 6] *= -1  # else both factors would be equal, which is refused
    train(linear, Spred(linear, ["*"], init="balanced"), X, y, lam=0.05, steps=400)
    weight = linear.weight.detach().numpy()[0]
    assert weight[0] > 1 and weight[1] > -1e-6 and weight[3] > -1e-6  # the true weights 1 and 3 are negative


def test_columns_are_the_group_lasso():
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 6))
    B = np.zeros((6, 3))
    B[:2] = rng.normal(size=(2, 3)) * 2
    Y = X @ B + 0.3 * rng.normal(size=(200, 3))
    W = cvxpy.Variable((3, 6))
    objective = 0.5 * cvxpy.sum_squares(Y - X @ W.T) / 200 + 0.4 * cvxpy.sum(cvxpy.norm(W, 2, axis=0))
    cvxpy.Problem(cvxpy.Minimize(objective)).solve()
    torch.manual_seed(0)
    linear = nn.Linear(6, 3, bias=False).double()
    train(linear, Spred(linear, ["*"], structure="column"), X, Y, lam=0.4)
    np.testing.assert_allclose(linear.weight.detach().numpy(), W.value, atol=5e-3)


@pytest.mark.parametrize("structure", ["element", "row", "column"])
@pytest.mark.parametrize("init", ["balanced", "uneven"])
def test_the_network_computes_the_same_before_and_after(structure, init):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = torch.randn(5, 3, 4, 4)
    before = network(x)
    spred = Spred(network, ["0", "4.*"], structure=structure, init=init)
    assert [w.path for w in spred.weights] == ["0.weight", "4.weight"]
    torch.testing.assert_close(network(x), before)
    spred.collapse()
    torch.testing.assert_close(network(x), before)
    assert set(dict(network.named_parameters())) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias",
    }  # fmt: skip
    spred.prune(0.1)
    assert not (network[4].weight.abs()[network[4].weight != 0] < 0.1).any()


def test_what_breaks_the_equivalence_is_refused():
    linear = nn.Linear(4, 2)
    spred = Spred(linear, ["*"])
    with pytest.raises(UsageError, match="AdamW"):
        spred.check_optimizer(torch.optim.AdamW(spred.parameter_groups(0.1)))
    with pytest.raises(UsageError, match="share a parameter group"):
        spred.check_optimizer(torch.optim.SGD(linear.parameters(), lr=0.1, weight_decay=0.1))
    with torch.no_grad():
        first, second = spred.weights[0].factors
        first.copy_(second)
    with pytest.raises(UsageError, match="stay equal"):
        spred.check_optimizer(torch.optim.SGD(spred.parameter_groups(0.1), lr=0.1))
    with pytest.raises(UsageError, match="matches no weight"):
        Spred(nn.Linear(2, 2), ["conv*"])
    with pytest.raises(UsageError, match="structure"):
        Spred(nn.Linear(2, 2), ["*"], structure="blob")


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("multinomial", {"l1_ratio": 0.7}),
        ("multinomial", {"penalty": "group_lasso", "l1_ratio": 1.0}),
        ("binomial", {"penalty_factor": np.r_[0.0, 3.0, np.ones(10)]}),
        ("gaussian", {"fit_intercept": False, "sample_weight": np.r_[np.full(150, 2.0), np.ones(150)]}),
    ],
)
def test_the_factored_layer_reaches_the_certified_objective(family, more):
    """In every family and with every option, at each of four lambdas: signs change and dead weights come back."""
    X, y = problem()
    y = y if family == "gaussian" else np.digitize(y, [-1, 1]) if family == "multinomial" else (y > 0).astype(int)
    fit = PathFit(X, y, make_options(family=family, n_lambdas=5, lambda_min_ratio=0.01, device="cpu", **more))
    exact = {point.lam: point for point in fit.points() if point.lam < fit.null.lambda_max}
    layers = {layer.lam: layer for layer in train_factored(fit.problem, np.array(list(exact)))}
    assert list(layers) == sorted(exact) and len(exact) >= 4
    for lam, point in exact.items():
        assert layers[lam].objective == pytest.approx(point.objective, rel=1e-5)
        np.testing.assert_allclose(layers[lam].weight.numpy(), point.weight, atol=5e-3)
