"""Options of ``debugnet study score``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class StudyScore:
    """Score the answers to a study: quality control, confidence-weighted votes, accuracies with intervals.

    Answers are CSV (columns task, worker, choice, confidence, description, part_1, part_2; a crowd
    platform's Answer.choice, WorkerId and the like are understood) or the JSON that the pages
    export.  Blank answers are dropped, and workers blank in more than --max-blank of theirs; ties
    and votes without confidence are reported as unresolved.

    Examples
    --------
    debugnet study score runs/imagenette/study_simulation answers.csv
    debugnet study score study_pairs worker1.json worker2.json -o scores
    """

    produces: ClassVar[str] = "study_scores"

    study: Path = argument("The study folder.")
    answers: tuple[Path, ...] = argument("Files of answers, or a folder that study simulate wrote.")
    output: Path | None = option(
        None, "The folder to write (default: STUDY_scores beside the study).", flags=("-o", "--output"), in_key=False
    )
    max_blank: float = option(0.8, "A worker blank in more than this share is removed, fraction.")
    min_answers: int | None = option(None, "Answers a task needs (default: 2, for pairs 3).")
