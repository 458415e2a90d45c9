"""Give me k features per class: cut a path point's support to k per class and fit again on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debugnet.analysis.accuracy import evaluate
from debugnet.analysis.top_features import keep_entries, largest_per_output
from debugnet.artifacts.feature_store import FeatureStore, load_features
from debugnet.artifacts.provenance import read_provenance
from debugnet.errors import StaleArtifact
from debugnet.glm.masked_refit import refit_on_support
from debugnet.heads import LinearHead
from debugnet.progress import log
from debugnet.stages.inputs import usable_rows
from debugnet.stages.row_weights import file_reference, train_weights

if TYPE_CHECKING:
    from debugnet.recipes.select import Select
    from debugnet.regularization_path import RegularizationPath
    from debugnet.selection import Selection


def refit_features_per_class(
    options: Select, path: RegularizationPath, chosen: Selection, features: Path, meta: dict[str, Any]
) -> LinearHead:
    """Keep each class's k largest weights of the starting point and refit them on the train rows.

    The ridge of the refit is the l2 part of the starting point's own penalty, ``lam (1 - l1_ratio)``,
    and at least 1% of lam, so that the optimum is finite on separable classes too.  Weights of the
    train rows are those of the path's fit.
    """
    assert chosen.features_per_class is not None
    store = load_features(features)
    X, y = usable_rows(store.split("train"))
    start = path.weight(chosen.index)
    mask = largest_per_output(start, chosen.features_per_class)
    l2 = options.refit_l2
    if l2 is None:
        l2 = float(path.lam[chosen.index]) * max(1 - path.meta["l1_ratio"], 0.01)
    made = read_provenance(options.path)
    file = made.inputs.get("weights_file")
    if file is not None and file_reference(Path(file["path"])) != file:
        raise StaleArtifact(f"{file['path']} has changed since {options.path} was fitted with it: fit again (--force)")
    weights = train_weights(
        store.split("train"), made.options.get("class_weight"), None if file is None else Path(file["path"])
    )
    log(f"refitting {mask.sum()} weights on {mask.any(axis=0).sum()} features, ridge {l2:.3g}")
    weight, bias = refit_on_support(
        X, y, mask, standardizer=path.standardizer, family=path.meta["family"], l2=l2, sample_weight=weights,
        start=np.where(mask, start, 0.0),
    )  # fmt: skip
    task, names = path.meta["task"], path.meta["class_names"]
    raw = path.standardizer.to_raw(weight, bias)
    head = LinearHead(*raw, path.standardizer, path.meta["family"], names, task)
    unfitted = LinearHead(*path.raw(chosen.index), path.standardizer, path.meta["family"], names, task)
    meta = meta | {
        "refit_l2": l2,
        "start": {key: meta[key] for key in ("index", "lam", "nnz", "mean_features_per_class", "metrics")},
        "counts": mask.sum(axis=1).tolist(),
        "nnz": int(mask.sum()),
        "features_used": int(mask.any(axis=0).sum()),
        "mean_features_per_class": float(mask.sum(axis=1).mean()),
        "metrics": measure(head, store),
        "metrics_without_refit": measure(keep_entries(unfitted, mask), store),
    }
    return dataclasses.replace(head, meta=meta)


def measure(head: LinearHead, store: FeatureStore) -> dict[str, dict[str, float] | None]:
    """Evaluate a head on every split of a store; None for a split that is not there or has no usable row."""
    found: dict[str, dict[str, float] | None] = {}
    for name in ("train", "val", "test"):
        split = store.splits.get(name)
        found[name] = evaluate(head, *usable_rows(split)) if split is not None and split.usable.any() else None
    return found
