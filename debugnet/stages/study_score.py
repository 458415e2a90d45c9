"""``debugnet study score``: answers -> labels, accuracies with intervals, and what was left out."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.progress import log
from debugnet.recipes.study_score import StudyScore
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.study.aggregation import Answer
    from debugnet.study.folder import Study

_KIND = "study-scores"
#: Table 25 of the paper: simulation accuracy, percent, overall / target class / other.
PUBLISHED = {"sparse": (63.02, 72.22, 57.33), "dense": (35.61, 44.02, 30.64)}


def run(options: StudyScore, *, force: bool = False) -> Result:
    """Score answers and write ``scores.json``, ``labels.json`` and, for pairs, a cloud of the descriptions.

    Raises
    ------
    InputError
        The study or an answer sheet is missing or malformed.
    """
    if not 0 < options.max_blank <= 1 or (options.min_answers is not None and options.min_answers < 1):
        raise UsageError("--max-blank is a fraction above 0, and --min-answers at least 1")
    study_path = Path(options.study)
    files = [file for given in options.answers for file in _sheets(Path(given))]
    if not files:
        raise UsageError("no answers are given: name the files that the annotators saved")
    inputs = {"study": input_reference(study_path)}
    for number, file in enumerate(files):
        digest = hashlib.sha256(_read(file)).hexdigest()
        inputs[f"answers {number}"] = {"kind": "answers", "path": str(file), "digest": digest}
    output = options.output or study_path.absolute().parent / f"{study_path.name}_scores"
    if check_output(output, _KIND, options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "scores.json")
        return Result(output, report, True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.study.folder import load_study

    started = time.monotonic()
    study = load_study(study_path)
    answers = _collect(study, files)
    report, labels = _score(study, answers, options)
    provenance = collect(_KIND, options, inputs, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "scores.json", report)
        write_json(folder / "labels.json", labels)
        if report.get("descriptions"):
            _draw(folder, report["descriptions"])
    return Result(output, report, False, _describe(report))


def _sheets(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.name.startswith("answers") and file.suffix != ".lock")
    return [path]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name the answers that were saved") from None


def _collect(study: Study, files: list[Path]) -> list[Answer]:
    """Read all sheets; of a worker's several answers to one task the last one counts."""
    from debugnet.study.answers import read_answers

    options = {task.id: task.options for task in study.tasks}
    found: dict[tuple[str, str], Answer] = {}
    given = 0
    for file in files:
        for answer in read_answers(file, options, study.id):
            found[answer.task, answer.worker] = answer
            given += 1
    if given > len(found):
        log(f"{given - len(found)} answers were given again by the same worker: the last ones count")
    return list(found.values())


def _score(study: Study, answers: list[Answer], options: StudyScore) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from debugnet.study import aggregation

    score = {
        "simulation": aggregation.score_simulation,
        "pairs": aggregation.score_pairs,
        "misclassification": aggregation.score_misclassification,
    }[study.kind]
    minimum = options.min_answers or aggregation.MIN_ANSWERS[study.kind]
    report = dict(score(answers, study.keys, max_blank=options.max_blank, min_answers=minimum))
    workers = {answer.worker for answer in answers}
    machines = sorted(worker for worker in workers if worker.startswith("machine-"))
    report |= {
        "study": study.id,
        "kind": study.kind,
        "tasks": len(study.tasks),
        "answers": len(answers),
        "workers": len(workers),
        "machines": machines,
        "min_answers": minimum,
    }
    cleaned = aggregation.clean(answers, [t.id for t in study.tasks], minimum, max_blank=options.max_blank)
    labels = []
    for task, mine in cleaned.by_task.items():
        vote = aggregation.vote_task(mine)
        facts = {"model": study.keys[task].facts.get("model"), "right": study.keys[task].right}
        labels.append(
            {"task": task, "label": vote.choice, "unresolved": vote.why, "weights": dict(vote.weights)} | facts
        )
    return report, labels


def _draw(folder: Path, descriptions: dict[str, int]) -> None:
    from debugnet.explain.word_cloud import draw_word_cloud
    from debugnet.explain.word_scores import WordScore

    words = [WordScore(text, n, n, n, n, n) for text, n in list(descriptions.items())[:60]]
    draw_word_cloud(words, "positive", "what the annotators saw", folder / "descriptions")


def _cell(row: dict[str, Any]) -> str:
    if not row["n"]:
        return "n/a"
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({row['n']})"


def _describe(report: dict[str, Any]) -> str:
    lines = []
    if report["machines"]:
        lines.append("MACHINE ANSWERS: they try the design of the study and say nothing about people")
    if report["kind"] == "misclassification":
        lines += _misclassification_lines(report)
    else:
        lines += _simulation_lines(report) if report["kind"] == "simulation" else _pair_lines(report)
    quality = report["quality"]
    removed = quality["workers_removed"]
    lines.append(
        f"{report['answers']} answers of {report['workers']} workers; workers removed: {len(removed)}"
        + (f" ({', '.join(removed[:5])})" if removed else "")
        + f"; blank answers dropped: {quality['blank_answers']}; tasks counted {quality['tasks_counted']} of "
        f"{report['tasks']} ({quality['tasks_with_too_few_answers']} with fewer than {report['min_answers']} answers)"
    )
    return "\n".join(lines)


def _unresolved(row: dict[str, int]) -> str:
    return ", ".join(f"{why} {n}" for why, n in row.items()) or "none"


def _simulation_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{'accuracy, %':14}{'overall':>26}{'target class':>26}{'other class':>26}   unresolved"]
    for model, row in report["models"].items():
        cells = "".join(f"{_cell(row[part]):>26}" for part in ("overall", "target_class", "other"))
        lines.append(f"{model:14}{cells}   {_unresolved(row['unresolved'])}")
        if model in PUBLISHED:
            published = "".join(f"{value:>26.2f}" for value in PUBLISHED[model])
            lines.append(f"{'  the paper':14}{published}")
    lines.append("chance: 33.33 with three samples")
    return lines


def _pair_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{'share, %':14}{'common pattern':>26}{'spurious, a class':>26}{'spurious, both':>26}   unresolved"]
    for model, row in report["models"].items():
        cells = "".join(f"{_cell(row[part]):>26}" for part in ("common_pattern", "spurious_one", "spurious_both"))
        lines.append(f"{model:14}{cells}   {_unresolved(row['unresolved'])}")
    found = ", ".join(f"{text} ({n})" for text, n in list(report["descriptions"].items())[:8])
    return [*lines, f"seen most often: {found}"] if found else lines


def _misclassification_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{'the other feature, %':26}{'matches best':>26}{'matches':>26}{'true class matches':>26}   unresolved"]
    for name, text in (("predicted_feature", "of the predicted class"), ("control", "control, a random one")):
        row = report[name]
        cells = "".join(f"{_cell(part):>26}" for part in (row, row["matches_other"], row["matches_right"]))
        lines.append(f"{text:26}{cells}   {_unresolved(row['unresolved'])}")
    return lines
