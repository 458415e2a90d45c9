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
    full_pull,
    snapshot,
    train_early_stopping,
)

#: Stages that may diverge (each is rolled back, and the step halved) before the path ends.
MAX_FAILURES = 4


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

    The optimality condition of a dropped unit j is ``pull_j <= lam`` (:meth:`UnitPenalty.pull`).
    It is about the weights as they are at ``lam``; once the kept units are trained on alone
    (``polished``), the loss gradient at the dropped ones is another, and it is measured again.

    Attributes
    ----------
    size : int
    lam : float
        Lambda at which this mask was reached.
    mask : ndarray (n_units,), bool
    settled : bool
        Whether a stage ended with this mask; else the path only went through it between two stages.
    state : dict or None
        The network (only for the sizes asked for).
    network_lam : float
        Lambda of that network.  Of a mask that no stage ended with, it is the one before: what the
        network becomes on these units at ``lam`` itself is on its way to losing more of them.
    validation : dict
        Metrics of that network.
    max_violation : float
        Largest ``pull / lam - 1`` over the dropped units, all train rows, at the path's own network:
        <= 0 certifies all of them; NaN = not computed.
    violators : int
        Dropped units whose condition does not hold there.
    polished_violation : float
        ``max_violation`` of the network after polishing; NaN where there was none.
    """

    size: int
    lam: float
    mask: np.ndarray
    settled: bool = False
    state: dict[str, Tensor] | None = None
    network_lam: float = math.nan
    validation: dict[str, float] = field(default_factory=dict)
    max_violation: float = math.nan
    violators: int = -1
    polished_violation: float = math.nan


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
    """Follows one path; iterate it to see every stage as it ends, and call :meth:`finish` then.

    The units of all of the trainer's penalties are counted together, in their order.  Dropped
    units stay in the proximal step, so the path re-admits a unit whose condition stops holding.

    Parameters
    ----------
    trainer : ProximalTrainer
    train : Batches
    validation : Batches or None
    family : str
    options : PathOptions
    checkpoint : callable, optional
        Called with the fitter after the dense start and after every stage.
    """

    def __init__(
        self,
        trainer: ProximalTrainer,
        train: Batches,
        validation: Batches | None,
        family: str,
        options: PathOptions,
        checkpoint: Callable[[UnitPathFitter], None] | None = None,
    ) -> None:
        self.trainer, self.train, self.validation, self.family = trainer, train, validation, family
        self.options, self.checkpoint = options, checkpoint
        self.path = UnitPath(death=np.full(trainer.n_units, np.inf))
        self.lam, self.ratio, self.failures, self.done = 0.0, options.ratio, 0, False
        self.last_alive = trainer.n_units
        self._before: _Before | None = None

    def __iter__(self) -> Iterator[Stage]:
        """Run the path, or go on with it; each stage is yielded when it ends.

        Raises
        ------
        Diverged
            In the dense start: there is nothing to roll back to.
        """
        if not self.lam:
            self._start()
        while not self.done and len(self.path.stages) < self.options.max_stages:
            before = self._before = self._save()
            try:
                stage = self._run_stage(self.lam)
            except Diverged:
                self._restore(before)
                self.trainer.scale_lr(0.5)
                self.failures += 1
                if self.failures > MAX_FAILURES:
                    self.path.status, self.done = "diverged", True
                continue
            allowed = max(1, math.ceil(self.options.max_drop * before.alive))
            if before.alive - stage.n_units > allowed and self.ratio > 1.005:
                self._restore(before)
                self.lam, self.ratio = self.lam / self.ratio * math.sqrt(self.ratio), math.sqrt(self.ratio)
                continue
            self._advance(stage, before.alive)
            yield stage

    def finish(self) -> UnitPath:
        """Train the kept networks on, on their own units; returns the path."""
        for size in sorted(set(self.options.sizes) & set(self.path.subsets), reverse=True):
            subset = self.path.subsets[size]
            if subset.state is not None and self.options.polish_epochs:
                self.path.subsets[size] = self._polish(subset)
        return self.path

    def relax(self, subset: Subset, *, max_epochs: int = 20, patience: int = 5) -> None:
        """Load a kept network and train it on without penalty, on its own units: what shrinkage hid comes back."""
        assert subset.state is not None
        trainer = self.trainer
        trainer.model.load_state_dict(subset.state)
        trainer.keep = torch.from_numpy(subset.mask)
        trainer.drop_others()
        trainer.reset()
        before = snapshot(trainer.model)
        try:
            train_early_stopping(
                trainer, self.train, self.validation, self.family, max_epochs=max_epochs, patience=patience
            )
        except Diverged:
            trainer.model.load_state_dict(before)
        finally:
            trainer.keep = None

    def _start(self) -> None:
        options = self.options
        self.path.dense, _ = train_early_stopping(
            self.trainer, self.train, self.validation, self.family,
            max_epochs=options.dense_epochs, patience=options.dense_patience,
        )  # fmt: skip
        self.last_alive = int(self.trainer.alive().sum())
        self.lam = options.lambda_start or self._find_start()
        if self.checkpoint:
            self.checkpoint(self)

    def _advance(self, stage: Stage, before: int) -> None:
        self.path.stages.append(stage)
        self.done = stage.n_units <= self.options.stop_at
        # While nothing leaves, go up quickly; as soon as something does, at the asked-for pace.
        faster, slower = min(self.ratio**2, 2.0), min(max(self.ratio, 1.01) ** 1.5, self.options.ratio)
        self.ratio = faster if stage.n_units == before else slower
        self.lam *= self.ratio
        if self.checkpoint:
            self.checkpoint(self)

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
        self._keep_settled(lam, metrics)
        return Stage(lam, self.last_alive, loss, metrics, self.options.epochs_per_lambda)

    def _note_deaths(self, lam: float) -> None:
        """Store the mask of every size that this step reached or jumped over, until a stage ends with that size."""
        alive = self.trainer.alive()
        count = int(alive.sum())
        if count == self.last_alive:
            return
        mask = alive.cpu().numpy()
        self.path.death[mask] = np.inf
        newly = ~mask & ~np.isfinite(self.path.death)
        self.path.death[newly] = lam
        if count < self.last_alive:
            # Units that fell in one step leave in the order of their momentary pull: the one the
            # loss holds least goes first, so that the sizes in between have masks too.
            held = self.trainer.pull().cpu().numpy()
            fallen = np.flatnonzero(newly)[np.argsort(-held[newly], kind="stable")]
            for size in range(self.last_alive - 1, count - 1, -1):
                wider = mask.copy()
                wider[fallen[: size - count]] = True
                known = self.path.subsets.get(size)
                if wider.sum() == size and (known is None or (size == count and not known.settled)):
                    assert self._before is not None
                    state = self._before.state if size in self.options.sizes else None
                    self.path.subsets[size] = Subset(size, lam, wider, state=state, network_lam=lam / self.ratio)
        self.last_alive = count

    def _keep_settled(self, lam: float, metrics: dict[str, float]) -> None:
        """At the end of a stage: the mask as it is, its network and its certificate, if none of its size was better.

        Better is a lower validation loss; without validation data, a larger lambda.
        """
        size, mask = self.last_alive, self.trainer.alive().cpu().numpy()
        known = self.path.subsets.get(size)
        if (
            known is not None
            and known.settled
            and metrics.get("loss", -math.inf) >= known.validation.get("loss", math.inf)
        ):
            return
        subset = Subset(size, lam, mask, settled=True, network_lam=lam, validation=metrics)
        if size in self.options.sizes:
            violation, violators = self._certify(mask, lam)
            subset = replace(subset, state=snapshot(self.trainer.model), max_violation=violation, violators=violators)
        self.path.subsets[size] = subset

    def _certify(self, mask: np.ndarray, lam: float) -> tuple[float, int]:
        """Largest ``pull / lam - 1`` over the dropped units and how many are positive; one pass over the train rows."""
        dropped = full_pull(self.trainer, self.train)[torch.from_numpy(~mask)]
        if not len(dropped):
            return -1.0, 0
        return float((dropped / lam - 1).max()), int((dropped > lam).sum())

    def _polish(self, subset: Subset) -> Subset:
        """Optimize a kept network at its lambda on its own units; kept only where validation agrees."""
        trainer, options = self.trainer, self.options
        assert subset.state is not None
        trainer.model.load_state_dict(subset.state)
        trainer.keep = torch.from_numpy(subset.mask)
        trainer.drop_others()
        trainer.reset()
        subset = replace(subset, state=snapshot(trainer.model))
        try:
            metrics, _ = train_early_stopping(
                trainer, self.train, self.validation, self.family, lam=subset.network_lam,
                max_epochs=options.polish_epochs, patience=options.polish_patience,
            )  # fmt: skip
        except Diverged:
            return subset
        finally:
            trainer.keep = None
        if metrics and metrics["loss"] > subset.validation.get("loss", math.inf):
            return subset
        violation, _ = self._certify(subset.mask, subset.network_lam)
        return replace(subset, state=snapshot(trainer.model), validation=metrics, polished_violation=violation)

    def _find_start(self) -> float:
        """Lambda whose pull over one stage is well inside every unit's margin.

        A unit leaves when the loss no longer holds it against lambda, so a thousandth of what the
        strongest unit is held with at zero is a lambda at which the path is still dense.
        """
        saved = [penalty.current() for penalty in self.trainer.penalties]
        for penalty, rows in zip(self.trainer.penalties, saved, strict=True):
            penalty.assign(torch.zeros_like(rows))
        pull = full_pull(self.trainer, self.train)
        for penalty, rows in zip(self.trainer.penalties, saved, strict=True):
            penalty.assign(rows)
        return max(float(pull.max()) * 1e-3, 1e-8)

    def _save(self) -> _Before:
        return _Before(snapshot(self.trainer.model), self.last_alive, self.path.death.copy(), dict(self.path.subsets))

    def _restore(self, saved: _Before) -> None:
        self.trainer.model.load_state_dict(saved.state)
        self.last_alive, self.path.death, self.path.subsets = saved.alive, saved.death.copy(), dict(saved.subsets)
        self.trainer.reset()


@dataclass(frozen=True)
class _Before:
    """What a stage that is done again starts from."""

    state: dict[str, Tensor]
    alive: int
    death: np.ndarray
    subsets: dict[int, Subset]


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
        Returns a freshly initialised trainer with ``len(mask)`` units.
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
    trainer.keep = torch.from_numpy(mask)
    trainer.drop_others()
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
