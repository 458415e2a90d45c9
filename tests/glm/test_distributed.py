"""Rows over two and four gloo processes: the same path as in one, and after a lost rank too."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from debugnet.errors import InputError, UsageError
from debugnet.glm import fit_path, iter_path
from debugnet.glm.distributed import RankCommunicator, communicator_from_environment, run_on_ranks
from debugnet.registry import SOLVERS
from tests.glm.conftest import make_problem

CASES = {
    "multinomial": {"l1_ratio": 0.9},
    "group": {"penalty": "group_lasso", "weights": True, "penalty_factor": [0, 1, 1, 1, 1, np.inf], "rows": True},
    "multi-label": {},
    "gaussian": {"fit_intercept": False},
}
GRID = {"n_lambdas": 4, "lambda_min_ratio": 0.1, "tol": 1e-7, "solver": "fista", "device": "cpu"}


def arguments(name):
    """(X, y, options) of one case; 61 rows do not divide by two or four."""
    X, y, family = make_problem({"group": "multinomial"}.get(name, name), n=61)
    options = {"family": family, **GRID, **CASES[name]}
    if options.pop("weights", False):
        options["sample_weight"] = np.random.default_rng(0).uniform(0, 2, 61)
    if options.pop("rows", False):
        options["rows"] = np.arange(61) % 5 != 1
    return X, y, {**options, "validation": (X[:21], y[:21])}


def _fit_cases(folder):
    torch.set_num_threads(1)
    world = communicator_from_environment()
    pair = dist.new_group([0, 1])
    for size, member in ((2, world.rank < 2), (4, True)):
        if not member:
            continue
        communicator = RankCommunicator(pair) if size == 2 else world
        for name in CASES:
            X, y, options = arguments(name)
            path = fit_path(X, y, communicator=communicator, **options)
            Path(folder, f"{name}-{size}-{world.rank}.pkl").write_bytes(pickle.dumps(path))
    X, y, options = arguments("multinomial")
    X[60, 1] = np.nan  # in the rows of the last rank: everybody stops
    with pytest.raises(InputError, match="row 60, column 1" if world.rank == 3 else "another rank"):
        fit_path(X, y, communicator=world, **options)
    for solver in SOLVERS:  # a solver either sums over ranks or says that it does not
        try:
            path = fit_path(*arguments("multinomial")[:2], **{**GRID, "solver": solver}, communicator=world)
            assert set(path.status) == {"converged"}
        except UsageError as refusal:
            assert f"solver '{solver}' cannot" in str(refusal)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(_fit_cases, 4, str(folder))
    return folder


@pytest.mark.parametrize("name", list(CASES))
def test_two_and_four_ranks_fit_the_same_path(fitted, name):
    X, y, options = arguments(name)
    alone = fit_path(X, y, **options)
    for size in (2, 4):
        ranks = [pickle.loads((fitted / f"{name}-{size}-{r}.pkl").read_bytes()) for r in range(size)]
        for path in ranks:
            np.testing.assert_allclose(path.lam, alone.lam, rtol=1e-10)
            np.testing.assert_allclose(path.objective, alone.objective, atol=2e-7 * alone.meta["null_objective"])
            np.testing.assert_allclose(path.weight(3), alone.weight(3), atol=5e-3)
            np.testing.assert_allclose(path.standardizer.scale, alone.standardizer.scale, rtol=1e-12)
            assert list(path.status) == list(alone.status)
            for split in ("train", "val"):
                for metric, values in path.metrics[split].items():
                    np.testing.assert_allclose(values, alone.metrics[split][metric], atol=1e-3)
            assert path.data.tobytes() == ranks[0].data.tobytes()  # every rank has the same


def _die_on_the_way(folder):
    torch.set_num_threads(1)
    communicator = communicator_from_environment()
    X, y, options = arguments("multinomial")
    for i, point in enumerate(iter_path(X, y, communicator=communicator, **options)):
        if communicator.rank == 1 and i == 2:
            os._exit(9)
        if communicator.rank == 0:
            Path(folder, f"{i}.pkl").write_bytes(pickle.dumps(point))


def test_a_killed_rank_costs_the_point_in_flight(tmp_path):
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        run_on_ranks(_die_on_the_way, 2, str(tmp_path))
    saved = [pickle.loads(f.read_bytes()) for f in sorted(tmp_path.glob("*.pkl"))]
    assert 2 <= len(saved) <= 3
    X, y, options = arguments("multinomial")
    whole = fit_path(X, y, **options)
    rest = list(iter_path(X, y, start=saved[-1], **options))
    objectives = [p.objective for p in [*saved, *rest]]
    np.testing.assert_allclose(objectives, whole.objective, atol=2e-7)
