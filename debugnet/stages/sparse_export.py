"""Networks that ``train-sparse`` leaves behind for others to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from debugnet.artifacts.bundle import read_json
from debugnet.backbones.python_factory import save_network
from debugnet.backbones.spec import NETWORK_FILE
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.shrink import shrink, widths
from debugnet.sparse_training.trained_network import FACTORY, TrainedNetwork
from debugnet.stages.sparse_data import SparseData


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


def export_chosen(folder: Path, options: TrainSparse, data: SparseData, chosen: float) -> str | None:
    """Make the artefact a debugnet network folder, so that ``extract --backbone`` takes the chosen network.

    Its state is ``networks/relaxed-CHOSEN.safetensors``.

    Returns
    -------
    str or None
        What extract needs beside the folder: of a LassoNet the layer to read, whose outputs see the
        inputs past its last layer.  None, and nothing written, for networks of ``python:`` factories,
        which a file must not name, and for images that are not square.
    """
    shape = data.example.shape[1:]
    described = _described(options.network)
    if described is None or (data.is_image and shape[-1] != shape[-2]):
        return None
    arguments = {
        "network": described, "shape": list(shape), "n_outputs": data.n_outputs, "method": options.method,
        "modality": "image" if data.is_image else "tensor",
        "input_units": "gate" if options.input_units == "gate" and options.method != "spred" else "auto",
    }  # fmt: skip
    network = TrainedNetwork(**arguments)  # type: ignore[arg-type]
    state = load_file(folder / "networks" / f"relaxed-{chosen:g}.safetensors")
    inner = {name.removeprefix("network."): value for name, value in state.items() if name != "skip.weight"}
    network.network.load_state_dict(inner if options.method == "lassonet" else state)
    if network.skip is not None:
        network.skip.load_state_dict({"weight": state["skip.weight"]})
    scale = np.asarray(data.scale, dtype=np.float32)
    network.load_state_dict(
        {
            "mean": torch.from_numpy(np.asarray(data.mean, dtype=np.float32)),
            "inverse_scale": torch.from_numpy(np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)),
        },
        strict=False,
    )
    save_network(folder, network, FACTORY, arguments, data.class_names or None)
    leaves = [name for name, module in network.named_modules() if not list(module.children())]
    return "" if network.skip is None else f" --layer {leaves[-2]}"


def _described(network: str) -> str | dict[str, Any] | None:
    if network.startswith("python:"):
        return None
    if network.startswith(("mlp:", "cifar_resnet")):
        return network
    stored = read_json(Path(network).expanduser() / NETWORK_FILE)
    return {"factory": stored["factory"], "arguments": stored.get("arguments", {})}
