"""What must hold along any path, whoever solves it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from debugnet.errors import UsageError
from debugnet.glm import PathFit, fit_path, iter_path
from debugnet.glm.options import make_options
from debugnet.glm.solvers.fista import Fista
from debugnet.registry import PENALTIES, SOLVERS
from tests.glm.conftest import make_problem

SMALL = {"n_lambdas": 6, "lambda_min_ratio": 0.05, "tol": 1e-8}


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("penalty", list(PENALTIES))
@pytest.mark.parametrize("kind", ["multinomial", "binomial", "multi-label", "gaussian"])
def test_every_solver_is_certified_or_refused(solver, penalty, kind):
    """The contract of a solver: it meets the tolerance, or the pairing is refused by name with the alternatives."""
    X, y, family = make_problem(kind)
    options = {"family": family, "penalty": penalty, "n_lambdas": 5, "lambda_min_ratio": 0.1, "tol": 1e-6}
    try:
        path = fit_path(X, y, solver=solver, **options)
    except UsageError as refusal:
        assert f"solver '{solver}'" in str(refusal) and "fista" in str(refusal)
        return
    assert set(path.status) == {"converged"}
    assert path.duality_gap.max() <= 1e-6
    assert path.meta["solver"] == solver
    reference = fit_path(X, y, solver="fista", **options)
    np.testing.assert_allclose(path.objective, reference.objective, atol=2e-6 * path.meta["null_objective"])


@pytest.mark.parametrize("penalty", list(PENALTIES))
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.1])
def test_lambda_max_is_exact(problem, l1_ratio, penalty):
    """Zero at lambda_max, non-zero just below it."""
    X, y, family = problem
    lambda_max = fit_path(
        X, y, family=family, penalty=penalty, l1_ratio=l1_ratio, n_lambdas=1, lambda_min_ratio=0.9
    ).meta["lambda_max"]
    lambdas = [lambda_max * 1.001, lambda_max, lambda_max * 0.99]
    path = fit_path(X, y, family=family, penalty=penalty, l1_ratio=l1_ratio, lambdas=lambdas, tol=1e-7)
    assert path.nnz.tolist()[:2] == [0, 0]
    assert path.nnz[2] > 0
    assert path.duality_gap[1] < 1e-12


def test_lambda_max_with_weights_factors_and_unpenalized_features(problem):
    X, y, family = problem
    rng = np.random.default_rng(0)
    options = {
        "family": family,
        "sample_weight": rng.uniform(0, 2, len(X)),
        "penalty_factor": [0, 0.5, 2, np.inf, 1, 1],
        "tol": 1e-9,
    }
    lambda_max = fit_path(X, y, n_lambdas=1, lambda_min_ratio=0.9, **options).meta["lambda_max"]
    path = fit_path(X, y, lambdas=[lambda_max * 1.001, lambda_max * 0.99], **options)
    penalized = [(path.weight(i)[:, 1:] != 0).sum() for i in (0, 1)]
    assert penalized[0] == 0 and penalized[1] > 0
    assert (path.weight(0)[:, 0] != 0).all() and (path.weight(1)[:, 3] == 0).all()


@pytest.mark.parametrize("penalty", list(PENALTIES))
def test_warm_equals_cold(problem, penalty):
    X, y, family = problem
    warm = fit_path(X, y, family=family, penalty=penalty, **SMALL)
    cold = fit_path(X, y, family=family, penalty=penalty, tol=1e-8, lambdas=warm.lam[-1])
    np.testing.assert_allclose(cold.weight(0), warm.weight(5), atol=2e-3)
    assert cold.objective[0] == pytest.approx(warm.objective[5], abs=2e-8 * warm.meta["null_objective"])


def test_resumes_and_extends_from_a_point(problem):
    X, y, family = problem
    whole = list(iter_path(X, y, family=family, **SMALL))
    rest = list(iter_path(X, y, family=family, start=whole[2], **SMALL))
    assert [p.lam for p in rest] == [p.lam for p in whole[3:]]
    for a, b in zip(rest, whole[3:], strict=True):
        np.testing.assert_allclose(a.weight, b.weight, atol=2e-3)
        assert a.objective == pytest.approx(b.objective, abs=2e-8)
    smaller = whole[-1].lam * np.array([0.8, 0.6])
    assert [p.lam for p in iter_path(X, y, family=family, start=whole[-1], lambdas=smaller, tol=1e-8)] == list(smaller)


@pytest.mark.parametrize("penalty", list(PENALTIES))
def test_row_order_and_feature_scale_do_not_matter(problem, penalty):
    X, y, family = problem
    options = {"family": family, "penalty": penalty, **SMALL}
    rng = np.random.default_rng(0)
    order, scale, shift = rng.permutation(len(X)), rng.uniform(0.01, 100, X.shape[1]), rng.normal(size=X.shape[1])
    a = fit_path(X, y, **options)
    b = fit_path((X * scale + shift)[order], y[order], **options)
    np.testing.assert_allclose(a.lam, b.lam, rtol=1e-9)
    np.testing.assert_allclose(a.weight(5), b.weight(5), atol=2e-3)
    np.testing.assert_allclose(a.objective, b.objective, atol=2e-8 * a.meta["null_objective"])


def test_sample_weights_are_repeated_rows(problem):
    X, y, family = problem
    times = np.random.default_rng(0).integers(0, 3, len(X))
    times[:3] = 1
    weighted = fit_path(X, y, family=family, sample_weight=times, **SMALL)
    repeated = fit_path(np.repeat(X, times, 0), np.repeat(y, times, 0), family=family, **SMALL)
    np.testing.assert_allclose(weighted.lam, repeated.lam, rtol=1e-9)
    np.testing.assert_allclose(weighted.standardizer.scale, repeated.standardizer.scale)
    np.testing.assert_allclose(weighted.weight(5), repeated.weight(5), atol=2e-3)
    for name, values in weighted.metrics["train"].items():
        np.testing.assert_allclose(values, repeated.metrics["train"][name], atol=1e-5)


def test_duplicates_share_a_weight_and_constants_stay_zero(problem):
    X, y, family = problem
    X = np.hstack([X, X[:, :1], np.full((len(X), 1), 3.7), np.zeros((len(X), 1))])
    for penalty in PENALTIES:
        path = fit_path(
            X, y, family=family, penalty=penalty, l1_ratio=0.5, n_lambdas=6, lambda_min_ratio=0.05, tol=1e-11
        )
        weight = path.weight(5)
        np.testing.assert_allclose(weight[:, 0], weight[:, 6], atol=1e-4)
        assert (weight[:, 7:] == 0).all()
        assert path.standardizer.scale[7:].tolist() == [0, 0]
        assert path.meta["dead_features"] == 2


def test_offset_as_a_fixed_feature(problem):
    """An offset of c x_1 moves the unpenalized weight of x_1 by -c and nothing else."""
    X, y, family = problem
    K = 1 if y.ndim == 1 and (family == "gaussian" or (family == "binomial" and y.max() == 1)) else 3
    options = {"family": family, "penalty_factor": [0, 1, 1, 1, 1, 1], **SMALL}
    shift = np.arange(1, K + 1) / 2
    plain = fit_path(X, y, **options)
    z = (X[:, :1] - X[:, :1].mean()) / X[:, :1].std()
    moved = fit_path(X, y, offset=z * shift, **options)
    np.testing.assert_allclose(plain.objective, moved.objective, atol=3e-8 * plain.meta["null_objective"])
    np.testing.assert_allclose(plain.weight(5)[:, 1:], moved.weight(5)[:, 1:], atol=2e-3)
    change = plain.weight(5)[:, 0] - moved.weight(5)[:, 0]
    if family == "multinomial":
        change, shift = change - change.mean(), shift - shift.mean()
    np.testing.assert_allclose(change, shift, atol=2e-3)


def test_one_lambda_and_the_zero_at_the_end():
    X, y, family = make_problem("multinomial")
    one = fit_path(X, y, family=family, n_lambdas=1, lambda_min_ratio=0.1)
    assert len(one) == 1
    assert one.lam[0] == pytest.approx(0.1 * one.meta["lambda_max"])
    assert fit_path(X, y, family=family, lambdas=0.03).lam.tolist() == [0.03]
    assert fit_path(X, y, family=family, lambdas=[0.1, 0.05], lambda_zero=True).lam.tolist() == [0.1, 0.05, 0]


def test_early_stops():
    X, y, family = make_problem("multinomial", n=120)
    capped = fit_path(X, y, family=family, n_lambdas=20, lambda_min_ratio=0.01, max_features_per_class=2)
    assert capped.nnz[-1] > 6 >= capped.nnz[-2]
    assert len(capped) < 20
    X2, y2, _ = make_problem("multinomial", n=120, seed=9)
    quiet = fit_path(X, y, n_lambdas=30, lambda_min_ratio=0.01, tol=1e-4, validation=(X2, y2), patience=4)
    accuracy = quiet.metrics["val"]["accuracy"]
    assert len(quiet) < 30
    assert accuracy[-4:].max() <= accuracy[:-4].max()


def test_metrics_are_those_of_the_raw_layer(problem):
    X, y, family = problem
    path = fit_path(
        X, y, family=family, evaluation={"val": (X[:40], y[:40]), "test": (X, y, np.arange(len(X)) >= 40)}, **SMALL
    )
    W, b = path.raw(5)
    scores = X @ W.T + b
    if family == "gaussian":
        Y = y.reshape(len(y), -1)
        expected = 0.5 * ((scores - Y) ** 2).sum(1)
        measured = {s: path.metrics[s]["loss"][5] for s in ("train", "val", "test")}
    else:
        right = (scores > 0) == y if y.ndim == 2 else _predict(scores) == y
        expected = right.reshape(len(y), -1).mean(1)
        measured = {s: path.metrics[s]["accuracy"][5] for s in ("train", "val", "test")}
    assert measured["train"] == pytest.approx(expected.mean(), abs=1e-9)
    assert measured["val"] == pytest.approx(expected[:40].mean(), abs=1e-9)
    assert measured["test"] == pytest.approx(expected[40:].mean(), abs=1e-9)


def _predict(scores):
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)


@pytest.mark.parametrize("kind", ["memmap", "torch", "float16", "fortran", "rows"])
def test_every_storage_gives_the_same_path(kind, tmp_path):
    X, y, family = make_problem("multinomial", n=300, d=12)
    X = X.astype(np.float16).astype(np.float32)
    plain = fit_path(X, y, family=family, **SMALL)
    options = {}
    if kind == "memmap":
        X.tofile(tmp_path / "x.bin")
        given = np.memmap(tmp_path / "x.bin", dtype=np.float32, mode="r", shape=X.shape)
    elif kind == "rows":  # the other rows are never looked at
        keep = np.repeat([True, False], [300, 50])
        given, options = np.vstack([X, np.full((50, 12), np.nan, np.float32)]), {"rows": keep}
        y = np.concatenate([y, np.full(50, 99)])
    else:
        given = {"torch": torch.from_numpy(X), "float16": X.astype(np.float16), "fortran": np.asfortranarray(X)}[kind]
    path = fit_path(given, y, family=family, **options, **SMALL)
    np.testing.assert_allclose(path.objective, plain.objective, atol=1e-9)
    np.testing.assert_allclose(path.weight(5), plain.weight(5), atol=1e-4)


def test_row_blocks_and_float32_products_change_nothing_that_matters(monkeypatch):
    """The same fit in float32 products over small blocks: certified, and the same objective."""
    from debugnet.glm import design

    X, y, family = make_problem("multinomial", n=1000, d=12)
    X = X.astype(np.float32)
    plain = fit_path(X, y, family=family, n_lambdas=6, lambda_min_ratio=0.02, solver="fista")
    monkeypatch.setattr(design, "BLOCK_BYTES", {"cpu": 12 * 4 * 100})
    monkeypatch.setattr(design, "SMALL", 0)
    for dtype in (np.float32, np.float16):
        fit = PathFit(
            X.astype(dtype), y, make_options(family=family, n_lambdas=6, lambda_min_ratio=0.02, solver="fista")
        )
        assert fit.problem.design.dtype == torch.float32
        assert len(list(fit.problem.design.blocks(torch.float64))) == 20
        points = list(fit.points())
        assert {p.status for p in points} == {"converged"}
        if dtype == np.float32:
            np.testing.assert_allclose([p.objective for p in points], plain.objective, atol=2e-6)


def test_seed_makes_it_deterministic():
    X, y, family = make_problem("multinomial")
    a, b = (fit_path(X, y, solver="saga", seed=3, n_lambdas=4, lambda_min_ratio=0.2) for _ in range(2))
    assert a.data.tobytes() == b.data.tobytes()
    assert a.biases.tobytes() == b.biases.tobytes()


@pytest.mark.parametrize("solver", ["fista", "prox-newton", "group-newton"])
def test_checkpoint_inside_a_point_resumes_it(solver):
    X, y, family = make_problem("multinomial", n=200, d=20)
    seen = []
    options = {"lambdas": [0.002], "tol": 1e-9, "solver": solver}
    if solver == "group-newton":
        options["penalty"] = "group_lasso"
    whole = fit_path(X, y, checkpoint=lambda lam, state: seen.append((lam, state)), checkpoint_seconds=0, **options)
    inside = [s for s in seen if s[0] == 0.002]
    resumed = fit_path(X, y, resume_state=inside[-1], **options)
    assert resumed.n_epochs[0] < (0.5 if solver == "fista" else 0.9) * whole.n_epochs[0]
    assert resumed.objective[0] == pytest.approx(whole.objective[0], abs=1e-8)


def test_an_exhausted_budget_is_said_so():
    X, y, family = make_problem("multinomial", n=200, d=20)
    path = fit_path(X, y, lambdas=[0.05, 0.001], max_epochs=3, tol=1e-9, solver="fista")
    assert path.status[1] == "max_iterations"
    assert path.duality_gap[1] > 1e-9


def test_a_solver_that_is_wrong_about_itself_is_found_out(monkeypatch):
    """The certificate, not the solver, decides the status; nearby lambdas share a certificate pass."""

    class Sloppy(Fista):
        trusts_itself = True
        asked: list = []

        def solve(self, lam, weight, bias, monitor, resume=None):
            self.asked.append((lam, monitor.tol))
            solution = super().solve(lam, weight, bias, _Never(monitor))
            return type(solution)(solution.weight, solution.bias, "converged", solution.n_epochs)

    class _Never:
        def __init__(self, monitor):
            self.tol, self.null_objective, self.max_epochs = monitor.tol, 1.0, 4
            self.certificate = monitor.certificate

        def done(self, weight, bias):
            return True

        def tick(self, state):
            pass

    X, y, family = make_problem("multinomial")
    fit = PathFit(X, y, make_options(n_lambdas=6, lambda_min_ratio=0.01, tol=1e-8, solver="fista"))
    monkeypatch.setattr(type(fit.prepared), "make_solver", lambda self: Sloppy(self.problem))
    points = list(fit.points())
    assert "stalled" in {p.status for p in points}
    assert all(p.status != "converged" or p.duality_gap <= 1e-8 for p in points)
    tols = [tol for lam, tol in Sloppy.asked if lam == points[-1].lam]
    assert tols == pytest.approx([1e-8, 1e-9, 1e-10])


def test_signature_and_help_show_every_option():
    import inspect

    names = set(inspect.signature(fit_path).parameters)
    assert {"X", "y", "family", "penalty", "l1_ratio", "lambdas", "sample_weight", "validation"} <= names
    assert "start" in inspect.signature(iter_path).parameters


def test_path_is_lazy_after_the_checks():
    X, y, family = make_problem("multinomial")
    first = list(itertools.islice(iter_path(X, y, lambdas=[0.1, 0.05, 1e-9]), 2))
    assert [p.lam for p in first] == [0.1, 0.05]
    with pytest.raises(UsageError):
        iter_path(X, y, l1_ratio=0)  # before the first point is asked for
