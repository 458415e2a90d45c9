"""Every family, penalty and option against a conic solver on the written-down objective."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.errors import UsageError
from debugnet.glm import fit_path
from debugnet.registry import SOLVERS
from tests.glm.conftest import make_problem
from tests.oracles import glm_cvxpy

TOL = 1e-9


def options_for(name: str, n: int, d: int, K: int) -> dict:
    rng = np.random.default_rng(3)
    return {
        "plain": {},
        "lasso": {"l1_ratio": 1.0},
        "weights": {"sample_weight": rng.integers(0, 4, n).astype(float)},
        "factors": {"penalty_factor": np.where(np.arange(d) == 1, np.inf, rng.uniform(0.3, 2, d))},
        "unpenalized": {"penalty_factor": np.array([0.0, 1, 0, 2, 1, 1])},
        "unpenalized lasso": {"penalty_factor": np.array([0.0, 1, 0, 2, 1, 1]), "l1_ratio": 1.0},
        "offset": {"offset": rng.normal(size=(n, K))},
        "nonnegative": {"nonnegative": True},
        "nonnegative unpenalized": {"nonnegative": True, "penalty_factor": np.array([0.0, 1, 0, 2, 1, 1])},
        "no intercept": {"fit_intercept": False},
        "unscaled": {"standardize": False},
        "everything": {
            "sample_weight": rng.uniform(0.1, 3, n),
            "penalty_factor": np.array([np.inf, 1, 0.5, 2, 1, 1]),
            "offset": rng.normal(size=(n, K)),
            "nonnegative": True,
            "l1_ratio": 0.5,
        },
    }[name]


NAMES = (
    "plain",
    "lasso",
    "weights",
    "factors",
    "unpenalized",
    "unpenalized lasso",
    "offset",
    "nonnegative",
    "nonnegative unpenalized",
    "no intercept",
    "unscaled",
    "everything",
)


def oracle(X, y, family, lam, penalty, options):
    given = {"l1_ratio": 0.9, **options}
    Z = glm_cvxpy.standardize(
        X,
        given.get("sample_weight"),
        center=given.get("fit_intercept", True),
        scale=given.get("standardize", True),
    )
    return glm_cvxpy.solve(
        Z,
        y,
        family,
        lam,
        penalty=penalty,
        l1_ratio=given["l1_ratio"],
        weight=given.get("sample_weight"),
        factor=given.get("penalty_factor"),
        offset=given.get("offset"),
        nonnegative=given.get("nonnegative", False),
        intercept=given.get("fit_intercept", True),
    )


def cases():
    """All options once, and again where a family or penalty has code of its own for them."""
    few = ("plain", "everything")
    for kind, penalty, names in (
        ("multinomial", "elastic_net", NAMES),
        ("multinomial", "group_lasso", ("plain", "lasso", "unpenalized", "nonnegative unpenalized", "everything")),
        ("multi-label", "elastic_net", ("lasso", "unpenalized lasso", "nonnegative", "everything")),
        ("gaussian", "elastic_net", ("lasso", "weights", "unpenalized", "offset", "no intercept", "everything")),
        ("gaussian", "group_lasso", ("lasso", "everything")),
        ("multi-label", "group_lasso", few),
        ("binomial", "elastic_net", few),
        ("one-vs-rest", "elastic_net", few),
        ("gaussian-1", "elastic_net", few),
    ):
        yield from ((kind, penalty, name) for name in names)


@pytest.mark.parametrize(("kind", "penalty", "name"), list(cases()))
def test_agrees_with_a_conic_solver(kind, penalty, name):
    X, y, family = make_problem(kind)
    options = {"l1_ratio": 0.9, **options_for(name, *X.shape, 1 if kind in ("binomial", "gaussian-1") else 3)}
    optimum, W, null = None, None, None
    for solver in (s for s in SOLVERS if s != "saga"):  # saga would need many epochs for TOL
        try:
            path = fit_path(
                X,
                y,
                family=family,
                penalty=penalty,
                n_lambdas=4,
                lambda_min_ratio=0.05,
                tol=TOL,
                solver=solver,
                **options,
            )
        except UsageError as refusal:
            assert solver != "fista" and solver in str(refusal)
            continue
        if optimum is None:
            W, b, optimum = oracle(X, y, family, path.lam[2], penalty, options)
            null = path.meta["null_objective"]
        assert path.status[2] == "converged", (solver, path.duality_gap, path.kkt_residual)
        assert path.objective[2] == pytest.approx(optimum, abs=3e-8 * null), solver
        if not np.isnan(path.duality_gap[2]):  # weak duality: a true lower bound (up to the oracle's own error)
            assert path.objective[2] - path.duality_gap[2] * null <= optimum + 1e-9 * null
        np.testing.assert_allclose(
            _centred(path.weight(2), kind, options), _centred(W, kind, options), atol=3e-3, err_msg=solver
        )


def _centred(W, kind, options):
    """Unpenalized multinomial weights are free up to a constant per feature: compare what is determined."""
    factor = options.get("penalty_factor")
    if kind == "multinomial" and factor is not None:
        W = W.copy()
        W[:, factor == 0] -= W[:, factor == 0].mean(axis=0)
    return W


@pytest.mark.parametrize("kind", ["multinomial", "gaussian"])
def test_unpenalized_limit(kind):
    """lambda 0 is the maximum likelihood fit where that exists."""
    X, y, family = make_problem(kind)
    path = fit_path(X, y, family=family, n_lambdas=4, lambda_min_ratio=0.1, lambda_zero=True, solver="fista")
    _, _, optimum = glm_cvxpy.solve(glm_cvxpy.standardize(X), y, family, 0.0)
    assert path.lam[-1] == 0
    assert np.isnan(path.duality_gap[-1])
    assert path.status[-1] == "converged"
    assert path.objective[-1] == pytest.approx(optimum, abs=1e-6)
