"""What the selections of a path are compared to: networks trained anew on them, and on other selections."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from debugnet import interrupts
from debugnet.artifacts.bundle import BundleWriter, load_arrays
from debugnet.progress import Progress
from debugnet.sparse_training import baselines
from debugnet.sparse_training.losses import Diverged
from debugnet.sparse_training.proximal_training import evaluate
from debugnet.sparse_training.retraining import retrain
from debugnet.sparse_training.subsets import Subset

if TYPE_CHECKING:
    from debugnet.stages.sparse_units import UnitProblem

#: Two-sided 95% of Student's t for 1, 2, ... degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def refit_all(
    problem: UnitProblem, kept: list[Subset], writer: BundleWriter
) -> dict[int, dict[str, dict[str, dict[str, float]]]]:
    """Retrain the plain network on every selection of every size, over seeds; finished ones are on the disk."""
    options = problem.options
    orders = _orders(problem, writer, max((s.size for s in kept if not s.mask.all()), default=1))
    names, seeds = (options.method, *options.against), range(options.seeds)
    # Of all units every selection is the same.
    pairs = [(subset, name) for subset in kept for name in (names[:1] if subset.mask.all() else names)]
    jobs = [(subset, name, seed) for subset, name in pairs for seed in seeds]
    with Progress(len(jobs), "refits", "network") as progress:
        for subset, name, seed in jobs:
            key = f"refit/{subset.size}/{name}/{seed}"
            if key not in writer:
                mask = subset.mask
                if name != options.method:
                    order = baselines.random_order(problem.n_units, seed) if name == "random" else orders[name]
                    mask = baselines.top_mask(order, subset.size)
                writer.add(key, _refit(problem, mask, options.seed + seed))
            progress.update()
            interrupts.check()
    found: dict[int, dict[str, dict[str, dict[str, float]]]] = {}
    for subset, name, _ in jobs[:: options.seeds]:
        scores = [writer.records[f"refit/{subset.size}/{name}/{seed}"] for seed in range(options.seeds)]
        interval = {split: _interval([score[split] for score in scores]) for split in problem.data.batches}
        found.setdefault(subset.size, {}).update(dict.fromkeys(names if subset.mask.all() else [name], interval))
    return found


def _orders(problem: UnitProblem, writer: BundleWriter, largest: int) -> dict[str, np.ndarray]:
    X, y = problem.data.flat("train")
    found = {}
    make: dict[str, Callable[..., np.ndarray]] = {
        "anova": baselines.anova_order,
        "linear": partial(baselines.linear_order, enough=largest),
    }
    for name in problem.options.against:
        key = f"order/{name}"
        if name != "random" and key not in writer:
            writer.add(key, None, {"order": make[name](X, y, problem.data.family, problem.unit_of)})
        if name != "random":
            found[name] = load_arrays(writer.folder, key)["order"]
    return found


def _refit(problem: UnitProblem, mask: np.ndarray, seed: int) -> dict[str, float]:
    """Score (accuracy, or R2) of one retrained network on every split; NaN where it diverged."""
    data = problem.data
    try:
        trainer, _ = retrain(
            lambda: problem.trainer(seed), mask, data.batches["train"], data.batches.get("val"), data.family,
            max_epochs=problem.options.epochs or 100,
        )  # fmt: skip
    except Diverged:
        return dict.fromkeys(data.batches, math.nan)
    return {n: evaluate(trainer.model, b, trainer.loss, data.family)["accuracy"] for n, b in data.batches.items()}


def _interval(values: list[float | None]) -> dict[str, float]:
    """Mean and half width of its 95% interval over seeds (NaN for one seed)."""
    known = np.array([v for v in values if v is not None and math.isfinite(v)])
    if not len(known):
        return {"mean": math.nan, "half_width": math.nan, "n": 0}
    half = math.nan
    if len(known) > 1:
        half = (_T[len(known) - 2] if len(known) <= 10 else 1.96) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return {"mean": float(known.mean()), "half_width": half, "n": len(known)}
