"""spred on any network: a dense-to-sparse path over lambda, finished by proximal steps, and what it compares to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from debugnet.sparse_training.epoch_training import EpochTraining
from debugnet.sparse_training.losses import Loss
from debugnet.sparse_training.optimizers import MOMENTUM, make_optimizer
from debugnet.sparse_training.proximal import sparse_group_prox
from debugnet.sparse_training.proximal_training import Batches
from debugnet.sparse_training.spred import Spred
from debugnet.sparse_training.unit_adam import UnitAdam


@dataclass(frozen=True)
class WeightTraining:
    """How weights are trained.

    Attributes
    ----------
    patterns : sequence of str
        Of the weights made sparse.
    structure : str
    optimizer : str
        A torch optimizer whose decay is coupled (:func:`optimizers.decay_is_coupled`).
    lr : float
        Falls to zero by a cosine over the epochs of each phase.
    epochs : int
        At each lambda, of the factors.
    polish_epochs : int
        Of the proximal polish after them, and once more of training on what is left.
    amp : bool
        Forward passes in bfloat16.
    """

    patterns: Sequence[str]
    structure: str = "element"
    optimizer: str = "adam"
    lr: float = 1e-3
    epochs: int = 20
    polish_epochs: int = 5
    amp: bool = False


def sparse_weights(network: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The plain weights that the patterns name, by full name (see :class:`Spred`)."""
    found = Spred(copy.deepcopy(network), patterns)
    parameters = dict(network.named_parameters())
    return {weight.path: parameters[weight.path] for weight in found.weights}


class WeightTrainer:
    """Trains networks one way or the other on the same batches.

    Parameters
    ----------
    how : WeightTraining
    train : Batches
    loss : callable
    seed : int
        Every phase begins with this seed and with the same order of batches.
    folder : Path, optional
        Where an interrupted phase keeps its state, and takes it from.
    """

    def __init__(
        self, how: WeightTraining, train: Batches, loss: Loss, seed: int = 0, folder: Path | None = None
    ) -> None:
        self.how, self.train, self.loss, self.seed, self.folder = how, train, loss, seed, folder

    def plain(self, network: nn.Module, epochs: int, name: str, masks: dict[str, Tensor] | None = None) -> None:
        """Train without penalty, in place; weights outside ``masks`` are held at zero."""
        optimizer = make_optimizer(self.how.optimizer, list(network.parameters()), self.how.lr)
        prune(network, masks or {})
        self._run(network, optimizer, epochs, name, after=lambda _: prune(network, masks or {}))

    def l1(self, network: nn.Module, lam: float, name: str) -> None:
        """Train with ``lam ||V||_1`` added to the loss: plain L1 by (sub)gradient, which has no exact zeros."""
        spred = Spred(copy.deepcopy(network), self.how.patterns, structure=self.how.structure)
        parameters = dict(network.named_parameters())
        weights = [(weight, parameters[weight.path]) for weight in spred.weights]

        def penalized(outputs: Tensor, y: Tensor) -> Tensor:
            norms = [torch.linalg.vector_norm(spred.units(w, value), dim=1).sum() for w, value in weights]
            return self.loss(outputs, y) + lam * torch.stack(norms).sum()

        optimizer = make_optimizer(self.how.optimizer, list(network.parameters()), self.how.lr)
        self._run(network, optimizer, self.how.epochs, name, loss=penalized)

    def spred(self, network: nn.Module, lam: float, name: str) -> dict[str, int]:
        """Train the named weights as products at ``lam``, collapse them, and polish to exact zeros; in place.

        Returns
        -------
        dict
            ``zeros_before_polish``, ``below_1e-3`` (products a user would prune), ``total``.
        """
        how = self.how
        spred = Spred(network, how.patterns, structure=how.structure)
        optimizer = make_optimizer(how.optimizer, spred.parameter_groups(lam), how.lr)
        spred.check_optimizer(optimizer)
        self._run(network, optimizer, how.epochs, name)
        spred.collapse()
        values = torch.cat([getattr(w.module, w.name).detach().flatten() for w in spred.weights])
        told = {
            "zeros_before_polish": int((values == 0).sum()),
            "below_1e-3": int((values.abs() < 1e-3).sum()),
            "total": len(values),
        }
        names = {w.path for w in spred.weights}
        others = [p for parameter, p in network.named_parameters() if parameter not in names]
        rest = make_optimizer(how.optimizer, others, how.lr) if others else None
        polish = ProximalPolish(spred, how.optimizer, how.lr, lam)
        self._run(network, rest, how.polish_epochs, f"{name}-polish", after=polish.step)
        return told

    def _run(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        epochs: int,
        name: str,
        *,
        loss: Loss | None = None,
        after: Callable[[float], None] | None = None,
    ) -> None:
        torch.manual_seed(self.seed)
        file = None if self.folder is None or name.endswith("-polish") else self.folder / f"training-{name}.safetensors"
        training = EpochTraining(network, optimizer, self.train, loss or self.loss, amp=self.how.amp, file=file)
        training.run(epochs, after)


class ProximalPolish:
    """Proximal steps on the plain weights, in the metric of the optimizer: exact zeros where the penalty wins.

    After SGD with momentum mu: plain proximal gradient steps of ``lr / (1 - mu)``.  After any other
    optimizer: :class:`UnitAdam`, with one step size per weight (or group), so that the prox is exact.

    Parameters
    ----------
    spred : Spred
        Collapsed.
    optimizer : str
    lr, lam : float
    """

    def __init__(self, spred: Spred, optimizer: str, lr: float, lam: float) -> None:
        self.spred, self.lam, self.lr = spred, lam, lr
        self.steppers = None if optimizer.lower() == "sgd" else [UnitAdam(lr) for _ in spred.weights]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step on every weight, ``factor`` times the full step size."""
        for i, weight in enumerate(self.spred.weights):
            value = getattr(weight.module, weight.name)
            rows = self.spred.units(weight, value)
            gradient = torch.zeros_like(rows) if value.grad is None else self.spred.units(weight, value.grad)
            if self.steppers is None:
                step = rows.new_full((len(rows),), self.lr * factor / (1 - MOMENTUM))
                rows = rows - step[:, None] * gradient
            else:
                self.steppers[i].lr = self.lr * factor
                rows, step = self.steppers[i].step(rows, gradient)
            value.copy_(self.spred.from_units(weight, sparse_group_prox(rows, step * self.lam)))


def magnitude_masks(
    network: nn.Module, patterns: Sequence[str], count: int, structure: str = "element"
) -> dict[str, Tensor]:
    """Masks of at most ``count`` named weights, the largest over all of them together.

    With a structure, whole rows or columns go, those with the smallest root mean square first.
    """
    spred = Spred(copy.deepcopy(network), patterns, structure=structure)
    rows = [spred.units(w, getattr(w.module, w.name).detach()) for w in spred.weights]
    scores = torch.cat([part.square().mean(dim=1) for part in rows])
    sizes = torch.cat([torch.full((len(part),), part.shape[1]) for part in rows])
    order = scores.argsort(descending=True, stable=True).cpu()
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[order[sizes[order].cumsum(0) <= count]] = True
    parts = chosen.to(scores.device).split([len(part) for part in rows])
    return {
        weight.path: spred.from_units(weight, part[:, None].expand_as(whole))
        for weight, part, whole in zip(spred.weights, parts, rows, strict=True)
    }


@torch.no_grad()
def prune(network: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set every weight outside the masks to zero."""
    parameters = dict(network.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def support(network: nn.Module, patterns: Sequence[str]) -> dict[str, Tensor]:
    """Masks of the named weights that are not zero."""
    return {name: (p != 0).detach() for name, p in sparse_weights(network, patterns).items()}
