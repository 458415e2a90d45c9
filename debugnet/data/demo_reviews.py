"""Generated reviews as a data set: ``demo:reviews``, tables for ``debugnet extract``, and the truth behind them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.data.dataset import Dataset, DatasetSplits
from debugnet.data.demo_options import demo_options
from debugnet.data.reviews_grammar import (
    CLASS_NAMES,
    SENTIMENT,
    STRENGTH,
    ReviewsPlan,
    ReviewsSplit,
    group_names,
    make_reviews,
    words,
)
from debugnet.data.spec import DataSpec
from debugnet.data.tables import TextSource


def reviews_truth(plan: ReviewsPlan, splits: dict[str, ReviewsSplit]) -> dict[str, Any]:
    """Return, JSON-able, all there is to find: word values, the shortcut word and the rows that hold it."""
    return {
        "kind": "reviews",
        "seed": plan.seed,
        "shortcut_word": plan.shortcut_word,
        "shortcut_class": 1,
        "shortcut_class_name": CLASS_NAMES[1],
        "shortcut_share": plan.shortcut_share,
        "test_share": plan.test_share,
        "sentiment": dict(SENTIMENT),
        "strength": {word: factor for word, factor in STRENGTH.items() if word},
        "neutral_words": sorted(words() - set(SENTIMENT) - set(STRENGTH)),
        "shortcut_rows": {name: np.flatnonzero(split.has_shortcut).tolist() for name, split in splits.items()},
        "values": {name: split.values.tolist() for name, split in splits.items()},
        "group_names": group_names(plan.shortcut_word),
    }


def write_reviews(path: Path, split: ReviewsSplit, shortcut_word: str) -> None:
    """Write one split as a CSV table with the columns text, label and group."""
    names = group_names(shortcut_word)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label", "group"))
        for text, label, group in zip(split.texts, split.labels, split.groups, strict=True):
            writer.writerow((text, CLASS_NAMES[label], names[group]))


def load(spec: DataSpec) -> DatasetSplits:
    """Load ``demo:reviews``; options follow a question mark: ``demo:reviews?shortcut_share=0.5&n_train=1000``."""
    plan = demo_options(spec, replace(ReviewsPlan(), seed=spec.seed))
    datasets = {
        name: Dataset(
            TextSource(split.texts),
            np.arange(len(split.texts)),
            [f"reviews/{name}/{row}" for row in range(len(split.texts))],
            split.labels,
            groups=split.groups,
        )
        for name, split in make_reviews(plan).items()
    }
    names = group_names(plan.shortcut_word)
    return DatasetSplits(datasets, list(CLASS_NAMES), "single-label", "text", spec, names)
