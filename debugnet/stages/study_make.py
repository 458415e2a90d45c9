"""``debugnet study make``: a head and its features -> the pages of a human study, and apart from them its key."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import artifact_key, check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.recipes.study_make import StudyMake
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.study.tasks import Key, Task

_KIND = "study"
#: Kinds of which the study needs an artefact beside head and features.
_NEEDS = {"simulation": None, "pairs": "pairs", "misclassification": "diagnosis"}


def run(options: StudyMake, *, force: bool = False) -> Result:
    """Write a study: ``public/`` (pages, tasks.csv), ``key/`` (tasks.jsonl, key.jsonl), ``study.json``.

    Raises
    ------
    InputError
        What the study is made from is missing.
    UsageError
        Nothing can be asked: no class with a feature, no shared feature, no error.
    """
    inputs = _inputs(options)
    output = options.output or Path(options.head).absolute().parent / f"study_{options.kind}"
    if check_output(output, _KIND, options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        about: dict[str, Any] = read_json(output / "study.json")
        return Result(output, about, True, _describe(output, about))
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.stages.study_pages import Pages

    started = time.monotonic()
    made = _anonymous(_make_tasks(options, inputs), options)
    study = artifact_key(_KIND, options, inputs)[:12]
    about = {
        "study": study,
        "kind": options.kind,
        "tasks": len(made),
        "seed": options.seed,
        "widened": sum(bool(key.facts.get("widened")) for _, key in made),
    }
    pages = Pages(options, inputs, study)
    provenance = collect(_KIND, options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        (folder / "public").mkdir()
        (folder / "key").mkdir()
        about["shown_by"] = pages.write(folder / "public", [task for task, _ in made])
        (folder / "public" / "tasks.csv").write_text(_table([task for task, _ in made]), encoding="utf-8")
        _write_lines(folder / "key" / "tasks.jsonl", [dataclasses.asdict(task) for task, _ in made])
        _write_lines(folder / "key" / "key.jsonl", [dataclasses.asdict(key) for _, key in made])
        write_json(folder / "study.json", about)
    return Result(output, about, False, _describe(output, about))


def _inputs(options: StudyMake) -> dict[str, dict[str, str]]:
    head = Path(options.head)
    found = {
        "head": input_reference(head),
        "features": input_reference(find_input(head, "features", options.features)),
    }
    beside = head.absolute().parent
    explanations = options.explanations or beside / "explanations"
    if options.explanations is not None or (explanations / "manifest.json").exists():
        found["explanations"] = input_reference(explanations)
    needed = _NEEDS[options.kind]
    if needed is not None:
        path = getattr(options, needed) or beside / needed
        command = {"pairs": "pairs", "diagnosis": "diagnose"}[needed]
        if not (Path(path) / "manifest.json").exists():
            raise InputError(f"{path} is not there, and the study needs it: run debugnet {command} {options.head}")
        found[needed] = input_reference(path)
    return found


def _make_tasks(options: StudyMake, inputs: dict[str, dict[str, str]]) -> list[tuple[Task, Key]]:
    from debugnet.study import tasks

    if options.kind == "simulation":
        made = _simulation(options, Path(inputs["features"]["path"]))
    elif options.kind == "pairs":
        shared = _read_lines(Path(inputs["pairs"]["path"]) / "shared.jsonl")
        made = tasks.make_pairs(shared, limit=options.limit, seed=options.seed)
    else:
        from debugnet.artifacts.head_store import load_head

        errors = _read_lines(Path(inputs["diagnosis"]["path"]) / "errors.jsonl")
        fixable = [e for e in errors if e.get("fixed_mean") or e.get("fixed_zero")]
        features = load_head(options.head).used_features.tolist()
        made = tasks.make_misclassification(fixable, features, limit=options.limit, seed=options.seed)
    if not made:
        why = {
            "simulation": "no class has a feature that speaks for it: choose a less sparse layer (select --drop)",
            "pairs": "no two classes share a feature: choose a less sparse layer (select --drop)",
            "misclassification": "turning one feature off repairs no error: diagnose a split with more (--split)",
        }
        raise UsageError(f"{options.head}: there is nothing to ask, since {why[options.kind]}")
    return made


def _simulation(options: StudyMake, features: Path) -> list[tuple[Task, Key]]:
    """Tasks about the sparse layer and, beside them, about the dense one, on the same classes."""
    import numpy as np

    from debugnet.stages.evaluation import Evaluation
    from debugnet.stages.layers import dense_layer
    from debugnet.stages.study_layers import class_probabilities, class_weights
    from debugnet.study.tasks import make_simulation

    evaluation = Evaluation(options.head, options.split, features)
    head = evaluation.head
    if head.task != "single-label":
        raise UsageError(f"{options.head} is a {head.task} head: the study is about single labels")
    layers = {"sparse": head}
    if options.dense and (dense := dense_layer(options.head)) is not None:
        layers["dense"] = dense
    weight = class_weights(head)
    rng = np.random.default_rng(options.seed)
    able = np.flatnonzero((weight > 0).any(axis=1))
    classes = np.sort(rng.choice(able, size=min(options.classes, len(able)), replace=False))
    counts = {int(c): int((weight[c] > 0.05 * weight[c].max()).sum()) for c in classes}
    ranges = [(float(low), float(high)) for low, _, high in (text.partition("-") for text in options.percentiles)]
    made = []
    for name, layer in layers.items():
        made += make_simulation(
            name, class_weights(layer), class_probabilities(layer, evaluation.X), evaluation.y, evaluation.ids,
            [str(n) for n in head.class_names], classes=[int(c) for c in classes], repeats=options.repeats,
            n_features=options.shown, top=counts, percentiles=ranges, seed=options.seed,
        )  # fmt: skip
    return made


def _anonymous(made: Sequence[tuple[Task, Key]], options: StudyMake) -> list[tuple[Task, Key]]:
    """Shuffle the tasks and give them ids that say nothing: the model and the class are in the key alone."""
    import numpy as np

    order = np.random.default_rng([options.seed, 7]).permutation(len(made))[: options.limit]
    width = len(str(len(order)))
    renamed = []
    for number, i in enumerate(order, start=1):
        task, key = made[i]
        name = f"t{number:0{width}d}"
        facts = {**key.facts, "made_as": task.id}
        renamed.append((dataclasses.replace(task, id=name), dataclasses.replace(key, id=name, facts=facts)))
    return renamed


def _table(made: Sequence[Task]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("task", "file", "kind", "options"))
    for task in made:
        writer.writerow((task.id, f"{task.id}.html", task.kind, " ".join(task.options)))
    return text.getvalue()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return [json.loads(line) for line in file]


def _write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    from debugnet.artifacts.canonical import jsonable

    lines = [json.dumps(jsonable(record), ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def _describe(output: Path, about: dict[str, Any]) -> str:
    lines = [
        f"{about['tasks']} tasks ({about['kind']}): open {output / 'public' / 'index.html'}",
        f"the answer key is in {output / 'key'}: keep it from the annotators",
    ]
    if about["widened"]:
        lines.append(
            f"{about['widened']} tasks have a sample from outside its percentile range: the split is too small for it"
        )
    return "\n".join(lines)
