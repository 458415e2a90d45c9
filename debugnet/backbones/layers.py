"""Reading deep features out of a forward pass: hooks, pooling, and the check of the decision layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.errors import InputError, UsageError

#: How far W z + b may lie from the network's logits, relative to the largest logit: room for the
#: reduced-precision kernels of GPUs, far below what any other structure of the last layer would give.
HEAD_TOLERANCE = 1e-3


class DenseHead(NamedTuple):
    """The network's own decision layer, logits = weight @ z + bias.

    Attributes
    ----------
    weight : ndarray (K, d), float64
    bias : ndarray (K,), float64
    """

    weight: np.ndarray
    bias: np.ndarray


class FeatureTap:
    """Where in a network the features are read, and how they become one vector per sample.

    Parameters
    ----------
    network : Module
    layer : str
        Name of the module ("" is the network itself).
    at : {"input", "output"}
        Which side of it.
    pooling : str, optional
        One of :data:`~debugnet.backbones.spec.POOLINGS`; None where the layer gives (n, d) already.
    """

    def __init__(self, network: nn.Module, layer: str, at: str, pooling: str | None = None) -> None:
        self.network, self.layer, self.at, self.pooling = network, layer, at, pooling

    def __call__(self, forward: Callable[[], Any], mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Run ``forward`` once.

        Parameters
        ----------
        forward : callable
            Runs the network and returns its output.
        mask : Tensor (n, T), optional
            1 for tokens, 0 for padding.

        Returns
        -------
        features : Tensor (n, d)
        output : object
            What ``forward`` returned.
        """
        seen: list[Any] = []
        with _hooked(self.network.get_submodule(self.layer), self.at, seen.append):
            output = forward()
        if not seen:
            raise UsageError(f"layer '{self.layer}' took no part in the forward pass: choose another --layer")
        value = seen[-1]
        if self.pooling == "pooler":
            return _pooler_output(value, self.layer), output
        return pool(_first_tensor(value), self.pooling, mask, self.layer), output


def pool(value: Tensor, pooling: str | None, mask: Tensor | None, layer: str) -> Tensor:
    """Make one vector per sample of a layer's output.

    Parameters
    ----------
    value : Tensor (n, d), (n, C, H, W) or (n, T, C)
    pooling : str or None
        For maps avg (the default), max, flatten; for token sequences cls, mean, last.
    mask : Tensor (n, T), optional
        1 for tokens, 0 for padding; all tokens count without it.
    layer : str
        Named in errors.

    Returns
    -------
    Tensor (n, d)
    """
    shape = tuple(value.shape)
    if pooling == "flatten" and value.ndim > 1:
        return value.flatten(1)
    if value.ndim == 2:
        if pooling is not None:
            raise UsageError(f"layer '{layer}' gives one vector per sample {shape}: drop --pool {pooling}")
        return value
    if value.ndim == 4 and pooling in (None, "avg", "max"):
        return value.amax(dim=(2, 3)) if pooling == "max" else value.mean(dim=(2, 3))
    if value.ndim == 3 and pooling in ("cls", "mean", "last"):
        return _pool_tokens(value, pooling, mask)
    choices = {4: "avg, max or flatten", 3: "cls, mean, last or flatten"}.get(value.ndim)
    if choices is None:
        raise UsageError(f"layer '{layer}' gives {shape}, which cannot be pooled to one vector per sample")
    instead = f", not {pooling}" if pooling else ""
    raise UsageError(f"layer '{layer}' gives {shape}: choose --pool {choices}{instead}")


def _pool_tokens(value: Tensor, pooling: str, mask: Tensor | None) -> Tensor:
    if mask is None:
        mask = torch.ones(value.shape[:2], dtype=torch.long, device=value.device)
    elif mask.shape != value.shape[:2]:
        raise UsageError(f"tokens {tuple(value.shape)} do not go with the attention mask {tuple(mask.shape)}")
    if pooling == "mean":
        weights = mask.to(value.dtype)[:, :, None]
        return (value * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    # Padding may be on either side: the first and the last token are those of the mask.
    masked = positions * mask if pooling == "last" else positions * mask + mask.shape[1] * (1 - mask)
    chosen = masked.argmax(dim=1) if pooling == "last" else masked.argmin(dim=1)
    return value[torch.arange(len(value), device=value.device), chosen]


def find_head(network: nn.Module, forward: Callable[[], Any], mask: Tensor | None = None) -> FeatureTap:
    """Find the network's decision layer: the last Linear that ran, checked to give the logits.

    Parameters
    ----------
    network : Module
    forward : callable
        Runs the network on at least two samples.
    mask : Tensor (n, T), optional

    Returns
    -------
    FeatureTap
        On the input of that layer.

    Raises
    ------
    InputError
        If no Linear gives the logits as W z + b; the message shows the shapes.
    """
    ran: list[str] = []
    with _all_linears_hooked(network, ran.append):
        output = forward()
    scores = logits_of(output)
    if scores.ndim != 2:
        raise InputError(f"the network's output is {tuple(scores.shape)}, not (samples, classes): choose --layer")
    names = [n for n in ran if network.get_submodule(n).out_features == scores.shape[1]]
    if not names:
        raise InputError(
            f"no Linear layer gives the network's {scores.shape[1]} outputs (the last to run: "
            f"{ran[-1] if ran else 'none at all'}): choose the feature with --layer"
        )
    head = network.get_submodule(names[-1])
    assert isinstance(head, nn.Linear)
    for pooling in (None, "last"):
        tap = FeatureTap(network, names[-1], "input", pooling)
        try:
            features, output = tap(forward, mask)
        except UsageError:  # (n, T, C): per-token scores, of which causal models keep the last token's
            continue
        check = check_head(head, features, logits_of(output))
        if check is None:
            return tap
    raise InputError(f"the feature cannot be the input of '{names[-1]}': {check}; choose it with --layer")


def check_head(linear: nn.Linear, features: Tensor, logits: Tensor) -> str | None:
    """Say why ``linear(features)`` is not ``logits``, or None when it is."""
    if features.shape[-1] != linear.in_features or logits.shape != (len(features), linear.out_features):
        return (
            f"it maps {linear.in_features} to {linear.out_features}, the feature is {tuple(features.shape)} "
            f"and the logits are {tuple(logits.shape)}"
        )
    with torch.no_grad():
        error = (linear(features.to(linear.weight.dtype)) - logits).abs().max().item()
        largest = logits.abs().max().item()
    if not error <= HEAD_TOLERANCE * max(1.0, largest):
        return f"W z + b differs from the logits by {error:.2g} (largest logit {largest:.2g})"
    return None


def dense_head(linear: nn.Linear) -> DenseHead:
    """Copy a Linear layer's weight and bias (zeros where it has none) to float64 arrays."""
    weight = linear.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.detach().double().cpu().numpy()
    return DenseHead(weight, bias)


def logits_of(output: Any) -> Tensor:
    """Take the scores out of what a network returned (a tensor, a tuple, a Hugging Face output)."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else _first_tensor(output)


def _first_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    items = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(items, (list, tuple)) and items and isinstance(items[0], Tensor):
        return items[0]
    raise UsageError(f"cannot read a tensor out of a {type(value).__name__}: choose another --layer")


def _pooler_output(value: Any, layer: str) -> Tensor:
    pooled = getattr(value, "pooler_output", None)
    if pooled is None:
        raise UsageError(f"layer '{layer}' has no pooler output: choose --pool cls or --pool mean")
    return pooled


@contextmanager
def _hooked(module: nn.Module, at: str, see: Callable[[Any], None]) -> Iterator[None]:
    """Show the module's input or output to ``see`` while the block runs; the hook never outlives it."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(args[0] if args else next(iter(kwargs.values())))

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        see(output)

    if at == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _all_linears_hooked(network: nn.Module, see: Callable[[str], None]) -> Iterator[None]:
    """Report the name of every Linear that runs, in order."""
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: see(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
