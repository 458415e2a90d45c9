"""Steps in the shift metric: their parts against plain rewrites, whole paths against the whole Hessian and FISTA."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.glm import fit_path
from debugnet.glm.design import Design, SingleProcess, as_tensor
from debugnet.glm.solvers import columns, prox_newton, step_costs
from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.shift_metric import ShiftMetric


def noisy_problem(n=240, d=30, K=5, seed=0):
    """Random ReLU features of a few latents, a third of the labels drawn at random: dense supports."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 6))
    y = (latent @ rng.normal(size=(6, K))).argmax(axis=1)
    y[: n // 3] = rng.integers(K, size=n // 3)
    y[:K] = np.arange(K)
    return np.maximum(latent @ rng.normal(size=(6, d)) + rng.normal(size=d), 0).astype(np.float32), y


@pytest.fixture
def taken(monkeypatch):
    """Scales of all steps in the shift metric that a fit takes."""
    scales = []
    minimizer = ShiftMetric.minimizer

    def counted(self, *arguments):
        scales.append(self.scale)
        return minimizer(self, *arguments)

    monkeypatch.setattr(ShiftMetric, "minimizer", counted)
    return scales


@pytest.fixture
def always(monkeypatch, taken):
    """The shift metric from the first step on, whatever steps cost."""
    monkeypatch.setattr(prox_newton, "metric_is_cheaper", lambda *sizes: True)
    return taken


def whole_hessian(X, y, **options):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prox_newton, "metric_is_cheaper", lambda *sizes: False)
        return fit_path(X, y, solver="prox-newton", **options)


def metric_of(seed=0, K=4, m=6, n=50, weighted=True):
    """(metric, its matrices (m, K, K) written out)."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, m)) * rng.uniform(0.2, 3, m)
    cache = ColumnCache(Design.standardized(as_tensor(X), SingleProcess()), np.float64)
    cache.add(np.arange(m))
    p = rng.dirichlet(np.full(K, 0.4), size=n).T.copy()
    weight = rng.uniform(0.5, 2, n) if weighted else None
    metric = ShiftMetric(cache, p, weight, scale=1.7)
    x = np.vstack([np.ones(n), X.T])
    c = np.array([[(p[k] * (1 - p[k]) * (1 if weight is None else weight) * x[j] ** 2).mean() for k in range(K)]
                  for j in range(m + 1)])  # fmt: skip
    c = np.maximum(c, 1e-3 * c.max())
    return metric, 1.7 * np.array([np.diag(a) - np.outer(a, a) / a.sum() for a in c]), rng


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.02, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_step_meets_the_optimality_conditions_of_its_model(nonnegative, ridge, weighted):
    """G + M (V - W) + l2 V + l1 sign(V) = 0 with M written out: that is all of optimality, the model being convex."""
    for seed in range(20):
        metric, M, rng = metric_of(seed, weighted=weighted)
        K, m = 4, M.shape[0]
        W = rng.normal(size=(K, m)) * (rng.random((K, m)) < 0.6)
        W = np.abs(W) if nonnegative else W
        G = rng.normal(size=(K, m)) * 0.3
        G -= G.mean(axis=0)
        l1, l2 = rng.uniform(0, 0.4, m), np.full(m, ridge)
        l1[0] = l2[0] = 0  # the bias
        V = metric.minimizer(W, G, l1, l2, nonnegative)
        slope = G + np.einsum("jkl,lj->kj", M, V - W) + l2 * V
        excess = np.where(V != 0, np.abs(slope + l1 * np.sign(V)), np.abs(slope) - l1)
        if nonnegative:
            assert V[:, 1:].min() >= 0
            excess = np.where(V == 0, -slope - l1, excess)
            excess[:, 0] = np.abs(slope[:, 0])
        assert excess.max() < 1e-11, seed


def test_curvatures_do_not_depend_on_where_columns_are_kept(monkeypatch):
    kept, _, _ = metric_of()
    monkeypatch.setattr(columns, "BUDGET_BYTES", 100)
    monkeypatch.setattr(columns, "BUDGET_SHARE", 0)
    read, _, _ = metric_of()
    np.testing.assert_allclose(read._curvature, kept._curvature, rtol=1e-12)


def test_the_largest_scale_bounds_the_hessian():
    """Whatever the steps teach; at that scale every step descends by itself."""
    rng = np.random.default_rng(2)
    n, m, K = 40, 5, 3
    X = rng.normal(size=(n, m)) + 2 * rng.normal(size=(n, 1))
    cache = ColumnCache(Design.standardized(as_tensor(X), SingleProcess()), np.float64)
    cache.add(np.arange(m))
    p = rng.dirichlet(np.full(K, 0.5), size=n).T.copy()
    metric = ShiftMetric(cache, p, None)
    for _ in range(100):
        metric.learn(0.0)
    x = np.column_stack([np.ones(n), X])
    H = sum(np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q)) for a, q in zip(x, p.T, strict=True)) / n
    M = np.zeros_like(H)
    for j in range(m + 1):
        c = (p * (1 - p)) @ x[:, j] ** 2 / n
        M[j * K : (j + 1) * K, j * K : (j + 1) * K] = metric.scale * (np.diag(c) - np.outer(c, c) / c.sum())
    assert np.linalg.eigvalsh(M - H).min() > -1e-12
    assert np.linalg.eigvalsh(M - 20 * H).min() < 0, "the bound is not far off"


@pytest.mark.parametrize("l1_ratio", [1.0, 0.99, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reaches_the_same_path(always, l1_ratio, dtype):
    X, y = noisy_problem()
    options = {"l1_ratio": l1_ratio, "n_lambdas": 10, "lambda_min_ratio": 0.01, "tol": 1e-7}
    whole = whole_hessian(X.astype(dtype), y, **options)
    assert not always
    path = fit_path(X.astype(dtype), y, solver="prox-newton", **options)
    assert len(always) > 50
    assert set(path.status) == {"converged"} and path.duality_gap.max() <= 1e-7
    assert (path.weight(9) != 0).mean() > 0.5
    np.testing.assert_allclose(path.objective, whole.objective, atol=2e-7 * whole.meta["null_objective"])


def test_options_agree_with_fista(always):
    X, y = noisy_problem(n=150, d=8, K=3)
    rng = np.random.default_rng(1)
    for options in (
        {"sample_weight": rng.integers(0, 3, len(X)).astype(float)},
        {"penalty_factor": [0.0, 1, 2, np.inf, 0.5, 1, 1, 3]},
        {"offset": rng.normal(size=(len(X), 3))},
        {"nonnegative": True},
        {"fit_intercept": False},
        {"standardize": False},
    ):
        options = {"n_lambdas": 6, "lambda_min_ratio": 0.02, "tol": 1e-7, **options}
        always.clear()
        path = fit_path(X, y, solver="prox-newton", **options)
        assert always, options
        assert set(path.status) == {"converged"}, options
        fista = fit_path(X, y, solver="fista", **options)
        np.testing.assert_allclose(path.objective, fista.objective, atol=2e-7 * path.meta["null_objective"])


def test_takes_over_where_the_hessian_grows_too_large(monkeypatch, taken):
    """By itself, within a path, and for good; one Hessian before, and the path is that of the whole Hessian."""
    monkeypatch.setattr(step_costs, "CALLS", 0.0)  # as on problems large enough for calls not to count
    X, y = noisy_problem(n=400, d=60, K=6)
    options = {"n_lambdas": 12, "lambda_min_ratio": 3e-3, "tol": 1e-6}
    whole = whole_hessian(X, y, **options)
    assert not taken
    sizes = []
    cheaper = prox_newton.metric_is_cheaper

    def asked(n, m, n_outputs, s, *steps):
        answer = cheaper(n, m, n_outputs, s, *steps)
        if not steps:
            sizes.append((s, answer))
        return answer

    monkeypatch.setattr(prox_newton, "metric_is_cheaper", asked)
    path = fit_path(X, y, solver="prox-newton", **options)
    assert len(sizes) > 5 and [answer for _, answer in sizes] == [False] * (len(sizes) - 1) + [True]
    assert len(taken) > 20 and set(path.status) == {"converged"}
    assert path.duality_gap.max() <= 1e-6
    np.testing.assert_allclose(path.objective, whole.objective, atol=2e-6 * whole.meta["null_objective"])


def test_gives_up_where_features_share_one_direction(monkeypatch, taken):
    """A common factor in all features: steps crawl, so the whole Hessian comes back within the lambda, and stays."""
    X, y = noisy_problem()
    X = X + 8 * np.random.default_rng(1).normal(size=(len(X), 1)).astype(np.float32)
    options = {"n_lambdas": 8, "lambda_min_ratio": 3e-3, "tol": 1e-6}
    whole = whole_hessian(X, y, **options)
    answers = []
    cheaper = prox_newton.metric_is_cheaper

    def asked(n, m, n_outputs, s, *steps):
        answers.append((bool(steps), cheaper(n, m, n_outputs, s, *steps) if steps else True))
        return answers[-1][1]

    monkeypatch.setattr(prox_newton, "metric_is_cheaper", asked)
    path = fit_path(X, y, solver="prox-newton", **options)
    assert answers[0] == (False, True) and answers[-1] == (True, False)
    assert {answer for answer in answers[1:-1]} == {(True, True)}, "asked for once, and left once"
    assert set(path.status) == {"converged"} and path.duality_gap.max() <= 1e-6
    np.testing.assert_allclose(path.objective, whole.objective, atol=2e-6 * whole.meta["null_objective"])


def test_a_checkpoint_inside_a_lambda_goes_on(always):
    X, y = noisy_problem()
    options = {"lambdas": [0.002], "tol": 1e-8, "solver": "prox-newton"}
    seen = []
    whole = fit_path(X, y, checkpoint=lambda *at: seen.append(at), checkpoint_seconds=0, **options)
    inside = [state for state in seen if state[0] == 0.002]
    resumed = fit_path(X, y, resume_state=inside[-1], **options)
    assert resumed.n_epochs[0] < 0.5 * whole.n_epochs[0]
    assert resumed.objective[0] == pytest.approx(whole.objective[0], abs=1e-8)


def test_the_same_steps_every_time(always):
    X, y = noisy_problem()
    options = {"n_lambdas": 6, "lambda_min_ratio": 0.02, "solver": "prox-newton"}
    first, again = fit_path(X, y, **options), fit_path(X, y, **options)
    np.testing.assert_array_equal(first.weight(5), again.weight(5))
