"""Options of ``train-sparse`` that choose what is kept, compared and computed in which precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.artifacts.bundle import read_json
from debugnet.errors import UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.baselines import random_order, top_mask
from debugnet.stages import sparse_data, train_sparse

FAST = {"epochs": 12, "epochs_per_lambda": 1, "batch_size": 64, "lr": 5e-3, "ratio": 1.5, "threads": 1}


@pytest.fixture(scope="module")
def xor_file(tmp_path_factory) -> Path:
    """Class = sign(x0 x1), six columns of noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 8)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    path = tmp_path_factory.mktemp("data") / "xor.npz"
    np.savez(path, x_train=X[:600], y_train=y[:600], x_test=X[600:], y_test=y[600:])
    return path


def run(data: Path, folder: Path, method: str = "lassonet", network: str = "mlp:24", **more):
    given = FAST | {"sizes": (2,), "against": ("none",), "seeds": 1, "val_fraction": 0.25} | more
    result = train_sparse.run(TrainSparse(method, network, str(data), folder / "sparse", **given))
    return result, read_json(result.path / "sparse.json")


def test_refit_retrains_the_plain_network_on_what_was_kept(xor_file, tmp_path):
    """Beside the path's own network and the relaxed one; three seeds make an interval; nothing else is compared."""
    _, found = run(xor_file, tmp_path, refit=True, seeds=3)
    (row,) = found["rows"]
    assert set(row["refits"]) == {"lassonet"}
    scores = row["refits"]["lassonet"]
    assert set(scores) == {"train", "val", "test"} and scores["test"]["n"] == 3
    assert scores["test"]["mean"] > 0.8 and 0 <= scores["test"]["half_width"] < 0.2
    assert scores["test"]["mean"] != row["relaxed"]["test"]["accuracy"]
    assert "lassonet refit" in found["text"] and "±" in found["text"]


def test_without_refit_nothing_is_retrained(xor_file, tmp_path):
    _, found = run(xor_file, tmp_path)
    assert found["rows"][0]["refits"] == {} and "refit" not in found["text"].splitlines()[0]


def test_against_random_is_as_many_other_inputs_in_every_seed(xor_file, tmp_path):
    """Pairs of random inputs see nothing of the interaction, unless they happen to be the two."""
    _, found = run(xor_file, tmp_path, against=("random",), seeds=3)
    refits = found["rows"][0]["refits"]
    assert set(refits) == {"lassonet", "random"} and refits["random"]["test"]["n"] == 3
    pairs = [set(np.flatnonzero(top_mask(random_order(8, seed), 2))) for seed in range(3)]
    assert {0, 1} not in pairs and len({frozenset(pair) for pair in pairs}) > 1
    gap = refits["lassonet"]["test"]["mean"] - refits["random"]["test"]["mean"]
    assert gap > refits["lassonet"]["test"]["half_width"] + refits["random"]["test"]["half_width"] > 0


def test_sizes_and_stop_at(xor_file, tmp_path):
    """Exactly the sizes asked for are kept; --stop-at K keeps the network of exactly K and goes no further."""
    result, found = run(xor_file, tmp_path / "sizes", sizes=(2, 3, 5))
    assert [row["size"] for row in found["rows"]] == [2, 3, 5]
    names = {f"{kind}-{size}.safetensors" for kind in ("size", "relaxed") for size in (2, 3, 5)}
    assert {path.name for path in (result.path / "networks").iterdir()} == names | {"dense.safetensors"}
    result, found = run(xor_file, tmp_path / "stop", sizes=(), stop_at=4)
    assert [row["size"] for row in found["rows"]] == [4, 5]  # of the ladder, and 4 itself
    assert found["stages"][-1][1] <= 4 < found["stages"][-2][1]
    with np.load(result.path / "masks.npz") as masks:
        assert np.unpackbits(masks["size-4"], count=8).sum() == 4


@pytest.mark.parametrize("method", ["lassonet", "group-lasso"])
def test_the_range_of_lambda(method, xor_file, tmp_path):
    """It begins where it is told to, goes up by the ratio, and the importance of an input lies inside."""
    result, found = run(xor_file, tmp_path, method, lambda_start=0.004, ratio=1.3)
    lams = np.array([stage[0] for stage in found["stages"]])
    assert lams[0] == 0.004 and (np.diff(lams) >= 0).all() and (lams[1:] / lams[:-1] <= 1.3 + 1e-9).all()
    importance = np.load(result.path / "importance.npy")
    assert ((importance >= lams[0]) & (importance <= lams[-1])).all()
    assert set(np.argsort(-importance)[:2]) == {0, 1}


def test_lambdas_of_spred_ascend_whatever_their_order(xor_file, tmp_path):
    given = {"epochs_per_lambda": 4, "sizes": ()}
    _, found = run(xor_file, tmp_path, "spred", lambdas=(0.03, 0.003), **given)
    assert [row["lam"] for row in found["rows"]] == [0.003, 0.03]
    assert found["rows"][0]["nnz"] > found["rows"][1]["nnz"] > 0


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lassonet", {}),
        ("lassonet", {"input_units": "gate"}),
        ("group-lasso", {}),
        ("group-lasso", {"input_units": "gate"}),
        ("group-lasso", {"penalize": "both"}),
        ("group-lasso", {"penalize": "hidden"}),
    ],
)
def test_the_path_begins_with_the_dense_network(method, more, xor_file, tmp_path):
    """Finding the first lambda looks at a network at zero; the path goes on from the trained one."""
    _, found = run(xor_file, tmp_path, method, sizes=(7,), stop_at=7, ratio=3.0, epochs=15, **more)
    assert found["summary"]["dense"]["train"]["loss"] < 0.63  # log 2 = 0.69 where weights are zero
    assert found["stages"][0][2] < 0.63


class Watching(nn.Module):
    """Remembers in which precision its layer computed, in training and out of it."""

    seen: set[tuple[bool, torch.dtype]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 24), nn.Linear(24, 2)

    def forward(self, x):
        """Outputs (n, 2)."""
        out = self.last(torch.relu(self.first(x)))
        Watching.seen.add((self.training, out.dtype))
        return out


@pytest.mark.parametrize("method", ["lassonet", "group-lasso", "spred"])
def test_amp_is_for_training_passes_alone(method, xor_file, tmp_path, capsys):
    """They run in bfloat16; weights, proximal steps, scores and certificates stay in float32: the same inputs win."""
    from safetensors.torch import load_file

    Watching.seen = set()
    more = {"sizes": (), "lambdas": (3e-3,), "epochs_per_lambda": 4} if method == "spred" else {}
    result, found = run(xor_file, tmp_path, method, f"python:{__name__}:Watching", amp=True, epochs=25, **more)
    assert "--amp is for GPUs" in capsys.readouterr().err
    assert (True, torch.bfloat16) in Watching.seen and (False, torch.float32) in Watching.seen
    assert (False, torch.bfloat16) not in Watching.seen
    for file in (result.path / "networks").iterdir():
        assert {value.dtype for value in load_file(file).values()} == {torch.float32}, file.name
    row = found["rows"][0]
    assert row["relaxed"]["test"]["accuracy"] > 0.8
    if method != "spred":
        with np.load(result.path / "masks.npz") as masks:
            assert set(np.flatnonzero(np.unpackbits(masks["size-2"], count=8))) == {0, 1}


def test_amp_on_a_gpu_without_bfloat16_is_refused(xor_file, tmp_path, monkeypatch):
    """The answer of the driver is put in: no such GPU is at hand."""
    monkeypatch.setattr(sparse_data, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(UsageError, match="--amp: Old GPU has no bfloat16; leave it out"):
        run(xor_file, tmp_path, amp=True)
    assert not list(tmp_path.glob("sparse*"))
