"""What ``train-sparse`` has trained, as a network that takes raw samples and that a debugnet folder can name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.errors import InputError
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.networks import make_mlp, parse_mlp
from debugnet.sparse_training.readers import InputReader

FACTORY = "debugnet.sparse_training.trained_network:TrainedNetwork"


class TrainedNetwork(nn.Module):
    """Standardization, network and, of a LassoNet, the residual layer beside it.

    Parameters
    ----------
    network : str or mapping
        "mlp:80,100", "cifar_resnet20", or ``factory`` and ``arguments`` of a debugnet network folder.
    shape : sequence of int
        Of one sample as the network was trained on: (C, H, W) with C 1 or 3 for images.
    n_outputs : int
    modality : str
        "image" (pixels in [0, 1], three channels come in) or "tensor".
    method : str
        "lassonet" adds the residual layer.
    input_units : str
        "gate" puts an elementwise gate in front.

    Raises
    ------
    InputError
        A factory outside the debugnet package: a folder that one was sent must not choose which
        code runs.
    """

    mean: Tensor
    inverse_scale: Tensor
    image_mean = (0.0, 0.0, 0.0)
    image_std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        network: str | Mapping[str, Any],
        shape: Sequence[int],
        n_outputs: int,
        modality: str,
        method: str,
        input_units: str = "auto",
    ) -> None:
        super().__init__()
        self.modality, self.image_size, self._channels = modality, int(shape[-1]), int(shape[0])
        inner, example = _build(network, tuple(shape), n_outputs), torch.zeros(2, *shape)
        self.skip: nn.Module | None = None
        if method == "lassonet":
            lassonet = LassoNet(inner.eval(), example, mode=input_units)
            self.skip, inner = lassonet.skip, lassonet.network
        elif input_units == "gate":
            inner = InputReader(inner, example, mode="gate").network
        self.network = inner  # behind the residual layer: its last layer is the decision layer
        one = (shape[0], 1, 1) if modality == "image" else tuple(shape)
        self.register_buffer("mean", torch.zeros(one))
        self.register_buffer("inverse_scale", torch.ones(one))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_outputs) of samples (n, *shape)."""
        if self.modality == "image":
            x = x[:, : self._channels]
        x = (x - self.mean) * self.inverse_scale
        out: Tensor = self.network(x)
        return out if self.skip is None else out + self.skip(x.flatten(1))


def _build(network: str | Mapping[str, Any], shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    if not isinstance(network, str):
        target = str(network["factory"])
        if not target.startswith("debugnet."):
            raise InputError(f"factory '{target}' is outside the debugnet package and not run from a file")
        module, _, attribute = target.partition(":")
        built: nn.Module = getattr(importlib.import_module(module), attribute)(**network.get("arguments", {}))
        return built
    if network.startswith("mlp:"):
        return make_mlp(int(torch.tensor(shape).prod()), n_outputs, parse_mlp(network))
    return CifarResNet(int(network.removeprefix("cifar_resnet")), n_outputs)
