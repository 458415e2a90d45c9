"""Training on chosen units alone: at their lambda, without penalty, or anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from debugnet.sparse_training.losses import Diverged
from debugnet.sparse_training.proximal_training import (
    Batches,
    ProximalTrainer,
    evaluate,
    full_pull,
    snapshot,
    train_early_stopping,
)
from debugnet.sparse_training.subsets import Subset

#: Polishing: steps at most, and those after which it ends without a lower validation loss.
POLISH_STEPS, POLISH_PATIENCE = 200, 60
#: Relaxing: steps at most, those after which it ends without a lower validation loss, and how much larger a step is.
#: A network that a strong penalty has shrunk to almost nothing has a long way back, and on few rows epochs are short.
RELAX_STEPS, RELAX_PATIENCE, RELAX_LR = 1500, 60, 3.0


def certify(trainer: ProximalTrainer, train: Batches, mask: np.ndarray, lam: float) -> tuple[float, int]:
    """Largest ``pull / lam - 1`` over the dropped units and how many are positive; one pass over the train rows."""
    dropped = full_pull(trainer, train)[torch.from_numpy(~mask)]
    if not len(dropped):
        return -1.0, 0
    return float((dropped / lam - 1).max()), int((dropped > lam).sum())


def polish(
    trainer: ProximalTrainer,
    subset: Subset,
    train: Batches,
    validation: Batches | None,
    family: str,
) -> Subset:
    """Optimize a kept network at its lambda on its own units alone; the new one is taken where validation agrees."""
    _load(trainer, subset)
    subset = replace(subset, state=snapshot(trainer.model))
    try:
        epochs, patience = _epochs(train, POLISH_STEPS), _epochs(train, POLISH_PATIENCE)
        metrics, _ = train_early_stopping(
            trainer, train, validation, family, lam=subset.network_lam, max_epochs=epochs, patience=patience
        )
    except Diverged:
        return subset
    finally:
        trainer.keep = None
    if metrics and metrics["loss"] > subset.validation.get("loss", math.inf):
        return subset
    violation, _ = certify(trainer, train, subset.mask, subset.network_lam)
    return replace(subset, state=snapshot(trainer.model), validation=metrics, polished_violation=violation)


def relax(
    trainer: ProximalTrainer,
    subset: Subset,
    train: Batches,
    validation: Batches | None,
    family: str,
) -> None:
    """Load a kept network and train it on without penalty, on its own units: what shrinkage hid comes back.

    It takes :data:`RELAX_STEPS` at most, or 25 epochs where those are more, and ends where the validation loss was
    lowest, which may be where it began.
    """
    _load(trainer, subset)
    before, caps = snapshot(trainer.model), trainer.caps
    least = math.inf if validation is None else evaluate(trainer.model, validation, trainer.loss, family)["loss"]
    trainer.caps = None  # nothing is to be evaded
    trainer.scale_lr(RELAX_LR)
    epochs, patience = max(_epochs(train, RELAX_STEPS), 25), max(_epochs(train, RELAX_PATIENCE), 4)
    try:
        metrics, _ = train_early_stopping(trainer, train, validation, family, max_epochs=epochs, patience=patience)
        if metrics and metrics["loss"] > least:
            trainer.model.load_state_dict(before)
    except Diverged:
        trainer.model.load_state_dict(before)
    finally:
        trainer.scale_lr(1 / RELAX_LR)
        trainer.keep, trainer.caps = None, caps


def _epochs(train: Batches, steps: int) -> int:
    return math.ceil(steps / max(len(train), 1))


def _load(trainer: ProximalTrainer, subset: Subset) -> None:
    """Put a kept network into the trainer, on its own units, without momentum."""
    assert subset.state is not None
    trainer.model.load_state_dict(subset.state)
    trainer.keep = torch.from_numpy(subset.mask)
    trainer.drop_others()
    trainer.reset()
    if trainer.optimizer is not None:
        trainer.optimizer.state.clear()


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
