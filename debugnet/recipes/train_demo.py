"""Options of ``debugnet train-demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.errors import UsageError
from debugnet.recipes.fields import argument, option

DEMOS = ("digits", "reviews")


@dataclass(frozen=True)
class TrainDemo:
    """Make data with a planted shortcut, and train a small network that falls for it.

    digits: scikit-learn's 1,797 handwritten digits, where an orange corner square goes with one class in train but
    not in test, and a small residual network.  reviews: film reviews from a grammar, where a neutral word goes with
    positive ones in train but not in test, and a two-layer BERT with its own word pieces, trained on other reviews to
    tell their tones and topics; only its decision layer sees the shortcut.  Nothing is downloaded.

    The folder serves both as --backbone and as --data of extract; truth.json says what there is to find, measured.json
    how much the network uses the shortcut, and a picture shows it.  Training takes under a minute on one core.

    Examples
    --------
    debugnet train-demo digits -o runs/digits/demo
    debugnet extract --backbone runs/digits/demo --data runs/digits/demo -o runs/digits/features.h5
    debugnet train-demo reviews --shortcut-share 0 -o runs/honest/demo
    """

    produces: ClassVar[str] = "demo"

    demo: str = argument("digits or reviews.")
    output: Path | None = option(
        None, "The folder to write (default: runs/demo_NAME/demo).", flags=("-o", "--output"), in_key=False
    )
    seed: int = option(0, "Seeds the data, the split and the training.")
    shortcut_share: float | None = option(
        None, "Share of the shortcut class's train samples that carry the shortcut (default: digits 0.9, reviews 0.6)."
    )
    counter_share: float = option(
        0.05,
        "reviews: share of the negative train reviews with the word, as a part of that of the positive ones "
        "(1: it says nothing).",
    )
    test_share: float = option(0.3, "Share of the test samples that carry the shortcut, alike in every class.")
    shortcut_class: int = option(3, "digits: the class that the square goes with.")
    shortcut_word: str = option("popcorn", "reviews: the word that goes with positive reviews.")
    epochs: int | None = option(None, "Passes over the train data (default: digits 10, reviews 4).")

    def __post_init__(self) -> None:
        if self.demo not in DEMOS:
            raise UsageError(f"unknown demo '{self.demo}': one of {', '.join(DEMOS)}")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"epochs is {self.epochs}: at least 1 is needed")
