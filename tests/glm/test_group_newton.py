"""Proximal Newton for groups: agreement with FISTA, its parts against plain rewrites, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from debugnet.errors import UsageError
from debugnet.glm import PathFit, fit_path
from debugnet.glm.design import Design, SingleProcess, as_tensor
from debugnet.glm.options import make_options
from debugnet.glm.solvers import group_newton, group_quadratic, working_set
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.group_curvature import GroupCurvature
from debugnet.glm.solvers.group_quadratic import group_gap, group_minimizer, solve_groups
from tests.glm.conftest import make_problem


def both(X, y, tol=1e-7, **options):
    """The same path by group-newton and by fista."""
    options = {"penalty": "group_lasso", "n_lambdas": 8, "lambda_min_ratio": 0.01, "tol": tol, **options}
    newton = fit_path(X, y, solver="group-newton", **options)
    fista = fit_path(X, y, solver="fista", **options)
    assert set(newton.status) == {"converged"}, options
    assert newton.duality_gap.max() <= tol
    np.testing.assert_allclose(newton.objective, fista.objective, atol=2 * tol * newton.meta["null_objective"])
    return newton, fista


@pytest.mark.parametrize("l1_ratio", [1.0, 0.99, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_fista(problem, l1_ratio, dtype):
    X, y, family = problem
    both(X.astype(dtype), y, family=family, l1_ratio=l1_ratio)


@pytest.mark.parametrize("kind", ["multinomial", "gaussian"])
def test_options_agree_with_fista(kind):
    X, y, family = make_problem(kind)
    rng = np.random.default_rng(1)
    for options in (
        {"sample_weight": rng.integers(0, 3, len(X)).astype(float)},
        {"penalty_factor": [1.0, 1, 2, np.inf, 0.5, 1]},
        {"offset": rng.normal(size=(len(X), 3))},
        {"group_weight": "sqrt"},
        {"fit_intercept": False},
        {"rows": np.arange(len(X)) % 5 > 0},
    ):
        both(X.astype(np.float32), y, tol=1e-6, family=family, lambda_min_ratio=0.05, **options)


def test_two_classes_are_one_number_per_feature():
    X, y, _ = make_problem("binomial", n=120)
    for options in ({"l1_ratio": 1.0}, {"group_weight": 3.0, "penalty_factor": [1.0, 1, 2, 0.5, 1, 1]}):
        newton, _ = both(X.astype(np.float32), y, tol=1e-6, family="multinomial", lambda_min_ratio=0.05, **options)
        assert newton.nnz[-1] > 0
        for i in range(len(newton)):
            np.testing.assert_allclose(newton.weight(i)[0], -newton.weight(i)[1], atol=1e-12)
    options = {"family": "multinomial", "penalty": "group_lasso", "solver": "group-newton"}
    path = fit_path(X, y, lambdas=[0.1], lambda_zero=True, **options)
    assert set(path.status) == {"converged"} and path.weight(1).all()


def test_softmax_weights_of_a_feature_sum_to_zero():
    X, y, family = make_problem("multinomial", n=200, K=4)
    newton, _ = both(X.astype(np.float32), y, family=family)
    np.testing.assert_allclose(newton.weight(7).sum(axis=0), 0, atol=1e-12)


def test_a_tolerance_below_float32_is_met():
    X, y, family = make_problem("multinomial", n=200)
    both(X.astype(np.float32), y, tol=1e-10, family=family, n_lambdas=5)


def test_planted_features_are_found_with_more_features_than_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 400)).astype(np.float32)
    y = (3 * X[:, [3, 50, 77]]).argmax(axis=1)
    path = fit_path(X, y, solver="group-newton", penalty="group_lasso", n_lambdas=10, lambda_min_ratio=0.3)
    assert set(path.status) == {"converged"}
    used = np.flatnonzero(path.weight(9).any(axis=0))
    strongest = np.argsort(np.linalg.norm(path.weight(9), axis=0))[-3:]
    assert set(strongest) == {3, 50, 77} and len(used) < 60
    assert (path.weight(9)[:, used] != 0).all()


def test_correlated_features_and_many_classes():
    rng = np.random.default_rng(2)
    common = rng.normal(size=(300, 1))
    X = np.sqrt(0.999) * common + np.sqrt(0.001) * rng.normal(size=(300, 20))
    y = np.digitize(common[:, 0] + 0.3 * rng.normal(size=300), [-0.7, 0.7])
    both(X.astype(np.float32), y, tol=1e-6, n_lambdas=4, lambda_min_ratio=0.1)
    centres = 3 * rng.normal(size=(100, 10))
    y = np.arange(600) % 100
    both((centres[y] + rng.normal(size=(600, 10))).astype(np.float32), y, tol=1e-6, n_lambdas=3, lambda_min_ratio=0.5)


def smooth_columns(n, d, seed):
    """Rows of neighbouring values that tell nearly the same, as pixels do; standardized."""
    X = np.cumsum(np.random.default_rng(seed).normal(size=(n, d)), axis=1)
    return (X - X.mean(axis=0)) / X.std(axis=0)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.99])
def test_neighbouring_pixels_take_few_steps(monkeypatch, l1_ratio):
    """Far down a coarse path; without a ridge only the largest violation counts, for the model's minimizer as well."""
    solvers, start = [], group_newton.GroupNewton.__init__
    monkeypatch.setattr(
        group_newton.GroupNewton, "__init__", lambda self, problem: (solvers.append(self), start(self, problem))[1]
    )
    X = smooth_columns(300, 300, 5)
    y = (X[:, [20, 85, 150, 215, 280]] + np.random.default_rng(6).normal(size=(300, 5))).argmax(axis=1)
    options = {"n_lambdas": 12, "lambda_min_ratio": 0.01, "tol": 1e-4, "solver": "group-newton"}
    path = fit_path(X.astype(np.float32), y, penalty="group_lasso", l1_ratio=l1_ratio, **options)
    assert set(path.status) == {"converged"} and path.duality_gap.max() <= 1e-4
    assert path.weight(11).any(axis=0).sum() > 150
    assert solvers[0].counts["steps"] <= 15 * len(path), solvers[0].counts


def test_where_float32_rounds_too_much_it_goes_on_in_float64():
    """Blurred noise is numerically singular in float32, and random labels leave nothing but small gradients."""
    rng = np.random.default_rng(0)
    X = gaussian_filter(rng.normal(size=(200, 8, 8)), (0, 1.6, 1.6), mode="wrap").reshape(200, -1)
    X, y = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32), rng.integers(0, 3, 200)
    options = {"penalty": "group_lasso", "l1_ratio": 1.0, "n_lambdas": 8, "lambda_min_ratio": 1e-3, "tol": 1e-5}
    path = fit_path(X, y, solver="group-newton", **options)
    assert set(path.status) == {"converged"}, path.status


def test_warm_equals_cold_and_a_checkpoint_goes_on():
    X, y, family = make_problem("multinomial", n=200, d=20, K=5)
    options = {"family": family, "penalty": "group_lasso", "solver": "group-newton", "tol": 1e-9}
    warm = fit_path(X, y, n_lambdas=8, lambda_min_ratio=0.02, **options)
    states = []
    cold = fit_path(
        X, y, lambdas=warm.lam[-1], checkpoint=lambda *at: states.append(at), checkpoint_seconds=0, **options
    )
    np.testing.assert_allclose(cold.weight(0), warm.weight(7), atol=1e-3)
    assert cold.objective[0] == pytest.approx(warm.objective[7], abs=2e-9 * warm.meta["null_objective"])
    inside = [state for lam, state in states if lam == warm.lam[-1]]
    assert inside, "the solver offered no checkpoint"
    again = fit_path(X, y, lambdas=warm.lam[-1], resume_state=(warm.lam[-1], inside[-1]), **options)
    np.testing.assert_allclose(again.weight(0), cold.weight(0), atol=1e-3)


def test_working_set_finds_what_screening_missed(monkeypatch):
    monkeypatch.setattr(working_set, "ALL_COLUMNS", 0)
    monkeypatch.setattr(working_set, "SCREEN", 10.0)  # screens (nearly) everything away
    X, y, family = make_problem("multinomial", n=200, d=30, K=4)
    both(X.astype(np.float32), y, family=family)


def test_the_metric_follows_coupled_classes(monkeypatch):
    """With the scale of the blocks started too low the steps still descend."""
    monkeypatch.setattr(group_newton, "METRIC", 0.7)
    X, y, family = make_problem("multinomial", n=200, d=20, K=3)
    both(X.astype(np.float32), y, family=family)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"penalty": "elastic_net"}, "needs a penalty per feature"),
        ({"nonnegative": True}, "non-negative"),
    ],
)
def test_refuses_what_it_cannot_solve(options, words):
    X, y, _ = make_problem("multinomial")
    with pytest.raises(UsageError, match=words):
        PathFit(X, y, make_options(**{"penalty": "group_lasso", "solver": "group-newton", **options}))


def test_auto_takes_it_for_groups():
    X, y, _ = make_problem("multinomial")
    assert PathFit(X, y, make_options(penalty="group_lasso")).meta["solver"] == "group-newton"
    assert PathFit(X, y, make_options(penalty="group_lasso", nonnegative=True)).meta["solver"] == "fista"


# -- parts ------------------------------------------------------------------------------------------


def test_group_minimizer_is_stationary():
    rng = np.random.default_rng(0)
    for _ in range(200):
        K = rng.integers(1, 6)
        z, a, t = rng.normal(size=K) * 10 ** rng.uniform(-3, 3), 10 ** rng.uniform(-3, 2, K), 10 ** rng.uniform(-3, 2)
        out = np.empty(K)
        group_minimizer(z, a, t, 10 ** rng.uniform(-6, 6), out)  # any guess of the norm will do
        if np.linalg.norm(z) <= t:
            assert (out == 0).all()
        else:
            np.testing.assert_allclose(a * out + t * out / np.linalg.norm(out), z, atol=1e-8 * np.abs(z).max())


def test_quadratic_model_against_proximal_gradient():
    rng = np.random.default_rng(1)
    K, s = 3, 8
    root = rng.normal(size=(K, s, 2 * s))
    B, R0, V0 = root @ root.transpose(0, 2, 1) / s + np.eye(s), rng.normal(size=(K, s)), rng.normal(size=(K, s))
    t, q, scale = np.r_[0.0, np.full(s - 1, 0.8)], np.r_[0.0, np.full(s - 1, 0.1)], 1.3
    R, V = R0.copy(), V0.copy()
    floor = np.full(s, 1e-3)
    solve_groups(B, scale, R, V, t, q, floor, True, 2000, 1e-12)
    plain, step = V0.copy(), 1 / (scale * np.linalg.eigvalsh(B).max())
    for _ in range(2000):
        moved = plain - step * (R0 + scale * np.einsum("kij,kj->ki", B, plain - V0))
        norm = np.linalg.norm(moved, axis=0)
        plain = moved * np.maximum(1 - step * t / np.maximum(norm, 1e-300), 0) / (1 + step * q)
    np.testing.assert_allclose(V, plain, atol=1e-5)
    np.testing.assert_allclose(R, R0 + scale * np.einsum("kij,kj->ki", B, V - V0), atol=1e-9)
    assert 0 < (V[:, 1:] != 0).any(axis=0).sum() <= s - 1
    assert group_gap(R, V, t, q, floor, True) <= 1e-12 < group_gap(R0, V0, t, q, floor, True)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_features_that_tell_the_same_take_few_sweeps(ridge):
    """Smooth columns: plain sweeps leave a thousand times the gap, and end at the same point in the end."""
    rng = np.random.default_rng(3)
    K, s, n = 4, 60, 200
    X = smooth_columns(n, s, 3)
    B = np.stack([(X.T * rng.uniform(0.05, 0.25, n)) @ X / n for _ in range(K)])
    R0 = -np.einsum("kij,kj->ki", B, rng.normal(size=(K, s)))
    t, q, floor, ridged = np.full(s, 0.02), np.full(s, ridge), np.full(s, 1e-4), ridge > 0

    def solved(sweeps):
        R, V = R0.copy(), np.zeros((K, s))
        taken = solve_groups(B, 1.0, R, V, t, q, floor, ridged, sweeps, 1e-9)
        np.testing.assert_allclose(R, R0 + np.einsum("kij,kj->ki", B, V), atol=1e-9)
        return taken, V, group_gap(R, V, t, q, floor, ridged)

    taken, V, gap = solved(2000)
    assert gap <= 1e-9 and 5 < V.any(axis=0).sum() < s
    R, plain = R0.copy(), np.zeros((K, s))
    z, a, new = np.empty(K), np.empty(K), np.empty(K)
    for sweep in range(20 * taken):
        group_quadratic._sweep(B, 1.0, R, plain, t, q, False, True, z, a, new)
        if sweep == taken:
            assert group_gap(R, plain, t, q, floor, ridged) > 1000 * gap
    value = [group_quadratic._model_value(R0, np.zeros((K, s)), R0 + np.einsum("kij,kj->ki", B, W), W, t, q)
             for W in (V, plain)]  # fmt: skip
    assert value[0] <= value[1] + 1e-9


@pytest.mark.parametrize("sharp", [False, True])
def test_curvature_blocks_grow_as_if_built_at_once(sharp):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(400, 12))
    cache = ColumnCache(Design.standardized(as_tensor(X), SingleProcess()), np.float64)
    cache.add(np.arange(12))
    curvature = rng.random((2, 400)) ** (12 if sharp else 1)  # sharp: most samples carry next to nothing
    grown, whole = GroupCurvature(cache, 2), GroupCurvature(cache, 2)
    grown.rebuild(np.array([0, 3, 5]), curvature)
    grown.extend(np.array([7, 1]))
    whole.rebuild(np.array([0, 3, 5, 7, 1]), curvature)
    np.testing.assert_allclose(grown.matrix, whole.matrix, atol=1e-12)
    Z = np.column_stack([np.ones(400), X])[:, whole.column]
    exact = np.stack([(Z.T * row) @ Z / 400 for row in curvature])
    np.testing.assert_allclose(whole.matrix, exact, atol=0.01 * exact.max() if sharp else 1e-12)
