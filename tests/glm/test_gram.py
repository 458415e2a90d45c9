"""The gaussian solver on the Gram matrix: agreement with other solvers, and one pass over the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import enet_path

from debugnet.errors import UsageError
from debugnet.glm import fit_path
from debugnet.glm.design import Design
from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from tests.glm.conftest import make_problem


@pytest.mark.parametrize("kind", ["gaussian", "gaussian-1"])
def test_options_agree_with_fista(kind):
    X, y, _ = make_problem(kind)
    rng = np.random.default_rng(1)
    K = 1 if y.ndim == 1 else y.shape[1]
    for options in (
        {},
        {"l1_ratio": 1.0},
        {"sample_weight": rng.integers(0, 3, len(X)).astype(float)},
        {"penalty_factor": [0.0, 1, 2, np.inf, 0.5, 1]},
        {"offset": rng.normal(size=(len(X), K))},
        {"nonnegative": True},
        {"fit_intercept": False},
        {"standardize": False, "rows": np.arange(len(X)) % 5 > 0},
    ):
        given = {"n_lambdas": 6, "lambda_min_ratio": 0.01, "tol": 1e-8, **options}
        gram, fista = (fit_path(X, y, solver=solver, **given) for solver in ("gram", "fista"))
        assert set(gram.status) == {"converged"}, options
        np.testing.assert_allclose(gram.objective, fista.objective, atol=2e-8 * gram.meta["null_objective"])
        np.testing.assert_allclose(gram.weight(5), fista.weight(5), atol=2e-3)


def test_agrees_with_enet_path():
    X, y, _ = make_problem("gaussian-1", n=200, d=12)
    Z = (X - X.mean(0)) / X.std(0)
    path = fit_path(X, y, solver="gram", l1_ratio=0.8, n_lambdas=8, lambda_min_ratio=0.01, tol=1e-10)
    _, coefficients, _ = enet_path(Z, y - y.mean(), l1_ratio=0.8, alphas=path.lam, tol=1e-10, max_iter=100_000)
    np.testing.assert_allclose([path.weight(i)[0] for i in range(8)],
                               coefficients.T, atol=1e-5)  # fmt: skip


def test_planted_targets_are_found_and_the_data_are_touched_once(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(400, 60)).astype(np.float32)
    truth = np.zeros((5, 60))
    for k in range(5):
        truth[k, rng.choice(60, 3, replace=False)] = 2
    y = (X @ truth.T + 0.1 * rng.normal(size=(400, 5))).astype(float)
    passes, blocks = [], Design.blocks
    monkeypatch.setattr(Design, "blocks", lambda self, *a: passes.append(1) or blocks(self, *a))
    path = fit_path(X, y, n_lambdas=20, lambda_min_ratio=0.05)
    assert path.meta["solver"] == "gram" and "once" in path.meta["solver_reason"]
    assert len(passes) == 1 and path.n_epochs.sum() == 1
    assert set(path.status) == {"converged"}
    np.testing.assert_array_equal(np.abs(path.weight(10)) > 0.05, truth != 0)


def test_a_float32_matrix_gives_way_to_float64_where_it_is_not_enough(monkeypatch):
    X, y, _ = make_problem("gaussian", n=300)
    fit = PathFit(X.astype(np.float32), y, make_options(solver="gram", tol=1e-11, n_lambdas=4, lambda_min_ratio=0.01))
    solver = fit.prepared.make_solver()
    solver.dtype = torch.float32
    monkeypatch.setattr(type(fit.prepared), "make_solver", lambda self: solver)
    assert {p.status for p in fit.points()} == {"converged"}
    assert solver.dtype == torch.float64


def test_refuses_what_it_cannot_solve():
    X, y, _ = make_problem("multinomial")
    with pytest.raises(UsageError, match="needs the gaussian family"):
        fit_path(X, y, solver="gram")
    X, y, _ = make_problem("gaussian")
    with pytest.raises(UsageError, match="needs a penalty per coefficient"):
        fit_path(X, y, solver="gram", penalty="group_lasso")
