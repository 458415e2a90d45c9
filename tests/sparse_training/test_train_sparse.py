"""``train-sparse`` end to end on tiny planted problems."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.artifacts.bundle import read_json, verify_bundle
from debugnet.errors import InputError, NotConverged, UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.networks import make_mlp
from debugnet.sparse_training.shrink import shrink, widths
from debugnet.stages import sparse_refits, train_sparse

FAST = {"epochs": 12, "epochs_per_lambda": 1, "batch_size": 64, "lr": 5e-3, "ratio": 1.5, "seeds": 2, "threads": 1}


@pytest.fixture(scope="module")
def xor_file(tmp_path_factory) -> Path:
    """Class = sign(x0 x1), six columns of noise; no linear selection can see it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 8))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    path = tmp_path_factory.mktemp("data") / "xor.npz"
    np.savez(path, x_train=X[:600], y_train=y[:600], x_test=X[600:], y_test=y[600:])
    return path


def options(xor_file: Path, folder: Path, method: str = "lassonet", **more) -> TrainSparse:
    given = {"network": "mlp:24", "sizes": (2, 4), "val_fraction": 0.25, "against": ("random", "anova")}
    return TrainSparse(method, data=str(xor_file), output=folder / "sparse", **(FAST | given | more))


@pytest.fixture(scope="module")
def lassonet(xor_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lassonet")
    return train_sparse.run(options(xor_file, folder)), options(xor_file, folder)


def test_the_planted_interaction_is_found_and_compared(lassonet):
    result, given = lassonet
    verify_bundle(result.path)
    found = read_json(result.path / "sparse.json")
    with np.load(result.path / "masks.npz") as masks:
        mask = np.unpackbits(masks["size-2"], count=8).astype(bool)
        assert {f"size-{k}" for k in range(8)} <= set(masks.files)
    assert set(np.flatnonzero(mask)) == {0, 1}
    importance = np.load(result.path / "importance.npy")
    assert set(np.argsort(-importance)[:2]) == {0, 1}
    row = next(row for row in found["rows"] if row["size"] == 2)
    assert row["metrics"]["test"]["accuracy"] > 0.8 and row["max_violation"] <= 0
    assert row["refits"]["lassonet"]["test"]["mean"] > 0.8 > 0.7 > row["refits"]["anova"]["test"]["mean"]
    assert row["refits"]["random"]["test"]["n"] == 2
    assert found["summary"]["chosen"] == 2
    for name in (
        "importance.png",
        "accuracy_against_units.png",
        "networks/size-2.safetensors",
        "networks/relaxed-2.safetensors",
    ):
        assert (result.path / name).exists()
    assert train_sparse.run(given).reused


def test_all_inputs_are_refitted_once(xor_file, tmp_path, monkeypatch):
    """Every selection of all inputs is the same: one network per seed stands for all; of two each has its own."""
    trained, refit = [], sparse_refits._refit

    def counted(problem, mask, seed):
        trained.append((int(mask.sum()), seed))
        return refit(problem, mask, seed)

    monkeypatch.setattr(sparse_refits, "_refit", counted)
    result = train_sparse.run(options(xor_file, tmp_path, sizes=(2, 8), epochs=3, ratio=3.0))
    assert sorted(trained) == [(2, 0)] * 3 + [(2, 1)] * 3 + [(8, 0), (8, 1)]
    refits = {row["size"]: row["refits"] for row in read_json(result.path / "sparse.json")["rows"]}
    assert set(refits[2]) == set(refits[8]) == {"lassonet", "random", "anova"}
    assert refits[8]["random"] == refits[8]["anova"] == refits[8]["lassonet"]
    assert refits[8]["lassonet"]["test"]["n"] == 2 and refits[8]["lassonet"] not in refits[2].values()


def test_hidden_width_and_inputs_together_and_shrink(tmp_path):
    """|x0 + x1| needs two inputs of five and two ReLU units of twelve: the size of four is exactly those."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(800, 5))
    y = np.abs(X[:, 0] + X[:, 1]) + 0.05 * rng.normal(size=800)
    data = tmp_path / "abs.npz"
    np.savez(data, x_train=X[:600], y_train=y[:600], x_test=X[600:], y_test=y[600:])
    given = options(
        data, tmp_path, "group-lasso", network="mlp:12", penalize="both", task="regression", shrink=True,
        sizes=(4, 8), epochs=40, epochs_per_lambda=2, lr=0.02, ratio=1.3,
    )  # fmt: skip
    result = train_sparse.run(given)
    found = read_json(result.path / "sparse.json")
    with np.load(result.path / "masks.npz") as masks:
        mask = np.unpackbits(masks["size-4"], count=17).astype(bool)
    assert set(np.flatnonzero(mask[:5])) == {0, 1} and mask[5:].sum() == 2
    row = next(row for row in found["rows"] if row["size"] == 4)
    assert row["relaxed"]["test"]["r2"] > 0.9
    assert row["shrunk"]["widths"] == [2, 1] and row["shrunk"]["largest_output_difference"] < 1e-5


def test_spred_prunes_and_records(xor_file, tmp_path):
    given = options(
        xor_file, tmp_path, "spred", network="mlp:24", sparsify=("1", "3.weight"), lambdas=(1e-3, 3e-2), sizes=(),
        epochs_per_lambda=8,
    )  # fmt: skip
    result = train_sparse.run(given)
    rows = read_json(result.path / "sparse.json")["rows"]
    assert rows[0]["nnz"] > rows[1]["nnz"] and rows[1]["nnz"] < 0.5 * rows[1]["total"]
    assert rows[1]["relaxed"]["test"]["accuracy"] > 0.85
    assert {"magnitude", "l1"} <= set(rows[0]) and (result.path / "accuracy_against_density.png").exists()


def test_the_importance_map_of_grey_images(tmp_path):
    """The class is whether two pixels of a 4 x 4 image agree: the map shows those two."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (700, 4, 4), dtype=np.uint8)
    y = ((X[:, 1, 2] > 127) == (X[:, 3, 0] > 127)).astype(int)
    np.savez(tmp_path / "grey.npz", x_train=X[:500], y_train=y[:500], x_test=X[500:], y_test=y[500:])
    given = options(tmp_path / "grey.npz", tmp_path, sizes=(2,), against=("none",), epochs=20, ratio=2.0)
    result = train_sparse.run(given)
    importance = np.load(result.path / "importance.npy")
    assert importance.shape == (16,)  # one input per pixel, not three
    assert set(np.argsort(-importance)[:2]) == {1 * 4 + 2, 3 * 4 + 0}
    assert (result.path / "importance.png").exists()


class Batchnorm(nn.Module):
    """Normalizes its input before its first layer: nothing there can be switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.layer(self.norm(x))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"network": f"python:{__name__}:Batchnorm"}, UsageError, "cannot be switched off"),
        ({"method": "spred", "sparsify": ("conv*",)}, UsageError, "matches no weight"),
        ({"sizes": (9,)}, UsageError, "only 8 units"),
        ({"network": "mlp:x"}, UsageError, "hidden widths"),
        ({"network": "vgg99"}, UsageError, "--network vgg99"),
        ({"lr": 1e30}, NotConverged, "diverged"),
        ({"input_units": "channels"}, UsageError, "channels"),
    ],
)
def test_bad_input_is_one_line(xor_file, tmp_path, more, error, message):
    with pytest.raises(error, match=message) as caught:
        train_sparse.run(options(xor_file, tmp_path, **({"method": "lassonet"} | more)))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("sparse*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [({"hierarchy": -1.0}, "--hierarchy"), ({"ratio": 1.0}, "--ratio"), ({"against": ("luck",)}, "luck"),
     ({"shrink": True}, "group-lasso"), ({"lambdas": (0.0,)}, "above 0"), ({"drop_share": 0.0}, "--drop-share 0")],
)  # fmt: skip
def test_options_out_of_range(xor_file, tmp_path, more, message):
    with pytest.raises(UsageError, match=message):
        options(xor_file, tmp_path, **more)


def test_groups_that_do_not_fit(xor_file, tmp_path):
    np.savetxt(tmp_path / "groups.txt", [0, 0, 1], fmt="%d")
    with pytest.raises(UsageError, match="name 3 features"):
        train_sparse.run(options(xor_file, tmp_path, groups=tmp_path / "groups.txt"))
    (tmp_path / "words.txt").write_text("a b")
    with pytest.raises(InputError, match="one integer per input feature"):
        train_sparse.run(options(xor_file, tmp_path, groups=tmp_path / "words.txt"))


def test_a_killed_run_goes_on(xor_file, tmp_path, lassonet):
    """SIGTERM between two stages: the same command ends where the unbroken run ended."""
    flags = ["--method", "lassonet", "--network", "mlp:24", "--data", str(xor_file), "--sizes", "2,4"]
    flags += ["--val-fraction", "0.25", "--against", "random,anova", "-o", str(tmp_path / "sparse")]
    for name, value in FAST.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    command = [sys.executable, "-m", "debugnet", "train-sparse", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not (tmp_path / "sparse.partial" / "path.safetensors").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143 and not (tmp_path / "sparse").exists()
    assert (tmp_path / "sparse.partial" / "path.safetensors").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "going on at" in done.stderr and done.stdout == f"{tmp_path / 'sparse'}\n"
    ours, theirs = (read_json(p / "sparse.json") for p in (tmp_path / "sparse", lassonet[0].path))
    assert ours["stages"] == theirs["stages"] and ours["rows"] == theirs["rows"]


def conv_chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(20, 7), nn.Sigmoid(), nn.Linear(7, 2),
    )  # fmt: skip


def test_shrink_keeps_every_output():
    network, x = conv_chain(), torch.randn(6, 3, 8, 8)
    network(x)  # running statistics that are not trivial
    with torch.no_grad():
        network[0].weight[1] = 0  # its normalization gives a constant other than zero
        network[1].weight[2] = network[1].bias[2] = 0
        network[3].weight[:, 4] = 0  # read by nothing
        network[3].weight[0] = 0
        network[7].weight[3] = 0  # sigmoid of its bias: a constant
        network[9].weight[:, 5] = 0
    before = network.eval()(x)
    small = shrink(network)
    torch.testing.assert_close(small(x), before, atol=1e-5, rtol=0)
    assert widths(small) == [3, 4, 5, 2] and widths(network) == [6, 5, 7, 2]


def test_shrink_leaves_out_inputs_and_refuses_what_it_cannot():
    network, x = make_mlp(6, 2, (5,)), torch.randn(4, 6)
    keep = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    with pytest.raises(UsageError, match="reads an input"):
        shrink(network, keep)
    with torch.no_grad():
        network[1].weight[:, ~keep] = 0
    torch.testing.assert_close(shrink(network, keep)(x[:, keep]), network(x), atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="has a Bilinear"):
        shrink(nn.Sequential(nn.Bilinear(2, 2, 2)))
    padded = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten(), nn.Linear(18, 2))
    with torch.no_grad():
        padded[0].weight[0] = 0
        padded[0].bias[0] = 1
    with pytest.raises(UsageError, match="padded convolution"):
        shrink(padded)
