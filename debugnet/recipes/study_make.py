"""Options of ``debugnet study make``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

KINDS = ("simulation", "pairs", "misclassification")

_SIMULATION = "Simulation"


def parse_percentiles(text: str) -> tuple[str, ...]:
    """Read "90-95,98-99,99.99-100" and check it; the parts stay text."""
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        low, dash, high = part.partition("-")
        try:
            if not (dash and 0 <= float(low) < float(high) <= 100):
                raise ValueError
        except ValueError:
            raise ValueError(f"'{part}' is no range of percentiles: write 90-95") from None
    if len(parts) < 2:
        raise ValueError(f"'{text}' is one range only, and people choose between two at least")
    return parts


@dataclass(frozen=True)
class StudyMake:
    """Make the tasks of a human study, as pages that need no server.

    simulation: can people foresee the model's choice from a class's features?  pairs: do two
    classes that share a feature share a pattern, and is it part of the object?  misclassification:
    which feature does a misclassified sample show?  Writes public/ (one HTML file per task, an
    index, tasks.csv) and, apart from it, key/key.jsonl, which must never be shown to annotators.
    Features are shown by their visualizations, their word clouds, or their strongest training
    samples.  Answers stay in the annotator's browser until they are exported; with --submit-to a
    page posts the fields of its form to a crowd platform.

    Examples
    --------
    debugnet study make runs/imagenette/head --kind simulation
    debugnet study make runs/imagenette/head --kind pairs --limit 200
    debugnet study make runs/sst2/head --kind misclassification -o runs/sst2/study
    """

    produces: ClassVar[str] = "study"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: study_KIND beside the head).", flags=("-o", "--output"), in_key=False
    )
    kind: str = option("simulation", "The study.", choices=KINDS)
    seed: int = option(0, "Seed of everything random: which tasks, their order, what they show.")
    limit: int | None = option(1000, "At most this many tasks, drawn at random.")
    title: str = option("A short study", "Heading of the pages: it must not give away what the study hides.")
    submit_to: str | None = option(None, "Address that a page's form is posted to, on a crowd platform.")
    split: str = option("test", "Samples of the simulation study.", group=_SIMULATION)
    classes: int = option(100, "Classes drawn, at most.", group=_SIMULATION)
    repeats: int = option(10, "Tasks per class and layer.", group=_SIMULATION)
    shown: int = option(5, "Features shown.", group=_SIMULATION)
    percentiles: tuple[str, ...] = option(
        ("90-95", "98-99", "99.99-100"), "Ranges of the class's probability that the samples come from.",
        parse=parse_percentiles, metavar="90-95,98-99,99.99-100", group=_SIMULATION,
    )  # fmt: skip
    dense: bool = option(True, "Ask the same about the dense layer.", group=_SIMULATION)
    explanations: Path | None = option(
        None, "The explanations (default: explanations beside the head, if there).", kind="explanations", in_key=False
    )
    pairs: Path | None = option(None, "The pairs (default: pairs beside the head).", kind="pairs", in_key=False)
    diagnosis: Path | None = option(
        None, "The diagnosis (default: diagnosis beside the head).", kind="diagnosis", in_key=False
    )
    device: str = option("cpu", "Device on which the network is loaded, for its preprocessing only.", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
