"""``debugnet study simulate``: machine annotators answer a study, to try its design."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.lineage import locate_input
from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import UsageError
from debugnet.recipes.study_simulate import StudySimulate
from debugnet.stages.result import Result

if TYPE_CHECKING:
    import numpy as np

    from debugnet.study.aggregation import Answer
    from debugnet.study.folder import Study

_KIND = "study-answers"
_NOTICE = "machine answers: they try the design of the study and are no substitute for people's"


def run(options: StudySimulate, *, force: bool = False) -> Result:
    """Answer every task and write ``answers.csv``, every worker in it called machine-….

    Raises
    ------
    InputError
        The study, its head or its features are missing.
    UsageError
        A share outside 0 to 1, or no worker.
    """
    if not (0 <= options.skill <= 1 and 0 <= options.blank <= 1 and options.workers >= 1):
        raise UsageError("--skill and --blank are between 0 and 1, and --workers at least 1")
    path = Path(options.study)
    inputs = {"study": input_reference(path)}
    output = options.output or path.absolute().parent / f"{path.name}_answers"
    if check_output(output, _KIND, options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        about: dict[str, Any] = read_json(output / "about.json")
        return Result(output, about, True, _describe(about))
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.study.answers import write_answers
    from debugnet.study.folder import load_study

    started = time.monotonic()
    study = load_study(path)
    answers = _answers(study, options)
    about = {
        "notice": _NOTICE,
        "annotator": options.annotator,
        "skill": _skill(options),
        "workers": options.workers,
        "answers": len(answers),
        "study": study.id,
    }
    provenance = collect(_KIND, options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        (folder / "answers.csv").write_text(write_answers(answers), encoding="utf-8")
        write_json(folder / "about.json", about)
    return Result(output, about, False, _describe(about))


def _skill(options: StudySimulate) -> float:
    return {"oracle": 1.0, "random": 0.0, "noisy": options.skill}[options.annotator]


def _answers(study: Study, options: StudySimulate) -> list[Answer]:
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.study.annotators import simulate_answers, simulate_reading

    store = load_features(options.features or locate_input(options.study, "features"))
    rows = _rows_of(study, store)
    how: dict[str, Any] = {
        "skill": _skill(options),
        "n_workers": options.workers,
        "blank": options.blank,
        "seed": options.seed,
    }
    head_path = locate_input(options.study, "head")
    if study.kind == "simulation":
        from debugnet.stages.layers import dense_layer
        from debugnet.stages.study_layers import log_odds

        ids = list(rows)
        X = _stacked(rows)
        scores = {}
        for model in {str(key.facts["model"]) for key in study.keys.values()}:
            head = load_head(head_path) if model == "sparse" else dense_layer(head_path)
            if head is None:
                raise UsageError(f"{options.study} asks about the dense layer, and its path is gone")
            scores[model] = dict(zip(ids, log_odds(head, X), strict=True))
        return simulate_answers(study.tasks, study.keys, scores, **how)
    standardizer = load_head(head_path).standardizer
    activations = {
        sample: (x - standardizer.mean) * standardizer.inverse_scale
        for sample, x in zip(rows, _stacked(rows), strict=True)
    }
    return simulate_reading(study.tasks, study.keys, activations, **how)


def _stacked(rows: dict[str, np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.stack([np.asarray(x, dtype=np.float64) for x in rows.values()])


def _rows_of(study: Study, store: Any) -> dict[str, np.ndarray]:
    """Raw features of every sample that a task shows."""
    wanted = {sample for task in study.tasks for group in task.samples for sample in group}
    found = {}
    for name in store.splits:
        split = store.split(name)
        for row, sample in enumerate(split.ids):
            if sample in wanted:
                found[sample] = split.X[row]
    return found


def _describe(about: dict[str, Any]) -> str:
    return (
        f"{about['notice'].upper()}\n{about['answers']} answers by {about['workers']} workers, skill {about['skill']:g}"
    )
