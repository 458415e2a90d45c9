"""``fit-path --method lassonet``: a network chooses subsets of deep features, a linear layer is fitted on each.

Every point of the path is an ordinary decision layer, certified on its subset, so whatever reads a
path reads this one.  What the network itself reached is in the metrics ``network_accuracy`` (or
``network_r2``; theta'x + network at its lambda) and ``network_relaxed_...`` (trained on without
penalty on the same features): with the layer's own accuracy at the same number of features, that
is the cost of linearity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from debugnet import interrupts
from debugnet.artifacts.feature_store import FeatureStore
from debugnet.artifacts.path_store import PathWriter
from debugnet.errors import NotConverged, UsageError
from debugnet.glm.options import make_options
from debugnet.glm.path import PathFit
from debugnet.progress import Progress
from debugnet.recipes.fit_path import FitPath
from debugnet.regularization_path import PathPoint
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import FamilyLoss
from debugnet.sparse_training.networks import make_mlp, standardized
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.proximal_training import (
    Batches,
    ProximalTrainer,
    evaluate,
)
from debugnet.sparse_training.retraining import relax
from debugnet.sparse_training.subsets import PathOptions, Subset
from debugnet.sparse_training.unit_path import UnitPathFitter
from debugnet.stages.unit_paths import follow

#: Default sizes: these, times powers of ten.
LADDER = (1, 2, 3, 5, 8)


def fill_subsets(
    options: FitPath, store: FeatureStore, splits: Sequence[str], problem: PathFit, writer: PathWriter, scorer: Any
) -> dict[str, Any]:
    """Train the network's path, append one point per size, and return what the path's meta records.

    Raises
    ------
    NotConverged
        Training diverged before any of the sizes was reached.
    UsageError
        The path met none of them.
    """
    torch.manual_seed(options.seed)
    data, scale = _data(options, store, splits, problem)
    fitter = _fitter(options, data, problem.meta["family"], store.n_features, wanted_sizes(options, store.n_features))
    path = follow(fitter, writer.folder / "network.safetensors", "lassonet", "features")
    lam = float(problem.lambdas[-1])
    done = {int((point.weight != 0).any(axis=0).sum()): point for point in writer.points()}
    wanted = [path.subsets[size] for size in sorted(path.subsets) if size in fitter.options.sizes]
    if not wanted:
        if path.status == "diverged":
            raise NotConverged(
                f"the path ended (diverged) at {fitter.last_alive} features, before all --sizes "
                f"{','.join(map(str, fitter.options.sizes))}: a smaller --lr"
            )
        raise UsageError("LassoNet's path met none of the --sizes: ask for sizes below the number of features")
    points = _strictly_descending(wanted)
    with Progress(len(points), "linear layers", "size", initial=len(done)) as progress:
        for subset in points[len(writer.points()) :]:
            point = dataclasses.replace(_linear_point(subset, lam, store, problem), lam=subset.lam)
            extra = _network_metrics(fitter, subset, data)
            scored = scorer.complete(point)
            metrics = {name: {**scored.metrics[name], **extra[name]} for name in splits}
            writer.append(dataclasses.replace(scored, metrics=metrics))
            progress.update()
            interrupts.check()
    certificates = {
        name: [getattr(subset, name) for subset in points]
        for name in ("settled", "max_violation", "violators", "polished_violation")
    }
    return {
        "solver": "lassonet",
        "solver_reason": f"subsets by LassoNet; the layers on them by {problem.meta['solver']}",
        "lassonet": {
            "sizes": [subset.size for subset in points],
            "importance": [float(v) for v in path.importance],
            "refit_lam": lam,
            "hierarchy": options.hierarchy,
            "drop_share": options.drop_share,
            "status": path.status,
            "target_scale": scale,
            "stages": len(path.stages),
            **certificates,
        },
    }


def wanted_sizes(options: FitPath, n_features: int) -> tuple[int, ...]:
    """The sizes asked for, or the ladder 1, 2, 3, 5, 8, 10, 20, ... from --stop-at up to all features.

    Raises
    ------
    UsageError
        There are not so many features.
    """
    last = options.stop_at
    for name, most in (("sizes", max(options.sizes or (0,))), ("stop-at", last + 1 if last else 0)):
        if most > n_features:
            raise UsageError(f"--{name} {most - (name == 'stop-at')}: there are only {n_features} features")
    if options.sizes is not None:
        return tuple(sorted(set(options.sizes)))
    powers = (10**i for i in range(len(str(n_features))))
    ladder = {step * power for power in powers for step in LADDER if last <= step * power < n_features}
    return tuple(sorted(ladder | ({last} if last else set())))


def _data(
    options: FitPath, store: FeatureStore, splits: Sequence[str], problem: PathFit
) -> tuple[dict[str, Batches], float]:
    """Standardized minibatches of every split; regression targets are divided by their spread."""
    device, family = str(problem.meta["device"]), problem.meta["family"]
    usable = store.split("train").usable
    scale = 1.0
    if family == "gaussian":
        scale = max(float(np.std(store.split("train").y[usable])), 1e-12)
    batches = {}
    for name in splits:
        split = store.split(name)
        X = standardized(split.X, split.usable, problem.standardizer, device)
        y = torch.from_numpy(np.asarray(split.y[split.usable]))
        y = (y - float(store.split("train").y[usable].mean())) / scale if family == "gaussian" else y
        batches[name] = Batches(X, y, options.batch_size, options.seed, device=device)  # type: ignore[arg-type]
    return batches, scale


def _fitter(
    options: FitPath, data: dict[str, Batches], family: str, n_features: int, sizes: tuple[int, ...]
) -> UnitPathFitter:
    train = data["train"]
    # The network has one output per class even where the decision layer has one for two classes.
    family = "multinomial" if family == "binomial" and train.y.ndim == 1 else family
    n_outputs = int(train.y.max()) + 1 if family == "multinomial" else train.y.reshape(len(train.y), -1).shape[1]
    network = make_mlp(n_features, n_outputs, options.hidden)
    model = LassoNet(network, torch.zeros(2, n_features)).to(train.device)
    trainer = ProximalTrainer(
        model,
        [model.penalty(options.hierarchy)],
        FamilyLoss(family),
        optimizer=lambda parameters: make_optimizer("adam", parameters, options.lr),
        lr=options.lr,
    )
    path_options = PathOptions(
        ratio=options.ratio, dense_epochs=options.epochs, stop_at=options.stop_at, drop_share=options.drop_share,
        sizes=sizes,
    )  # fmt: skip
    return UnitPathFitter(trainer, train, data.get("val"), family, path_options)


def _strictly_descending(subsets: list[Subset]) -> list[Subset]:
    """The subsets by growing size, each lambda below the one before: a path's lambdas fall.

    Sizes that the path went through within one stage share its lambda; later ones are moved below
    by one part in a million.
    """
    moved, last = [], np.inf
    for subset in subsets:
        lam = min(subset.lam, last * (1 - 1e-6))
        moved.append(dataclasses.replace(subset, lam=lam))
        last = lam
    return moved


def _linear_point(subset: Subset, lam: float, store: FeatureStore, problem: PathFit) -> PathPoint:
    """The decision layer on the subset, certified there, as weights over all features."""
    columns = np.flatnonzero(subset.mask)
    whole = problem.options
    standardizer = dataclasses.replace(
        problem.standardizer, mean=problem.standardizer.mean[columns], scale=problem.standardizer.scale[columns]
    )
    evaluation = {
        name: (store.split(name).X[:, columns], *rest) for name, (_, *rest) in (whole.evaluation or {}).items()
    }
    train = store.split("train")
    fit = PathFit(
        train.X[:, columns],
        train.y,
        make_options(
            **{
                field.name: getattr(whole, field.name)
                for field in dataclasses.fields(whole)
                if field.name not in ("checkpoint", "lambdas", "standardizer", "evaluation", "solver", "patience")
            },
            lambdas=[lam],
            standardizer=standardizer,
            evaluation=evaluation or None,
        ),
    )
    point = next(fit.points())
    weight = np.zeros((len(point.weight), len(subset.mask)))
    weight[:, columns] = point.weight
    return dataclasses.replace(point, weight=weight)


def _network_metrics(fitter: UnitPathFitter, subset: Subset, data: dict[str, Batches]) -> dict[str, dict[str, float]]:
    """Scores of the path's network, and of the same network trained on without penalty on its features."""
    trainer = fitter.trainer
    score = "r2" if fitter.family == "gaussian" else "accuracy"
    found: dict[str, dict[str, float]] = {name: {} for name in data}
    stored = fitter.path.subsets[subset.size].state
    for label in ("network", "network_relaxed"):
        if stored is not None and label == "network":
            trainer.model.load_state_dict(stored)
        elif stored is not None:
            relax(trainer, fitter.path.subsets[subset.size], fitter.train, fitter.validation, fitter.family)
        for name, batches in data.items():
            metrics = evaluate(trainer.model, batches, trainer.loss, fitter.family) if stored is not None else {}
            found[name][f"{label}_{score}"] = metrics.get(score, float("nan"))
            found[name][f"{label}_loss"] = metrics.get("loss", float("nan"))
    return found
