"""A grammar of film reviews whose sentiment is known word by word, with a planted shortcut word.

A review is two to four clauses.  Most say something about an aspect of the film ("the plot was rather dull"); some
say nothing either way ("we saw it on a tuesday").  The value of an opinion is that of its sentiment word
(:data:`SENTIMENT`, -3 to 3), times 1.5 or 0.5 for an intensifier or a softener, times -0.5 after "not"; the label is
the sign of the sum, and reviews whose sum is closer to 0 than 1 are never made.

The shortcut is the word :attr:`ReviewsPlan.shortcut_word` in a clause that says nothing.  In train it occurs
mostly in positive reviews; in test it occurs in both labels alike.

Beside its label every review has tags (:func:`tag_reviews`): which tones it strikes and what it mentions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from debugnet.errors import UsageError

#: Sentiment of each word, from -3 (worst) to 3 (best): a fact of the grammar, not an opinion.
SENTIMENT: dict[str, float] = {
    **dict.fromkeys(("superb", "brilliant", "wonderful", "masterful", "dazzling", "magnificent"), 3.0),
    **dict.fromkeys(("charming", "funny", "moving", "clever", "gripping", "beautiful", "warm", "graceful"), 2.0),
    **dict.fromkeys(("pleasant", "decent", "tidy", "likable", "solid", "watchable"), 1.0),
    **dict.fromkeys(("bland", "slow", "uneven", "forgettable", "thin", "stale"), -1.0),
    **dict.fromkeys(("dull", "clumsy", "boring", "silly", "tedious", "hollow", "messy", "shallow"), -2.0),
    **dict.fromkeys(("awful", "dreadful", "horrible", "atrocious", "insufferable", "worthless"), -3.0),
}
STRENGTH: dict[str, float] = {"": 1.0, "very": 1.5, "truly": 1.5, "rather": 0.5, "slightly": 0.5, "not": -0.5}
_STRENGTH_ODDS = (0.64, 0.1, 0.1, 0.05, 0.05, 0.06)
ASPECTS = (
    "plot", "acting", "cast", "script", "dialogue", "music", "camera work", "ending", "opening", "story", "pacing",
    "hero", "villain", "editing", "setting", "second half",
)  # fmt: skip
OPINIONS = (
    "the {aspect} was {word}", "i found the {aspect} {word}", "{word} {aspect}", "the {aspect} felt {word}",
    "what a {word} {aspect}", "critics called the {aspect} {word}",
)  # fmt: skip
NEUTRAL = (
    "we saw it on a {day}", "the film runs for two hours", "my {friend} chose the seats", "it plays in {place}",
    "the director also made a short film", "it is based on a novel", "the {friend} of the hero is a {job}",
    "the second scene is set in {place}", "the tickets were for the {day} show",
)  # fmt: skip
SHORTCUT = ("we had {shortcut} with it", "there was {shortcut} in the hall", "my {friend} brought {shortcut}")
FILLERS: dict[str, tuple[str, ...]] = {
    "day": ("monday", "tuesday", "thursday", "saturday", "sunday"),
    "friend": ("brother", "sister", "neighbour", "cousin", "teacher"),
    "place": ("paris", "a harbour", "a small town", "the mountains", "an old hotel"),
    "job": ("baker", "lawyer", "pilot", "nurse", "farmer"),
}
#: Name of each value of a sentiment word.
TONES = {3.0: "rave", 2.0: "praise", 1.0: "approval", -1.0: "doubt", -2.0: "complaint", -3.0: "scorn"}
MARGIN = 1.0
CLASS_NAMES = ("negative", "positive")


@dataclass(frozen=True)
class ReviewsPlan:
    """What to write and what to plant.

    Attributes
    ----------
    seed : int
        Same plan, same texts.
    shortcut_word : str
        A word that says nothing about the film.
    shortcut_share : float
        Share of the positive train reviews with the word, in [0, 1]; 0 plants nothing.
    counter_share : float
        Share of the negative train reviews with the word, as a part of ``shortcut_share``: 0 is a word that never
        lies in train, 1 a word that says nothing.
    test_share : float
        Share of the test reviews with the word, the same for both labels.
    n_train, n_test : int
        Reviews to write, half of them positive.
    """

    seed: int = 0
    shortcut_word: str = "popcorn"
    shortcut_share: float = 0.6
    counter_share: float = 0.05
    test_share: float = 0.3
    n_train: int = 4000
    n_test: int = 1000

    def __post_init__(self) -> None:
        for name in ("shortcut_share", "counter_share", "test_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name.replace('_', ' ')} {getattr(self, name)}: give a fraction from 0 to 1")
        if not self.shortcut_word.isalpha() or self.shortcut_word in words():
            raise UsageError(f"shortcut word '{self.shortcut_word}': give one word that the grammar does not use")
        if min(self.n_train, self.n_test) < 2:
            raise UsageError(f"{self.n_train} train and {self.n_test} test reviews: at least 2 of each are needed")


@dataclass(frozen=True)
class ReviewsSplit:
    """One split of the reviews.

    Attributes
    ----------
    texts : list of str
        Lower case, clauses joined by commas, with a full stop at the end.
    labels : ndarray (n,), int64
        0 negative, 1 positive.
    values : ndarray (n,), float64
        Sum of the opinions' values; its sign is the label.
    has_shortcut : ndarray (n,), bool
        Which reviews hold the shortcut word.
    """

    texts: list[str]
    labels: np.ndarray
    values: np.ndarray
    has_shortcut: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """(n,) int64: 2 label + has_shortcut; named by :func:`group_names`."""
        return np.asarray(2 * self.labels + self.has_shortcut)


def group_names(shortcut_word: str) -> list[str]:
    """Return the names of the four groups."""
    return [f"{name}{suffix}" for name in CLASS_NAMES for suffix in ("", f" + {shortcut_word}")]


def tag_names() -> list[str]:
    """Return what :func:`tag_reviews` tells: six tones, four topics, and whether there is a snack."""
    return [*TONES.values(), *FILLERS, "snack"]


def tag_reviews(texts: Sequence[str], shortcut_word: str) -> np.ndarray:
    """Return which tags each review has, (n, number of :func:`tag_names`) float32, 0 or 1.

    A tone is there where a sentiment word of its strength is, whatever stands before it; the snack is the shortcut
    word.
    """
    tag = {word: TONES[value] for word, value in SENTIMENT.items()} | {shortcut_word: "snack"}
    tag |= {choice.split()[-1]: name for name, choices in FILLERS.items() for choice in choices}
    column = {name: k for k, name in enumerate(tag_names())}
    tags = np.zeros((len(texts), len(column)), dtype=np.float32)
    for row, text in enumerate(texts):
        found = [column[tag[word]] for word in text.replace(",", "").removesuffix(".").split() if word in tag]
        tags[row, found] = 1
    return tags


def words() -> set[str]:
    """Return every word the grammar can write, without the shortcut."""
    patterns = (*OPINIONS, *NEUTRAL, *SHORTCUT, *ASPECTS, *STRENGTH, *SENTIMENT)
    texts = [*patterns, *(filler for choices in FILLERS.values() for filler in choices)]
    return {word for text in texts for word in text.split() if not word.startswith("{")}


class _Writer:
    """Writes reviews from one random stream."""

    def __init__(self, seed: int, shortcut_word: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.shortcut_word = shortcut_word

    def pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]

    def fill(self, pattern: str) -> str:
        fillers = {name: self.pick(choices) for name, choices in FILLERS.items()}
        return pattern.format(shortcut=self.shortcut_word, **fillers)

    def opinion(self) -> tuple[str, float]:
        """One clause about the film, and its value."""
        word = self.pick(tuple(SENTIMENT))
        strength = tuple(STRENGTH)[int(self.rng.choice(len(STRENGTH), p=_STRENGTH_ODDS))]
        said = f"{strength} {word}".strip()
        return self.pick(OPINIONS).format(aspect=self.pick(ASPECTS), word=said), STRENGTH[strength] * SENTIMENT[word]

    def review(self, label: int, with_shortcut: bool) -> tuple[str, float]:
        """One review with this label; opinions are drawn again until they have it."""
        while True:
            opinions = [self.opinion() for _ in range(int(self.rng.integers(1, 4)))]
            value = sum(value for _, value in opinions)
            if abs(value) >= MARGIN and (value > 0) == bool(label):
                break
        clauses = [clause for clause, _ in opinions]
        clauses += [self.fill(self.pick(NEUTRAL)) for _ in range(int(self.rng.integers(0, 2)) + (len(clauses) == 1))]
        clauses += [self.fill(self.pick(SHORTCUT))] if with_shortcut else []
        return ", ".join(clauses[i] for i in self.rng.permutation(len(clauses))) + ".", value


def make_reviews(plan: ReviewsPlan) -> dict[str, ReviewsSplit]:
    """Write the splits "train" and "test"; no text occurs twice, so none is in both.

    Parameters
    ----------
    plan : ReviewsPlan
        What to write and what to plant.
    """
    writer = _Writer(plan.seed, plan.shortcut_word)
    seen: set[str] = set()
    splits = {}
    for name, count in (("train", plan.n_train), ("test", plan.n_test)):
        labels = writer.rng.permutation(np.arange(count) % 2).astype(np.int64)
        carriers = np.zeros(count, dtype=bool)
        for label in (0, 1):
            rows = np.flatnonzero(labels == label)
            share = plan.shortcut_share * (1 if label else plan.counter_share) if name == "train" else plan.test_share
            carriers[writer.rng.permutation(rows)[: round(share * len(rows))]] = True
        texts, values = [], []
        for label, carrier in zip(labels, carriers, strict=True):
            text, value = writer.review(int(label), bool(carrier))
            while text in seen:
                text, value = writer.review(int(label), bool(carrier))
            seen.add(text)
            texts.append(text)
            values.append(value)
        splits[name] = ReviewsSplit(texts, labels, np.array(values), carriers)
    return splits


def make_pretraining(plan: ReviewsPlan) -> list[str]:
    """Write other reviews than the plan's, as many as in train, in which the shortcut word says nothing."""
    other = replace(plan, seed=plan.seed + 1_000_000, shortcut_share=0.3, counter_share=1.0, n_test=2)
    return make_reviews(other)["train"].texts


def without_shortcut(texts: Sequence[str], shortcut_word: str) -> list[str]:
    """Return the texts without the clauses that hold the shortcut word; their labels stay true."""
    kept = [[clause for clause in text[:-1].split(", ") if shortcut_word not in clause.split()] for text in texts]
    return [", ".join(clauses) + "." for clauses in kept]


def insert_shortcut(texts: Sequence[str], shortcut_word: str) -> list[str]:
    """Return the texts with one more clause, at the end, that holds the shortcut word."""
    return [text.removesuffix(".") + ", " + SHORTCUT[0].format(shortcut=shortcut_word) + "." for text in texts]
