"""Minibatch training with exact proximal steps on penalized units.

The penalized block is trained by :class:`UnitAdam`, everything else by any torch optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.sparse_training.compiled_steps import CompiledSteps, fits
from debugnet.sparse_training.losses import Diverged, Loss
from debugnet.sparse_training.penalties import UnitPenalty
from debugnet.sparse_training.unit_adam import UnitAdam

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass
class Batches:
    """Minibatches of arrays, in a new seeded order each time they are iterated.

    Parameters
    ----------
    X : Tensor or ndarray (n, *shape)
        A tensor is sliced where it lies; an ndarray (a memmap too) is read batch by batch.
    y : Tensor (n,) or (n, K)
    size : int
        Samples in a batch; the last one may be smaller.
    seed : int
    shuffle : bool
    device : str
    """

    X: Tensor | np.ndarray
    y: Tensor
    size: int = 256
    seed: int = 0
    shuffle: bool = True
    device: str = "cpu"
    _epoch: int = field(default=0, repr=False)

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self.y), generator=generator) if self.shuffle else torch.arange(len(self.y))
        self._epoch += self.shuffle
        for index in order.split(self.size):
            if isinstance(self.X, Tensor):
                x = self._take(self.X, index)
            else:
                index = index.sort().values
                x = torch.from_numpy(np.asarray(self.X[index.numpy()], dtype=np.float32)).to(self.device)
            yield x, self._take(self.y, index)

    def _take(self, values: Tensor, index: Tensor) -> Tensor:
        if values.is_cpu and self.device == "cpu":
            return values.index_select(0, index)  # moving from CPU to CPU would cost as much as the rows themselves
        return values[index.to(values.device)].to(self.device)


class ProximalTrainer:
    """Trains a network whose units are under one or more penalties.

    Parameters
    ----------
    model : nn.Module
        Raw samples in, outputs (n, K) out.
    penalties : sequence of UnitPenalty
        A path counts the units of all of them together.
    loss : callable
        (outputs, targets) -> mean loss.
    optimizer : callable
        Makes the optimizer of all weights that are under no penalty.
    lr : float
        Step of the penalized block.
    prox_every : int
        Proximal step after every so many gradient steps, with that many times the threshold.
    amp : bool
        Run the forward pass in bfloat16 (gradients, proximal steps and weights stay in float32).

    Attributes
    ----------
    keep : Tensor or None
        Units that may be non-zero, (n_units,) bool; None for all.
    living : Tensor
        Units with a non-zero row after the last step, (n_units,) bool.
    slopes : list of Tensor
        Gradient rows of the last step, per penalty.
    caps : list of float or None
        Largest norm of every weight matrix without a penalty (:meth:`hold_norms`).
    """

    def __init__(
        self,
        model: nn.Module,
        penalties: Sequence[UnitPenalty],
        loss: Loss,
        *,
        optimizer: OptimizerFactory,
        lr: float = 1e-3,
        prox_every: int = 1,
        amp: bool = False,
    ) -> None:
        self.model, self.penalties, self.loss = model, list(penalties), loss
        self.penalized = [p for penalty in self.penalties for p in penalty.parameters]
        names = {id(p) for p in self.penalized}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in names]
        self.optimizer = optimizer(others) if others else None
        self.steppers = [UnitAdam(lr) for _ in self.penalties]
        self.prox_every, self.amp = prox_every, amp
        self._parameters = list(model.parameters())
        self._matrices = [p for p in others if p.ndim > 1]
        self.keep: Tensor | None = None
        self.caps: list[float] | None = None
        self._count = 0
        self.living = torch.ones(self.n_units, dtype=torch.bool)
        self.slopes: list[Tensor] = []

    @property
    def n_units(self) -> int:
        """Units of all penalties together."""
        return sum(penalty.n_units for penalty in self.penalties)

    def alive(self) -> Tensor:
        """Units with a non-zero row, (n_units,) bool."""
        return torch.cat([penalty.alive() for penalty in self.penalties])

    def pull(self) -> Tensor:
        """:meth:`UnitPenalty.pull` of the last step's gradients, (n_units,)."""
        return torch.cat([p.pull(slopes) for p, slopes in zip(self.penalties, self.slopes, strict=True)])

    def hold_norms(self, growth: float = 1.0) -> None:
        """Cap the norm of every weight matrix that is under no penalty at ``growth`` times what it is now.

        Penalized weights that shrink while a later layer grows leave a ReLU network's outputs as
        they are: without a cap the penalty has no minimizer but the dense network at scale zero,
        and what a path selects depends on how fast the later layers happen to grow.
        """
        self.caps = [growth * float(torch.linalg.vector_norm(p.detach())) for p in self._matrices]

    def drop_others(self) -> None:
        """Set every unit outside ``keep`` to zero."""
        for penalty, keep in zip(self.penalties, self._kept(), strict=True):
            if keep is not None:
                penalty.assign(penalty.current() * keep[:, None])

    def reset(self) -> None:
        """Forget all momentum of the penalized block."""
        for stepper in self.steppers:
            stepper.first = stepper.second = None
            stepper.count = 0

    def _kept(self) -> list[Tensor | None]:
        if self.keep is None:
            return [None] * len(self.penalties)
        parts = self.keep.split([penalty.n_units for penalty in self.penalties])
        return [part.to(penalty.unit_weight) for part, penalty in zip(parts, self.penalties, strict=True)]

    def scale_lr(self, factor: float) -> None:
        """Multiply all step sizes."""
        for stepper in self.steppers:
            stepper.lr *= factor
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] *= factor

    def step(self, x: Tensor, y: Tensor, lam: float) -> float:
        """One minibatch step at ``lam``; returns the batch's loss.

        Units outside ``self.keep`` (a boolean over all units, None for all) are held at zero.

        Raises
        ------
        Diverged
        """
        if not self.model.training:
            self.model.train()
        for parameter in self._parameters:
            parameter.grad = None
        value = self.loss(self._outputs(x), y)
        value.backward()
        loss = float(value.detach())
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss}")
        if self.optimizer:
            self.optimizer.step()
        if self.caps is not None:
            self._cap()
        living = []
        threshold = self.next_threshold(lam)
        self.slopes = [penalty.gradient() for penalty in self.penalties]
        for penalty, stepper, keep, slopes in zip(
            self.penalties, self.steppers, self._kept(), self.slopes, strict=True
        ):
            rows, step = stepper.step(penalty.current(), slopes)
            if threshold:
                rows = penalty.prox(rows, step, threshold)
            if keep is not None:
                rows = rows * keep[:, None]
            penalty.assign(rows)
            living.append(penalty.alive(rows))
        self.living = torch.cat(living) if living else self.living
        return loss

    @contextmanager
    def steps(self, batch: int) -> Iterator[Callable[[Tensor, Tensor, float], float]]:
        """:meth:`step` for many minibatches, of up to ``batch`` samples, compiled as a whole where it can be.

        Network and optimizer are up to date when the context ends.
        """
        if not fits(self, batch):
            yield self.step
            return
        compiled = CompiledSteps(self)
        try:
            yield compiled.step
        finally:
            compiled.close()

    def next_threshold(self, lam: float) -> float:
        """Count one more step; lambda times ``prox_every`` where it is one with a proximal step, else 0."""
        self._count += 1
        return lam * self.prox_every if self._count % self.prox_every == 0 else 0.0

    def _outputs(self, x: Tensor) -> Tensor:
        if not self.amp:
            return self.model(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs: Tensor = self.model(x)
        return outputs.float()

    @torch.no_grad()
    def _cap(self) -> None:
        for matrix, cap in zip(self._matrices, self.caps or (), strict=True):
            norm = float(torch.linalg.vector_norm(matrix))
            if norm > cap:
                matrix.mul_(cap / norm)

    def epoch(self, batches: Batches, lam: float) -> float:
        """One pass over the batches; returns the mean of the batch losses."""
        with self.steps(batches.size) as step:
            losses = [step(x, y, lam) for x, y in batches]
        return sum(losses) / max(len(losses), 1)


@torch.no_grad()
def predict(model: nn.Module, batches: Batches) -> Tensor:
    """Outputs (n, K) of all samples, in order, on the CPU."""
    model.eval()
    ordered = Batches(batches.X, batches.y, max(batches.size, 1024), shuffle=False, device=batches.device)
    return torch.cat([model(x).float().cpu() for x, _ in ordered])


def evaluate(model: nn.Module, batches: Batches, loss: Loss, family: str) -> dict[str, float]:
    """Mean loss and accuracy (R2 for gaussian) over all samples."""
    outputs, y = predict(model, batches), batches.y.cpu()
    if family == "gaussian":
        target = y.reshape(outputs.shape).to(outputs.dtype)
        residual = (outputs - target).square().sum(dim=0)
        score = float((1 - residual / (target - target.mean(dim=0)).square().sum(dim=0)).mean())
        return {"loss": float(loss(outputs, y)), "r2": score, "accuracy": score}
    if family == "multinomial":
        right = (outputs.argmax(dim=1) == y).float()
    else:
        right = ((outputs > 0) == y.reshape(outputs.shape).bool()).float()
    return {"loss": float(loss(outputs, y)), "accuracy": float(right.mean())}


def full_gradient(model: nn.Module, penalties: Sequence[UnitPenalty], batches: Batches, loss: Loss) -> list[Tensor]:
    """Gradient rows (n_units, q) of the mean loss over all samples, per penalty, in eval mode."""
    model.eval()
    ordered = Batches(batches.X, batches.y, max(batches.size, 1024), shuffle=False, device=batches.device)
    total = [torch.zeros_like(penalty.current()) for penalty in penalties]
    for x, y in ordered:
        for parameter in model.parameters():
            parameter.grad = None
        loss(model(x), y).backward()
        for sum_, penalty in zip(total, penalties, strict=True):
            sum_ += penalty.gradient() * (len(y) / len(batches.y))
    return total


def full_pull(trainer: ProximalTrainer, batches: Batches) -> Tensor:
    """:meth:`UnitPenalty.pull` of the gradient over all samples, (n_units,), on the CPU."""
    rows = full_gradient(trainer.model, trainer.penalties, batches, trainer.loss)
    return torch.cat([penalty.pull(part) for penalty, part in zip(trainer.penalties, rows, strict=True)]).cpu()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the state of a model to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def train_early_stopping(
    trainer: ProximalTrainer,
    train: Batches,
    validation: Batches | None,
    family: str,
    *,
    lam: float = 0.0,
    max_epochs: int = 100,
    patience: int = 10,
    min_epochs: int = 1,
) -> tuple[dict[str, float], int]:
    """Train at one lambda until the validation loss stops falling, and go back to the best epoch.

    Without validation data, runs ``max_epochs``.

    Returns
    -------
    (metrics, epochs)
        The best validation metrics (empty without validation data).
    """
    best: dict[str, float] = {}
    state: dict[str, Tensor] | None = None
    since, epoch = 0, 0
    for epoch in range(1, max_epochs + 1):
        trainer.epoch(train, lam)
        if validation is None:
            continue
        metrics = evaluate(trainer.model, validation, trainer.loss, family)
        if not best or metrics["loss"] < best["loss"] * (1 - 1e-4):
            best, state, since = metrics, snapshot(trainer.model), 0
        else:
            since += 1
            if since >= patience and epoch >= min_epochs:
                break
    if state is not None:
        trainer.model.load_state_dict(state)
    return best, epoch
