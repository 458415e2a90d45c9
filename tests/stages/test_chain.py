"""From a feature store to a path, a head and an analysis, as the commands do it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from debugnet import interrupts
from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.head_store import load_head
from debugnet.artifacts.path_store import load_path
from debugnet.errors import InputError, Interrupted, NotConverged, OutputExists, StaleArtifact, UsageError
from debugnet.recipes.analyze import Analyze
from debugnet.recipes.fit_path import FitPath
from debugnet.recipes.select import Select, parse_drop
from debugnet.stages import analyze, fit_path, select
from debugnet.stages.inputs import usable_rows
from tests.stages.planted import PLANTED, planted_problem

GRID = {"n_lambdas": 20, "lambda_min_ratio": 0.01, "threads": 1}


@pytest.fixture
def planted_path(planted_store):
    return fit_path.run(FitPath(planted_store, **GRID)).path


def test_the_path_has_metrics_certificates_and_both_dense_baselines(planted_store, planted_path):
    path, store = load_path(planted_path), load_features(planted_store)
    assert len(path) == 20 and set(path.metrics) == {"train", "val", "test"}
    assert (np.asarray(path.duality_gap) <= 1e-6).all() and set(path.status) == {"converged"}
    assert path.meta["class_names"] == ["ash", "birch", "cedar"]
    # statistics come from the usable train rows alone
    X, _ = usable_rows(store.split("train"))
    assert len(X) == 239
    np.testing.assert_allclose(path.standardizer.mean, X.astype(np.float64).mean(axis=0), atol=1e-6)
    assert path.standardizer.scale[5] == 0 and not any(path.weight(i)[:, 5].any() for i in range(20))
    # the metrics of a point are those of its raw weights on the stored rows
    X, y = usable_rows(store.split("test"))
    for i in (5, 19):
        weight, bias = path.raw(i)
        assert path.metrics["test"]["accuracy"][i] == pytest.approx(np.mean((X @ weight.T + bias).argmax(axis=1) == y))
    own = np.mean((X @ store.dense_head.weight.T + store.dense_head.bias).argmax(axis=1) == y)
    assert path.meta["network_head"]["test"]["accuracy"] == pytest.approx(own)


def test_fit_path_is_reused_refused_and_forced(planted_store, planted_path):
    before = planted_path.stat().st_mtime_ns
    again = fit_path.run(FitPath(planted_store, **GRID))
    assert again.reused and planted_path.stat().st_mtime_ns == before
    assert again.summary["points"] == 20 and again.summary["worst_gap"] <= 1e-6
    with pytest.raises(OutputExists, match="l1_ratio"):
        fit_path.run(FitPath(planted_store, l1_ratio=0.5, **GRID))
    assert not fit_path.run(FitPath(planted_store, l1_ratio=0.5, **GRID), force=True).reused
    assert load_path(planted_path).meta["l1_ratio"] == 0.5


def test_an_interrupted_fit_goes_on_and_ends_in_the_same_path(planted_store, monkeypatch, tmp_path):
    from debugnet.stages import fit_points

    whole = load_path(fit_path.run(FitPath(planted_store, tmp_path / "whole.h5", **GRID)).path)
    options = FitPath(planted_store, tmp_path / "cut.h5", **GRID)
    append, count = fit_points.PathWriter.append, [0]

    def dying(writer, point):
        count[0] += 1
        if count[0] > 7:
            raise KeyboardInterrupt
        append(writer, point)

    monkeypatch.setattr(fit_points.PathWriter, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        fit_path.run(options)
    monkeypatch.setattr(fit_points.PathWriter, "append", append)
    assert not (tmp_path / "cut.h5").exists()
    stored = []
    monkeypatch.setattr(fit_points.PathWriter, "append", lambda w, p: (stored.append(p.lam), append(w, p))[1])
    resumed = load_path(fit_path.run(options).path)
    assert len(stored) == 13 and not (tmp_path / "cut.h5.partial").exists()
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    np.testing.assert_allclose(resumed.objective, whole.objective, rtol=2e-6)
    assert (np.asarray(resumed.duality_gap) <= 1e-6).all()


def test_a_signal_costs_no_point(planted_store, monkeypatch, tmp_path):
    """Lambdas that are solved when it comes, the one in progress too, are stored and never solved again."""
    from debugnet.glm.solvers.prox_newton import ProxNewton

    solve, solved = ProxNewton.solve, []

    def signalled(solver, lam, *given, **options):
        if solver.n > 40:  # not the warm-up
            solved.append(lam)
            if len(solved) == 6:
                os.kill(os.getpid(), signal.SIGTERM)
        return solve(solver, lam, *given, **options)

    monkeypatch.setattr(ProxNewton, "solve", signalled)
    options = FitPath(planted_store, tmp_path / "path.h5", **GRID)
    with interrupts.install(), pytest.raises(Interrupted):
        fit_path.run(options)
    first = list(solved)
    assert len(first) == 6 and not options.output.exists()
    with interrupts.install():  # the next command starts without the signal
        pass
    fitted = load_path(fit_path.run(options).path)
    assert not set(first) & set(solved[6:])
    assert len(fitted) == 20 and (np.asarray(fitted.duality_gap) <= 1e-6).all()


@pytest.mark.parametrize(
    ("change", "points"), [({"lambda_min_ratio": 0.001}, 20 + 7), ({"n_lambdas": 39}, 39), ({"lambda_zero": True}, 21)]
)
def test_extend_keeps_what_is_there_and_fits_only_the_rest(planted_store, planted_path, monkeypatch, change, points):
    from debugnet.stages import fit_points

    old = load_path(planted_path)
    fitted = []
    complete = fit_points.Scorer.complete
    monkeypatch.setattr(fit_points.Scorer, "complete", lambda s, p: (fitted.append(p.lam), complete(s, p))[1])
    options = FitPath(planted_store, extend=True, allow_unconverged=True, **{**GRID, **change})
    assert not fit_path.run(options).reused
    new = load_path(planted_path)
    assert len(new) == points and len(fitted) == points - 20
    assert (np.diff(new.lam) < 0).all()
    for i, lam in enumerate(old.lam):
        at = int(np.argmin(np.abs(new.lam - lam)))
        assert new.lam[at] == lam
        np.testing.assert_array_equal(new.weight(at), old.weight(i))
    assert fit_path.run(options).reused
    with pytest.raises(OutputExists, match="cannot be extended.*l1_ratio"):
        fit_path.run(dataclasses.replace(options, l1_ratio=0.7))


def test_one_lambda_is_the_point_of_the_path(planted_store, planted_path, tmp_path):
    path = load_path(planted_path)
    one = load_path(fit_path.run(FitPath(planted_store, tmp_path / "one.h5", lam=float(path.lam[8]), threads=1)).path)
    assert len(one) == 1
    np.testing.assert_allclose(one.weight(0), path.weight(8), atol=5e-3)


def test_stopping_rules(planted_store, tmp_path):
    def length(**options):
        name = "_".join(options)
        return load_path(fit_path.run(FitPath(planted_store, tmp_path / f"{name}.h5", **GRID, **options)).path)

    stopped = length(max_features_per_class=3)
    assert (stopped.nnz[:-1] / 3 <= 3).all() and stopped.nnz[-1] / 3 > 3
    patient = length(patience=3)
    val = patient.metrics["val"]["accuracy"]
    assert len(patient) == int(val.argmax()) + 1 + 3 < 20


def test_weights_are_balanced_and_weigh_in(make_store, tmp_path):
    features, labels = planted_problem()
    keep = (labels["train"] != 2) | (np.arange(240) % 8 == 0)  # cedar becomes rare
    features["train"], labels["train"] = features["train"][keep], labels["train"][keep]
    store = make_store(features, labels, class_names=["ash", "birch", "cedar"])
    options = {"lam": 0.02, "threads": 1}
    plain = load_path(fit_path.run(FitPath(store, tmp_path / "plain.h5", **options)).path)
    balanced = load_path(fit_path.run(FitPath(store, tmp_path / "b.h5", class_weight="balanced", **options)).path)
    assert balanced.metrics["val"]["balanced_accuracy"][0] > plain.metrics["val"]["balanced_accuracy"][0]
    counts = np.bincount(labels["train"][np.isfinite(features["train"]).all(axis=1)])
    weights = (1 / counts)[labels["train"]]
    np.savetxt(tmp_path / "w.txt", weights)
    by_file = load_path(
        fit_path.run(FitPath(store, tmp_path / "f.h5", weights_file=tmp_path / "w.txt", **options)).path
    )
    np.testing.assert_allclose(by_file.weight(0), balanced.weight(0), atol=2e-3)
    np.savetxt(tmp_path / "w.txt", weights[:-1])
    with pytest.raises(InputError, match=r"w.txt has \d+ weights for the \d+ rows"):
        fit_path.run(FitPath(store, tmp_path / "g.h5", weights_file=tmp_path / "w.txt", **options))


def test_penalty_factors_leave_features_out(planted_store, tmp_path):
    factors = np.ones(30)
    factors[PLANTED[0]] = np.inf
    np.save(tmp_path / "factors.npy", factors)
    options = FitPath(planted_store, tmp_path / "p.h5", lam=0.05, threads=1, penalty_factors=tmp_path / "factors.npy")
    assert not load_path(fit_path.run(options).path).weight(0)[:, PLANTED[0]].any()


def test_missed_tolerance_exits_8_and_keeps_the_path(planted_store, tmp_path):
    options = FitPath(planted_store, tmp_path / "p.h5", n_lambdas=3, solver="fista", max_epochs=2, threads=1)
    with pytest.raises(NotConverged, match="--allow-unconverged"):
        fit_path.run(options)
    assert len(load_path(tmp_path / "p.h5")) == 3
    with pytest.raises(NotConverged):  # finding it there does not make it better
        fit_path.run(options)
    assert fit_path.run(dataclasses.replace(options, allow_unconverged=True)).reused
    with pytest.raises(NotConverged, match="did not converge"):
        select.run(Select(tmp_path / "p.h5"))


def test_planted_features_are_found_and_permuted_labels_give_nothing(planted_path, make_store):
    head = load_head(select.run(Select(planted_path)).path)
    for k, j in PLANTED.items():
        assert np.abs(head.standardized_weight[k]).argmax() == j and head.weight[k, j] > 0
    assert (head.support.sum(axis=1) <= 2).all()
    for seed in range(3):
        features, labels = planted_problem(seed, permuted=True)
        store = make_store(features, labels, class_names=["ash", "birch", "cedar"])
        path = fit_path.run(FitPath(store, **GRID)).path
        assert load_head(select.run(Select(path, drop=0.1)).path).support.sum() == 0


def test_select_writes_what_it_did(planted_path):
    result = select.run(Select(planted_path))
    head, path = load_head(result.path), load_path(planted_path)
    meta, i = head.meta, head.meta["index"]
    best = path.metrics["val"]["accuracy"].max()
    expected = min((path.nnz[j], j) for j in range(20) if path.metrics["val"]["accuracy"][j] >= best - 0.05 - 1e-9)
    assert (meta["nnz"], i) == expected
    assert (meta["rule"], meta["reference"], meta["drop"], meta["metric"]) == ("drop", "best", 0.05, "accuracy")
    assert meta["counts"] == path.nnz_per_output[i].tolist()
    assert meta["metrics"]["test"]["accuracy"] == pytest.approx(path.metrics["test"]["accuracy"][i])
    assert set(meta["readings"]) == {"absolute", "relative"}
    assert meta["baselines"]["dense"]["index"] == 19 and meta["baselines"]["network_head"]["val"]["accuracy"] > 0.5
    np.testing.assert_allclose(head.weight, path.raw(i)[0])
    assert "own head of the network" in result.text and "n/a" not in result.text
    assert select.run(Select(planted_path)).reused
    with pytest.raises(OutputExists, match="drop"):
        select.run(Select(planted_path, drop=0.01))
    json.loads(result.document())


def test_features_per_class_has_exactly_k_and_is_fitted_again(planted_store, planted_path, tmp_path):
    result = select.run(Select(planted_path, tmp_path / "five", features_per_class=2))
    head, store = load_head(result.path), load_features(planted_store)
    assert head.support.sum(axis=1).tolist() == [2, 2, 2]
    start = load_path(planted_path).weight(head.meta["index"])
    for k in range(3):
        expected = np.sort(np.argsort(-np.abs(start[k]), kind="stable")[:2])
        assert np.flatnonzero(head.support[k]).tolist() == expected.tolist()
    # a refit has a smaller training objective than the truncated start
    X, y = usable_rows(store.split("train"))
    metrics, unfitted = head.meta["metrics"]["train"], head.meta["metrics_without_refit"]["train"]
    assert metrics["loss"] < unfitted["loss"]
    assert metrics["accuracy"] == pytest.approx(np.mean(head.predict(X) == y))
    with pytest.raises(UsageError, match="at best"):
        select.run(Select(planted_path, tmp_path / "many", features_per_class=29))


def test_without_validation_or_test_rows(make_store):
    features, labels = planted_problem()
    for each in (features, labels):
        del each["val"], each["test"]
    path = fit_path.run(FitPath(make_store(features, labels, class_names=["a", "b", "c"]), **GRID)).path
    with pytest.raises(InputError, match="no validation metrics"):
        select.run(Select(path))
    result = select.run(Select(path, index=6))
    assert "n/a" in result.text and result.summary["metrics"]["test"] is None
    with pytest.raises(UsageError, match="--patience needs validation rows"):
        fit_path.run(FitPath(path.parent / "features.h5", path.parent / "q.h5", patience=2, **GRID))


@pytest.mark.parametrize("family", ["binomial", "multinomial"])
def test_two_classes(make_store, family):
    features, labels = planted_problem()
    labels = {name: (y == 0).astype(np.int64) for name, y in labels.items()}
    store = make_store(features, labels, class_names=["other", "ash"])
    path = fit_path.run(FitPath(store, family=family, **GRID)).path
    head = load_head(select.run(Select(path)).path)
    assert len(head.weight) == (1 if family == "binomial" else 2)
    assert np.abs(head.standardized_weight[-1]).argmax() == PLANTED[0]
    analysis = json.loads((analyze.run(Analyze(path.parent / "head", top_k=1)).path / "analysis.json").read_text())
    assert analysis["topk_rest"]["sparse"]["top_k"]["accuracy"] > 0.8


def test_multi_label_and_regression_go_through_the_whole_chain(make_store):
    features, labels = planted_problem()
    multi = {name: (y[:, None] == np.arange(3)).astype(np.uint8) for name, y in labels.items()}
    store = make_store(features, multi, class_names=["x", "y", "z"], task="multi-label")
    path = fit_path.run(FitPath(store, **GRID)).path
    head = load_head(select.run(Select(path)).path)
    assert head.meta["metric"] == "balanced_accuracy" and head.task == "multi-label"
    for k, j in PLANTED.items():
        assert np.abs(head.standardized_weight[k]).argmax() == j
    analysis = json.loads((analyze.run(Analyze(path.parent / "head")).path / "analysis.json").read_text())
    assert "average_precision[2]" in analysis["topk_rest"]["sparse"]["all"]

    values = {name: (X[:, 3] - 2 * X[:, 11]).astype(np.float64) for name, X in features.items()}
    path = fit_path.run(FitPath(make_store(features, values, class_names=[], task="regression"), **GRID)).path
    head = load_head(select.run(Select(path)).path)
    assert head.meta["metric"] == "r2" and set(head.used_features) == {3, 11}
    analysis = json.loads((analyze.run(Analyze(path.parent / "head", top_k=1)).path / "analysis.json").read_text())
    assert analysis["topk_rest"]["sparse"]["all"]["r2"] > 0.9


def test_analyze_matches_a_rewrite_and_draws(planted_store, planted_path):
    select.run(Select(planted_path))
    result = analyze.run(Analyze(planted_path.parent / "head", top_k=1))
    analysis = json.loads((result.path / "analysis.json").read_text())
    store, path = load_features(planted_store), load_path(planted_path)
    X, y = usable_rows(store.split("test"))
    mean, scale = path.standardizer.mean, np.where(path.standardizer.scale > 0, path.standardizer.scale, np.inf)
    W, b = path.weight(19), path.bias(19)
    for part in ("all", "top_k", "rest"):
        kept = W.copy()
        for row in kept:
            largest = np.argmax(np.abs(row))
            if part == "top_k":
                row[np.arange(30) != largest] = 0
            elif part == "rest":
                row[largest] = 0
        expected = np.mean((((X - mean) / scale) @ kept.T + b).argmax(axis=1) == y)
        assert analysis["topk_rest"]["dense"][part]["accuracy"] == pytest.approx(expected)
    assert [entries[0]["feature"] for entries in analysis["entry_order"].values()] == list(PLANTED.values())
    assert analysis["no_feature"]["accuracy"] == pytest.approx(max(np.bincount(y)) / len(y), abs=0.1)
    for name in ("overview", "accuracy_against_features", "features_per_class", "topk_rest", "shared_features",
                 "coefficient_paths", "entry_order"):  # fmt: skip
        assert (result.path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"</svg>" in (result.path / f"{name}.svg").read_bytes()
    assert analyze.run(Analyze(planted_path.parent / "head", top_k=1)).reused


def test_things_that_do_not_belong_together_are_refused(planted_store, planted_path, make_store):
    head = select.run(Select(planted_path)).path
    features, labels = planted_problem(4)
    other = make_store(features, labels, class_names=["ash", "birch", "cedar"])
    other_path = fit_path.run(FitPath(other, **GRID)).path
    with pytest.raises(StaleArtifact, match="do not belong together"):
        analyze.run(Analyze(head, path=other_path))
    with pytest.raises(StaleArtifact, match="do not belong together"):
        analyze.run(Analyze(head, features=other))
    with pytest.raises(InputError, match="features"):
        select.run(Select(planted_store))
    with pytest.raises(UsageError, match="no class 'oak'.*ash, birch, cedar"):
        analyze.run(Analyze(head, classes=("oak",)))
    with pytest.raises(InputError, match="no split 'dev'"):
        analyze.run(Analyze(head, split="dev"))
    fit_path.run(FitPath(planted_store, **{**GRID, "n_lambdas": 5}), force=True)
    with pytest.raises(StaleArtifact, match="changed since"):
        analyze.run(Analyze(head))


def test_a_refused_fit_leaves_nothing_behind(planted_store, tmp_path):
    for bad in ({"solver": "bogus"}, {"lam": -1.0}, {"l1_ratio": 0.0}, {"penalty_factors": tmp_path / "none.npy"}):
        with pytest.raises((UsageError, InputError)):
            fit_path.run(FitPath(planted_store, tmp_path / "p.h5", **bad))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.h5"]


def test_bad_options_are_one_line(planted_store, planted_path):
    with pytest.raises(UsageError, match="--drop and --index are two rules"):
        select.run(Select(planted_path, drop=0.1, index=3))
    with pytest.raises(UsageError, match="two grids"):
        fit_path.run(FitPath(planted_store, lam=0.1, lambdas=(0.1, 0.2)))
    with pytest.raises(UsageError, match="group-lasso has the penalty group_lasso"):
        fit_path.run(FitPath(planted_store, method="group-lasso", penalty="elastic_net"))
    with pytest.raises(UsageError, match="top-k 0"):
        analyze.run(Analyze(planted_path.parent / "head", top_k=0))
    assert parse_drop("5%") == parse_drop("0.05") == 0.05
    for text in ("5", "120%", "five", "-1%"):
        with pytest.raises(ValueError, match="write 5% or 0.05"):
            parse_drop(text)
