"""Proximal Newton: agreement with FISTA, its parts against plain rewrites, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.errors import UsageError
from debugnet.glm import fit_path
from debugnet.glm.design import Design, as_tensor
from debugnet.glm.solvers import columns
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.curvature import CurvatureBlock
from debugnet.glm.solvers.quadratic import StaleFactor, penalized_gap, solve_quadratic
from debugnet.glm.solvers.row_losses import BinomialRows, GaussianRows, MultinomialRows
from debugnet.glm.solvers.subspace import best_combination
from tests.glm.conftest import make_problem


def both(X, y, **options):
    """The same path by prox-newton and by fista."""
    options = {"n_lambdas": 8, "lambda_min_ratio": 0.01, **options}
    newton = fit_path(X, y, solver="prox-newton", tol=1e-7, **options)
    fista = fit_path(X, y, solver="fista", tol=1e-7, **options)
    return newton, fista


@pytest.mark.parametrize("l1_ratio", [1.0, 0.99, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_fista(problem, l1_ratio, dtype):
    X, y, family = problem
    newton, fista = both(X.astype(dtype), y, family=family, l1_ratio=l1_ratio)
    assert set(newton.status) == {"converged"}
    assert newton.duality_gap.max() <= 1e-7
    np.testing.assert_allclose(newton.objective, fista.objective, atol=2e-7 * newton.meta["null_objective"])


def test_options_agree_with_fista():
    X, y, family = make_problem("multinomial")
    rng = np.random.default_rng(1)
    for options in (
        {"sample_weight": rng.integers(0, 3, len(X)).astype(float)},
        {"penalty_factor": [0.0, 1, 2, np.inf, 0.5, 1]},
        {"offset": rng.normal(size=(len(X), 3))},
        {"nonnegative": True},
        {"fit_intercept": False},
    ):
        newton, fista = both(X.astype(np.float32), y, family=family, **options)
        assert set(newton.status) == {"converged"}, options
        np.testing.assert_allclose(newton.objective, fista.objective, atol=2e-7 * newton.meta["null_objective"])


@pytest.mark.parametrize("penalty", ["elastic_net", "group_lasso"])
def test_columns_beyond_their_budget_are_read_from_the_features(monkeypatch, penalty):
    X, y, family = make_problem("multinomial", n=300, d=20, K=4)
    options = {"family": family, "penalty": penalty, "n_lambdas": 8, "lambda_min_ratio": 0.01, "tol": 1e-7}
    for dtype in (np.float16, np.float32, np.float64):
        kept = fit_path(X.astype(dtype), y, **options)
        with monkeypatch.context() as patched:
            patched.setattr(columns, "BUDGET_BYTES", 8 * 300 * 5)
            patched.setattr(columns, "BUDGET_SHARE", 0)
            read = fit_path(X.astype(dtype), y, **options)
        assert set(read.status) == {"converged"} and kept.meta["solver"] == read.meta["solver"] != "fista"
        np.testing.assert_allclose(read.objective, kept.objective, atol=2e-7 * kept.meta["null_objective"])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [MultinomialRows, BinomialRows, GaussianRows])
def test_best_combination_is_newtons_step_in_the_plane(kind, weighted):
    """Against the second-order model written out by finite differences of the loss."""
    rng = np.random.default_rng(0)
    n, K, m = 30, 3, 4
    x, W = rng.normal(size=(m, n)), rng.normal(size=(K, m))
    y = rng.integers(0, K, n) if kind is MultinomialRows else rng.integers(0, 2, (K, n)).astype(float)
    rows = kind(y, rng.uniform(0.5, 2, n) if weighted else None, np.dtype(np.float64))
    directions = [(d, d @ x) for d in rng.normal(size=(3, K, m))]
    ridge = np.array([0.0, 0.1, 0.2, 0.3])

    def value(c):
        V = W + sum(a * d for a, (d, _) in zip(c, directions, strict=True))
        return rows.evaluate(V @ x).loss + 0.5 * float((V * V) @ ridge @ np.ones(K))

    h, eye = 1e-4, np.eye(3)
    slope = np.array([(value(h * e) - value(-h * e)) / (2 * h) for e in eye])
    H = np.array([[(value(h * (e + f)) - value(h * (e - f)) - value(h * (f - e)) + value(-h * (e + f))) / (4 * h * h)
                   for e in eye] for f in eye])  # fmt: skip
    state = rows.evaluate(W @ x)
    found = best_combination(directions, rows, state.mean, state.residual @ x.T / n + ridge * W, ridge)
    np.testing.assert_allclose(found, -np.linalg.solve(H, slope), rtol=1e-4)


def test_two_classes_are_symmetric_and_match_the_softmax():
    X, y, _ = make_problem("binomial", n=120)
    newton, fista = both(X.astype(np.float32), y, family="multinomial")
    for i in range(len(newton)):
        np.testing.assert_allclose(newton.weight(i)[0], -newton.weight(i)[1], atol=1e-12)
    np.testing.assert_allclose(newton.objective, fista.objective, atol=2e-7 * newton.meta["null_objective"])


def test_a_tolerance_below_float32_is_met():
    X, y, family = make_problem("multinomial", n=200)
    path = fit_path(X.astype(np.float32), y, family=family, solver="prox-newton", tol=1e-10, n_lambdas=5)
    assert path.duality_gap.max() <= 1e-10


def test_more_features_than_rows_with_planted_support():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 400)).astype(np.float32)
    y = (3 * X[:, [3, 50, 77]]).argmax(axis=1)
    path = fit_path(X, y, solver="prox-newton", n_lambdas=10, lambda_min_ratio=0.3)
    assert set(path.status) == {"converged"}
    assert set(np.flatnonzero(path.weight(5).any(axis=0))) == {3, 50, 77}


def test_auto_says_what_it_took_and_why():
    X, y, family = make_problem("multinomial")
    assert fit_path(X, y, family=family, n_lambdas=2).meta["solver"] == "prox-newton"
    grouped = fit_path(X, y, family=family, penalty="group_lasso", n_lambdas=2)
    assert grouped.meta["solver"] == "group-newton" and "60 x 6" in grouped.meta["solver_reason"]
    with pytest.raises(UsageError, match="needs a penalty per coefficient"):
        fit_path(X, y, family=family, penalty="group_lasso", solver="prox-newton")


@pytest.fixture(params=["kept", "read"])
def cache(request, monkeypatch):
    """Cache over 40 rows, 7 features: the columns kept, or read from X."""
    if request.param == "read":
        monkeypatch.setattr(columns, "BUDGET_BYTES", 0)
        monkeypatch.setattr(columns, "BUDGET_SHARE", 0)
    rng = np.random.default_rng(2)
    X = rng.normal(2, 3, size=(40, 7))
    return ColumnCache(Design(as_tensor(X), X.mean(0), 1 / X.std(0)), np.float64), (X - X.mean(0)) / X.std(0)


def test_cache_gathers_standardized_columns_once(cache):
    held, standardized = cache
    held.add(np.array([5, 2]))
    held.add(np.array([2, 0]))
    assert held.features.tolist() == [-1, 5, 2, 0]
    plain = np.column_stack([np.ones(40), standardized[:, [5, 2, 0]]])
    rng = np.random.default_rng(0)
    residual, weight = rng.normal(size=(3, 40)), rng.normal(size=(3, 4))
    np.testing.assert_allclose(held.gradient(residual), residual @ plain, atol=1e-10)
    np.testing.assert_allclose(held.scores(weight), weight @ plain.T, atol=1e-10)
    residual = residual - residual.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(held.full_gradient(residual), residual @ standardized, atol=1e-10)
    samples, index, factor = np.array([1, 4, 6, 30, 33]), np.array([2, 0]), rng.normal(size=(1, 5))
    found = held.scaled(index, samples, factor, np.array([0, 0]), 1, 4)
    np.testing.assert_allclose(found, (plain[samples[1:4]][:, index] * factor[0, 1:4, None]).T, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_curvature_is_the_hessian_also_where_it_grew(cache, weighted):
    """Rebuilt or extended, against the sum over rows of (diag p - pp') x xx'."""
    held, standardized = cache
    held.add(np.arange(7))
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(3), size=40).T.copy()
    weight = rng.uniform(0.5, 2, 40) if weighted else None
    k, c = (a.ravel() for a in np.meshgrid(np.arange(3), np.arange(5), indexing="ij"))
    block = CurvatureBlock(held, coupled=True)
    block.rebuild(k[:9], c[:9], p, weight)
    block.extend(k[9:], c[9:])
    x = np.column_stack([np.ones(40), standardized]).T
    plain = np.zeros((15, 15))
    for i in range(40):
        inner = (np.diag(p[:, i]) - np.outer(p[:, i], p[:, i])) * (1 if weight is None else weight[i])
        plain += inner[np.ix_(k, k)] * np.outer(x[c, i], x[c, i]) / 40
    np.testing.assert_allclose(block.matrix, plain, atol=1e-12)


def test_rows_without_curvature_are_left_out(cache):
    held, standardized = cache
    held.add(np.arange(7))
    p = np.full((2, 40), 0.5)
    p[:, 10:] = [[1 - 1e-9], [1e-9]]
    block = CurvatureBlock(held, coupled=True)
    block.rebuild(np.zeros(3, dtype=int), np.arange(3), p, None)
    x = np.column_stack([np.ones(40), standardized]).T[:3, :10]
    np.testing.assert_allclose(block.matrix, 0.25 * x @ x.T / 40, rtol=1e-6, atol=1e-9)


def hard_quadratic(s, seed):
    """Correlated, nearly singular H (s, s), gradient, l1 and l2 with one free coordinate."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(s // 2, s)) + 2 * rng.normal(size=(s // 2, 1))
    l1, l2 = np.full(s, 0.3), np.full(s, 1e-3)
    l1[0] = l2[0] = 0
    return A.T @ A / len(A), A.T @ rng.normal(size=len(A)), l1, l2


@pytest.mark.parametrize("size", [5, 60, 250])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_quadratic_model_is_solved(size, nonnegative):
    """Optimality conditions of the answer, evaluated plainly; two hundred correlated ones on half the rank included."""
    H, r0, l1, l2 = hard_quadratic(size, size)
    v, r = np.zeros(size), r0.copy()
    floor = np.full(size, 1e-3)
    solve_quadratic(H, r, v, l1, l2, tol=1e-12, floor=floor, factor=StaleFactor(), nonnegative=nonnegative)
    np.testing.assert_allclose(r, r0 + H @ v, atol=1e-8)
    smooth = r + l2 * v
    at_zero = v == 0
    np.testing.assert_allclose(smooth[~at_zero], -(l1 * np.sign(v))[~at_zero], atol=1e-5)
    excess = -smooth if nonnegative else np.abs(smooth)
    assert (excess[at_zero] <= l1[at_zero] + 1e-5).all()
    assert not nonnegative or (v[1:] >= 0).all()


def test_gap_bounds_the_suboptimality():
    """The Fenchel gap at any point exceeds its distance to the optimum of the quadratic problem."""
    H, r0, l1, l2 = hard_quadratic(20, 4)
    l1[0], l2[0] = 0.3, 1e-3
    floor = np.zeros(20)

    def value(v):
        return r0 @ v + v @ H @ v / 2 + l1 @ np.abs(v) + l2 @ v**2 / 2

    best, r = np.zeros(20), r0.copy()
    solve_quadratic(H, r, best, l1, l2, tol=1e-13, floor=floor + 1e-9, factor=StaleFactor())
    rng = np.random.default_rng(5)
    for _ in range(20):
        v = best + rng.normal(size=20) * rng.uniform(0, 0.1)
        gap = penalized_gap(r0 + H @ v, v, l1, l2, floor, False)
        assert gap >= value(v) - value(best) - 1e-10
    assert penalized_gap(r0 + H @ best, best, l1, l2, floor, False) < 1e-9


def test_is_deterministic():
    X, y, family = make_problem("multinomial", n=100)
    first, second = (fit_path(X.astype(np.float32), y, family=family, n_lambdas=5) for _ in range(2))
    np.testing.assert_array_equal(first.data, second.data)


def test_leaves_the_callers_arrays_alone():
    X, y, family = make_problem("multinomial")
    X = torch.from_numpy(X.astype(np.float32))
    before = X.clone()
    fit_path(X, y, family=family, solver="prox-newton", n_lambdas=4)
    assert torch.equal(X, before)
