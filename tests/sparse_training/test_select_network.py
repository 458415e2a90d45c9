"""``select sparse/``: a network of a path, its deep features, its own last layer; and the commands after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import read_json, verify_bundle
from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.head_store import load_head
from debugnet.artifacts.path_store import load_path
from debugnet.cli.app import main
from debugnet.errors import InputError, OutputExists, StaleArtifact, UsageError
from debugnet.recipes.select import Select
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.stages import select, train_sparse

METHODS = {
    "lassonet": ["--network", "mlp:16", "--sizes", "10,30", "--stop-at", "10", "--against", "none"],
    "group-lasso": ["--network", "mlp:16", "--sizes", "10,30", "--stop-at", "10", "--against", "none"],
    "spred": ["--network", "mlp:16", "--lambdas", "1e-3,1e-2", "--epochs-per-lambda", "4"],
}
NETWORKS = "python:tests.sparse_training.sparse_networks:"
FAST = {"epochs": 20, "epochs_per_lambda": 1, "batch_size": 64, "lr": 1e-2, "ratio": 1.5, "threads": 1}


def command(*words: object) -> None:
    assert main([str(word) for word in words]) == 0, words


@pytest.fixture(scope="module", params=METHODS)
def trained(request, digits, tmp_path_factory) -> Path:
    """``sparse/`` of each method, on digits."""
    folder = tmp_path_factory.mktemp(request.param)
    command(
        "train-sparse", "--method", request.param, *METHODS[request.param], "--data", digits, "--val-fraction", "0.2",
        "--epochs", "8", "--lr", "1e-2", "--ratio", "1.6", "--batch-size", "64", "--threads", "1", "-o",
        folder / "sparse",
    )  # fmt: skip
    return folder / "sparse"


def test_the_chain_behind_a_path_of_networks(trained, tmp_path, capsys):
    """Select, analyze, explain, report; the head is the chosen network to the last decision."""
    run = tmp_path / "run"
    shutil.copytree(trained, run / "sparse")
    command("select", run / "sparse", "--drop", "100%")
    told = capsys.readouterr()
    assert told.out == f"{run / 'head'}\n" and "the network it began with" in told.err
    found, head = read_json(run / "sparse" / "sparse.json"), load_head(run / "head")
    key = "nnz" if found["summary"]["method"] == "spred" else "size"
    row = min(found["rows"], key=lambda row: row[key])
    assert head.meta["kept"] == row[key] and head.meta["network"]["total"] > row[key]
    for split in ("train", "val", "test"):  # through images, extraction and float64: what the trained network scored
        expected = row["relaxed"][split]["accuracy"]
        assert head.meta["metrics"][split]["accuracy"] == pytest.approx(expected, abs=2e-3)
    command("analyze", run / "head", "--top-k", "3")
    analysis = json.loads((run / "analysis" / "analysis.json").read_text())
    assert analysis["path"]["kept"] == sorted(analysis["path"]["kept"]) and len(analysis["path"]["kept"]) == 2
    assert analysis["topk_rest"].keys() == {"sparse"} and analysis["entry_order"] == {}
    names = {path.stem for path in (run / "analysis").glob("*.png")}
    assert {"overview", "accuracy_against_features"} <= names and not names & {"coefficient_paths", "entry_order"}
    command("explain", run / "head", "--methods", "prototypes", "--top", "1")
    command("report", run / "head")
    page = (run / "report.html").read_text()
    assert "What the network was left with" in page and '"the network it began with"' in page
    command("select", run / "sparse", "--drop", "100%")  # nothing is done again
    assert "up to date" in capsys.readouterr().err


def test_fit_path_of_every_method_goes_on_from_there(trained, tmp_path):
    """The features that came with the head are ordinary ones: path, select, analyze, explain, report."""
    head = select.run(Select(trained, tmp_path / "own" / "head", index=-1)).path
    features = next(head.parent.glob("features-*.h5"))
    method = read_json(trained / "sparse.json")["summary"]["method"]
    more = {
        "lassonet": ["--sizes", "3,6", "--hidden", "8", "--epochs", "8", "--ratio", "2", "--lr", "1e-2"],
        "group-lasso": ["--n-lambdas", "4", "--lambda-min-ratio", "0.03"],
        "spred": ["--n-lambdas", "4", "--lambda-min-ratio", "0.03", "--steps", "100"],
    }[method]
    command("fit-path", features, "--method", method, *more, "--threads", "1", "-o", tmp_path / "path.h5")
    path = load_path(tmp_path / "path.h5")
    own = load_head(head).meta["metrics"]["test"]["accuracy"]
    assert path.meta["method"] == method
    assert path.meta["network_head"]["test"]["accuracy"] == pytest.approx(own, abs=1e-9)
    command("select", tmp_path / "path.h5", "--index", "-1")
    command("analyze", tmp_path / "head", "--top-k", "3")
    assert (tmp_path / "analysis" / "cost_of_linearity.png").exists() == (method == "lassonet")
    command("explain", tmp_path / "head", "--methods", "prototypes", "--top", "1")
    command("report", tmp_path / "head")
    assert "What the network was left with" in (tmp_path / "report.html").read_text()


def test_rules_on_networks(trained, tmp_path):
    found = read_json(trained / "sparse.json")
    counts = sorted(row.get("size") or row["nnz"] for row in found["rows"])
    for rule, kept in (({"index": 0}, counts[0]), ({"index": -1}, counts[-1]), ({"drop": 1.0}, counts[0])):
        head = load_head(select.run(Select(trained, tmp_path / "head", **rule), force=True).path)
        assert head.meta["kept"] == kept, rule
    by_error = select.run(Select(trained, tmp_path / "one", one_standard_error=True)).summary
    best = max(row["relaxed"]["val"]["accuracy"] for row in found["rows"])
    assert by_error["threshold"] == pytest.approx(best - by_error["drop"])
    with pytest.raises(UsageError, match="a path of networks"):
        select.run(Select(trained, tmp_path / "five", features_per_class=5))
    with pytest.raises(UsageError, match="index 7 is outside the path"):
        select.run(Select(trained, tmp_path / "seven", index=7))
    with pytest.raises(OutputExists, match="--force replaces it"):
        select.run(Select(trained, tmp_path / "head", drop=0.0))
    assert not (tmp_path / "five").exists() and not (tmp_path / "seven").exists()


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A regression far from zero: the head must speak raw units."""
    rng = np.random.default_rng(0)
    X = (3 * rng.normal(size=(700, 8)) + 2).astype(np.float32)
    y = 5 * np.maximum(X[:, 1] - 2, 0) - 2 * X[:, 2] + 100 + 0.1 * rng.normal(size=700)
    path = tmp_path_factory.mktemp("planted") / "values.npz"
    np.savez(path, x_train=X[:500], y_train=y[:500], x_test=X[500:], y_test=y[500:])
    return path


def regression(data: Path, folder: Path, network: str = f"{NETWORKS}regressor", **more) -> Path:
    given = FAST | {"sizes": (2, 4), "against": ("none",), "task": "regression", "val_fraction": 0.2} | more
    return train_sparse.run(TrainSparse("lassonet", network, str(data), folder / "sparse", **given)).path


def test_an_own_network_on_a_table_of_numbers(planted, tmp_path):
    sparse = regression(planted, tmp_path)
    head = load_head(select.run(Select(sparse, index=0)).path)
    features = load_features(tmp_path / "features-2.h5")
    X, y = features.split("test").X, features.split("test").y
    assert head.meta["network"]["direct_inputs"] == 8
    assert set(np.flatnonzero(head.weight[0, -8:])) == {1, 2}  # theta of the two planted inputs
    assert head.meta["metrics"]["test"]["r2"] > 0.9
    np.testing.assert_allclose(head.predict(X)[:, 0].mean(), y.mean(), rtol=0.05)  # about 100, in raw units
    command("analyze", tmp_path / "head")
    command("explain", tmp_path / "head")
    command("report", tmp_path / "head")
    for name in ("sparse", "network-2", "head"):
        verify_bundle(tmp_path / name)


def test_pixels_of_an_own_convolutional_network(tmp_path):
    """A gate in front, batch normalization inside, code of one's own: the decisions are those that were trained."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = rng.integers(60, 190, (400, 3, 3, 3)).astype(np.uint8)
    X[..., 1] = np.where(y[:, None, None] > 0, 150, 100) + rng.integers(-40, 40, (400, 3, 3))
    data = tmp_path / "images.npz"
    np.savez(data, x_train=X[:300], y_train=y[:300], x_test=X[300:], y_test=y[300:])
    more = {"task": "auto", "input_units": "gate", "sizes": (6,), "stop_at": 6, "ratio": 2.0, "lambda_start": 0.01}
    sparse = regression(data, tmp_path, f"{NETWORKS}convolutional", epochs=5, **more)
    head = load_head(select.run(Select(sparse, index=0)).path)
    row = read_json(sparse / "sparse.json")["rows"][0]
    for split in ("train", "val", "test"):
        trained, chosen = row["relaxed"][split], head.meta["metrics"][split]
        assert chosen["accuracy"] == trained["accuracy"] and chosen["loss"] == pytest.approx(trained["loss"], rel=1e-3)
    assert head.meta["network"]["direct_inputs"] == 27
    assert (head.weight[:, -27:] != 0).any(axis=0).sum() == 6  # theta of the pixels that are left


def test_changed_data_is_noticed(planted, tmp_path):
    data = tmp_path / "values.npz"
    shutil.copy(planted, data)
    sparse = regression(data, tmp_path, "mlp:6", epochs=2, sizes=(4,), stop_at=4, ratio=3.0)
    with np.load(planted) as stored:
        np.savez(data, **{name: stored[name][::2] for name in stored.files})
    with pytest.raises(StaleArtifact, match="is not what .* was trained on: train again"):
        select.run(Select(sparse, index=0))
    data.unlink()
    with pytest.raises(InputError, match=r"values\.npz"):
        select.run(Select(sparse, index=0))
    assert not list(tmp_path.glob("*head*")) and not list(tmp_path.glob("features*"))


def test_a_network_without_a_decision_layer(planted, tmp_path):
    sparse = regression(planted, tmp_path, f"{NETWORKS}Squashed", epochs=2, sizes=(4,), stop_at=4, ratio=3.0)
    with pytest.raises(InputError, match="does not end in a Linear layer.*--layer NAME, and fit-path"):
        select.run(Select(sparse, index=0))


def test_in_a_recipe(planted, tmp_path):
    recipe = tmp_path / "own.yaml"
    options = "epochs: 5, lr: 0.01, ratio: 2, sizes: [2, 4], against: [none], threads: 1, val-fraction: 0.2"
    recipe.write_text(
        f"train-sparse: {{method: group-lasso, network: 'mlp:8', data: {planted}, task: regression, {options}}}\n"
        "select: {index: 0}\nanalyze: {}\nexplain: {}\nreport: {}\n"
    )
    command("run", recipe, "-o", tmp_path / "run")
    assert load_head(tmp_path / "run" / "head").meta["kept"] == 2
    assert (tmp_path / "run" / "report.html").exists()
