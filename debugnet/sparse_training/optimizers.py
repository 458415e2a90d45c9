"""torch optimizers by name, and whether their weight decay is one that spred can use."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from debugnet.errors import UsageError

#: They need a closure, sparse gradients, or matrices only: not for a training loop over any network.
_UNFIT = ("lbfgs", "sparseadam", "muon")
#: Of SGD.
MOMENTUM = 0.9


def optimizer_names() -> list[str]:
    """Names that :func:`make_optimizer` knows: torch's classes, in lower case."""
    found = (value for value in vars(torch.optim).values() if isinstance(value, type))
    names = {c.__name__.lower() for c in found if issubclass(c, torch.optim.Optimizer)}
    return sorted(names - {"optimizer", *_UNFIT})


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter] | list[dict[str, Any]], lr: float
) -> torch.optim.Optimizer:
    """Make a torch optimizer without weight decay of its own (SGD with momentum 0.9).

    Parameters
    ----------
    name : str
        In any case: "adam", "SGD", "rmsprop" ...
    parameters : parameters, or parameter groups
    lr : float

    Raises
    ------
    UsageError
        An unknown name.
    """
    classes = {key.lower(): value for key, value in vars(torch.optim).items()}
    if name.lower() not in optimizer_names():
        raise UsageError(f"--optimizer {name}: torch has {', '.join(optimizer_names())}")
    make: Any = classes[name.lower()]
    known = inspect.signature(make).parameters
    more: dict[str, Any] = {"momentum": MOMENTUM} if name.lower() == "sgd" else {}
    given: list[Any] = list(parameters)
    tensors = [p for item in given for p in (item["params"] if isinstance(item, dict) else [item])]
    if "fused" in known and all(p.device.type in ("cpu", "cuda") for p in tensors):
        more["fused"] = True  # one kernel per step: of a small network's step, Adam's loop over weights is a quarter
    more |= {decay: 0.0 for decay in ("weight_decay", "lambd") if decay in known}
    optimizer: torch.optim.Optimizer = make(given, lr=lr, **more)
    return optimizer


def decay_is_coupled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weight decay is part of the gradient, as in ``loss + (decay / 2) ||w||^2``.

    Tried out on a weight w whose gradient is ``-decay w``: the two cancel, so nothing may move.
    Decay apart from the gradient (AdamW), or of another size, moves it; so does none at all.
    """
    weight = nn.Parameter(torch.tensor([1.0, -0.5]))
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = [{**optimizer.param_groups[0], "params": [weight], "weight_decay": 0.5}]
    before = weight.detach().clone()
    weight.grad = -0.5 * before
    try:
        probe.step()
    except (TypeError, RuntimeError, ValueError):
        return False
    return bool((weight.detach() == before).all())
