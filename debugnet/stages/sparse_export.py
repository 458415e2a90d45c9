"""Networks that ``train-sparse`` leaves behind for others to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from debugnet.artifacts.bundle import read_json
from debugnet.backbones.python_factory import WEIGHTS_FILE, load_python, save_network
from debugnet.backbones.spec import NETWORK_FILE, BackboneSpec
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.proximal_training import snapshot
from debugnet.sparse_training.shrink import shrink, widths
from debugnet.sparse_training.trained_network import FACTORY, TrainedNetwork
from debugnet.stages.sparse_data import SparseData


def save_state(network: nn.Module, file: Path) -> None:
    """Write the state of a network; ``file`` appears when it is whole, its folder is made."""
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    save_file({name: value.contiguous() for name, value in snapshot(network).items()}, temporary)
    temporary.replace(file)


def export_small(network: nn.Module, samples: Tensor, stem: Path) -> dict[str, Any]:
    """Write the physically smaller network and measure that it gives the same outputs.

    Parameters
    ----------
    network : nn.Module
        A chain of layers (:mod:`debugnet.sparse_training.shrink`); not modified.
    samples : Tensor (n, *shape)
        On which the outputs are compared.
    stem : Path
        ``.safetensors`` and ``.txt`` are added to it.

    Returns
    -------
    dict
        ``widths`` of its layers, ``n_weights``, ``largest_output_difference``.
    """
    device = next(network.parameters()).device
    network.cpu().eval()
    small, x = shrink(network), samples.cpu()
    with torch.no_grad():
        difference = float((small(x) - network(x)).abs().max())
    network.to(device)
    save_file(small.state_dict(), stem.with_name(f"{stem.name}.safetensors"))
    stem.with_name(f"{stem.name}.txt").write_text(f"{small}\n", encoding="utf-8")
    count = sum(p.numel() for p in small.parameters())
    return {"widths": widths(small), "n_weights": count, "largest_output_difference": difference}


def describe_network(options: TrainSparse, data: SparseData) -> dict[str, Any] | None:
    """Return what :class:`TrainedNetwork` is built of again, JSON-able; None for images that are not square.

    A ``python:`` factory is named, and not run by those who read it: the user names it again.
    """
    shape = data.example.shape[1:]
    if data.is_image and shape[-1] != shape[-2]:
        return None
    network: str | dict[str, Any] = options.network
    if not options.network.startswith(("mlp:", "cifar_resnet", "python:")):
        stored = read_json(Path(options.network).expanduser() / NETWORK_FILE)
        network = {"factory": stored["factory"], "arguments": stored.get("arguments", {})}
    return {
        "network": network, "shape": list(shape), "n_outputs": data.n_outputs, "method": options.method,
        "modality": "image" if data.is_image else "tensor",
        "input_units": "gate" if options.input_units == "gate" and options.method != "spred" else "auto",
    }  # fmt: skip


def export_network(source: Path, found: Mapping[str, Any], point: float, target: Path) -> TrainedNetwork:
    """Write one relaxed network of ``sparse/`` as a debugnet network folder, which ``extract --backbone`` takes.

    Parameters
    ----------
    source : Path
        The folder with ``networks/relaxed-POINT.safetensors``.
    found : mapping
        ``sparse.json``, whose ``network`` is not None.
    point : float
        Size of a subset, or lambda of spred.
    target : Path
    """
    arguments, coordinates = found["network"], found["standardization"]
    given = dict(arguments)
    if str(given["network"]).startswith("python:"):
        given["network"] = load_python(BackboneSpec(given["network"], modality=given["modality"])).network
    network = TrainedNetwork(**given)
    network.load_trained(
        load_file(source / "networks" / f"relaxed-{point:g}.safetensors"),
        **{name: torch.tensor(value, dtype=torch.float32) for name, value in coordinates.items()},
    )
    save_network(target, network, FACTORY, arguments, found["class_names"] or None)
    return network


def backbone_arguments(folder: Path, found: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the ``--backbone`` and ``--weights`` with which extract builds the network of a folder written here."""
    name = found["network"]["network"]
    return (name, str(folder / WEIGHTS_FILE)) if str(name).startswith("python:") else (str(folder), None)
