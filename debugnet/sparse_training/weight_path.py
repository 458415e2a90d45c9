"""spred on any network: a dense-to-sparse path over lambda, finished by proximal steps, and what it compares to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from debugnet.sparse_training.proximal_training import Batches, Diverged, Loss, snapshot
from debugnet.sparse_training.spred import Spred


@dataclass(frozen=True)
class WeightTraining:
    """How weights are trained.

    Attributes
    ----------
    patterns : sequence of str
        Of the weights made sparse.
    structure : str
    optimizer : str
        "adam" or "sgd" (momentum 0.9), both with coupled decay.
    lr : float
        Falls to zero by a cosine over the epochs of each lambda.
    epochs, polish_epochs : int
        Per lambda; of the proximal polish after it.
    """

    patterns: Sequence[str]
    structure: str = "element"
    optimizer: str = "adam"
    lr: float = 1e-3
    epochs: int = 20
    polish_epochs: int = 5

    def make_optimizer(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        """The optimizer on given parameter groups."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        return torch.optim.Adam(groups, lr=self.lr)


def sparse_weights(network: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The plain weights that the patterns name, by full name (see :class:`Spred`)."""
    found = Spred(copy.deepcopy(network), patterns)
    parameters = dict(network.named_parameters())
    return {weight.path: parameters[weight.path] for weight in found.weights}


def train_plain(
    network: nn.Module,
    how: WeightTraining,
    train: Batches,
    loss: Loss,
    epochs: int,
    masks: dict[str, Tensor] | None = None,
) -> None:
    """Train without penalty; weights outside ``masks`` are held at zero."""
    optimizer = how.make_optimizer([{"params": list(network.parameters()), "weight_decay": 0.0}])
    _run(network, optimizer, train, loss, epochs, after=lambda: _apply(network, masks or {}))


def spred_step(network: nn.Module, how: WeightTraining, train: Batches, loss: Loss, lam: float) -> dict[str, int]:
    """Train the named weights as products at ``lam``, collapse them, and polish to exact zeros; in place.

    Returns
    -------
    dict
        ``zeros_before_polish``, ``below_1e-3`` (products a user would prune), ``total``.
    """
    spred = Spred(network, how.patterns, structure=how.structure)
    optimizer = how.make_optimizer(spred.parameter_groups(lam))
    spred.check_optimizer(optimizer)
    _run(network, optimizer, train, loss, how.epochs)
    spred.collapse()
    values = torch.cat([getattr(w.module, w.name).detach().flatten() for w in spred.weights])
    told = {
        "zeros_before_polish": int((values == 0).sum()),
        "below_1e-3": int((values.abs() < 1e-3).sum()),
        "total": len(values),
    }
    names = {w.path for w in spred.weights}
    others = [p for name, p in network.named_parameters() if name not in names]
    rest = how.make_optimizer([{"params": others, "weight_decay": 0.0}]) if others else None
    lr = how.lr * 10 if how.optimizer == "adam" else how.lr
    _run(network, rest, train, loss, how.polish_epochs, after=lambda: spred.proximal_step(lr, lam))
    return told


def l1_step(network: nn.Module, how: WeightTraining, train: Batches, loss: Loss, lam: float) -> None:
    """Train with ``lam ||V||_1`` added to the loss: plain L1 by (sub)gradient, which has no exact zeros."""
    weights = list(sparse_weights(network, how.patterns).values())
    optimizer = how.make_optimizer([{"params": list(network.parameters()), "weight_decay": 0.0}])

    def penalized(outputs: Tensor, y: Tensor) -> Tensor:
        return loss(outputs, y) + lam * torch.stack([w.abs().sum() for w in weights]).sum()

    _run(network, optimizer, train, penalized, how.epochs + how.polish_epochs)


def magnitude_masks(network: nn.Module, patterns: Sequence[str], count: int) -> dict[str, Tensor]:
    """Masks of the ``count`` largest named weights, over all of them together."""
    weights = {name: p.detach() for name, p in sparse_weights(network, patterns).items()}
    values = torch.cat([w.abs().flatten() for w in weights.values()])
    if count <= 0:
        return {name: torch.zeros_like(w, dtype=torch.bool) for name, w in weights.items()}
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[values.topk(min(count, len(values))).indices] = True
    parts = chosen.split([w.numel() for w in weights.values()])
    return {name: part.reshape(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}


def prune(network: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set every weight outside the masks to zero."""
    _apply(network, masks)


@torch.no_grad()
def _apply(network: nn.Module, masks: dict[str, Tensor]) -> None:
    parameters = dict(network.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def _run(
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    train: Batches,
    loss: Loss,
    epochs: int,
    after: Callable[[], None] | None = None,
) -> None:
    """Train with a cosine schedule; a diverging run is rolled back and done again at half the step, three times."""
    start = snapshot(network)
    for attempt in range(4):
        try:
            _epochs(network, optimizer, train, loss, epochs, after)
            return
        except Diverged:
            if attempt == 3:
                raise
            network.load_state_dict(start)
            for group in optimizer.param_groups if optimizer else ():
                group["lr"] = group["initial_lr"] = group.get("initial_lr", group["lr"]) / 2
            if optimizer:
                optimizer.state.clear()


def _epochs(
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    train: Batches,
    loss: Loss,
    epochs: int,
    after: Callable[[], None] | None,
) -> None:
    schedule = None
    if optimizer is not None:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(train)))
    network.train()
    for _ in range(epochs):
        for x, y in train:
            network.zero_grad(set_to_none=True)
            value = loss(network(x), y)
            if not math.isfinite(float(value.detach())):
                raise Diverged(f"the loss became {float(value.detach())}")
            value.backward()
            if optimizer is not None and schedule is not None:
                optimizer.step()
                schedule.step()
            if after is not None:
                after()
