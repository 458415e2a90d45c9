"""Options of ``debugnet counterfactual image``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

_PATTERN = "The pattern"


@dataclass(frozen=True)
class CounterfactualImage:
    """Put a pattern into images of other classes, and count how often the decision goes to a target class.

    x' = mask * pattern + (1 - mask) * x (Wong et al. 2021, appendix F.2).  The pattern is a file with a
    mask, or the superpixels that a feature reads in its own prototype (--feature, from debugnet
    explain).  The control puts the same colours in random order on the same area.  Writes rows.jsonl,
    rates.json and a sheet of examples.

    Examples
    --------
    debugnet counterfactual image runs/imagenette/head --feature 12
    debugnet counterfactual image runs/imagenette/head --pattern snow.png --mask mask.png --target "ski slope"
    """

    produces: ClassVar[str] = "counterfactuals"
    #: 2: the pattern is cut from the explained image also where other images are changed (--split).
    revision: ClassVar[int] = 2

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: counterfactuals beside the head).", flags=("-o", "--output"), in_key=False
    )
    feature: int | None = option(None, "Take the superpixels that this feature reads in its prototype.", group=_PATTERN)
    pattern: Path | None = option(None, "An image file with the pattern.", group=_PATTERN, in_key=False)
    mask: Path | None = option(
        None,
        "An image file, white where the pattern goes (default: everywhere it is opaque).",
        group=_PATTERN,
        in_key=False,
    )
    superpixels: int = option(1, "Superpixels of the prototype that make the pattern.", group=_PATTERN)
    prototype: int = option(0, "Which prototype of the feature: 0 is the strongest.", group=_PATTERN)
    resize_mask: bool = option(False, "Scale pattern and mask to the network's image size.", group=_PATTERN)
    target: str | None = option(
        None, "The class that should win (default: the one the feature speaks for most).", group=_PATTERN
    )
    explanations: Path | None = option(
        None, "The explanations (default: explanations beside the head).", kind="explanations", in_key=False
    )
    split: str = option("val", "Images to change: val, test, or a half of one (test/a).")
    limit: int = option(500, "At most this many images of other classes, drawn at random.")
    controls: int = option(3, "Random patterns beside each image.")
    seed: int = option(0, "Seed of the draws and of the random patterns.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", in_key=False)
    batch_size: int | None = option(None, "Images per batch (default: chosen).", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
