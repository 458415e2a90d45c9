"""``debugnet counterfactual image``: a pattern put into images of other classes."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, StaleArtifact, UsageError
from debugnet.progress import track
from debugnet.recipes.counterfactual_image import CounterfactualImage
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result, describe_share

if TYPE_CHECKING:
    import numpy as np

    from debugnet.explain.subject import Subject
    from debugnet.heads import LinearHead
    from debugnet.stages.evaluation import Evaluation

_KIND = "counterfactuals"
_EXAMPLES = 6


def run(options: CounterfactualImage, *, force: bool = False) -> Result:
    """Write ``counterfactuals/``: rows.jsonl, rates.json, pattern.png, examples.png.

    Raises
    ------
    InputError, UsageError, StaleArtifact
    """
    if (options.feature is None) == (options.pattern is None):
        raise UsageError("give the pattern: either --feature N (its prototype's superpixels) or --pattern FILE")
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
    }
    explanations = options.explanations or Path(options.head).parent / "explanations"
    if options.feature is not None:
        inputs["explanations"] = input_reference(explanations)
    for name in ("pattern", "mask"):
        if (file := getattr(options, name)) is not None:
            inputs[name] = {"kind": "image", "path": str(file), "digest": hashlib.sha256(_read(file)).hexdigest()}
    output = options.output or Path(options.head).parent / _KIND
    if check_output(output, _KIND, options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "rates.json")
        return Result(output, report, True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json

    started = time.monotonic()
    experiment = _prepare(options, explanations, Path(inputs["features"]["path"]))
    report, rows, examples = _measure(experiment, options)
    provenance = collect(_KIND, options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "rates.json", report)
        with open(folder / "rows.jsonl", "w", encoding="utf-8", errors="surrogateescape") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        _draw(folder, experiment, report, examples)
    return Result(output, report, False, _describe(report))


def _read(file: Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give an image file") from None


@dataclass(frozen=True)
class _Experiment:
    """Everything loaded: the head, the network, the pattern, the images that will be changed."""

    evaluation: Evaluation
    subject: Subject
    pattern: np.ndarray
    mask: np.ndarray
    source: str
    target: int
    rows: np.ndarray


def _prepare(options: CounterfactualImage, explanations: Path, features: Path) -> _Experiment:
    import numpy as np

    from debugnet.stages.evaluation import Evaluation
    from debugnet.stages.subject import load_subject

    evaluation = Evaluation(options.head, options.split, features)
    head = evaluation.head
    if head.task != "single-label":
        raise UsageError(f"{options.head} is a {head.task} head: flips are counted for single labels")
    target = _target(head, options)
    subject = load_subject(
        evaluation.store, evaluation.part.split, device=options.device, batch_size=options.batch_size
    )
    if subject.modality != "image":
        raise UsageError(f"{options.head} stands on {subject.modality} features: use debugnet counterfactual text")
    candidates = evaluation.rows[(evaluation.y != target) & (evaluation.predictions != target)]
    if not len(candidates):
        raise InputError(f"split '{options.split}' has no image outside class '{head.class_names[target]}'")
    rng = np.random.default_rng(options.seed)
    if len(candidates) > options.limit:
        candidates = np.sort(rng.choice(candidates, size=options.limit, replace=False))
    if options.feature is not None:
        pattern, mask, source = _from_prototype(options, explanations, evaluation)
    else:
        pattern, mask, source = _from_files(options, subject.side)
    return _Experiment(evaluation, subject, pattern, mask, source, target, candidates)


def _target(head: LinearHead, options: CounterfactualImage) -> int:
    names = [str(name) for name in head.class_names]
    if options.target is not None:
        if options.target not in names:
            raise UsageError(f"--target {options.target} is no class: this head has {', '.join(names[:20])}")
        return names.index(options.target)
    if options.feature is None:
        raise UsageError("a pattern from a file needs --target CLASS")
    if not 0 <= options.feature < head.weight.shape[1] or not head.support[:, options.feature].any():
        used = ", ".join(map(str, head.used_features[:20]))
        raise UsageError(f"feature {options.feature} is not used by this head, which uses {used}")
    column = head.standardized_weight[:, options.feature]
    if len(column) == 1:
        return int(column[0] > 0)
    return int(column.argmax())


def _from_prototype(
    options: CounterfactualImage, explanations: Path, evaluation: Evaluation
) -> tuple[np.ndarray, np.ndarray, str]:
    """Cut the superpixels that raise the feature most out of one of its prototypes."""
    import numpy as np

    from debugnet.artifacts.explanation_bundle import load_explanations
    from debugnet.artifacts.provenance import read_provenance
    from debugnet.counterfactual.image import superpixel_mask
    from debugnet.stages.subject import load_subject

    assert options.feature is not None
    bundle = load_explanations(explanations)
    records = bundle.records(options.feature, "positive", "lime")
    if options.prototype >= len(records):
        raise InputError(
            f"{explanations} explains {len(records)} prototypes of feature {options.feature}, and --prototype "
            f"{options.prototype} asks for another; run debugnet explain with --methods prototypes,lime"
        )
    record = records[options.prototype]
    split, row = read_provenance(explanations).options.get("split", "val"), int(record["row"])
    ids = evaluation.store.split(split).ids
    if row >= len(ids) or ids[row] != record["sample_id"]:
        raise StaleArtifact(
            f"{explanations} explains {record['sample_id']} as row {row} of {split}, where {evaluation.store.path} has "
            "another sample: explain this head again (debugnet explain --force)"
        )
    subject = load_subject(evaluation.store, split, device=options.device)
    mask = superpixel_mask(bundle.segments(record), np.array(record["effects"]), options.superpixels)
    pattern = subject.image(row).astype(np.float32) / 255
    return pattern, mask, f"feature {options.feature} in {record['sample_id']}"


def _from_files(options: CounterfactualImage, side: int) -> tuple[np.ndarray, np.ndarray, str]:
    import io

    import numpy as np
    from PIL import Image, UnidentifiedImageError

    assert options.pattern is not None
    images = []
    for file in (options.pattern, options.mask):
        if file is None:
            continue
        try:
            image = Image.open(io.BytesIO(_read(file)))
            image.load()
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is no readable image ({error}); give a PNG or JPEG") from None
        images.append(image.resize((side, side), Image.Resampling.BILINEAR) if options.resize_mask else image)
    pattern = np.asarray(images[0].convert("RGBA"), dtype=np.float32) / 255
    mask = np.asarray(images[1].convert("L"), dtype=np.float32) / 255 if len(images) > 1 else pattern[..., 3]
    return pattern[..., :3], mask, str(options.pattern)


def _measure(
    experiment: _Experiment, options: CounterfactualImage
) -> tuple[dict[str, Any], list[dict[str, Any]], list[tuple[np.ndarray, np.ndarray, dict[str, Any]]]]:
    """Change every image, with its controls, and count the decisions that go to the target."""
    import numpy as np

    from debugnet.analysis.intervals import proportion
    from debugnet.counterfactual.image import composite, random_pattern
    from debugnet.explain.forward import NotExplainable, sample_seed

    subject, head = experiment.subject, experiment.evaluation.head
    rows: list[dict[str, Any]] = []
    examples: list[tuple[np.ndarray, np.ndarray, dict[str, Any]]] = []
    skipped = []
    for row in track(experiment.rows, len(experiment.rows), "images", "image"):
        sample = subject.sample_id(int(row))
        try:
            image = subject.image(int(row)).astype(np.float32) / 255
        except NotExplainable as reason:
            skipped.append({"id": sample, "why": str(reason)})
            continue
        rng = np.random.default_rng(sample_seed(options.seed, sample))
        changed = [composite(image, experiment.pattern, experiment.mask)]
        for _ in range(options.controls):
            noise = random_pattern(experiment.pattern, experiment.mask, rng)
            changed.append(composite(image, noise, experiment.mask))
        scores = _scores(experiment, np.stack([image, *changed]))
        decided = scores.argmax(axis=1)
        names = head.class_names
        rows.append(
            {
                "id": sample, "before": names[decided[0]], "after": names[decided[1]],
                "flipped": bool(decided[1] == experiment.target),
                "controls_flipped": int((decided[2:] == experiment.target).sum()),
                "logits_before": scores[0].tolist(), "logits_after": scores[1].tolist(),
            }
        )  # fmt: skip
        if rows[-1]["flipped"] and len(examples) < _EXAMPLES:
            examples.append((image, changed[0], rows[-1]))
    flips = sum(r["flipped"] for r in rows)
    report = {
        "split": str(experiment.evaluation.part), "pattern": experiment.source,
        "target": str(head.class_names[experiment.target]), "area": float(experiment.mask.mean()),
        "flip": proportion(flips, len(rows)),
        "control": proportion(sum(r["controls_flipped"] for r in rows), len(rows) * options.controls),
        "skipped": skipped,
    }  # fmt: skip
    return report, rows, examples


def _scores(experiment: _Experiment, images: np.ndarray) -> np.ndarray:
    """Class scores (n, K) of pixels (n, H, W, 3) in [0, 1]; a one-row head gets its constant class 0."""
    import numpy as np
    import torch

    head, subject = experiment.evaluation.head, experiment.subject
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(subject.device)
    Z = subject.probe.collect(lambda start, stop: pixels[start:stop], len(pixels)).astype(np.float64)
    scores = Z @ head.standardized_weight.T + head.standardized_bias
    return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores


def _draw(
    folder: Path,
    experiment: _Experiment,
    report: dict[str, Any],
    examples: list[tuple[np.ndarray, np.ndarray, dict[str, Any]]],
) -> None:
    import numpy as np
    from PIL import Image

    from debugnet.report.figures import drawing, label

    pixels = np.concatenate([experiment.pattern, experiment.mask[..., None]], axis=2)
    Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(folder / "pattern.png")  # --pattern takes it again
    cut = experiment.mask[..., None] * experiment.pattern + (1 - experiment.mask[..., None])
    columns = max(len(examples), 1)
    with drawing(folder, "examples", 1.0 + 1.7 * (columns + 1), 4.0) as figure:
        axes = figure.subplots(2, columns + 1, squeeze=False)
        axes[0, 0].imshow(cut)
        axes[0, 0].set_title("the pattern", fontsize=9)
        for column in range(columns):
            for line in range(2):
                if column < len(examples):
                    before, after, row = examples[column]
                    axes[line, column + 1].imshow(np.clip((before, after)[line], 0, 1))
                    name = row["before" if line == 0 else "after"]
                    axes[line, column + 1].set_title(label(name, 18), fontsize=9)
        for axis in axes.flat:
            axis.set_axis_off()
        rate, control = report["flip"], report["control"]
        figure.suptitle(
            f"to '{label(report['target'])}': {rate['value']:.1%} of {rate['n']} images, "
            f"control {control['value'] or 0:.1%}", fontsize=10.5,
        )  # fmt: skip


def _describe(report: dict[str, Any]) -> str:
    return (
        f"pattern: {report['pattern']}, {report['area']:.1%} of the image; target '{report['target']}'\n"
        f"flips to the target: {describe_share(report['flip'])}; "
        f"random pattern on the same area: {describe_share(report['control'])}"
        + (f"\n{len(report['skipped'])} images skipped" if report["skipped"] else "")
    )
