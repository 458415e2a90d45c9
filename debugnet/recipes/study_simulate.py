"""Options of ``debugnet study simulate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class StudySimulate:
    """Answer a study by machine, to try its design: no substitute for people.

    The oracle reads the feature activations of the samples, the random annotator reads nothing,
    and the noisy one answers like the oracle with probability --skill and guesses otherwise.
    Every answer says that a machine gave it.

    Examples
    --------
    debugnet study simulate runs/imagenette/study_simulation --annotator oracle
    debugnet study simulate runs/imagenette/study_simulation --annotator noisy --skill 0.6 --workers 10
    """

    produces: ClassVar[str] = "study_answers"

    study: Path = argument("The study folder.")
    output: Path | None = option(
        None, "The folder to write (default: STUDY_answers beside the study).", flags=("-o", "--output"), in_key=False
    )
    annotator: str = option("oracle", "Who answers.", choices=("oracle", "random", "noisy"))
    skill: float = option(0.5, "Probability that the noisy one answers like the oracle.")
    workers: int = option(5, "Answers per task.")
    blank: float = option(0.0, "Probability of leaving a task blank.")
    seed: int = option(0, "Seed of the guesses.")
    features: Path | None = option(
        None, "The feature file, if it is not where the study was made from it.", kind="features", in_key=False
    )
