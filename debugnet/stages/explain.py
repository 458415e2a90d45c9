"""``debugnet explain``: a sparse layer -> ``explanations/``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet import interrupts
from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.progress import Progress, duration, log
from debugnet.recipes.explain import Explain
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result
from debugnet.stages.subject import load_subject

if TYPE_CHECKING:
    from debugnet.artifacts.bundle import BundleWriter
    from debugnet.explain.neighbourhoods import Neighbourhoods, Perturbation
    from debugnet.explain.plan import Plan
    from debugnet.explain.subject import Subject
    from debugnet.explain.untrained import WeightCheck
    from debugnet.heads import LinearHead

_KIND = "explanations"


def run(options: Explain, *, force: bool = False) -> Result:
    """Explain the features of ``options.head``.

    Raises
    ------
    UsageError
        Options that the layer or the data does not allow.
    InputError
        An input is missing, or the network and data no longer give the stored features.
    OutputExists
        The output was made with other options; ``force`` replaces it and takes over the
        forward passes that still count.
    """
    _check_options(options)
    inputs = {"head": input_reference(options.head)}
    if inputs["head"]["kind"] != "head":
        raise InputError(f"{options.head} is of kind {inputs['head']['kind']}, and a head is needed (debugnet select)")
    inputs["features"] = input_reference(find_input(options.head, "features", options.features_file))
    output = options.output or Path(options.head).parent / _KIND
    if not options.plan and check_output(output, _KIND, options, inputs, force=force):
        summary = _read_summary(output)
        return Result(output, summary, True, _describe(summary))
    job = _prepare(options, inputs)
    if options.plan:
        plan = _Work(job, output).plan()
        return Result(None, plan, False, _describe_plan(plan))
    summary = _make(job, output, inputs, force)
    return Result(output, summary, False, _describe(summary))


def _check_options(options: Explain) -> None:
    least = {"num_samples": 10, "samples_per_feature": 1, "deletion_masks": 0, "min_count": 1, "shrinkage": 0}
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name)}: at least {minimum} is needed")
    for name in ("top", "limit", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
    if options.font is not None:
        from debugnet.explain.fonts import missing_characters

        missing_characters([], options.font)  # readable, before hours of work


def _read_summary(output: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((output / "index.json").read_text(encoding="utf-8"))["summary"]
    return summary


@dataclass(frozen=True)
class _Job:
    """Everything that is to be explained, loaded."""

    options: Explain
    head: LinearHead
    subject: Subject
    plan: Plan
    perturbation: Perturbation
    weights: WeightCheck


def _prepare(options: Explain, inputs: Mapping[str, Mapping[str, str]]) -> _Job:
    """Read the head and the features, choose what to explain, and load the network and its data."""
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.explain.neighbourhoods import Perturbation
    from debugnet.explain.plan import choose_features, choose_methods, make_plan
    from debugnet.explain.untrained import check_weights

    head, store = load_head(options.head), load_features(inputs["features"]["path"])
    features = choose_features(head, options.features, options.for_class, options.top)
    split = store.split(options.split)
    subject = load_subject(store, options.split, device=options.device, batch_size=options.batch_size)
    plan = make_plan(
        split.X,
        split.usable,
        store.standardizer.mean,
        store.standardizer.inverse_scale,
        features,
        choose_methods(options.methods, subject.modality),
        sides=options.sides,
        n_samples=options.samples_per_feature,
        limit=options.limit,
    )
    for note in plan.notes:
        log(note)
    row = int(plan.word_rows[0])
    if subject.modality in ("image", "text"):
        subject.check(row, store.standardizer.transform(split.X[row : row + 1].astype("float64"))[0])
    perturbation = Perturbation(
        options.num_samples,
        options.segmentation,
        options.fill,
        options.mask,
        options.lime_compat,
        options.seed,
        options.deletion_masks,
    )
    weights = check_weights(subject.backbone.network)
    if weights.untrained:
        log(f"{weights.describe()}: {'no explanation is to be believed' if weights.flags else 'trained little or not'}")
    return _Job(options, head, subject, plan, perturbation, weights)


class _Work:
    """One run: the neighbourhoods, and what an earlier or interrupted one left."""

    def __init__(self, job: _Job, output: Path) -> None:
        self.job, self.output = job, output

    def earlier(self) -> tuple[Path, Mapping[str, Any]] | None:
        """Return a finished bundle under the output's name, whose forward passes may still count."""
        from debugnet.artifacts.bundle import read_records

        try:
            return self.output, read_records(self.output)
        except InputError:
            return None

    def neighbourhoods(self, writer: BundleWriter) -> Neighbourhoods:
        from debugnet.explain.neighbourhoods import Neighbourhoods

        return Neighbourhoods(self.job.subject, self.job.plan, self.job.perturbation, writer, self.earlier())

    def plan(self) -> dict[str, Any]:
        """Count samples and forward passes, time one batch, and look what is there already."""
        from debugnet.explain.cost import estimate
        from debugnet.explain.feature_visualization import PRESETS

        partial = self.output.with_name(self.output.name + ".partial")
        found = dict(self.earlier()[1]) if self.earlier() else {}  # type: ignore[index]
        if (partial / "records.jsonl").exists():
            found |= _whole_lines(partial / "records.jsonl")
        return estimate(self.job.subject, self.job.plan, self.job.perturbation, found, PRESETS[self.job.options.preset])


def _whole_lines(path: Path) -> dict[str, Any]:
    found = {}
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break  # torn by a kill
        found[record["key"]] = record["value"]
    return found


def _make(job: _Job, output: Path, inputs: Mapping[str, Any], force: bool) -> dict[str, Any]:
    """Do the work, resuming what was interrupted, and publish the bundle."""
    from debugnet.artifacts.bundle import BundleWriter, write_json

    started = time.monotonic()
    work = _Work(job, output)
    log("explain: " + _describe_plan(work.plan()).replace("\n", "; "))
    options = job.options
    first = collect(_KIND, options, inputs, seed=options.seed, device=str(job.subject.device))
    with BundleWriter(output, first, force=force) as writer, interrupts.deferred():
        neighbourhoods = work.neighbourhoods(writer)
        _compute(job, neighbourhoods)
        _illustrate(job, neighbourhoods, writer)
        index = _index(job, neighbourhoods, writer)
        write_json(writer.folder / "index.json", index)
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in index["skipped"]]
        (writer.folder / "skipped.jsonl").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        seconds = time.monotonic() - started
        writer.finish(
            collect(_KIND, options, inputs, seed=options.seed, device=str(job.subject.device), seconds=seconds)
        )
    summary: dict[str, Any] = index["summary"]
    return summary


def _step(progress: Progress) -> Callable[..., None]:
    def count(n: int = 1) -> None:
        progress.update(n)
        interrupts.check()

    return count


def _compute(job: _Job, work: Neighbourhoods) -> None:
    """Perturb and check; every finished sample is on disk."""
    rows = job.plan.lime_rows
    if not rows:
        return
    unit = job.subject.modality
    with Progress(len(rows), "perturbing", unit) as progress:
        work.perturb(_step(progress))
    if "lime" in job.plan.methods and job.perturbation.n_random:
        with Progress(len(job.plan.pairs), "deletion checks", unit) as progress:
            work.check(_step(progress))


def _illustrate(job: _Job, work: Neighbourhoods, writer: BundleWriter) -> None:
    from debugnet.explain.feature_visualization import PRESETS
    from debugnet.explain.gallery import Gallery

    options, plan = job.options, job.plan
    gallery = Gallery(job.subject, plan, writer, _uses(job.head, list(plan.features)), job.weights.flags, options.font)
    stack = ExitStack()
    with stack:
        if "prototypes" in plan.methods:
            step = _step(stack.enter_context(Progress(len(plan.units), "prototypes", "side")))
            for unit in plan.units:
                gallery.prototypes(unit)
                step()
        if "lime" in plan.methods:
            step = _step(stack.enter_context(Progress(len(plan.units), "drawing explanations", "side")))
            for unit in plan.units:
                gallery.lime(unit, work)
                step()
        if {"words", "cloud"} & set(plan.methods):
            step = _step(stack.enter_context(Progress(len(plan.word_rows), "word scores", "text")))
            gallery.words(
                work,
                min_count=options.min_count,
                shrinkage=options.shrinkage,
                clouds="cloud" in plan.methods,
                on_row=step,
            )
        if "visualization" in plan.methods:
            steps = PRESETS[options.preset]
            step = _step(stack.enter_context(Progress(steps * len(plan.units), "visualizing", "step")))
            gallery.visualizations(
                steps=steps, parametrization=options.parametrization, seed=options.seed, on_step=step
            )


def _uses(head: LinearHead, features: list[int]) -> dict[int, str]:
    """Say for captions which outputs use a feature most: " (+1.20 positive, -0.30 tench)"."""
    weight, said = head.standardized_weight, {}
    for feature in features:
        used = sorted(weight[:, feature].nonzero()[0], key=lambda k: -abs(weight[k, feature]))[:2]
        parts = [f"{weight[k, feature]:+.2f} {head.output_names[k]}" for k in used]
        said[feature] = f" ({', '.join(parts)})" if parts else ""
    return said


def _index(job: _Job, work: Neighbourhoods, writer: BundleWriter) -> dict[str, Any]:
    """Collect ``index.json``: what is here, and the summary."""
    from debugnet.artifacts.explanation_bundle import record_key

    plan, weight = job.plan, job.head.standardized_weight
    features: dict[str, Any] = {}
    for feature, side in plan.units:
        entry = features.setdefault(str(feature), {"sides": [], "classes": {}})
        entry["sides"].append(side)
        entry["classes"] = {
            name: float(weight[k, feature]) for k, name in enumerate(job.head.output_names) if weight[k, feature]
        }
    found = {m: [writer.records.get(record_key(m, *u), {}).get("records", []) for u in plan.units] for m in _RECORDED}
    lime = [record for records in found["lime"] for record in records]
    pictures = [record for records in found["visualization"] for record in records]
    skipped = work.skipped()
    summary = {
        "features": len(features),
        "sides": len(plan.units),
        "samples": len(plan.lime_rows) - len(skipped),
        "skipped": len(skipped),
        "explanations": len(lime),
        "unstable": sum(not record["stable"] for record in lime),
        "median_r2": _median([record["r2"] for record in lime]),
        "median_split_half": _median([record["split_half"] for record in lime]),
        "visualizations": len(pictures),
        "visualizations_failed": sum(record["failed"] is not None for record in pictures),
        "truncated_texts": len(job.subject.truncated),
        "weight_matrices": job.weights.n_matrices,
        "untrained_matrices": list(job.weights.untrained),
    }
    return {
        "modality": job.subject.modality,
        "unit": "standard deviations of the feature over the train rows",
        "methods": list(plan.methods),
        "class_names": list(job.head.class_names),
        "features": features,
        "notes": list(plan.notes),
        "skipped": skipped,
        "summary": summary,
    }


_RECORDED = ("lime", "visualization")


def _median(values: list[float | None]) -> float | None:
    import statistics

    known = [value for value in values if value is not None and value == value]
    return statistics.median(known) if known else None


def _describe_plan(plan: Mapping[str, Any]) -> str:
    lines = [
        f"{plan['features']} features, {plan['sides']} sides: {', '.join(plan['methods'])}",
        f"{plan['samples']} samples, {plan['samples_there']} of them done already",
        f"{plan['forward_passes']} forward passes and {plan['gradient_steps']} gradient steps of images left to do",
        f"about {duration(plan['seconds'])}, judged by one batch",
    ]
    return "\n".join(lines)


def _describe(summary: Mapping[str, Any]) -> str:
    lines = [f"{summary['features']} features, {summary['sides']} sides, {summary['samples']} samples"]
    if summary["explanations"]:
        lines.append(
            f"{summary['unstable']} of {summary['explanations']} explanations are unstable; medians: "
            f"R2 {summary['median_r2']:.2f}, two halves agree {summary['median_split_half']:.2f}"
            if summary["median_r2"] is not None and summary["median_split_half"] is not None
            else f"{summary['unstable']} of {summary['explanations']} explanations are unstable"
        )
    if summary["visualizations_failed"]:
        lines.append(f"{summary['visualizations_failed']} of {summary['visualizations']} visualizations failed")
    if summary["skipped"]:
        lines.append(f"{summary['skipped']} samples skipped, listed in skipped.jsonl")
    return "\n".join(lines)
