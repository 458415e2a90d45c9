"""What ``train-sparse`` has trained, as a network that takes raw samples and that a debugnet folder can name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.backbones.layers import find_head
from debugnet.errors import InputError, UsageError
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.networks import make_mlp, parse_mlp
from debugnet.sparse_training.readers import InputReader

FACTORY = "debugnet.sparse_training.trained_network:TrainedNetwork"


class TrainedNetwork(nn.Module):
    """Standardization, network, and its last layer as a decision layer of its own.

    The outputs of a LassoNet are linear in its last hidden layer *and* in its inputs: its decision
    layer reads both, the hidden units first, so that the whole decision is one sum.

    Parameters
    ----------
    network : str, mapping or nn.Module
        "mlp:80,100", "cifar_resnet20", ``factory`` and ``arguments`` of a debugnet network folder, or
        the module itself (of ``python:`` factories, which only the user may name).
    shape : sequence of int
        Of one sample as the network was trained on: (C, H, W) with C 1 or 3 for images.
    n_outputs : int
    modality : str
        "image" (pixels in [0, 1], three channels come in) or "tensor".
    method : str
        "lassonet" adds the residual layer.
    input_units : str
        "gate" puts an elementwise gate in front.

    Attributes
    ----------
    decision : nn.Linear or None
        (K, hidden units [+ inputs]); None where the network's last layer is no Linear: its outputs
        are then what ``network`` (and ``skip``) give.

    Raises
    ------
    InputError
        A factory outside the debugnet package: a folder that one was sent must not choose which
        code runs.
    """

    mean: Tensor
    inverse_scale: Tensor
    output_scale: Tensor
    output_mean: Tensor
    image_mean = (0.0, 0.0, 0.0)
    image_std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        network: str | Mapping[str, Any] | nn.Module,
        shape: Sequence[int],
        n_outputs: int,
        modality: str,
        method: str,
        input_units: str = "auto",
    ) -> None:
        super().__init__()
        self.modality, self.image_size, self._channels = modality, int(shape[-1]), int(shape[0])
        inner = _build(network, tuple(shape), n_outputs).eval()
        example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        self.skip: nn.Linear | None = None
        if method == "lassonet":
            lassonet = LassoNet(inner, example, mode=input_units)
            self.skip, inner = lassonet.skip, lassonet.network
        elif input_units == "gate":
            inner = InputReader(inner, example, mode="gate").network
        self.network, self._reads_inputs = inner, method == "lassonet"
        self._last = _last_linear(inner, example)
        self.decision: nn.Linear | None = None
        if self._last is not None:
            last = inner.get_submodule(self._last)
            assert isinstance(last, nn.Linear)
            _replace(inner, self._last, nn.Identity())
            n_inputs = example[0].numel() if self._reads_inputs else 0
            self.decision, self.skip = nn.Linear(last.in_features + n_inputs, n_outputs), None
        one = (shape[0], 1, 1) if modality == "image" else tuple(shape)
        for name, values in {"mean": torch.zeros(one), "inverse_scale": torch.ones(one)}.items():
            self.register_buffer(name, values)
        if self.decision is None:
            self.register_buffer("output_scale", torch.ones(()))
            self.register_buffer("output_mean", torch.zeros(n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_outputs) of samples (n, *shape)."""
        if self.modality == "image":
            x = x[:, : self._channels]
        x = (x - self.mean) * self.inverse_scale
        out: Tensor = self.network(x)
        if self.decision is not None:
            found: Tensor = self.decision(torch.cat([out, x.flatten(1)], dim=1) if self._reads_inputs else out)
            return found
        out = out if self.skip is None else out + self.skip(x.flatten(1))
        return out * self.output_scale + self.output_mean

    @torch.no_grad()
    def load_trained(
        self, state: Mapping[str, Tensor], *, mean: Tensor, scale: Tensor, target_mean: Tensor, target_scale: Tensor
    ) -> None:
        """Take what was trained on standardized samples and targets.

        Parameters
        ----------
        state : mapping
            Of the trained module: of a LassoNet ``network.*`` and ``skip.weight``.
        mean, scale : Tensor
            Samples were centred and divided by these; scale 0: constant, never read.
        target_mean : Tensor (n_outputs,)
        target_scale : Tensor ()
            Regression targets were, too; else 0 and 1.
        """
        self.mean.copy_(mean)
        self.inverse_scale.copy_(torch.where(scale > 0, 1 / scale, 0.0))
        inner = dict(state)
        theta = inner.pop("skip.weight", None)
        if theta is not None:
            inner = {name.removeprefix("network."): value for name, value in inner.items()}
        if self.decision is None:
            self.output_scale.copy_(target_scale)
            self.output_mean.copy_(target_mean)
            if self.skip is not None:
                self.skip.load_state_dict({"weight": theta})
        else:
            weight, bias = inner.pop(f"{self._last}.weight"), inner.pop(f"{self._last}.bias", torch.zeros(()))
            self.decision.weight.copy_(target_scale * (weight if theta is None else torch.cat([weight, theta], dim=1)))
            self.decision.bias.copy_(target_scale * bias + target_mean)
        self.network.load_state_dict(inner)


def _last_linear(network: nn.Module, example: Tensor) -> str | None:
    """Name of the Linear layer whose output is the network's, and whose place an Identity can take; else None."""
    with torch.no_grad():
        try:
            tap = find_head(network, lambda: network(example))
            features, _ = tap(lambda: network(example))
            last = network.get_submodule(tap.layer)
            _replace(network, tap.layer, nn.Identity())
            try:
                out = network(example)
            finally:
                _replace(network, tap.layer, last)
        except (InputError, UsageError, RuntimeError):
            return None
    return tap.layer if tap.layer and out.shape == features.shape and torch.equal(out, features) else None


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _build(network: str | Mapping[str, Any] | nn.Module, shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    if isinstance(network, nn.Module):
        return network
    if not isinstance(network, str):
        target = str(network["factory"])
        if not target.startswith("debugnet."):
            raise InputError(f"factory '{target}' is outside the debugnet package and not run from a file")
        module, _, attribute = target.partition(":")
        built: nn.Module = getattr(importlib.import_module(module), attribute)(**network.get("arguments", {}))
        return built
    if network.startswith("python:"):
        raise InputError(
            f"this folder holds a network of {network}, which is not run from a file: give --backbone {network} and "
            "--weights with the folder's model.safetensors"
        )
    if network.startswith("mlp:"):
        return make_mlp(int(torch.tensor(shape).prod()), n_outputs, parse_mlp(network))
    return CifarResNet(int(network.removeprefix("cifar_resnet")), n_outputs)
