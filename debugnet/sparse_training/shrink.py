"""Physically smaller networks: chains of layers without their dropped units, and with the same outputs.

A chain is a ``Sequential`` (nested ones too) of Linear, Conv2d, BatchNorm, ReLU-like activations,
pooling, Flatten, Dropout and Identity.  A unit whose incoming weights are all zero is a constant:
it goes, and the constant moves into the bias of the layer behind it.  A unit that the layer behind it
does not read goes too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from debugnet.errors import UsageError

#: Layers that treat every unit alike and on its own.
POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.ReLU6, nn.Identity, nn.Dropout)
#: Layers that a constant passes unchanged.
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass
class _Flow:
    """What is known behind a layer: which units remain, and the value of those that do not."""

    keep: Tensor
    constant: Tensor
    spatial: bool = False


def shrink(network: nn.Module, inputs: Tensor | None = None) -> nn.Sequential:
    """Return a smaller network with the same outputs, in eval mode.

    Parameters
    ----------
    network : nn.Module
        A chain (module docstring); not modified.
    inputs : Tensor (n_inputs,), bool, optional
        Input features (channels, where the first layer is a convolution) that the new network still
        takes; the others must not matter.  Without it all inputs stay.

    Raises
    ------
    UsageError
        A layer that cannot be cut, or a dropped input that the network reads.
    """
    layers = [copy.deepcopy(layer) for layer in chain(network.eval())]
    cuttable = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not cuttable:
        raise UsageError(f"{type(network).__name__} has no Linear or Conv2d layer: nothing can be cut")
    first = cast("nn.Linear | nn.Conv2d", layers[cuttable[0]])
    n_inputs = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    keep = torch.ones(n_inputs, dtype=torch.bool) if inputs is None else inputs.cpu()
    if len(keep) != n_inputs:
        raise UsageError(f"the mask names {len(keep)} inputs, and the first layer reads {n_inputs}")
    flow = _Flow(keep, torch.zeros(n_inputs), isinstance(first, nn.Conv2d))
    cut: list[nn.Module] = []
    with torch.no_grad():
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                norm = _norm_behind(layers, i)
                last = i == cuttable[-1]
                if i == cuttable[0] and bool(layer.weight[:, ~keep].any()):
                    raise UsageError("the network reads an input that is to be left out: its weights are not zero")
                layer, flow = _cut(layer, flow, norm, None if last else layers[cuttable[cuttable.index(i) + 1]])
            elif isinstance(layer, nn.Flatten):
                flow = _Flow(flow.keep, flow.constant, False)
            else:
                layer, flow = _pass(layer, flow)
            cut.append(layer)
    return nn.Sequential(*cut)


def widths(network: nn.Module) -> list[int]:
    """Outputs of every Linear and Conv2d layer, in order."""
    return [len(m.weight) for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def chain(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a chain in order.

    Raises
    ------
    UsageError
        Something else is in it.
    """
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from chain(child)
    elif isinstance(module, (nn.Linear, nn.Conv2d, nn.Flatten, *POINTWISE, *POOLING, *_NORMS)):
        yield module
    else:
        raise UsageError(
            f"only chains of Linear, Conv2d, BatchNorm, activation and pooling layers can be cut, and this network has "
            f"a {type(module).__name__}"
        )


def outgoing(weight: Tensor, n_units: int) -> Tensor:
    """What a layer's weight (out, units * block, ...) reads of each unit before it, (n_units, q)."""
    return weight.reshape(len(weight), n_units, -1).transpose(0, 1).reshape(n_units, -1)


def _norm_behind(layers: list[nn.Module], i: int) -> nn.Module | None:
    behind = layers[i + 1] if i + 1 < len(layers) else None
    return behind if isinstance(behind, _NORMS) else None


def _cut(
    layer: nn.Linear | nn.Conv2d, flow: _Flow, norm: nn.Module | None, behind: nn.Module | None
) -> tuple[nn.Module, _Flow]:
    """Leave out dead inputs (their constants into the bias) and find the outputs that are constant now."""
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise UsageError("--shrink cannot cut a grouped convolution")
    block = layer.weight.shape[1] // len(flow.keep)  # columns per unit: 1, or pixels of a flattened channel
    keep, constant = flow.keep.repeat_interleave(block), flow.constant.repeat_interleave(block)
    weight = layer.weight.detach()
    shift = (weight.flatten(2).sum(2) if weight.ndim > 2 else weight)[:, ~keep] @ constant[~keep].to(weight)
    if isinstance(layer, nn.Conv2d) and bool(shift.any()) and layer.padding not in (0, (0, 0), "valid"):
        raise UsageError("--shrink: a dropped unit is a constant other than 0 before a padded convolution")
    bias = (layer.bias.detach() if layer.bias is not None else torch.zeros(len(weight))) + shift
    weight = weight[:, keep]
    dead = torch.zeros(len(weight), dtype=torch.bool)
    if behind is not None:
        dead = ~weight.flatten(1).any(dim=1) | ~outgoing(behind.weight.detach(), len(weight)).any(dim=1)  # type: ignore[operator]
        if norm is not None and norm.weight is not None:
            dead |= norm.weight == 0
    if bool(dead.all()):
        dead[0] = False  # a layer keeps one unit, so that the network keeps its shape
    return _resized(layer, weight[~dead], bias[~dead]), _Flow(~dead, torch.where(dead, bias, 0.0), weight.ndim > 2)


def _resized(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Module:
    if isinstance(layer, nn.Linear):
        new: nn.Linear | nn.Conv2d = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        new = nn.Conv2d(
            weight.shape[1], weight.shape[0], layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
            padding_mode=layer.padding_mode,
        )  # fmt: skip
    new.weight.copy_(weight)
    assert new.bias is not None
    new.bias.copy_(bias)
    return new.eval()


def _pass(layer: nn.Module, flow: _Flow) -> tuple[nn.Module, _Flow]:
    """Send the constants through, and cut what has one entry per unit."""
    if isinstance(layer, nn.Dropout | nn.Identity):
        return layer, flow
    if isinstance(layer, POOLING):
        if isinstance(layer, nn.AvgPool2d) and layer.padding not in (0, (0, 0)):
            raise UsageError("--shrink: a padded AvgPool2d changes constants at the border")
        return layer, flow
    if not isinstance(layer, _NORMS):
        return layer, _Flow(flow.keep, layer(flow.constant), flow.spatial)
    if layer.running_mean is None or layer.running_var is None or len(flow.keep) != layer.num_features:
        raise UsageError("--shrink: a normalization without running statistics, or behind a Flatten")
    scale = (layer.running_var + layer.eps).rsqrt() * (layer.weight if layer.affine else 1.0)
    constant = (flow.constant - layer.running_mean) * scale + (layer.bias if layer.affine else 0.0)
    # A unit that its normalization's zero scale switched off is a constant only behind it.
    new = type(layer)(int(flow.keep.sum()), layer.eps, affine=layer.affine)
    for name, value in layer.state_dict().items():
        if value.ndim:
            new.state_dict()[name].copy_(value[flow.keep])
    return new.eval(), _Flow(flow.keep, constant, flow.spatial)
