"""Reading weights files: safetensors, PyTorch checkpoints without unpickling objects, and npz.

Nothing in a weights file is executed: PyTorch files are read with ``weights_only=True``, after a check
that the archive is not a decompression bomb.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from debugnet.errors import InputError

#: Where training scripts put the state dict inside a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
#: Prefixes that wrappers of a module (DataParallel, torch.compile) put before every key.
_PREFIXES = ("module.", "_orig_mod.")
#: How many key names an error message lists.
_NAMED_KEYS = 3


@dataclass(frozen=True)
class StateDict:
    """The tensors of a weights file, under the names the plain network uses.

    Attributes
    ----------
    tensors : dict of str to Tensor
    normalization : tuple of (mean, std), optional
        Per-channel values (each a tuple of float, pixels in [0,1]) that the checkpoint carries itself,
        as those of the ``robustness`` library do.
    source : Path
    """

    tensors: dict[str, torch.Tensor]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
    source: Path


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a weights file.

    Raises
    ------
    InputError
        If the file is missing, truncated, no weights file, or holds more than tensors.
    """
    reader = {"safetensors": _read_safetensors, "npz": _read_npz, "torch": _read_torch}[sniff_format(path)]
    raw = reader(path)
    tensors, normalization = _plain_names(_unwrap(raw))
    if not tensors:
        raise InputError(f"{path}: no tensors in it (its entries: {_some(sorted(map(str, raw)))}); give a state dict")
    return StateDict(tensors, normalization, path)


def load_into(network: torch.nn.Module, state: StateDict, architecture: str) -> None:
    """Copy a state dict into a network, strictly.

    Raises
    ------
    InputError
        Naming the missing, unexpected and misshapen entries, when the file is of another architecture.
    """
    expected = network.state_dict()
    # PyTorch before 0.4.1 saved no batch counters, and nothing at inference reads them.
    missing = sorted(k for k in expected.keys() - state.tensors.keys() if not k.endswith("num_batches_tracked"))
    unexpected = sorted(state.tensors.keys() - expected.keys())
    shapes = [
        f"{k} {tuple(state.tensors[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in sorted(expected.keys() & state.tensors.keys())
        if state.tensors[k].shape != expected[k].shape
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    problems = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in found if keys]
    if problems:
        raise InputError(
            f"{state.source}: these weights are not {architecture}'s, out of {len(expected)} entries "
            f"{', '.join(problems)}; give the architecture they were trained with as --backbone"
        )
    expected.update(state.tensors)  # keeps the versions of the modules
    network.load_state_dict(expected)


def fingerprint(network: torch.nn.Module) -> str:
    """sha256 over the sorted state dict: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sniff_format(path: Path) -> str:
    """Tell "safetensors", "npz" or "torch" from the content, because names lie and downloads fail.

    Raises
    ------
    InputError
        If the file is missing, empty, a web page, a Git LFS pointer, an archive that would inflate
        beyond its size, or nothing known.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{path}: the file is empty; download it again")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path}: this is a web page, not weights (a failed download); download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: this is a Git LFS pointer, not weights; run `git lfs pull` where it came from")
    if start[:4] == b"PK\x03\x04":
        return _sniff_zip(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if start[:1] == b"\x80":
        return "torch"
    raise InputError(f"{path}: no weights file (it starts with {start[:8]!r}); give safetensors, .pth/.pt/.th or npz")


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: the file is truncated or damaged ({error}); download it again") from error
    if all(entry.filename.endswith(".npy") for entry in entries):
        return "npz"
    # torch.load would inflate compressed entries without a limit: 66 KB can become gigabytes.
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path}: its archive is compressed, which torch.save never does; refused as unsafe")
    return "torch"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not safetensors ({error}); download it again") from error


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an npz of plain number arrays ({error})") from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The message of torch advises to switch the safety off; ours must not.
        raise InputError(
            f"{path}: holds Python objects beside tensors, which are never loaded; save the tensors alone where it "
            "was made: torch.save(model.state_dict(), 'weights.pt')"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(f"{path}: truncated or damaged ({reason}); download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state dict (name -> tensor)")
    return content


def _unwrap(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Find the state dict in a checkpoint and keep its tensors."""
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _plain_names(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """Strip wrapper prefixes; take the network out of a ``robustness`` checkpoint with its normalization."""
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _plain_names({name[len(prefix) :]: value for name, value in tensors.items()})
    groups = {name.split(".", 1)[0] for name in tensors}
    # robustness.attacker.AttackerModel: `model` is the network, `attacker` holds it once more.
    if "model" not in groups or not groups <= {"model", "attacker", "normalizer"}:
        return tensors, None
    plain = {name[len("model.") :]: value for name, value in tensors.items() if name.startswith("model.")}
    mean, std = tensors.get("normalizer.new_mean"), tensors.get("normalizer.new_std")
    if mean is None or std is None:
        return plain, None
    return plain, (tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_KEYS]) + (", …" if len(names) > _NAMED_KEYS else "")
