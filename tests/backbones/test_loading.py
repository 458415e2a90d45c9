"""Specs, factories, folders and identities."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.backbones.devices import resolve_device
from debugnet.backbones.identity import file_digest, network_digest
from debugnet.backbones.python_factory import save_network
from debugnet.errors import DeviceError, InputError, StaleArtifact, UsageError

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    image_size = 12
    class_names = ["no", "yes"]
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(6, 2)
    def forward(self, x):
        return self.head(self.body(x))

def flat():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

def broken():
    raise RuntimeError("no such dataset")

def detector():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 6, 3)
        def forward(self, x):
            return {"boxes": [self.body(x)]}
    return Boxes()

answer = lambda: 42
"""


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def test_specs_survive_json():
    spec = BackboneSpec("resnet50", weights="w.pth", layer="layer4", pooling="max", input_shape=(3, 4))
    assert BackboneSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert BackboneSpec("resnet50").to_json() == {"name": "resnet50"}
    with pytest.raises(InputError, match="not a backbone description"):
        BackboneSpec.from_json({"name": "resnet50", "shiny": 1})
    with pytest.raises(UsageError, match="unknown pooling 'sum'"):
        BackboneSpec("resnet50", pooling="sum")


def test_a_factory_in_the_current_folder(in_folder):
    path = list(sys.path)
    backbone = load_backbone(BackboneSpec("python:my_nets:Net", modality="image"), "cpu")
    assert sys.path == path
    assert (backbone.layer, backbone.feature_dim, backbone.class_names) == ("head", 6, ("no", "yes"))
    assert backbone.collate([np.zeros((20, 30, 3), np.uint8)]).shape == (1, 12, 12, 3)
    torch.save({n: t + 1 for n, t in backbone.network.state_dict().items()}, "w.pt")
    other = load_backbone(BackboneSpec("python:my_nets:Net", weights="w.pt", modality="image"), "cpu")
    assert other.fingerprint != backbone.fingerprint


def test_a_network_on_plain_arrays(in_folder):
    spec = BackboneSpec("python:my_nets:flat", modality="tensor", input_shape=(5,))
    backbone = load_backbone(spec, "cpu")
    again = load_backbone(BackboneSpec.from_json(backbone.spec.to_json()), "cpu")
    x = backbone.collate([np.arange(5), np.ones(5)])
    assert torch.equal(backbone.features(x), again.features(x)) and backbone.feature_dim == 4
    with pytest.raises(UsageError, match="needs the shape of a sample"):
        load_backbone(BackboneSpec("python:my_nets:flat", modality="tensor"), "cpu")


def test_a_layer_of_a_network_whose_output_is_no_logits(in_folder):
    backbone = load_backbone(BackboneSpec("python:my_nets:detector", modality="image", layer="body"), "cpu")
    assert backbone.feature_dim == 6 and backbone.head is None


def test_a_network_that_fails_on_its_input_is_no_bug_of_ours(in_folder):
    with pytest.raises(InputError, match="the network fails on its own input .RuntimeError: .*--image-size"):
        load_backbone(BackboneSpec("python:my_nets:Net", modality="image", image_size=2), "cpu")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("python:my_nets", UsageError, "give python:package.module:factory"),
        ("python:my_nets:missing", InputError, "module 'my_nets' has no 'missing'"),
        ("python:not_here:make", InputError, "cannot import 'not_here'"),
        ("python:my_nets:broken", InputError, "the factory failed .RuntimeError: no such dataset"),
        ("python:my_nets:answer", InputError, "returned a int, not a Module"),
    ],
)
def test_factories_that_fail(in_folder, name, error, message):
    with pytest.raises(error, match=message):
        load_backbone(BackboneSpec(name, modality="image"), "cpu")


def test_a_network_folder(tmp_path):
    from debugnet.backbones.demo_networks import DIGITS_FACTORY, DigitsResNet

    network = DigitsResNet(4).eval()
    save_network(tmp_path / "net", network, DIGITS_FACTORY, {"num_classes": 4}, ["a", "b", "c", "d"])
    backbone = load_backbone(BackboneSpec(str(tmp_path / "net")), "cpu")
    assert backbone.class_names == ("a", "b", "c", "d") and backbone.preprocessing.mean == (0.25, 0.25, 0.25)
    again = load_backbone(BackboneSpec.from_json(backbone.spec.to_json()), "cpu")
    assert again.fingerprint == backbone.fingerprint


def test_a_network_folder_runs_no_code_of_others(tmp_path):
    folder = tmp_path / "net"
    save_network(folder, nn.Linear(2, 2), "os:getcwd", {})
    with pytest.raises(InputError, match="factory 'os:getcwd' is outside the debugnet package"):
        load_backbone(BackboneSpec(str(folder)), "cpu")
    (folder / "debugnet_network.json").write_text("[1]")
    with pytest.raises(InputError, match='needs a "factory"'):
        load_backbone(BackboneSpec(str(folder)), "cpu")


def test_other_weights_than_before_are_noticed(cifar_resnet_weights, tmp_path):
    path = tmp_path / "w.th"
    path.write_bytes(cifar_resnet_weights.read_bytes())
    spec = load_backbone(BackboneSpec("cifar_resnet20", weights=str(path)), "cpu").spec
    load_backbone(spec, "cpu")
    content = torch.load(path)
    content["state_dict"]["module.linear.bias"] += 1
    torch.save(content, path)
    with pytest.raises(StaleArtifact, match="not those the features were made with"):
        load_backbone(spec, "cpu")


def test_recorded_specs_hold_from_any_folder(cifar_resnet_weights, monkeypatch, tmp_path):
    monkeypatch.chdir(cifar_resnet_weights.parent)
    spec = load_backbone(BackboneSpec("cifar_resnet20", weights=cifar_resnet_weights.name), "cpu").spec
    monkeypatch.chdir(tmp_path)
    load_backbone(BackboneSpec.from_json(spec.to_json()), "cpu")


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match=r"no device 'cuda:97': this machine has \d+ GPUs; try --device cpu"):
        resolve_device("cuda:97")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        resolve_device("gpu")


def test_digests_follow_content_not_place(cifar_resnet_weights, language_model, tmp_path, in_folder):
    first = network_digest(BackboneSpec("cifar_resnet20", weights=str(cifar_resnet_weights)))
    copy = tmp_path / "other.th"
    copy.write_bytes(cifar_resnet_weights.read_bytes())
    assert network_digest(BackboneSpec("cifar_resnet20", weights=str(copy))) == first
    assert network_digest(BackboneSpec("cifar_resnet32", weights=str(copy))) != first
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert network_digest(BackboneSpec("cifar_resnet20", weights=str(copy))) != first
    assert network_digest(BackboneSpec(str(language_model("bert")))) != network_digest(
        BackboneSpec(str(language_model("roberta")))
    )
    before = network_digest(BackboneSpec("python:my_nets:Net"))
    (in_folder / "my_nets.py").write_text(FACTORY + "\n# changed\n")
    assert network_digest(BackboneSpec("python:my_nets:Net")) != before
    with pytest.raises(InputError, match="no module 'nowhere'"):
        network_digest(BackboneSpec("python:nowhere:Net"))
    with pytest.raises(InputError, match="no such file"):
        network_digest(BackboneSpec("resnet18", weights="missing.pth"))


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("debugnet.backbones.identity._REMEMBERED_BYTES", 10)
    path = tmp_path / "w.bin"
    path.write_bytes(b"a" * 100)
    first = file_digest(path)
    state = path.stat()
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_digest(path) == first  # nothing that is looked at changed: it was not read again
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert file_digest(path) != first


def test_names_and_digests_need_no_torch(cifar_resnet_weights):
    code = (
        "import sys; from debugnet.registry import BACKBONES; from debugnet.backbones import BackboneSpec;"
        "from debugnet.backbones.identity import network_digest;"
        f"network_digest(BackboneSpec('cifar_resnet20', weights={str(cifar_resnet_weights)!r}));"
        "assert len(BACKBONES._entries) > 80;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
