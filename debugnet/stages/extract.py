"""``debugnet extract``: a network and a data set -> ``features.h5``."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect
from debugnet.backbones.identity import file_digest, network_digest, network_path
from debugnet.backbones.spec import BackboneSpec
from debugnet.errors import InputError, TooManyBadRows, UsageError
from debugnet.progress import duration, log
from debugnet.recipes.extract import Extract
from debugnet.stages.result import Result

if TYPE_CHECKING:
    import numpy as np

    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.artifacts.feature_writer import FeatureStoreWriter
    from debugnet.backbones.backbone import Backbone
    from debugnet.data import DatasetSplits, DataSpec
    from debugnet.features.extraction import ExtractionReport

#: Rows named in the error about unusable rows.
_SHOWN_IDS = 10


def run(options: Extract, *, force: bool = False) -> Result:
    """Extract the deep features of a data set.

    Raises
    ------
    InputError
        The network, its weights or the data cannot be used.
    TooManyBadRows
        More rows than ``options.max_bad`` are unusable; the features stay in the partial file.
    DeviceError
        No such device, or a single sample does not fit.
    """
    from debugnet.artifacts.atomic import lock, make_parent
    from debugnet.artifacts.feature_store import load_features
    from debugnet.data import load_dataset

    spec, data_spec = _backbone_spec(options), _data_spec(options)
    output = options.output or _default_output(spec, data_spec)
    splits = load_dataset(data_spec)
    if options.class_names and splits.class_names != list(options.class_names):
        names = ", ".join(splits.class_names[:5])
        raise UsageError(f"--class-names: {options.data} names its classes itself ({names}); leave the option out")
    inputs = _inputs(options, spec, splits)
    if check_output(output, "features", options, inputs, force=force):
        return _result(load_features(output), reused=True)
    make_parent(output)
    with lock(output):  # before a network is loaded for nothing
        for line in splits.warnings():
            log(f"warning: {line}", level="warning")
        report = _extract(options, spec, data_spec, splits, inputs, output, force)
    store = load_features(output)
    return _result(store, reused=False, report=report, dense_accuracy=_dense_accuracy(store))


def _backbone_spec(options: Extract) -> BackboneSpec:
    return BackboneSpec(
        options.backbone,
        weights=options.weights,
        layer=options.layer,
        pooling=options.pool,
        max_length=options.max_length,
        image_size=options.image_size,
        preprocessing=options.preprocessing,
    )


def _data_spec(options: Extract) -> DataSpec:
    from debugnet.data import DataSpec

    return DataSpec(
        _absolute(options.data),
        val=_absolute(options.val),
        test=_absolute(options.test),
        text_columns=options.text_column,
        label_columns=options.label_columns or ((options.label_column,) if options.label_column else ()),
        id_column=options.id_column,
        group_column=options.group_column,
        task=options.task,
        class_names=options.class_names,
        val_fraction=options.val_fraction,
        seed=options.seed,
        limit=options.limit,
        root=str(Path(options.data_root).expanduser().absolute()),
        download=options.online,
    )


def _absolute(place: str | None) -> Any:
    """Make an existing path absolute, so that later stages find it from any folder."""
    if place is None:
        return None
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


def _default_output(spec: BackboneSpec, data: DataSpec) -> Path:
    names = (spec.name.rpartition(":")[2].rstrip("/"), data.path.rpartition(":")[2].rstrip("/"))
    return Path("runs") / "-".join(Path(name).stem for name in names) / "features.h5"


def _inputs(options: Extract, spec: BackboneSpec, splits: DatasetSplits) -> dict[str, dict[str, str]]:
    """What the features are made from, by content."""
    network = {"kind": "network", "path": network_path(spec), "digest": network_digest(spec, online=options.online)}
    inputs = {"backbone": network}
    for name in splits.splits:
        place = getattr(splits.spec, name, None) or splits.spec.path
        inputs[name] = {"kind": "data", "path": place, "digest": splits.fingerprint(name)}
    if options.class_map is not None:
        path = str(options.class_map.resolve())
        inputs["class_map"] = {"kind": "class-map", "path": path, "digest": file_digest(options.class_map)}
    return inputs


def _extract(
    options: Extract,
    spec: BackboneSpec,
    data_spec: DataSpec,
    splits: DatasetSplits,
    inputs: dict[str, dict[str, str]],
    output: Path,
    force: bool,
) -> ExtractionReport:
    from debugnet.artifacts.feature_writer import create_feature_store
    from debugnet.backbones.devices import describe_device
    from debugnet.backbones.loading import load_backbone
    from debugnet.features.extraction import choose_batch_size, extract_features

    started = time.monotonic()
    sample = _first_good_sample(splits)
    shape = tuple(sample.shape) if splits.modality == "tensor" else None
    spec = dataclasses.replace(spec, modality=splits.modality, input_shape=shape)
    backbone = load_backbone(spec, options.device, online=options.online)
    if backbone.modality != splits.modality:
        raise UsageError(f"--backbone {spec.name} reads {backbone.modality} data, --data holds {splits.modality} data")
    batch_size = options.batch_size or choose_batch_size(backbone, sample)
    workers = _default_workers(backbone) if options.workers is None else options.workers
    log(
        f"{spec.name}: {backbone.feature_dim} features from {backbone.layer or 'the last hidden state'} on "
        f"{describe_device(backbone.device)}, batches of {batch_size}"
    )
    device = describe_device(backbone.device)
    sizes = {name: len(dataset) for name, dataset in splits.splits.items()}
    before = collect("features", options, inputs, seed=options.seed, device=device)
    with create_feature_store(
        output, sizes, backbone.feature_dim, options.dtype, provenance=before, force=force
    ) as writer:
        report = extract_features(
            backbone,
            splits.splits,
            writer,
            batch_size=batch_size,
            workers=workers,
            amp=None if options.amp == "off" else options.amp,
        )
        for reason in report.reasons:
            log(f"warning: unusable row: {reason}", level="warning")
        _refuse_too_many_bad_rows(writer, splits, options.max_bad)
        seconds = time.monotonic() - started
        writer.finish(
            provenance=collect("features", options, inputs, seed=options.seed, device=device, seconds=seconds),
            config=_config(backbone, data_spec, splits, report, options),
            **_descriptions(backbone, splits, options.class_map),
        )
    return report


def _first_good_sample(splits: DatasetSplits) -> Any:
    from debugnet.data import BadSample

    for dataset in splits.splits.values():
        for row in range(min(len(dataset), 1000)):
            try:
                return dataset[row]
            except BadSample as bad:
                reason = bad.reason
    raise InputError(f"{splits.spec.path}: none of its first rows can be used ({reason})")


def _default_workers(backbone: Backbone) -> int:
    if backbone.modality != "image":
        return 0
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, 16) if backbone.device.type == "cuda" else min(cpus // 2, 4)


def _refuse_too_many_bad_rows(writer: FeatureStoreWriter, splits: DatasetSplits, max_bad: float) -> None:
    """Missing labels are the data's business and reported by it; everything else counts."""
    import numpy as np

    from debugnet.data import Status

    bad = {name: np.flatnonzero(~np.isin(writer.status(name), (0, Status.LABEL_MISSING))) for name in splits.splits}
    n_bad, n_rows = sum(map(len, bad.values())), sum(map(len, splits.splits.values()))
    if n_bad <= max_bad * n_rows:
        return
    named = [
        f"{splits.splits[name].ids[row]} ({Status(int(writer.status(name)[row])).name.lower().replace('_', ' ')})"
        for name, rows in bad.items()
        for row in rows[:_SHOWN_IDS]
    ][:_SHOWN_IDS]
    raise TooManyBadRows(
        f"{n_bad} of {n_rows} rows are unusable, more than --max-bad {max_bad:g}: {', '.join(named)}"
        f"{', …' if n_bad > len(named) else ''}; the features are kept in {writer.partial}: mend the data and run "
        f"again, or accept them with --max-bad {n_bad / n_rows * 1.001:.2g}"
    )


def _config(
    backbone: Backbone, data_spec: DataSpec, splits: DatasetSplits, report: ExtractionReport, options: Extract
) -> dict[str, Any]:
    return {
        "backbone": backbone.spec.to_json(),
        "data": data_spec.to_json(),
        "modality": splits.modality,
        "layer": backbone.layer,
        "data_fingerprints": {name: splits.fingerprint(name) for name in splits.splits},
        "extraction": {
            "batch_size": report.batch_size,
            "amp": options.amp,
            "n_truncated": report.n_truncated,
        },
    }


def _descriptions(backbone: Backbone, splits: DatasetSplits, class_map: Path | None) -> dict[str, Any]:
    """Labels, ids, names and the network's own head: what the store keeps beside the features."""
    from debugnet.features.class_matching import match_classes, readable_names

    head = backbone.head
    names: list[str] | None = None
    if head is not None:
        outputs = match_classes(splits.class_names, backbone.class_names, len(head.weight), class_map)
        if outputs is not None:
            head = type(head)(head.weight[outputs], head.bias[outputs])
        else:
            names = list(backbone.class_names or (f"output {i}" for i in range(len(head.weight))))
            if splits.class_names:  # a regression has none
                log(
                    f"the network's {len(names)} classes are not matched to the data's {len(splits.class_names)}: its "
                    "own accuracy is unknown (--class-map tells them)"
                )
    data = splits.splits
    return {
        "labels": {name: dataset.labels for name, dataset in data.items()},
        "ids": {name: dataset.ids for name, dataset in data.items()},
        "groups": {name: dataset.groups for name, dataset in data.items() if dataset.groups is not None},
        "group_names": splits.group_names,
        "class_names": readable_names(splits.class_names, backbone.class_names),
        "task": splits.task,
        "dense_head": head,
        "dense_class_names": names,
    }


def _dense_accuracy(store: FeatureStore) -> dict[str, float]:
    """Accuracy (fraction) of the network's own head on the held-out splits, where classes are matched."""
    head = store.dense_head
    if head is None or store.task != "single-label" or list(head.class_names) != store.class_names:
        return {}
    accuracy = {}
    for name, split in store.splits.items():
        usable = split.usable & (split.y >= 0)
        if name == "train" or not usable.any():
            continue
        right = sum(
            int(_right(head.predict(X), split.y[i : i + len(X)], usable[i : i + len(X)])) for i, X in split.blocks()
        )
        accuracy[name] = right / int(usable.sum())
    return accuracy


def _right(predicted: np.ndarray, y: np.ndarray, usable: np.ndarray) -> int:
    return int(((predicted == y) & usable).sum())


def _result(
    store: FeatureStore,
    *,
    reused: bool,
    report: ExtractionReport | None = None,
    dense_accuracy: dict[str, float] | None = None,
) -> Result:
    rows = {name: len(split) for name, split in store.splits.items()}
    unusable = {name: int((split.status != 0).sum()) for name, split in store.splits.items()}
    summary: dict[str, Any] = {
        "rows": rows,
        "unusable": unusable,
        "n_features": store.n_features,
        "n_classes": len(store.class_names),
        "task": store.task,
        "seconds": store.provenance.seconds,
        "peak_memory": store.provenance.peak_memory,
        "truncated": store.config["extraction"]["n_truncated"],
    }
    lines = [
        f"{', '.join(f'{name} {n}' for name, n in rows.items())} rows x {store.n_features} features, "
        f"{len(store.class_names)} classes"
    ]
    if any(unusable.values()):
        lines.append("unusable rows: " + ", ".join(f"{name} {n}" for name, n in unusable.items() if n))
    if summary["truncated"]:
        lines.append(f"{summary['truncated']} texts were longer than the network reads and cut")
    if dense_accuracy:
        summary["dense_accuracy"] = dense_accuracy
        lines.append("the network's own head: " + ", ".join(f"{n} {a:.1%}" for n, a in dense_accuracy.items()))
    if report is not None:
        summary["rows_computed"] = report.n_rows
        lines.append(f"{report.n_rows} rows computed in {duration(store.provenance.seconds)}")
    return Result(store.path, summary, reused, "\n".join(lines))
