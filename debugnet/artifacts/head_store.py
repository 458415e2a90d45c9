"""The sparse decision layer on disk: ``head/`` with weights, words about them, and a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from debugnet.artifacts.bundle import read_json, write_bundle, write_json
from debugnet.artifacts.provenance import Provenance, read_manifest
from debugnet.errors import InputError
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer

WEIGHTS = "decision_layer.safetensors"
DESCRIPTION = "decision_layer.json"
_TASKS = ("single-label", "multi-label", "regression")


def save_head(
    path: str | os.PathLike[str], head: LinearHead, provenance: Provenance, extra: Callable[[Path], None] | None = None
) -> Path:
    """Write a head folder atomically, replacing one that is there.

    Parameters
    ----------
    path : path
    head : LinearHead
    provenance : Provenance
    extra : callable, optional
        Writes further files of the artefact into the folder that it is given (``edits.yaml``).

    Returns
    -------
    Path
        The folder: ``decision_layer.safetensors`` ("weight" (K, d) and "bias" (K,), raw
        coordinates, "mean" and "scale" (d,), all float64), ``decision_layer.json``
        (family, task, class names, how it was chosen), ``manifest.json``.

    Raises
    ------
    StorageError
        Disk full, read-only, permission.
    """
    from safetensors.numpy import save

    tensors = {
        "weight": head.weight,
        "bias": head.bias,
        "mean": head.standardizer.mean,
        "scale": head.standardizer.scale,
    }
    description = {
        "family": head.family,
        "task": head.task,
        "class_names": list(head.class_names),
        "meta": head.meta,
    }
    with write_bundle(path, provenance) as folder:
        (folder / WEIGHTS).write_bytes(save({k: np.ascontiguousarray(v, np.float64) for k, v in tensors.items()}))
        write_json(folder / DESCRIPTION, description)
        if extra is not None:
            extra(folder)
    return Path(path)


def load_head(path: str | os.PathLike[str]) -> LinearHead:
    """Read a head folder.

    Raises
    ------
    InputError
        Missing, foreign or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a head folder: make one with debugnet select")
    kind = read_manifest(path)["provenance"]["kind"]
    if kind != "head":
        raise InputError(f"{path} is a folder of kind {kind}, and a head is needed")
    description = read_json(path / DESCRIPTION)
    try:
        tensors = load((path / WEIGHTS).read_bytes())
        head = LinearHead(
            weight=tensors["weight"],
            bias=tensors["bias"],
            standardizer=Standardizer(tensors["mean"], tensors["scale"]),
            family=description["family"],
            class_names=list(description["class_names"]),
            task=description["task"],
            meta=dict(description["meta"]),
        )
        _check(head)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}): make it again with debugnet select") from error
    return head


def _check(head: LinearHead) -> None:
    n_outputs, n_features = head.weight.shape
    wanted = ((n_outputs,), (n_features,), (n_features,))
    if (head.bias.shape, head.standardizer.mean.shape, head.standardizer.scale.shape) != wanted:
        raise ValueError("the shapes of weight, bias, mean and scale do not fit together")
    if head.task not in _TASKS or not all(np.isfinite(a).all() for a in (head.weight, head.bias)):
        raise ValueError(f"task {head.task!r} or a weight that is not finite")
