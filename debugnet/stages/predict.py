"""``debugnet predict``: the sparse head in the network -> predictions with the features behind them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.recipes.predict import Predict
from debugnet.stages.inputs import find_input, has_rows
from debugnet.stages.result import Result, plain_data

if TYPE_CHECKING:
    import numpy as np

    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.data import DatasetSplits

#: Samples written out in the text for people.
SHOWN_SAMPLES, SHOWN_FEATURES = 5, 4
PREDICTIONS = "predictions.jsonl"


@dataclasses.dataclass
class Sample:
    """One row on its way to a prediction; ``x`` is None where it cannot be used."""

    split: str
    row: int
    id: str
    label: Any
    x: np.ndarray | None
    status: int = 0


def run(options: Predict, *, force: bool = False) -> Result:
    """Predict stored or new samples with ``options.head`` and write one line of JSON for each.

    Raises
    ------
    StaleArtifact
        The network or the features are not those that the head was made for.
    """
    if options.top_features < 0:
        raise UsageError(f"--top-features {options.top_features}: 0 (all) or more")
    feature_file = find_input(options.head, "features", options.features)
    inputs = {"head": input_reference(options.head), "features": input_reference(feature_file)}
    splits = _load_data(options) if options.data is not None else None
    if splits is not None:
        for name in splits.splits:
            inputs[name] = {"kind": "data", "path": splits.spec.path, "digest": splits.fingerprint(name)}
    output = options.output or (options.head if options.head.name else options.head.absolute()).parent / "predictions"
    reused = check_output(output, "predictions", options, inputs, force=force)
    if not reused:
        _make(options, output, inputs, splits)
    return _result(output, reused)


def _load_data(options: Predict) -> DatasetSplits:
    from debugnet.data import DataSpec, load_dataset

    assert options.data is not None
    path = Path(options.data).expanduser()
    place = str(path.resolve()) if path.exists() else options.data
    spec = DataSpec(place, text_columns=options.text_column, labeled=False, val_fraction=0.0, download=options.online)
    return load_dataset(spec)


def _make(options: Predict, output: Path, inputs: dict[str, Any], splits: DatasetSplits | None) -> None:
    from debugnet.analysis.contributions import explain_prediction
    from debugnet.artifacts.atomic import atomic_directory, lock
    from debugnet.artifacts.bundle import write_manifest
    from debugnet.artifacts.feature_store import STATUSES, load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.progress import Progress

    started = time.monotonic()
    head, store = load_head(options.head), load_features(inputs["features"]["path"])
    if splits is None:
        total, samples = _stored_samples(store, options.split)
    else:
        total, samples = _new_samples(store, splits, options)
    with lock(output), atomic_directory(output, replace=True) as folder:
        with (
            open(folder / PREDICTIONS, "w", encoding="utf-8", errors="surrogateescape") as file,
            Progress(total, "predict", "sample") as progress,
        ):
            for sample in samples:
                record: dict[str, Any] = {"id": sample.id, "split": sample.split, "row": sample.row}
                if sample.label is not None:
                    record["label"] = sample.label
                if sample.x is None:
                    record["status"] = STATUSES[sample.status]
                else:
                    record |= explain_prediction(head, sample.x, options.top_features)
                file.write(json.dumps(plain_data(record), ensure_ascii=False, allow_nan=False) + "\n")
                progress.update()
        seconds = time.monotonic() - started
        write_manifest(folder, collect("predictions", options, inputs, device=options.device, seconds=seconds))


def _stored_samples(store: FeatureStore, split: str | None) -> tuple[int, Iterator[Sample]]:
    name = split or next(name for name in ("test", "val", "train") if has_rows(store, name))
    chosen = store.split(name)

    def samples() -> Iterator[Sample]:
        for start, X in chosen.blocks():
            for place, x in enumerate(X):
                row = start + place
                status = int(chosen.status[row])
                label = _label(chosen.y[row], store.class_names, store.task)
                yield Sample(name, row, chosen.ids[row], label, None if status else x, status)

    return len(chosen), samples()


def _new_samples(store: FeatureStore, splits: DatasetSplits, options: Predict) -> tuple[int, Iterator[Sample]]:
    """Run the network that made the store's features over new data."""
    from debugnet.backbones.loading import load_backbone
    from debugnet.backbones.spec import BackboneSpec
    from debugnet.features.class_matching import readable_names
    from debugnet.features.extraction import choose_batch_size

    if options.split is not None and options.split not in splits.splits:
        raise InputError(f"{options.data} has no split '{options.split}': it has {', '.join(splits.splits)}")
    chosen = {name: data for name, data in splits.splits.items() if options.split in (None, name)}
    backbone = load_backbone(BackboneSpec.from_json(store.config["backbone"]), options.device, online=options.online)
    if backbone.modality != splits.modality:
        raise UsageError(f"the network reads {backbone.modality} data, and {options.data} holds {splits.modality} data")

    class_names = readable_names(splits.class_names, backbone.class_names)

    def samples() -> Iterator[Sample]:
        for name, dataset in chosen.items():
            size = options.batch_size or choose_batch_size(backbone, _first_good(dataset))
            for start, features, status in _features(backbone, dataset, size, options.workers or 0):
                for place in range(len(status)):
                    row = start + place
                    label = _label(dataset.labels[row], class_names, splits.task)
                    x = None if status[place] else features[place]
                    yield Sample(name, row, dataset.ids[row], label, x, int(status[place]))

    return sum(map(len, chosen.values())), samples()


def _features(backbone: Any, dataset: Any, batch_size: int, workers: int) -> Iterator[tuple[int, Any, Any]]:
    """Yield (first row, features (n, d), status (n,)) block by block; a missing label is no obstacle here."""
    import numpy as np

    from debugnet.features.batches import read_blocks
    from debugnet.features.extraction import BatchRunner

    runner = BatchRunner(backbone, batch_size)
    for block in read_blocks(backbone, dataset, 0, batch_size, workers):
        features = np.full((len(block.status), backbone.feature_dim), np.nan, dtype=np.float32)
        for places, batch in block.batches:
            features[places] = runner(batch)
        status = np.where((block.status == 0) & ~np.isfinite(features).all(axis=1), 3, block.status)
        yield block.start, features, status


def _first_good(dataset: Any) -> Any:
    from debugnet.data import BadSample

    for row in range(len(dataset)):
        try:
            return dataset[row]
        except BadSample as bad:
            reason = bad.reason
    raise InputError(f"no sample can be used ({reason})" if len(dataset) else "there is no sample")


def _label(y: Any, names: list[str], task: str) -> Any:
    """The true label as people call it, or None where there is none."""
    if task == "regression":
        return None if y != y else y.tolist()
    if task == "multi-label":
        return [str(name) for name, on in zip(names, y, strict=True) if on]
    return names[int(y)] if names and 0 <= int(y) < len(names) else None


def _result(output: Path, reused: bool) -> Result:
    counts: dict[str, int] = {}
    n_samples = n_unusable = n_labelled = n_right = 0
    lines: list[str] = []
    with open(output / PREDICTIONS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            record = json.loads(line)
            n_samples += 1
            if "status" in record:
                n_unusable += 1
                continue
            prediction = record["prediction"]
            for name in prediction if isinstance(prediction, list) else [prediction]:
                counts[str(name)] = counts.get(str(name), 0) + 1
            if isinstance(prediction, str) and "label" in record:
                n_labelled, n_right = n_labelled + 1, n_right + (record["label"] == prediction)
            if len(lines) < SHOWN_SAMPLES:
                lines.append(_describe(record))
    summary: dict[str, Any] = {"samples": n_samples, "unusable": n_unusable}
    if len(counts) <= 1000:  # values of a regression are no classes
        summary["predicted"] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    if n_labelled:
        summary["accuracy"] = n_right / n_labelled
        lines.append(f"accuracy {n_right / n_labelled:.4f} on {n_labelled} labelled samples")
    lines.append(f"{n_samples} samples, {n_unusable} of them unusable; one line each in {output / PREDICTIONS}")
    return Result(output, summary, reused, "\n".join(lines))


def _describe(record: dict[str, Any]) -> str:
    """Write one prediction as a sum that can be checked by hand."""
    output = max(record["outputs"], key=lambda o: o["score"])
    terms = [f"{output['bias']:+.2f} bias"]
    terms += [f"{f['contribution']:+.2f} (feature {f['feature']})" for f in output["features"][:SHOWN_FEATURES]]
    others = output["others"] + sum(f["contribution"] for f in output["features"][SHOWN_FEATURES:])
    more = f" {others:+.2f} (others)" if len(output["features"]) > SHOWN_FEATURES or output["others"] else ""
    truth = f", in truth {record['label']}" if "label" in record and record["label"] != record["prediction"] else ""
    prediction = record["prediction"]
    shown = ", ".join(map(str, prediction)) or "none" if isinstance(prediction, list) else prediction
    return f"{record['id']}: {shown}{truth}; {output['class']} {output['logit']:.2f} = {' '.join(terms)}{more}"
