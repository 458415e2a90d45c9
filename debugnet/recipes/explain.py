"""Options of ``debugnet explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

METHODS = ("prototypes", "lime", "words", "cloud", "visualization")

_WHAT = "What to explain"
_LIME = "LIME"
_WORDS = "Words"
_VISUALIZATION = "Feature visualization"


def parse_features(text: str) -> tuple[int, ...] | str:
    """Read "12,907,30-39" as these features, and "all" as every feature of the layer.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text.strip() == "all":
        return "all"
    features: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) < int(first):
            raise ValueError(f"'{text}' is no list of features: write 12,907 or 0-99 or all")
        features += range(int(first), int(last or first) + 1)
    if not features:
        raise ValueError(f"'{text}' is no list of features: write 12,907 or 0-99 or all")
    return tuple(features)


@dataclass(frozen=True)
class Explain:
    """Show what the features of a sparse layer read: superpixels, words, prototypes, optimized images.

    Every explanation comes with its evidence: fit, agreement of two halves of the perturbations,
    and what deleting the strongest parts really does beside deleting random ones.  One set of
    perturbations per sample serves all features; it is kept, so that --force with more features
    costs no further forward pass of LIME.

    Examples
    --------
    debugnet explain runs/sst2/head --plan
    debugnet explain runs/sst2/head --for-class positive --top 5
    debugnet explain runs/imagenette/head --features 12,907 --methods prototypes,lime
    """

    produces: ClassVar[str] = "explanations"

    head: Path = argument("The sparse layer (head/), or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: explanations beside the head).", flags=("-o", "--output"), in_key=False
    )
    features: tuple[int, ...] | str | None = option(
        None,
        'These features, or "all", whatever the layer uses (default: what it uses).',
        parse=parse_features,
        metavar="12,30-39",
        group=_WHAT,
    )
    for_class: tuple[str, ...] | None = option(
        None, "Only features of this class, by name; may be repeated.", group=_WHAT, multiple=True
    )
    top: int | None = option(None, "Only the K largest weights of each class.", metavar="K", group=_WHAT)
    sides: str = option(
        "auto",
        "Both sides of a signed feature; auto leaves out the low side of one that is never negative.",
        choices=("auto", "both", "positive", "negative"),
        group=_WHAT,
    )
    methods: tuple[str, ...] | None = option(
        None, "What to make, with commas between (default: all that the data allows).", choices=METHODS, group=_WHAT
    )
    split: str = option("val", "Split whose samples are looked at.", group=_WHAT)
    samples_per_feature: int = option(5, "Prototypes, and samples explained, per feature and side.", group=_WHAT)
    plan: bool = option(
        False, "Only say what would be done: samples, forward passes, time, what is there.", in_key=False, group=_WHAT
    )
    num_samples: int = option(1000, "Perturbations per image or text.", metavar="N", group=_LIME)
    segmentation: str = option(
        "quickshift", "How images are cut.", choices=("quickshift", "slic", "felzenszwalb", "grid"), group=_LIME
    )
    fill: str = option(
        "black",
        "What replaces a superpixel; mean cannot remove a part of one colour.",
        choices=("mean", "black", "blur", "noise"),
        group=_LIME,
    )
    mask: str = option(
        "delete",
        "Removed words are deleted, or replaced by the mask token.",
        choices=("delete", "mask-token"),
        group=_LIME,
    )
    deletion_masks: int = option(
        10, "Random masks beside each deletion check; 0 leaves the check out.", metavar="N", group=_LIME
    )
    lime_compat: bool = option(
        False, "Exactly what the lime package does: its words, draws, 10 words refitted, quickshift.", group=_LIME
    )
    limit: int | None = option(None, "Texts that word scores are taken from (default: the split).", group=_WORDS)
    min_count: int = option(3, "Texts that must hold a word.", group=_WORDS)
    shrinkage: float = option(0.0, "K of the shrunk mean, sum / (n + K).", metavar="K", group=_WORDS)
    font: Path | None = option(None, "A font file for scripts that the bundled ones lack.", group=_WORDS)
    preset: str = option(
        "standard", "64, 512 or 2048 steps.", choices=("draft", "standard", "fine"), group=_VISUALIZATION
    )
    parametrization: str = option(
        "fourier", "Pixel ascent is for robust networks.", choices=("fourier", "pixel"), group=_VISUALIZATION
    )
    features_file: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
    batch_size: int | None = option(None, "Samples per batch (default: chosen).", metavar="N", in_key=False)
    seed: int = option(0, "Of the perturbations; each sample's own seed derives from it.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", in_key=False)
