"""``debugnet select sparse/``: a point of a path of networks -> its decision layer, on its own deep features.

Every point of such a path is a network, with deep features of its own.  Selecting one therefore
writes three things side by side: the chosen network (``network-POINT/``), its deep features
(``features-POINT.h5``) and its own last layer as a head, which ``analyze``, ``explain``, ``report`` and
all others take.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debugnet.artifacts.lineage import locate_input
from debugnet.artifacts.provenance import check_output, collect, input_reference, read_provenance
from debugnet.errors import InputError, StaleArtifact
from debugnet.stages.network_path import NetworkPath

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.artifacts.provenance import Provenance
    from debugnet.heads import LinearHead
    from debugnet.recipes.select import Select


def known_features(head: Path, path: Path) -> dict[str, str] | None:
    """Reference to the deep features that a head was made from, if it comes from this path and they are there."""
    try:
        if read_provenance(head).inputs["path"]["digest"] != input_reference(path)["digest"]:
            return None
        return input_reference(locate_input(head, "features"))
    except (InputError, StaleArtifact, KeyError):
        return None


def make_features(path: NetworkPath, index: int, options: Select, beside: Path, force: bool) -> Path:
    """Write the network of a point and extract its deep features, where that has not been done.

    Raises
    ------
    StaleArtifact
        The data, or the code of a ``python:`` network, has changed since the path was trained.
    InputError
        A network that cannot be built again, or that does not end in a Linear layer.
    """
    from debugnet.recipes.extract import Extract
    from debugnet.stages import extract
    from debugnet.stages.sparse_export import backbone_arguments, export_network

    if path.found["network"] is None:
        raise InputError(f"{path.folder}: its images are not square, and networks on such are not built again")
    made = read_provenance(path.folder)
    point, inputs = path.names[index], {"path": input_reference(path.folder)}
    shared = {name: made.options[name] for name in ("task", "val_fraction", "limit", "seed")}
    _check_unchanged(path, made, shared)
    folder, features = beside / f"network-{point:g}", beside / f"features-{point:g}.h5"
    if not check_output(folder, "network", {"point": point}, inputs, force=force):
        from debugnet.artifacts.bundle import write_bundle

        with write_bundle(folder, collect("network", {"point": point}, inputs)) as target:
            export_network(path.folder, path.found, point, target)
    backbone, weights = backbone_arguments(folder, path.found)
    found = Extract(
        backbone, weights=weights, data=made.inputs["data"]["path"], output=features, device=options.device,
        max_bad=1.0, **shared,
    )  # fmt: skip
    try:
        extract.run(found, force=force)
    except InputError as error:
        if "no Linear layer gives" not in str(error) and "the feature cannot be" not in str(error):
            raise
        raise InputError(
            f"the network of {path.folder} does not end in a Linear layer, so it has no decision layer to select: "
            f"debugnet extract --backbone {folder} --layer NAME, and fit-path on that"
        ) from error
    return features


def _check_unchanged(path: NetworkPath, made: Provenance, shared: dict[str, Any]) -> None:
    from debugnet.backbones.identity import network_digest
    from debugnet.backbones.spec import BackboneSpec
    from debugnet.data import DataSpec, load_dataset

    inputs, again = made.inputs, f"train again (--force) with: {made.command}"
    spec = DataSpec(inputs["data"]["path"], **shared)
    splits = load_dataset(spec)
    digest = hashlib.sha256("".join(splits.fingerprint(name) for name in splits.splits).encode()).hexdigest()
    if digest != inputs["data"]["digest"]:
        raise StaleArtifact(f"{spec.path} is not what {path.folder} was trained on: {again}")
    name = path.found["network"]["network"]
    if str(name).startswith("python:"):
        recorded = BackboneSpec(name, weights=made.settings.get("weights"))
        if network_digest(recorded) != inputs["network"]["digest"]:
            raise StaleArtifact(f"the code of {name} has changed since {path.folder} was trained: {again}")


def own_layer(store: FeatureStore, path: NetworkPath, meta: dict[str, Any]) -> LinearHead:
    """Return the network's own last layer as a head.

    Units that say the same of every sample of every split become part of the bias.

    Parameters
    ----------
    store : FeatureStore
        Of the point's network.
    path : NetworkPath
    meta : dict
        How the point was chosen; what the layer is like is added.
    """
    from debugnet.analysis.accuracy import evaluate
    from debugnet.heads import LinearHead
    from debugnet.stages.inputs import has_rows, usable_rows

    dense = store.dense_head
    if dense is None:
        raise InputError(f"{store.path} has no decision layer of its network: fit one (debugnet fit-path {store.path})")
    weight, bias = dense.weight.copy(), dense.bias.copy()
    constant = _constant(store)
    bias += weight[:, constant] @ store.standardizer.mean[constant]
    weight[:, constant] = 0
    names = store.class_names or [f"output {k}" for k in range(len(weight))]
    head = LinearHead(weight, bias, store.standardizer, path.meta["family"], names, store.task)
    counts = head.support.sum(axis=1)
    metrics = {
        split: evaluate(head, *usable_rows(store.split(split))) if has_rows(store, split) else None
        for split in ("train", "val", "test")
    }
    n_inputs = int(np.prod(path.found["network"]["shape"])) if path.meta["method"] == "lassonet" else 0
    meta = meta | {
        "nnz": int(counts.sum()),
        "features_used": len(head.used_features),
        "counts": counts.tolist(),
        "mean_features_per_class": float(counts.mean()),
        "metrics": metrics,
    }
    meta["network"] |= {"hidden_units": weight.shape[1] - n_inputs, "direct_inputs": n_inputs}
    return LinearHead(weight, bias, store.standardizer, head.family, names, store.task, meta)


def _constant(store: FeatureStore) -> np.ndarray:
    """Features (indices) with one value in all usable rows of all splits."""
    columns = np.flatnonzero(store.standardizer.scale == 0)
    value = store.standardizer.mean[columns].astype(np.float32)
    for split in store.splits.values():
        for start, block in split.blocks():
            rows = np.asarray(block)[split.usable[start : start + len(block)]][:, columns]
            same = np.isclose(rows, value, rtol=1e-6, atol=0).all(axis=0)
            columns, value = columns[same], value[same]
    return columns
