"""What goes wrong in ``train-sparse`` ends in one line with a way out, and leaves nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import read_json, verify_bundle
from debugnet.cli.app import main
from debugnet.errors import DeviceError, NotConverged, UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.stages import train_sparse

NETWORKS = "python:tests.sparse_training.sparse_networks:"
FAST = {
    "epochs": 4, "batch_size": 64, "lr": 5e-3, "ratio": 1.5, "against": ("none",), "seeds": 1, "threads": 1,
    "task": "regression", "val_fraction": 0.2, "epochs_per_lambda": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> Path:
    """Eight features, of which two matter."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 8)).astype(np.float32)
    y = 2 * X[:, 1] - X[:, 2] + 0.1 * rng.normal(size=500)
    path = tmp_path_factory.mktemp("values") / "values.npz"
    np.savez(path, x_train=X[:400], y_train=y[:400], x_test=X[400:], y_test=y[400:])
    return path


def run(values: Path, folder: Path, method: str, network: str = "mlp:8", **more):
    result = train_sparse.run(TrainSparse(method, network, str(values), folder / "sparse", **(FAST | more)))
    return result, read_json(result.path / "sparse.json")


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.glob("*sparse*") if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("method", "network", "more", "error", "message"),
    [
        ("group-lasso", "mlp:8", {"lambda_start": 1e9}, UsageError, "--lambda-start 1e[+]09: all units leave there"),
        ("lassonet", "mlp:8", {"stop_at": 8}, UsageError, "--stop-at 8: there are only 8 units"),
        ("lassonet", "mlp:8", {"sizes": (9,)}, UsageError, "--sizes 9: there are only 8 units"),
        ("spred", "mlp:8", {"lambdas": (1e9,)}, NotConverged, "nothing is left of the first lambda 1e[+]09"),
        ("spred", "mlp:8", {"lr": 1e30}, NotConverged, "dense network diverged"),
        (
            "group-lasso",
            "mlp:8",
            {"lr": 50.0, "optimizer": "sgd"},
            NotConverged,
            "dense start diverged .* smaller --lr",
        ),
        ("group-lasso", f"{NETWORKS}Exploding", {"sizes": (1,)}, NotConverged, r"ended \(diverged\) at 8 units"),
        ("spred", f"{NETWORKS}Exploding", {"epochs": 38, "lambdas": (1e-3,)}, NotConverged, "first lambda 0.001"),
    ],
)
def test_one_line_and_nothing_left(method, network, more, error, message, values, tmp_path):
    with pytest.raises(error, match=message) as caught:
        run(values, tmp_path, method, network, **more)
    assert "\n" not in str(caught.value) and nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lr": 0.0}, "--lr 0: a number above 0"),
        ({"lambda_start": -1.0}, "--lambda-start -1: a number above 0"),
        ({"lambdas": (1e-3, -2.0)}, "--lambdas 0.001,-2: numbers above 0"),
        ({"lambdas": ()}, "--lambdas : numbers above 0"),
        ({"epochs": -1}, "--epochs -1"),
        ({"sizes": (0, 3)}, "--sizes 0: at least 1"),
        ({"sizes": (3, 6), "stop_at": 5}, "--sizes 3: --stop-at 5: the path ends before it"),
        ({"hierarchy": float("inf")}, "--hierarchy inf: M is a finite number"),
    ],
)
def test_options_out_of_range_name_the_value(more, message):
    with pytest.raises(UsageError) as caught:
        TrainSparse("lassonet", "mlp:8", "x.npz", **more)
    assert str(caught.value).startswith(message)


def test_a_step_too_large_is_said(values, tmp_path, capsys):
    run(values, tmp_path, "group-lasso", lr=50.0, sizes=(4,))
    assert "no better than a constant (val loss" in capsys.readouterr().err


def test_one_bad_batch_is_rolled_back(values, tmp_path):
    """The stage is done again at half the step, and the path ends as any other."""
    result, found = run(values, tmp_path, "group-lasso", f"{NETWORKS}Hiccup", sizes=(2,), epochs=38)
    assert found["summary"]["status"] == "complete" and found["summary"]["chosen"] == 2
    verify_bundle(result.path)
    with np.load(result.path / "masks.npz") as masks:
        assert set(np.flatnonzero(np.unpackbits(masks["size-2"], count=8))) == {1, 2}


@pytest.mark.parametrize("method", ["group-lasso", "spred"])
def test_a_path_that_diverges_for_good_keeps_what_was_reached(method, values, tmp_path, capsys):
    """From one step on every loss is NaN: the networks before it are kept, and it is said where the path ended."""
    reached = {
        "group-lasso": {"sizes": tuple(range(1, 8)), "epochs": 18, "lambda_start": 0.02, "lr": 0.02},
        "spred": {"lambdas": (1e-3, 1e-2, 0.1), "epochs": 30, "epochs_per_lambda": 6},
    }
    result, found = run(values, tmp_path, method, f"{NETWORKS}Exploding", **reached[method])
    verify_bundle(result.path)
    told = capsys.readouterr().err
    if method == "group-lasso":
        sizes = [row["size"] for row in found["rows"]]
        assert found["summary"]["status"] == "diverged" and sizes[0] > 1 and sizes[-1] == 7
        assert "diverged 5 times, each time with half the step: it ends at" in told
    else:
        assert 1 <= len(found["rows"]) < 3 and "at an eighth of the step too: the path ends before it" in told
    assert np.isfinite(found["rows"][0]["relaxed"]["test"]["loss"])


@pytest.mark.parametrize("method", ["lassonet", "spred"])
def test_an_allocation_that_fails(method, values, tmp_path, capfd):
    """A real one: torch asks the machine for more than there is; exit 7, and a smaller batch may begin at once."""
    words = [
        "train-sparse",
        "--method",
        method,
        "--network",
        f"{NETWORKS}Greedy",
        "--data",
        str(values),
        "--threads",
        "1",
    ]
    words += ["--task", "regression", "--epochs", "9", "-o", str(tmp_path / "sparse"), "--lambdas", "0.1"]
    assert main([*words, "--batch-size", "64"]) == 7
    said = capfd.readouterr().err.splitlines()[-1]
    assert "out of memory on the machine with --batch-size 64: a smaller one" in said and nothing_left(tmp_path)


def test_out_of_memory_in_the_middle_names_what_was_begun(values, tmp_path):
    with pytest.raises(DeviceError, match=r"smaller one \(and --force: .*sparse.partial was begun with this one\)"):
        run(values, tmp_path, "group-lasso", f"{NETWORKS}Greedy", epochs=3, sizes=(2,))
    with pytest.raises(DeviceError, match="--batch-size 32"):
        given = TrainSparse(
            "group-lasso", f"{NETWORKS}Greedy", str(values), tmp_path / "sparse", **FAST | {"batch_size": 32}
        )
        train_sparse.run(given, force=True)


@pytest.mark.parametrize("method", ["group-lasso", "spred"])
def test_a_killed_path_goes_on_to_the_same_end(method, values, tmp_path):
    """SIGKILL, twice, wherever it hits: networks and numbers are those of the unbroken run."""
    given = {"group-lasso": {"sizes": (2, 4)}, "spred": {"lambdas": (1e-3, 1e-2), "epochs_per_lambda": 40}}[method]
    given |= {"epochs": 60}
    whole, expected = run(values, tmp_path / "whole", method, **given)
    flags = ["--method", method, "--network", "mlp:8", "--data", str(values), "-o", str(tmp_path / "sparse")]
    for name, value in (FAST | given).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        flags += [f"--{name.replace('_', '-')}", text]
    command = [sys.executable, "-m", "debugnet", "train-sparse", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    partial = tmp_path / "sparse.partial" / "networks"
    for after in ("dense.safetensors", "*-4.safetensors" if method == "group-lasso" else "spred-0.001.safetensors"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(partial.glob(after)):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == f"{tmp_path / 'sparse'}\n"
    verify_bundle(tmp_path / "sparse")
    drop = {"seconds"}
    ours, theirs = (
        [{k: v for k, v in row.items() if k.rpartition("_")[2] not in drop} for row in document["rows"]]
        for document in (read_json(tmp_path / "sparse" / "sparse.json"), expected)
    )
    assert ours == theirs
    for file in (whole.path / "networks").iterdir():
        assert file.read_bytes() == (tmp_path / "sparse" / "networks" / file.name).read_bytes(), file.name
