"""What train-sparse leaves behind is a network that computes what was trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from debugnet.backbones.loading import load_backbone
from debugnet.backbones.spec import BackboneSpec
from debugnet.cli.app import main
from debugnet.errors import InputError
from debugnet.sparse_training.trained_network import TrainedNetwork


def command(*words: object) -> None:
    assert main([str(word) for word in words]) == 0, words


def test_the_saved_network_computes_what_was_trained(digits, tmp_path):
    """A LassoNet behind a folder: residual layer, gate and standardization are those of the artefact's own states."""
    command(
        "train-sparse", "--method", "lassonet", "--input-units", "gate", "--network", "mlp:8", "--data", digits,
        "--sizes", "30", "--stop-at", "30", "--against", "none", "--epochs", "3", "--ratio", "3", "--threads", "1",
        "-o", tmp_path / "sparse",
    )  # fmt: skip
    found = json.loads((tmp_path / "sparse" / "sparse.json").read_text())
    # Its outputs see the inputs past its last layer: the decision layer reads eight hidden units and 64 pixels.
    backbone = load_backbone(BackboneSpec(str(tmp_path / "sparse")), device="cpu")
    assert backbone.layer == "decision" and backbone.feature_dim == 8 + 64 and backbone.head is not None
    assert (np.abs(backbone.head.weight[:, 8:]).max(axis=0) > 0).sum() == 30
    with np.load(digits) as stored:
        pixels, y = torch.from_numpy(stored["x_test"])[:, None].float() / 255, stored["y_test"]
    with torch.no_grad():
        predicted = backbone.network(pixels.expand(-1, 3, -1, -1)).argmax(dim=1).numpy()
    assert (predicted == y).mean() == pytest.approx(found["summary"]["chosen_metrics"]["test"]["accuracy"])


def test_a_folder_chooses_no_code():
    with pytest.raises(InputError, match="outside the debugnet package"):
        TrainedNetwork({"factory": "os:system", "arguments": {"command": "true"}}, (2,), 2, "tensor", "spred")
