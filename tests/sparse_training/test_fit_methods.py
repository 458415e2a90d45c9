"""``fit-path --method spred|lassonet``: paths that select and analyze take as any other."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet import interrupts
from debugnet.artifacts.path_store import load_path
from debugnet.errors import Interrupted, NotConverged, UsageError
from debugnet.glm.solvers.group_newton import GroupNewton
from debugnet.recipes.analyze import Analyze
from debugnet.recipes.fit_path import FitPath
from debugnet.recipes.select import Select
from debugnet.sparse_training import spred_layer
from debugnet.sparse_training.networks import make_mlp
from debugnet.stages import analyze, fit_path, fit_subsets, select
from tests.sparse_training.sparse_networks import Exploding
from tests.sparse_training.test_drop_share import TWINS, twins
from tests.stages.planted import PLANTED, planted_problem, write_store

CLASSES = ["ash", "birch", "cedar"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    features, labels = planted_problem()
    return write_store(tmp_path_factory.mktemp("store") / "features.h5", features, labels, class_names=CLASSES)


@pytest.fixture(scope="module")
def spred_path(store):
    options = {"n_lambdas": 5, "lambda_min_ratio": 0.03, "threads": 1}
    exact = load_path(fit_path.run(FitPath(store, store.parent / "exact.h5", **options)).path)
    found = fit_path.run(FitPath(store, store.parent / "spred.h5", method="spred", steps=150, **options)).path
    return found, exact


@pytest.fixture(scope="module")
def lassonet_path(store):
    options = FitPath(
        store, store.parent / "lassonet.h5", method="lassonet", sizes=(3, 10), hidden=(16,), epochs=15, ratio=1.5,
        batch_size=64, lr=5e-3, threads=1,
    )  # fmt: skip
    return fit_path.run(options).path


def test_drop_share_thins_twins_out_before_signals_are_lost(tmp_path):
    """Five twins for each of eight signals, four of them in the target (tests/sparse_training/test_drop_share.py)."""
    X, y = (tensor.numpy() for tensor in twins())
    features = {"train": X[:500], "val": X[500:]}
    labels = {"train": y[:500], "val": y[500:]}
    store = write_store(tmp_path / "features.h5", features, labels, class_names=["no", "yes"])
    options = {"sizes": (6, 20), "hidden": (30,), "ratio": 1.2, "batch_size": 64, "lr": 3e-3, "threads": 1}
    kept = {}
    for share in (None, 0.1):
        made = fit_path.run(FitPath(store, tmp_path / f"{share}.h5", method="lassonet", drop_share=share, **options))
        path = load_path(made.path)
        assert set(path.status) == {"converged"} and (np.diff(path.lam) < 0).all()
        kept[share] = {signals_of(path, i, 6) for i in range(len(path))} - {None}
    assert {0, 1, 2, 3} <= set(*kept[0.1]) and not {0, 1, 2, 3} <= set(*kept[None])


def signals_of(path, i, size):
    """Signals of which point i holds a twin, if its features are so many."""
    used = np.flatnonzero((path.weight(i) != 0).any(axis=0))
    return frozenset(used // TWINS) if len(used) == size else None


def test_spred_ends_in_the_certified_solution(spred_path):
    path, exact = load_path(spred_path[0]), spred_path[1]
    np.testing.assert_array_equal(path.lam, exact.lam)
    assert (path.duality_gap <= 1e-6).all() and set(path.status) == {"converged"}
    np.testing.assert_allclose(path.objective, exact.objective, rtol=3e-6)
    for i in range(len(path)):
        np.testing.assert_allclose(path.weight(i), exact.weight(i), atol=2e-3)
    told = path.meta["spred"]
    assert path.meta["solver"] == "spred" and len(told["lam"]) == 4  # all but lambda_max
    # Its own layers, before the polish: at the certified objective, and dense.
    assert (np.abs(told["relative_gap"]) < 1e-5).all()
    assert max(told["exact_zeros_before_polish"]) <= 3  # the constant feature's


def test_a_stopped_spred_path_ends_in_the_same_points(store, spred_path, tmp_path, monkeypatch):
    """Stopped three times, inside layers: points and what is told of them are the same."""
    whole, options = load_path(spred_path[0]), {"method": "spred", "steps": 150, "n_lambdas": 5, "threads": 1}
    for limit in (3, 80, 50):
        left = iter(range(limit))
        with monkeypatch.context() as patch:

            def check(left=left):
                if next(left, None) is None:
                    raise Interrupted("stopped by SIGTERM", 15)

            patch.setattr(interrupts, "check", check)
            with pytest.raises(Interrupted):
                fit_path.run(FitPath(store, tmp_path / "path.h5", lambda_min_ratio=0.03, **options))
    assert list((tmp_path / "path.h5.partial").glob("spred-*.safetensors"))
    resumed = load_path(fit_path.run(FitPath(store, tmp_path / "path.h5", lambda_min_ratio=0.03, **options)).path)
    for i in range(len(whole)):
        np.testing.assert_array_equal(whole.weight(i), resumed.weight(i))
    assert whole.meta["spred"] == resumed.meta["spred"]


def test_lassonet_finds_the_planted_features(lassonet_path):
    path = load_path(lassonet_path)
    assert [len(np.flatnonzero(path.weight(i).any(axis=0))) for i in range(len(path))] == [3, 10]
    assert set(np.flatnonzero(path.weight(0).any(axis=0))) == set(PLANTED.values())
    assert (np.diff(path.lam) < 0).all() and (path.duality_gap <= 1e-6).all()
    importance = np.array(path.meta["lassonet"]["importance"])
    assert set(np.argsort(-importance)[:3]) == set(PLANTED.values())
    metrics = path.metrics["test"]
    assert metrics["accuracy"][0] > 0.7 and metrics["network_accuracy"][0] > 0.6
    assert metrics["network_relaxed_accuracy"][0] > 0.7


def test_select_and_analyze_take_the_lassonet_path(lassonet_path, tmp_path):
    """Through the command line, and of the other methods: test_select_network.py."""
    head = select.run(Select(lassonet_path, tmp_path / "head", index=0)).path
    result = analyze.run(Analyze(head, output=tmp_path / "analysis", top_k=2))
    assert (result.path / "overview.png").exists() and (result.path / "cost_of_linearity.png").exists()
    again = FitPath(
        lassonet_path.parent / "features.h5", lassonet_path, method="lassonet", sizes=(3, 10), hidden=(16,), epochs=15,
        ratio=1.5, batch_size=64, lr=5e-3,
    )  # fmt: skip
    assert fit_path.run(again).reused


def test_stop_at_keeps_exactly_so_many(store, tmp_path):
    fitted = FitPath(
        store, tmp_path / "path.h5", method="lassonet", stop_at=4, hidden=(8,), epochs=8, ratio=2.0, batch_size=64,
        lr=1e-2, threads=1,
    )  # fmt: skip
    path = load_path(fit_path.run(fitted).path)
    assert path.meta["lassonet"]["sizes"][0] == 4 and len(np.flatnonzero(path.weight(0).any(axis=0))) <= 4


LASSONET = {"method": "lassonet", "hidden": (8,), "epochs": 4, "ratio": 2.0, "batch_size": 64, "threads": 1}


def exploding(first):
    """Make networks that give no number in the training passes from ``first`` on."""

    def make(n_features, n_outputs, hidden):
        network = Exploding()
        network.layer, network.first = make_mlp(n_features, n_outputs, hidden), first
        return network

    return make


@pytest.mark.parametrize(
    ("options", "first", "message"),
    [
        ({"lr": 1e30}, None, "the dense start diverged .* a smaller --lr"),
        ({"sizes": (1, 2)}, 30, r"ended \(diverged\) at 30 features, before all --sizes 1,2: a smaller --lr"),
    ],
)
def test_a_network_that_diverges_leaves_nothing_in_the_way(store, tmp_path, monkeypatch, options, first, message):
    with monkeypatch.context() as patch, pytest.raises(NotConverged, match=message) as caught:
        if first:
            patch.setattr(fit_subsets, "make_mlp", exploding(first))
        fit_path.run(FitPath(store, tmp_path / "path.h5", **LASSONET | options))
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    found = fit_path.run(FitPath(store, tmp_path / "path.h5", **LASSONET | {"lr": 5e-3, "sizes": (10,)}))
    assert load_path(found.path).meta["lassonet"]["sizes"] == [10]


def test_a_network_that_diverges_later_keeps_what_was_reached(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fit_subsets, "make_mlp", exploding(400))
    options = LASSONET | {"epochs": 12, "sizes": tuple(range(1, 30)), "lr": 5e-3}
    path = load_path(fit_path.run(FitPath(store, tmp_path / "path.h5", **options)).path)
    told = path.meta["lassonet"]
    assert told["status"] == "diverged" and told["sizes"][0] > 1 and told["sizes"][-1] > told["sizes"][0]
    assert f"it ends at {told['sizes'][0]} features" in capsys.readouterr().err
    assert set(path.status) == {"converged"} and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("method", ["spred", "group-lasso"])
def test_lambdas_that_diverge_are_stored_and_said(method, store, tmp_path, monkeypatch):
    """Not a number from the third lambda on: the points are there, the line names the first, and can be accepted."""
    calls = []

    def broken(solve):
        def wrapped(*given, **more):
            calls.append(1)
            found = solve(*given, **more)
            if len(calls) >= 3:
                found.x[:] = np.nan
            return found

        return wrapped

    if method == "spred":
        monkeypatch.setattr(spred_layer, "minimize", broken(spred_layer.minimize))
    else:
        gap = GroupNewton._gap
        monkeypatch.setattr(GroupNewton, "_gap", lambda self, G: gap(self, G) if self.t.max() > 0.05 else np.nan)
    options = {"method": method, "n_lambdas": 6, "lambda_min_ratio": 0.03, "steps": 50, "threads": 1}
    with pytest.raises(NotConverged, match="diverged at gap .* all are in .*path.h5: ") as caught:
        fit_path.run(FitPath(store, tmp_path / "path.h5", **options))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*.partial"))
    accepted = fit_path.run(FitPath(store, tmp_path / "path.h5", **options, allow_unconverged=True))
    path = load_path(accepted.path)
    assert accepted.reused and len(path) == 6
    assert set(path.status) == {"converged", "diverged"}
    assert all(np.isfinite(path.weight(i)).all() for i in range(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "spred", "lambda_zero": True}, "no lambda 0"),
        ({"method": "spred", "nonnegative": True}, "sign constraints"),
        ({"method": "lassonet", "lam": 0.1}, "finds its own lambdas"),
        ({"method": "lassonet", "hierarchy": 0.0}, "--hierarchy 0.0"),
        ({"method": "lassonet", "drop_share": 0.9}, "--drop-share 0.9"),
        ({"method": "lassonet", "ratio": 1.0}, "--ratio 1.0"),
        ({"method": "spred", "extend": True}, "--extend"),
        ({"method": "lassonet", "sizes": (3, 500)}, "--sizes 500: there are only"),
        ({"method": "lassonet", "stop_at": 500}, "--stop-at 500: there are only"),
        ({"method": "lassonet", "sizes": (2, 5), "stop_at": 3}, "--sizes 2: --stop-at 3: the path ends before it"),
        ({"method": "lassonet", "sizes": (0,)}, "--sizes 0: at least 1"),
        ({"method": "lassonet", "hidden": (8, 0)}, "--hidden 0"),
        ({"method": "lassonet", "lr": 0.0}, "--lr 0"),
    ],
)
def test_bad_options_leave_nothing(store, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        fit_path.run(FitPath(store, tmp_path / "path.h5", **options))
    assert not list(tmp_path.iterdir())
