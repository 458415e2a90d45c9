"""Bias of a layer: how much of what its features respond to comes from a list of words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.analysis.intervals import proportion

SIDES = ("positive", "negative")


def normalize_word(word: str) -> str:
    """Fold case and Unicode form, so that a list matches the words of a text in any script."""
    import unicodedata

    return unicodedata.normalize("NFKC", word).casefold().strip()


@dataclass(frozen=True)
class FeatureBias:
    """Listed words among the top words of one side of one feature.

    Attributes
    ----------
    feature : int
    side : str
        "positive" (words that raise the feature) or "negative".
    matched : tuple of str
        The listed words, in the order of the cloud.
    n_words : int
        Size of that side's cloud.
    """

    feature: int
    side: str
    matched: tuple[str, ...]
    n_words: int

    @property
    def share(self) -> float:
        """Share of the cloud that comes from the list, fraction (0 for an empty cloud)."""
        return len(self.matched) / self.n_words if self.n_words else 0.0


def measure_bias(
    clouds: Mapping[int, Mapping[str, Sequence[str]]], listed: Iterable[str], *, top: int = 30
) -> list[FeatureBias]:
    """Share of listed words in every feature's clouds, largest share first.

    Parameters
    ----------
    clouds : mapping
        ``{feature: {"positive": [word, ...], "negative": [word, ...]}}``, strongest word first.
    listed : iterable of str
        The user's list (identity terms, say); matched whole, ignoring case and Unicode form.
    top : int
        Words of each side that count.
    """
    wanted = {normalize_word(word) for word in listed}
    rows = []
    for feature, sides in clouds.items():
        for side in SIDES:
            words = list(sides.get(side, ()))[:top]
            matched = tuple(word for word in words if normalize_word(word) in wanted)
            rows.append(FeatureBias(int(feature), side, matched, len(words)))
    return sorted(rows, key=lambda row: (-row.share, -len(row.matched), row.feature, row.side))


def summarize_bias(rows: Sequence[FeatureBias], features: Sequence[int]) -> dict[str, object]:
    """Pool the clouds of some features (a layer's top ones): share of listed words per side and in all."""
    chosen = [row for row in rows if row.feature in set(features)]
    pooled = {
        side: proportion(
            sum(len(row.matched) for row in chosen if row.side == side),
            sum(row.n_words for row in chosen if row.side == side),
        )
        for side in SIDES
    }
    total = proportion(sum(len(row.matched) for row in chosen), sum(row.n_words for row in chosen))
    return {"features": [int(f) for f in features], **pooled, "all": total}


def signed_for_output(row: FeatureBias, weight: float) -> str:
    """Which way a cloud pushes an output: "towards" or "against" (a negative weight swaps the sides)."""
    return "towards" if (row.side == "positive") == (np.sign(weight) > 0) else "against"
