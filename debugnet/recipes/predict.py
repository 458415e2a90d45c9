"""Options of ``debugnet predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Predict:
    """Classify samples with the sparse layer put into the network, and say which features decided.

    Without --data the samples of the head's own feature file are classified, which needs no network.
    Writes predictions.jsonl, a line per sample: its class, score and logit, and the exact contributions
    (weight times standardized feature) that add up to the logit.

    Examples
    --------
    debugnet predict runs/cifar/head --data my_pictures/
    debugnet predict runs/cifar/head --split test --top-features 5
    debugnet predict runs/sst2/head --data reviews.tsv --text-column sentence
    """

    produces: ClassVar[str] = "predictions"

    head: Path = argument("The sparse layer (head/), or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: predictions beside the head).", flags=("-o", "--output"), in_key=False
    )
    data: str | None = option(None, "New samples: a folder, a zip file, .npz, or a table of texts.", in_key=False)
    text_column: tuple[str, ...] = option((), "Text column(s) of the table in --data (default: found by name).")
    split: str | None = option(None, "Split to predict (default: test, or all there is in --data).")
    top_features: int = option(10, "Features listed per sample, largest contribution first; 0 lists all.")
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
    batch_size: int | None = option(None, "Samples per batch (default: chosen).", metavar="N", in_key=False)
    workers: int | None = option(None, "Processes that read samples (default: chosen).", metavar="N", in_key=False)
    online: bool = option(False, "Allow downloads of weights.", in_key=False)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", in_key=False)
