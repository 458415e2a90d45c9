"""Weights files: every format and wrapper, and every way in which they are broken."""

from __future__ import annotations

import argparse
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from debugnet.backbones.weights_files import fingerprint, load_into, read_state_dict
from debugnet.errors import InputError


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


STATE = make().state_dict()


def prefixed(prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in STATE.items()}


def save_npz(content, path):
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in content.items()})


ROBUSTNESS = {
    **prefixed("module.model."),
    **prefixed("module.attacker.model."),
    "module.normalizer.new_mean": torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1),
    "module.normalizer.new_std": torch.tensor([0.4, 0.5, 0.6]).reshape(3, 1, 1),
    "module.attacker.normalize.new_mean": torch.zeros(3, 1, 1),
}


@pytest.mark.parametrize(
    ("name", "save", "content"),
    [
        ("w.safetensors", save_file, STATE),
        ("w.npz", save_npz, STATE),
        ("w.pt", torch.save, STATE),
        ("w.th", lambda c, p: torch.save(c, p, _use_new_zipfile_serialization=False), STATE),
        ("wrapped.pth", torch.save, {"state_dict": STATE, "epoch": 3}),
        ("parallel.pth", torch.save, {"model": prefixed("module."), "args": {"lr": 0.1}}),
        ("compiled.pt", torch.save, prefixed("_orig_mod.module.")),
        ("robustness.pt", torch.save, {"model": ROBUSTNESS, "epoch": 90}),
        ("misnamed.bin", save_file, STATE),
    ],
)
def test_formats_and_wrappers(tmp_path, name, save, content):
    path = tmp_path / name
    save(content, path)
    state = read_state_dict(path)
    network = make()
    nn.init.zeros_(network[0].weight)
    load_into(network, state, "net")
    assert fingerprint(network) == fingerprint(make())
    if name == "robustness.pt":
        mean, std = state.normalization
        assert mean == pytest.approx((0.1, 0.2, 0.3)) and std == pytest.approx((0.4, 0.5, 0.6))
    else:
        assert state.normalization is None


def test_half_precision_files_fill_single_precision_networks(tmp_path):
    save_file({name: t.half() if t.is_floating_point() else t for name, t in STATE.items()}, tmp_path / "w.safetensors")
    network = make()
    load_into(network, read_state_dict(tmp_path / "w.safetensors"), "net")
    assert network[0].weight.dtype == torch.float32


class Executed:
    def __reduce__(self):
        return (open, ("executed", "w"))


def _truncated(path, keep=0.6):
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def _legacy_truncated(path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-200])


def _bomb(path):
    torch.save({"x": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as plain:
        members = {info.filename: plain.read(info) for info in plain.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)


def _short_safetensors(path):
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-40])


BROKEN = {
    "missing.pt": (lambda p: None, "cannot be read"),
    "empty.pt": (lambda p: p.write_bytes(b""), "the file is empty"),
    "page.pth": (lambda p: p.write_text("\n<!DOCTYPE html><html>Sign in</html>"), "a web page, not weights"),
    "pointer.pth": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
    "noise.pth": (lambda p: p.write_bytes(b"GIF89a" + bytes(600)), "no weights file"),
    "short.pt": (_truncated, "truncated or damaged"),
    "short.th": (_legacy_truncated, "truncated or damaged"),
    "short.safetensors": (_short_safetensors, "truncated or not safetensors"),
    "bomb.pt": (_bomb, "refused as unsafe"),
    "code.pt": (lambda p: torch.save({"a": Executed()}, p), "never loaded"),
    "args.pt": (lambda p: torch.save({"a": argparse.Namespace(x=1), "w": torch.ones(1)}, p), "save the tensors alone"),
    "module.pt": (lambda p: torch.save(make(), p), "never loaded"),
    "list.pt": (lambda p: torch.save([torch.ones(2)], p), "holds a list, not a state dict"),
    "nothing.pt": (lambda p: torch.save({"epoch": 1}, p), "no tensors in it"),
    "objects.npz": (lambda p: np.savez(p, a=np.array([{}], dtype=object)), "not an npz of plain number arrays"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_broken, message = BROKEN[name]
    make_broken(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_another_architecture_is_named_by_its_entries(tmp_path):
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Identity(), nn.Flatten(), nn.Linear(5, 2, bias=False))
    torch.save(other.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        load_into(make(), read_state_dict(tmp_path / "w.pt"), "tinynet")
    text = str(caught.value)
    assert "not tinynet's" in text and "5 missing (1.bias, 1.running_mean, 1.running_var, …)" in text
    assert "0.weight (5, 3, 3, 3) instead of (4, 3, 3, 3)" in text
    torch.save({**STATE, "extra.weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"1 unexpected \(extra.weight\)"):
        load_into(make(), read_state_dict(tmp_path / "w.pt"), "tinynet")


def test_files_without_batch_counters_load(tmp_path):
    torch.save({n: t for n, t in STATE.items() if "num_batches" not in n}, tmp_path / "w.pt")
    load_into(make(), read_state_dict(tmp_path / "w.pt"), "net")


def test_fingerprint_sees_every_value():
    network = make()
    before = fingerprint(network)
    network[1].running_var[2] += 1e-6
    assert fingerprint(network) != before
