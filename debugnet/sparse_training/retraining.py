"""Training on chosen units alone: at their lambda, without penalty, or anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from debugnet.sparse_training.proximal_training import (
    Batches,
    Diverged,
    ProximalTrainer,
    full_pull,
    snapshot,
    train_early_stopping,
)
from debugnet.sparse_training.subsets import Subset


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
    *,
    max_epochs: int,
    patience: int,
) -> Subset:
    """Optimize a kept network at its lambda on its own units; the new one is taken where validation agrees."""
    _load(trainer, subset)
    subset = replace(subset, state=snapshot(trainer.model))
    try:
        metrics, _ = train_early_stopping(
            trainer, train, validation, family, lam=subset.network_lam, max_epochs=max_epochs, patience=patience
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
    *,
    max_epochs: int = 25,
    patience: int = 4,
) -> None:
    """Load a kept network and train it on without penalty, on its own units: what shrinkage hid comes back."""
    _load(trainer, subset)
    before, caps = snapshot(trainer.model), trainer.caps
    trainer.caps = None  # nothing is to be evaded
    try:
        train_early_stopping(trainer, train, validation, family, max_epochs=max_epochs, patience=patience)
    except Diverged:
        trainer.model.load_state_dict(before)
    finally:
        trainer.keep, trainer.caps = None, caps


def _load(trainer: ProximalTrainer, subset: Subset) -> None:
    """Put a kept network into the trainer, on its own units, without momentum."""
    assert subset.state is not None
    trainer.model.load_state_dict(subset.state)
    trainer.keep = torch.from_numpy(subset.mask)
    trainer.drop_others()
    trainer.reset()


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
