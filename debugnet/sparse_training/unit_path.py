"""Dense-to-sparse paths over units, with a snapshot for every subset size from one run.

Train dense; then raise lambda step by step, warm-started, until every unit is dropped.  The mask of
each size is stored the moment it first appears (after any minibatch step), so no size is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from debugnet.sparse_training.proximal_training import (
    Batches,
    Diverged,
    ProximalTrainer,
    evaluate,
    full_gradient,
    snapshot,
    train_early_stopping,
)


@dataclass(frozen=True)
class PathOptions:
    """How a path is followed.

    Attributes
    ----------
    lambda_start : float or None
        None finds one: a value at which nothing is dropped yet.
    ratio : float
        lambda <- ratio * lambda between stages that drop units, > 1.
    epochs_per_lambda : int
    dense_epochs, dense_patience : int
        Of the dense start (lambda 0).
    stop_at : int
        The path ends when at most this many units are left.
    max_drop : float
        A stage that drops more than this share of the living units is done again with a smaller
        step in lambda.
    sizes : tuple of int
        Subset sizes whose networks are kept (masks are kept for all).
    polish_epochs, polish_patience : int
        Further training of a kept network at its lambda and on its units; 0 for none.
    max_stages : int
        A bound that a healthy path does not meet.
    """

    lambda_start: float | None = None
    ratio: float = 1.1
    epochs_per_lambda: int = 2
    dense_epochs: int = 100
    dense_patience: int = 10
    stop_at: int = 0
    max_drop: float = 0.2
    sizes: tuple[int, ...] = ()
    polish_epochs: int = 50
    polish_patience: int = 5
    max_stages: int = 2000


@dataclass(frozen=True)
class Stage:
    """One lambda of the path.

    Attributes
    ----------
    lam : float
    n_units : int
        Living units at its end.
    train_loss : float
        Mean minibatch loss of its last epoch.
    validation : dict
        Metrics of the path's own network.
    epochs : int
    """

    lam: float
    n_units: int
    train_loss: float
    validation: dict[str, float]
    epochs: int


@dataclass(frozen=True)
class Subset:
    """The units kept at one size, and the network at that point.

    Attributes
    ----------
    size : int
    lam : float
        Lambda at which this size first appeared.
    mask : ndarray (n_units,), bool
    state : dict or None
        The network (only for the sizes asked for).
    validation : dict
        Metrics of that network.
    max_violation : float
        Largest ``pull / lam - 1`` over the dropped units: <= 0 certifies all of them; NaN = not computed.
    """

    size: int
    lam: float
    mask: np.ndarray
    state: dict[str, Tensor] | None = None
    validation: dict[str, float] = field(default_factory=dict)
    max_violation: float = math.nan


@dataclass
class UnitPath:
    """A finished path.

    Attributes
    ----------
    stages : list of Stage
    subsets : dict
        ``{size: Subset}``, every size that the path went through.
    death : ndarray (n_units,), float64
        Lambda at which each unit was last dropped; inf where it survived the path's end.
    dense : dict
        Validation metrics of the dense network.
    status : str
        "complete", or "diverged": what was reached is kept.
    """

    stages: list[Stage] = field(default_factory=list)
    subsets: dict[int, Subset] = field(default_factory=dict)
    death: np.ndarray = field(default_factory=lambda: np.empty(0))
    dense: dict[str, float] = field(default_factory=dict)
    status: str = "complete"

    @property
    def importance(self) -> np.ndarray:
        """Unit importance: the lambda at which it leaves, (n_units,); inf = never left."""
        return self.death


class UnitPathFitter:
    """Follows one path; iterate it to see every stage as it ends.

    Parameters
    ----------
    trainer : ProximalTrainer
    train : Batches
    validation : Batches or None
    family : str
    options : PathOptions
    """

    def __init__(
        self, trainer: ProximalTrainer, train: Batches, validation: Batches | None, family: str, options: PathOptions
    ) -> None:
        self.trainer, self.train, self.validation, self.family = trainer, train, validation, family
        self.options = options
        self.penalty = trainer.penalties[0]
        self.path = UnitPath(death=np.full(self.penalty.n_units, np.inf))
        self._last_alive = self.penalty.n_units

    def __iter__(self) -> Iterator[Stage]:
        """Run the path; each stage is yielded when it ends."""
        options, penalty = self.options, self.penalty
        self.path.dense, _ = train_early_stopping(
            self.trainer, self.train, self.validation, self.family,
            max_epochs=options.dense_epochs, patience=options.dense_patience,
        )  # fmt: skip
        self._last_alive = int(penalty.alive().sum())
        lam = options.lambda_start or self._find_start()
        ratio, failures = options.ratio, 0
        while len(self.path.stages) < options.max_stages:
            before = self._save()
            try:
                stage = self._run_stage(lam)
            except Diverged:
                failures += 1
                self._restore(before)
                if failures > 3:
                    self.path.status = "diverged"
                    return
                self.trainer.scale_lr(0.5)
                continue
            alive = stage.n_units
            allowed = max(1, math.ceil(options.max_drop * before[1]))
            if before[1] - alive > allowed and ratio > 1.005:
                self._restore(before)
                lam, ratio = lam / ratio * math.sqrt(ratio), math.sqrt(ratio)
                continue
            self.path.stages.append(stage)
            yield stage
            if alive <= options.stop_at:
                return
            # While nothing leaves, go up quickly; as soon as something does, at the asked-for pace.
            ratio = min(ratio**2, 2.0) if alive == before[1] else min(max(ratio, 1.01) ** 1.5, options.ratio)
            lam *= ratio

    def finish(self) -> UnitPath:
        """Train the kept networks on and certify their dropped units; returns the path."""
        for size in sorted(set(self.options.sizes) & set(self.path.subsets), reverse=True):
            subset = self.path.subsets[size]
            if subset.state is not None:
                self.path.subsets[size] = self._polish(subset)
        return self.path

    def _run_stage(self, lam: float) -> Stage:
        loss = math.nan
        for _ in range(self.options.epochs_per_lambda):
            losses = []
            for x, y in self.train:
                losses.append(self.trainer.step(x, y, lam))
                self._note_deaths(lam)
            loss = sum(losses) / max(len(losses), 1)
        metrics = {}
        if self.validation is not None:
            metrics = evaluate(self.trainer.model, self.validation, self.trainer.loss, self.family)
            self._improve_snapshot(lam, metrics)
        return Stage(lam, self._last_alive, loss, metrics, self.options.epochs_per_lambda)

    def _note_deaths(self, lam: float) -> None:
        """Store the mask of every size that this step reached or jumped over."""
        rows = self.penalty.current()
        alive = self.penalty.alive(rows)
        count = int(alive.sum())
        if count == self._last_alive:
            return
        mask = alive.cpu().numpy()
        revived = mask & np.isfinite(self.path.death)
        self.path.death[revived] = np.inf
        newly = ~mask & ~np.isfinite(self.path.death)
        self.path.death[newly] = lam
        smallest = min(self.path.subsets, default=self.penalty.n_units + 1)
        if count < smallest:
            # Units that fell in one step leave in the order of their last momentum-free pull: the
            # one the loss holds least goes first, so that the sizes in between have masks too.
            held = self.penalty.pull(self.penalty.gradient()).cpu().numpy()
            fallen = np.flatnonzero(newly)[np.argsort(-held[newly], kind="stable")]
            for size in range(smallest - 1, count - 1, -1):
                wider = mask.copy()
                wider[fallen[: size - count]] = True
                if wider.sum() == size:
                    state = snapshot(self.trainer.model) if size in self.options.sizes else None
                    self.path.subsets[size] = Subset(size, lam, wider, state)
        self._last_alive = count

    def _improve_snapshot(self, lam: float, metrics: dict[str, float]) -> None:
        """Keep the best network seen at a size whose mask is the one stored."""
        subset = self.path.subsets.get(self._last_alive)
        if subset is None or subset.size not in self.options.sizes:
            return
        same = bool((self.penalty.alive().cpu().numpy() == subset.mask).all())
        if same and metrics["loss"] < subset.validation.get("loss", math.inf):
            state = snapshot(self.trainer.model)
            self.path.subsets[subset.size] = replace(subset, state=state, validation=metrics)

    def _polish(self, subset: Subset) -> Subset:
        """Optimize a kept network at its lambda on its own units, and measure the dropped ones' pull."""
        trainer, options = self.trainer, self.options
        assert subset.state is not None
        trainer.model.load_state_dict(subset.state)
        keep = torch.from_numpy(subset.mask).to(self.penalty.unit_weight.device)
        trainer.keep = keep.to(self.penalty.unit_weight.dtype)
        self._reset_steppers()
        metrics = subset.validation
        if options.polish_epochs:
            metrics, _ = train_early_stopping(
                trainer, self.train, self.validation, self.family, lam=subset.lam,
                max_epochs=options.polish_epochs, patience=options.polish_patience,
            )  # fmt: skip
        trainer.keep = None
        pull = self.penalty.pull(full_gradient(trainer.model, self.penalty, self.train, trainer.loss))
        dropped = pull[~keep]
        violation = float((dropped / subset.lam - 1).max()) if len(dropped) else -1.0
        return replace(subset, state=snapshot(trainer.model), validation=metrics, max_violation=violation)

    def _find_start(self) -> float:
        """Lambda whose pull over one stage is well inside every unit's margin.

        A unit leaves when the loss no longer holds it against lambda, so a thousandth of what the
        strongest unit is held with at zero is a lambda at which the path is still dense.
        """
        rows = self.penalty.current()
        self.penalty.assign(torch.zeros_like(rows))
        pull = self.penalty.pull(full_gradient(self.trainer.model, self.penalty, self.train, self.trainer.loss))
        self.penalty.assign(rows)
        return max(float(pull.max()) * 1e-3, 1e-8)

    def _reset_steppers(self) -> None:
        for stepper in self.trainer.steppers:
            stepper.first = stepper.second = None
            stepper.count = 0

    def _save(self) -> tuple[dict[str, Tensor], int, np.ndarray, dict[int, Subset]]:
        return snapshot(self.trainer.model), self._last_alive, self.path.death.copy(), dict(self.path.subsets)

    def _restore(self, saved: tuple[dict[str, Tensor], int, np.ndarray, dict[int, Subset]]) -> None:
        self.trainer.model.load_state_dict(saved[0])
        _, self._last_alive, self.path.death, self.path.subsets = saved
        self._reset_steppers()


def retrain(
    make_trainer: Callable[[], ProximalTrainer],
    mask: np.ndarray,
    train: Batches,
    validation: Batches | None,
    family: str,
    *,
    max_epochs: int = 100,
    patience: int = 10,
) -> tuple[ProximalTrainer, dict[str, float]]:
    """Train a new network on the kept units only (``--refit``, and the random-subset control).

    Parameters
    ----------
    make_trainer : callable
        Returns a freshly initialised trainer whose first penalty has ``len(mask)`` units.
    mask : ndarray (n_units,), bool
    train : Batches
    validation : Batches or None
        Without it, training runs for all of ``max_epochs``.
    family : str
    max_epochs : int
    patience : int
        Epochs without a lower validation loss after which training ends.

    Returns
    -------
    (trainer, metrics)
        The trained network inside its trainer, and its best validation metrics.
    """
    trainer = make_trainer()
    trainer.keep = torch.from_numpy(mask).to(trainer.penalties[0].unit_weight)
    trainer.penalties[0].assign(trainer.penalties[0].current() * trainer.keep[:, None])
    metrics, _ = train_early_stopping(trainer, train, validation, family, max_epochs=max_epochs, patience=patience)
    return trainer, metrics


def random_masks(n_units: int, size: int, seeds: Sequence[int]) -> list[np.ndarray]:
    """Uniformly random masks of one size, one per seed."""
    masks = []
    for seed in seeds:
        mask = np.zeros(n_units, dtype=bool)
        mask[np.random.default_rng(seed).choice(n_units, size=size, replace=False)] = True
        masks.append(mask)
    return masks
