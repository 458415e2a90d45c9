"""``fit-path --method spred``: the factored layers, kept on the disk, and what they came to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from debugnet import interrupts
from debugnet.artifacts.atomic import atomic_file
from debugnet.errors import InputError
from debugnet.glm.path import PathFit
from debugnet.progress import Progress, log
from debugnet.regularization_path import PathPoint
from debugnet.sparse_training.spred_layer import (
    PRUNING_THRESHOLD,
    FactoredLayer,
    polishing_solver,
    train_factored,
)

_TENSORS = ("weight", "bias")


def prepare_spred(problem: PathFit, folder: Path, steps: int) -> dict[float, FactoredLayer]:
    """Train the factored layers of every lambda below lambda_max, and make the path start its points from them.

    Parameters
    ----------
    problem : PathFit
        Its solver is replaced by the polish.
    folder : Path
        The partial path: finished layers are kept in and taken from it.
    steps : int
        L-BFGS steps per lambda, at most.
    """
    lambdas = problem.lambdas[problem.lambdas < problem.null.lambda_max]
    layers = {layer.lam: layer for layer in map(_read, sorted(folder.glob("spred-*.safetensors")))}
    start = layers[max(layers)] if layers else None
    if layers:
        log(f"going on after {len(layers)} factored layers")
    with Progress(len(lambdas), "spred", "lambda", initial=len(layers)) as progress, interrupts.deferred():
        for layer in train_factored(problem.problem, lambdas, steps=steps, start=start):
            _write(folder / f"spred-{len(layers):05d}.safetensors", layer)
            layers[layer.lam] = layer
            progress.update()
            interrupts.check()
    problem.prepared = dataclasses.replace(problem.prepared, solver=polishing_solver(layers))  # type: ignore[arg-type]
    problem.meta |= {"solver": "spred", "solver_reason": "factored layers, polished by FISTA to a certificate"}
    return layers


def compare_spred(layers: dict[float, FactoredLayer], points: list[PathPoint]) -> dict[str, Any]:
    """What spred itself reached, beside the certified solution of the same lambda.

    ``relative_gap``: (objective of the product - certified objective) / certified objective.
    """
    rows = [(layers[p.lam], p) for p in points if p.lam in layers]
    return {
        "lam": [layer.lam for layer, _ in rows],
        "relative_gap": [(layer.objective - p.objective) / max(p.objective, 1e-300) for layer, p in rows],
        "pruning_threshold": PRUNING_THRESHOLD,
        "above_threshold": [layer.above_threshold for layer, _ in rows],
        "exact_zeros_before_polish": [int((layer.weight == 0).sum()) for layer, _ in rows],
        "nnz": [int(np.count_nonzero(p.weight)) for _, p in rows],
        "steps": [layer.steps for layer, _ in rows],
    }


def _write(path: Path, layer: FactoredLayer) -> None:
    tensors = {name: getattr(layer, name).cpu().contiguous() for name in _TENSORS}
    words = {"lam": repr(layer.lam), "objective": repr(layer.objective), "steps": str(layer.steps)}
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=words))


def _read(path: Path) -> FactoredLayer:
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata()
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in _TENSORS}
        return FactoredLayer(
            float(words["lam"]), **tensors, objective=float(words["objective"]), steps=int(words["steps"])
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): delete {path.parent} and fit again") from error
