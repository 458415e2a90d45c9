"""Dense-to-sparse paths over units, with a snapshot for every subset size from one run.

Train dense; then raise lambda step by step, warm-started, until every unit is dropped.  The mask of
each size is stored the moment it first appears (after any minibatch step), so no size is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from debugnet.sparse_training.losses import Diverged
from debugnet.sparse_training.proximal_training import (
    Batches,
    ProximalTrainer,
    evaluate,
    full_pull,
    snapshot,
    train_early_stopping,
)
from debugnet.sparse_training.retraining import certify, polish
from debugnet.sparse_training.subsets import STEPS_PER_LAMBDA, PathOptions, Stage, Subset, UnitPath

#: While the validation loss falls to new depths, lambda stays where a stage brings it below this share of the lowest
#: so far, and later layers may grow by this factor in a stage.
LEARNING, GROWTH = 0.99, 1.1
#: Stages that may diverge (each is rolled back, and the step halved) before the path ends.
MAX_FAILURES = 4


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
        self.epochs = options.epochs_per_lambda or math.ceil(STEPS_PER_LAMBDA / max(len(train), 1))
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
                self._take_out()
                stage = self._run_stage(self.lam)
            except Diverged:
                self._restore(before)
                self.trainer.scale_lr(0.5)
                self.failures += 1
                if self.failures > MAX_FAILURES:
                    self.path.status, self.done = "diverged", True
                continue
            allowed = max(1, math.ceil(self.options.max_drop * before.alive))
            if self.options.drop_share and self.trainer.keep is None and stage.n_units < before.alive:
                self._restore(before)
                self.lam, self.trainer.keep = self.lam / self.ratio, torch.ones(self.trainer.n_units, dtype=torch.bool)
                continue
            if before.alive - stage.n_units > allowed and self.ratio > 1.005 and self.trainer.keep is None:
                self._restore(before)
                self.lam, self.ratio = self.lam / self.ratio * math.sqrt(self.ratio), math.sqrt(self.ratio)
                continue
            self._advance(stage)
            yield stage

    def _take_out(self) -> None:
        """With ``drop_share``, once lambda stays: the weakest units go for good, at most down to the next size kept.

        Those that share one signal are each as weak as they are many: taking out some strengthens the others, so that
        signals are thinned out before they are lost.
        """
        keep, share, trainer = self.trainer.keep, self.options.drop_share, self.trainer
        if keep is None or share is None:
            return
        strength = torch.cat([torch.linalg.vector_norm(p.current(), dim=1) / p.unit_weight for p in trainer.penalties])
        strength = strength.cpu().masked_fill(~keep, math.inf)
        left = int(keep.sum())
        wanted = max((size for size in (*self.options.sizes, self.options.stop_at) if size < left), default=0)
        count = max(1, min(int(share * left), left - wanted))
        trainer.keep = keep.clone()
        trainer.keep[strength.argsort(stable=True)[:count]] = False
        trainer.drop_others()
        trainer.living = trainer.alive()
        self._note_deaths(self.lam, -strength)

    def finish(self) -> UnitPath:
        """Bring kept networks that no stage ended with to their own units, at their lambda; returns the path."""
        for size in sorted(set(self.options.sizes) & set(self.path.subsets), reverse=True):
            subset = self.path.subsets[size]
            if subset.state is not None and not subset.settled:
                self.path.subsets[size] = polish(self.trainer, subset, self.train, self.validation, self.family)
        self.trainer.keep = None
        return self.path

    def _start(self) -> None:
        options = self.options
        self.path.dense, _ = train_early_stopping(
            self.trainer, self.train, self.validation, self.family,
            max_epochs=options.dense_epochs, patience=options.dense_patience,
        )  # fmt: skip
        self.trainer.hold_norms()
        self.last_alive = int(self.trainer.alive().sum())
        self.lam = options.lambda_start or self._find_start()
        everything = self.trainer.n_units
        if everything in options.sizes:
            self.path.subsets[everything] = Subset(
                everything, self.lam, np.ones(everything, dtype=bool), settled=True, network_lam=0.0,
                state=snapshot(self.trainer.model), validation=self.path.dense, max_violation=-1.0, violators=0,
            )  # fmt: skip
        if self.checkpoint:
            self.checkpoint(self)

    def _advance(self, stage: Stage) -> None:
        stays = self.trainer.keep is not None or self._is_learning(stage)
        self.path.stages.append(stage)
        self.done = stage.n_units <= self.options.stop_at
        self.ratio = min(max(self.ratio, 1.01) ** 1.5, self.options.ratio)  # back to the asked-for pace
        self.lam *= 1.0 if stays else self.ratio
        if self.checkpoint:
            self.checkpoint(self)

    def _is_learning(self, stage: Stage) -> bool:
        """Whether the validation loss is the lowest so far, dense start included; if so, lambda stays.

        Where noise keeps the dense network from learning (XOR among 58 features), the network learns on the path,
        once the penalty has weakened the noise: it gets the time, and its later layers may grow until then.
        They are held at their norms in the network of the lowest validation loss.
        """
        if self.validation is None:
            return False
        losses = [metrics["loss"] for metrics in (self.path.dense, *(s.validation for s in self.path.stages))]
        lowest, loss = min(losses), stage.validation["loss"]
        if loss < lowest:
            self.trainer.hold_norms(GROWTH)
        elif self.path.stages and lowest == losses[-1]:
            self.trainer.caps = [cap / GROWTH for cap in self.trainer.caps or ()]
        return loss < LEARNING * lowest

    def _run_stage(self, lam: float) -> Stage:
        loss = math.nan
        for _ in range(self.epochs):
            losses = []
            with self.trainer.steps(self.train.size) as step:
                for x, y in self.train:
                    losses.append(step(x, y, lam))
                    self._note_deaths(lam)
            loss = sum(losses) / max(len(losses), 1)
        metrics = {}
        if self.validation is not None:
            metrics = evaluate(self.trainer.model, self.validation, self.trainer.loss, self.family)
        self._keep_settled(lam, metrics)
        return Stage(lam, self.last_alive, loss, metrics, self.epochs)

    def _note_deaths(self, lam: float, order: Tensor | None = None) -> None:
        """Store the mask of every size that this step reached or jumped over, until a stage ends with that size.

        Units that fell in one step leave by ``order``, the largest first; None: by their momentary pull, the one the
        loss holds least first, so that the sizes in between have masks too.
        """
        alive = self.trainer.living
        count = int(alive.sum())
        if count == self.last_alive:
            return
        mask = alive.cpu().numpy()
        self.path.death[mask] = np.inf
        newly = ~mask & ~np.isfinite(self.path.death)
        stays = self.trainer.keep is not None
        self.path.death[newly] = math.log2(self.trainer.n_units / (count + 1)) if stays else lam
        if count < self.last_alive:
            held = self.trainer.pull() if order is None else -order
            fallen = np.flatnonzero(newly)[np.argsort(-held.cpu().numpy()[newly], kind="stable")]
            for size in range(self.last_alive - 1, count - 1, -1):
                wider = mask.copy()
                wider[fallen[: size - count]] = True
                known = self.path.subsets.get(size)
                assert self._before is not None
                again = known is not None and size == count and not known.settled and self._before.alive >= size
                if wider.sum() == size and (known is None or again):
                    state = self._before.state if size in self.options.sizes else None
                    network_lam = lam if stays else lam / self.ratio
                    self.path.subsets[size] = Subset(size, lam, wider, state=state, network_lam=network_lam)
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
            violation, violators = certify(self.trainer, self.train, mask, lam)
            subset = replace(subset, state=snapshot(self.trainer.model), max_violation=violation, violators=violators)
        self.path.subsets[size] = subset

    def _find_start(self) -> float:
        """Lambda whose pull over one stage is well inside every unit's margin.

        A unit leaves when the loss no longer holds it against lambda, so a thousandth of what the
        strongest unit is held with at zero is a lambda at which the path is still dense.
        """
        saved = [penalty.current().clone() for penalty in self.trainer.penalties]  # rows can be views of the weights
        for penalty, rows in zip(self.trainer.penalties, saved, strict=True):
            penalty.assign(torch.zeros_like(rows))
        pull = full_pull(self.trainer, self.train)
        for penalty, rows in zip(self.trainer.penalties, saved, strict=True):
            penalty.assign(rows)
        return max(float(pull.max()) * 1e-3, 1e-8)

    def _save(self) -> _Before:
        kept = self.path.death.copy(), dict(self.path.subsets)
        return _Before(snapshot(self.trainer.model), self.last_alive, *kept, self.trainer.keep)

    def _restore(self, saved: _Before) -> None:
        self.trainer.model.load_state_dict(saved.state)
        self.trainer.keep = saved.keep
        self.last_alive, self.path.death, self.path.subsets = saved.alive, saved.death.copy(), dict(saved.subsets)
        self.trainer.reset()


@dataclass(frozen=True)
class _Before:
    """What a stage that is done again starts from."""

    state: dict[str, Tensor]
    alive: int
    death: np.ndarray
    subsets: dict[int, Subset]
    keep: Tensor | None
