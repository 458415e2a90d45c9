"""``train-sparse`` on every kind of network, target, unit and optimizer: it works, or one line says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from debugnet import interrupts
from debugnet.artifacts.bundle import read_json
from debugnet.errors import DeviceError, InputError, Interrupted, UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training import epoch_training
from debugnet.stages import train_sparse

NETWORKS = "python:tests.sparse_training.sparse_networks:"
FAST = {
    "epochs": 6, "epochs_per_lambda": 1, "batch_size": 64, "lr": 1e-2, "ratio": 3.0, "seeds": 1, "threads": 1,
    "device": "cpu", "val_fraction": 0.25, "against": ("none",),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Images whose class is the sign of their second channel; two labels, and a value, of eight features."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    X = rng.integers(0, 256, (500, 3, 3, 3), dtype=np.uint8)
    y = rng.integers(0, 2, 500)
    X[..., 1] = np.where(y[:, None, None] > 0, 180, 70) + rng.integers(-40, 40, (500, 3, 3))
    np.savez(folder / "images.npz", x_train=X[:400], y_train=y[:400], x_test=X[400:], y_test=y[400:])
    X = rng.normal(size=(500, 8)).astype(np.float32)
    labels = np.stack([X[:, 1] + X[:, 2] > 0, X[:, 1] - X[:, 2] > 0], axis=1).astype(np.uint8)
    np.savez(folder / "labels.npz", x_train=X[:400], y_train=labels[:400], x_test=X[400:], y_test=labels[400:])
    values = 2 * X[:, 1] - X[:, 2] + 0.1 * rng.normal(size=500)
    np.savez(folder / "values.npz", x_train=X[:400], y_train=values[:400], x_test=X[400:], y_test=values[400:])
    return folder


def run(files: Path, folder: Path, data: str, method: str, network: str = "mlp:12", **more):
    own = {"lambdas": (3e-3, 3e-2), "epochs_per_lambda": 2} if method == "spred" else {"sizes": (1, 2)}
    given = FAST | own | more
    result = train_sparse.run(TrainSparse(method, network, str(files / data), folder / "sparse", **given))
    return result, read_json(result.path / "sparse.json")


def kept(path: Path, size: int) -> set[int]:
    with np.load(path / "masks.npz") as masks:
        return set(np.flatnonzero(np.unpackbits(masks[f"size-{size}"], count=int(masks["n_units"]))))


@pytest.mark.parametrize("method", ["lassonet", "group-lasso"])
def test_channels_of_a_convolutional_network(method, files, tmp_path):
    given = {"sizes": (1,), "stop_at": 1, "lambda_start": 0.05}
    result, found = run(files, tmp_path, "images.npz", method, f"{NETWORKS}convolutional", **given)
    assert kept(result.path, 1) == {1} and found["summary"]["units"] == 3
    assert found["rows"][0]["relaxed"]["test"]["accuracy"] > 0.9
    assert np.load(result.path / "importance.npy").shape == (3,)


@pytest.mark.parametrize("method", ["lassonet", "group-lasso"])
def test_pixels_of_a_convolutional_network(method, files, tmp_path):
    result, found = run(
        files, tmp_path, "images.npz", method, f"{NETWORKS}convolutional", sizes=(3,), input_units="gate", ratio=2.0,
        lambda_start=0.01, stop_at=3,
    )  # fmt: skip
    assert found["summary"]["units"] == 27
    assert all(9 <= unit < 18 for unit in kept(result.path, 3))  # pixels of the second channel


@pytest.mark.parametrize("data", ["labels.npz", "values.npz"])
@pytest.mark.parametrize("method", ["lassonet", "group-lasso", "spred"])
def test_multi_label_and_regression(method, data, files, tmp_path):
    task = {"labels.npz": "multi-label", "values.npz": "regression"}[data]
    lambda_start = None if method == "spred" else 0.01
    result, found = run(files, tmp_path, data, method, task=task, epochs=15, ratio=2.0, lambda_start=lambda_start)
    if method == "spred":
        assert found["rows"][0]["relaxed"]["test"]["accuracy"] > 0.8
        return
    assert kept(result.path, 2) == {1, 2}
    assert next(r for r in found["rows"] if r["size"] == 2)["relaxed"]["test"]["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("method", "more"),
    [("lassonet", {"optimizer": "AdamW"}), ("group-lasso", {"optimizer": "rprop"}), ("spred", {"optimizer": "RMSprop"}),
     ("spred", {"optimizer": "sgd", "lr": 0.1, "amp": True}), ("lassonet", {"amp": True}),
     ("group-lasso", {"amp": True, "batch_size": 299})],
)  # fmt: skip
def test_optimizers_amp_and_a_last_batch_of_one(method, more, files, tmp_path):
    _, found = run(files, tmp_path, "labels.npz", method, task="multi-label", **more)
    assert found["rows"] and np.isfinite(found["rows"][0]["relaxed"]["test"]["loss"])


def test_a_last_batch_of_one_with_batch_normalization(files, tmp_path):
    given = {"batch_size": 299, "sparsify": ("fc?",)}
    _, found = run(files, tmp_path, "images.npz", "spred", f"{NETWORKS}convolutional", **given)
    assert found["rows"]


def test_structured_spred_by_pattern_shrinks_the_network(files, tmp_path):
    result, found = run(
        files, tmp_path, "images.npz", "spred", f"{NETWORKS}convolutional", sparsify=("fc?",), structure="row",
        shrink=True, lambdas=(1e-4, 0.3), epochs_per_lambda=12,
    )  # fmt: skip
    dense, sparse = found["rows"]
    assert dense["total"] == 192 + 16 and sparse["nnz"] % 8 == 0 and 0 < sparse["nnz"] < dense["nnz"]
    assert sparse["shrunk"]["widths"][1] < dense["shrunk"]["widths"][1]
    assert sparse["shrunk"]["largest_output_difference"] < 1e-5
    assert (result.path / "networks" / "small-0.3.safetensors").exists()
    assert sparse["magnitude"]["test"]["accuracy"] > 0.9 and sparse["relaxed"]["test"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("method", "network", "more", "error", "message"),
    [
        ("spred", "mlp:4", {"optimizer": "adamw"}, UsageError, "AdamW decays weights apart from the gradient"),
        ("spred", "mlp:4", {"optimizer": "rprop"}, UsageError, "Rprop decays .* not at all"),
        ("spred", "mlp:4", {"optimizer": "lbfgs"}, UsageError, "--optimizer lbfgs: torch has"),
        ("spred", "mlp:4", {"sparsify": ("conv*",)}, UsageError, "matches no weight of Sequential; it has 1.weight"),
        ("spred", f"{NETWORKS}Normalized", {"shrink": True, "structure": "row"}, UsageError, "has a Normalized"),
        ("spred", "mlp:4", {"weights": "nothing.pt"}, UsageError, "begins untrained"),
        ("lassonet", f"{NETWORKS}Normalized", {}, UsageError, "cannot be switched off"),
        ("group-lasso", f"{NETWORKS}Normalized", {}, UsageError, "use --input-units gate"),
        ("group-lasso", f"{NETWORKS}Hungry", {}, DeviceError, "out of memory on the device with --batch-size 64"),
        ("spred", f"{NETWORKS}Hungry", {}, DeviceError, "a smaller one, or --limit"),
    ],
)
def test_what_cannot_be_is_one_line(method, network, more, error, message, files, tmp_path):
    with pytest.raises(error, match=message) as caught:
        run(files, tmp_path, "labels.npz", method, network, task="multi-label", **more)
    assert "\n" not in str(caught.value) and not (tmp_path / "sparse").exists()


def test_several_values_per_sample_are_refused(files, tmp_path):
    with pytest.raises(InputError, match="task regression takes one label per sample, not 2"):
        run(files, tmp_path, "labels.npz", "lassonet", task="regression")


def test_shrink_needs_units(files):
    with pytest.raises(UsageError, match="--shrink needs units that vanish"):
        TrainSparse("spred", "mlp:4", "x.npz", shrink=True)
    with pytest.raises(UsageError, match="--epochs-per-lambda 0"):
        TrainSparse("spred", "mlp:4", "x.npz", epochs_per_lambda=0)


@pytest.mark.parametrize(("method", "after"), [("spred", (1, 9, 20)), ("group-lasso", (2, 9))])
def test_a_stopped_run_ends_with_the_same_bytes(method, after, files, tmp_path, monkeypatch):
    """Stopped at several places, once in the middle of a phase: results and networks are those of the unbroken run."""
    given = {"task": "multi-label", "epochs_per_lambda": 4 if method == "spred" else 1}
    whole, _ = run(files, tmp_path / "whole", "labels.npz", method, **given)
    for limit in after:
        left = iter(range(limit))
        with monkeypatch.context() as patch:
            patch.setattr(epoch_training, "CHECKPOINT_SECONDS", 0.0)
            patch.setattr(interrupts, "received", lambda: 15)

            def check(left=left):
                if next(left, None) is None:
                    raise Interrupted("stopped by SIGTERM", 15)

            patch.setattr(interrupts, "check", check)
            with pytest.raises(Interrupted):
                run(files, tmp_path / "stopped", "labels.npz", method, **given)
    resumed, _ = run(files, tmp_path / "stopped", "labels.npz", method, **given)
    names = [sorted(p.name for p in (path / "networks").iterdir()) for path in (whole.path, resumed.path)]
    assert names[0] == names[1] and not list(resumed.path.glob("training-*"))
    for name in names[0]:
        assert (whole.path / "networks" / name).read_bytes() == (resumed.path / "networks" / name).read_bytes(), name
    assert _without_seconds(whole.path) == _without_seconds(resumed.path)


def _without_seconds(path: Path) -> list[dict[str, object]]:
    rows = read_json(path / "sparse.json")["rows"]
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]
