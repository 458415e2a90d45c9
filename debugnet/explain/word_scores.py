"""What words do to a feature over many sentences: the table behind every word cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

MIN_COUNT = 3
N_WORDS = 30


@dataclass(frozen=True)
class WordScore:
    """One word's effect on one feature.

    Attributes
    ----------
    word : str
    mean : float
        Mean effect over all sentences that hold the word.
    shrunk : float
        ``sum / (n + shrinkage)``; equals ``mean`` without shrinkage.
    n : int
        Sentences that hold it.
    low, high : float
        95 % confidence interval of the mean (Student's t over the sentences).
    """

    word: str
    mean: float
    shrunk: float
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        return asdict(self)


class WordTally:
    """Collects the word effects of many sentences, for F features at once.

    Parameters
    ----------
    n_features : int
    casefold : bool
        Count "Good" and "good" as one word.
    """

    def __init__(self, n_features: int, *, casefold: bool = True) -> None:
        self.n_features = n_features
        self.casefold = casefold
        self.n_sentences = 0
        self._index: dict[str, int] = {}
        self._rows: list[int] = []
        self._effects: list[np.ndarray] = []

    def add(self, vocabulary: Sequence[str], effect: np.ndarray) -> None:
        """Add one sentence: its K distinct words and their effects (K, F); NaN is "not measured"."""
        words = [word.casefold() for word in vocabulary] if self.casefold else list(vocabulary)
        self._rows += [self._index.setdefault(word, len(self._index)) for word in words]
        self._effects.append(np.asarray(effect, np.float64))
        self.n_sentences += 1

    def scores(self, *, min_count: int = MIN_COUNT, shrinkage: float = 0.0) -> list[list[WordScore]]:
        """Return, per feature, the scores of all words seen in at least ``min_count`` sentences.

        Sorted by shrunk mean, highest first.  The paper (Algorithm 2) averages over all
        occurrences; its code averages only where lime selected the word among ten, without a
        minimum count, so that a word seen once can top the cloud.
        """
        if not self._rows:
            return [[] for _ in range(self.n_features)]
        effects, rows = np.concatenate(self._effects), np.array(self._rows)
        n, total, square = (np.zeros((len(self._index), self.n_features)) for _ in range(3))
        np.add.at(n, rows, ~np.isnan(effects))
        np.add.at(total, rows, np.nan_to_num(effects))
        mean = np.divide(total, n, out=np.zeros_like(total), where=n > 0)
        np.add.at(square, rows, np.nan_to_num(effects - mean[rows]) ** 2)
        freedom = np.maximum(n - 1, 1)
        half_width = stats.t.ppf(0.975, freedom) * np.sqrt(square / freedom / np.maximum(n, 1))
        half_width[n < 2] = np.inf
        shrunk = total / np.maximum(n + shrinkage, 1e-12)
        words = list(self._index)
        return [
            [
                WordScore(
                    words[i],
                    float(mean[i, j]),
                    float(shrunk[i, j]),
                    int(n[i, j]),
                    float(mean[i, j] - half_width[i, j]),
                    float(mean[i, j] + half_width[i, j]),
                )
                for i in np.argsort(-shrunk[:, j], kind="stable")
                if n[i, j] >= max(min_count, 1)
            ]
            for j in range(self.n_features)
        ]


def cloud_words(scores: Sequence[WordScore], side: str, n_words: int = N_WORDS) -> list[WordScore]:
    """Return the strongest words of one side, strongest first: only words whose mean has that sign."""
    if side == "positive":
        return sorted((s for s in scores if s.shrunk > 0), key=lambda s: -s.shrunk)[:n_words]
    return sorted((s for s in scores if s.shrunk < 0), key=lambda s: s.shrunk)[:n_words]
