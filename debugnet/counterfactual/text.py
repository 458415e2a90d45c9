"""Counterfactual sentences: swap one word that a feature hears, and see whether the decision flips.

Wong, Santurkar & Madry (2021), appendix F.1, Algorithm 3.  A sentence is a list of pieces (words and
what stands between them); a substitution changes one word and leaves the rest as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Raw features of texts: list of n strings -> (n, d) array.
FeatureFunction = Callable[[Sequence[str]], np.ndarray]
#: (pieces, indices of the words among them), such that ``"".join(pieces)`` is the text.
Tokenizer = Callable[[str], tuple[list[str], list[int]]]


@dataclass(frozen=True)
class Clouds:
    """The word clouds of the features: which words raise a feature and which lower it.

    Attributes
    ----------
    positive, negative : mapping
        ``{feature: tuple of words}``, strongest first, in the form in which words are compared
        (lower case where the network is uncased).
    """

    positive: Mapping[int, Sequence[str]]
    negative: Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class Substitution:
    """One word replaced.

    Attributes
    ----------
    position : int
        Index into the words of the sentence.
    before, after : str
    feature : int
        The feature whose cloud both words come from (-1 for a control).
    """

    position: int
    before: str
    after: str
    feature: int


def candidate_words(
    words: Sequence[str], weight: np.ndarray, clouds: Clouds
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Z+ and Z- of Algorithm 3.

    Parameters
    ----------
    words : sequence of str
        The sentence, in the clouds' form.
    weight : ndarray (d,)
        The predicted class's row of the layer.
    clouds : Clouds

    Returns
    -------
    (positive, negative) : lists of (position, feature)
        ``Z+ = {(x_j, i): x_j in WC+(i), W[y, i] > 0}`` and
        ``Z- = {(x_j, i): x_j in WC-(i), W[y, i] < 0}``.
    """
    positive = _members(words, clouds.positive, np.flatnonzero(weight > 0))
    negative = _members(words, clouds.negative, np.flatnonzero(weight < 0))
    return positive, negative


def draw_substitution(
    words: Sequence[str], weight: np.ndarray, clouds: Clouds, rng: np.random.Generator
) -> Substitution | None:
    """Draw one counterfactual substitution, exactly as Algorithm 3 does.

    A pair is drawn uniformly from Z+ and Z- together; a word of Z+ is replaced by a random word of
    WC-(i), a word of Z- by a random word of WC+(i).

    Returns
    -------
    Substitution or None
        None where no word of the sentence is in a cloud that supports the prediction, or the
        opposite cloud is empty ("no counterfactual", -1 in the paper).
    """
    positive, negative = candidate_words(words, weight, clouds)
    pool = [(*pair, clouds.negative) for pair in positive if clouds.negative.get(pair[1])]
    pool += [(*pair, clouds.positive) for pair in negative if clouds.positive.get(pair[1])]
    if not pool:
        return None
    position, feature, opposite = pool[int(rng.integers(len(pool)))]
    choices = opposite[feature]
    return Substitution(position, words[position], choices[int(rng.integers(len(choices)))], feature)


def draw_control(
    words: Sequence[str], substitution: Substitution, frequency_bands: Sequence[Sequence[str]], rng: np.random.Generator
) -> Substitution:
    """Draw the matched control: a random word as frequent as the new one, at the same place.

    Parameters
    ----------
    words : sequence of str
    substitution : Substitution
        The edit to match.
    frequency_bands : sequence of sequences of str
        Vocabulary cut by frequency (:func:`frequency_bands`); a word outside all bands is matched
        with the rarest one.
    rng : numpy Generator
    """
    band = next((b for b in frequency_bands if substitution.after in b), frequency_bands[-1])
    choices = [word for word in band if word not in (substitution.before, substitution.after)]
    after = choices[rng.integers(len(choices))] if choices else substitution.after
    return Substitution(substitution.position, words[substitution.position], after, -1)


def frequency_bands(counts: Mapping[str, int], n_bands: int = 8) -> list[list[str]]:
    """Cut a vocabulary into bands of falling frequency, each with a like share of all occurrences.

    Parameters
    ----------
    counts : mapping
        Occurrences of each word in the corpus.
    n_bands : int
        At most this many bands; empty ones are left out.
    """
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    if not ordered:
        return [[]]
    cumulative = np.cumsum([counts[word] for word in ordered])
    band_of = np.minimum((cumulative - 1) * n_bands // cumulative[-1], n_bands - 1)
    return [[w for w, b in zip(ordered, band_of, strict=True) if b == band] for band in np.unique(band_of)]


def substitute(text: str, substitution: Substitution, tokenize: Tokenizer) -> str:
    """Replace one word of a text, keeping everything around it and the word's capitals."""
    pieces, positions = tokenize(text)
    index = positions[substitution.position]
    pieces = list(pieces)
    pieces[index] = _match_case(substitution.after, pieces[index])
    return "".join(pieces)


@dataclass(frozen=True)
class SearchResult:
    """The fewest substitutions found that flip a sentence.

    Attributes
    ----------
    text : str
        The sentence after all substitutions.
    substitutions : tuple of Substitution
    reached : bool
        Whether the wanted class was reached.
    n_texts : int
        Texts the network was asked about.
    """

    text: str
    substitutions: tuple[Substitution, ...]
    reached: bool
    n_texts: int


def search_flip(
    text: str,
    tokenize: Tokenizer,
    normalize: Callable[[str], str],
    decide: Callable[[Sequence[str]], np.ndarray],
    clouds: Clouds,
    weight_gap: np.ndarray,
    *,
    max_substitutions: int = 3,
    beam: int = 8,
    words_per_cloud: int = 5,
) -> SearchResult:
    """Look for the fewest cloud substitutions that bring a decision to a target (beam search).

    Parameters
    ----------
    text : str
    tokenize, normalize : callable
        Pieces of a text, and the form in which clouds hold a word.
    decide : callable
        list of n texts -> (n,) gap "target logit minus the best other"; positive = the target won.
    clouds : Clouds
    weight_gap : ndarray (d,)
        ``W[target] - W[current]``: a word that lowers features with a positive entry is replaced
        by one that raises them, and the other way round.
    max_substitutions : int
        Depth; level by level, so the first flip found uses the fewest this search can see.
    beam : int
        Texts kept per level, by their gap.
    words_per_cloud : int
        Strongest words of the opposite cloud that are tried.
    """
    frontier: list[tuple[str, tuple[Substitution, ...]]] = [(text, ())]
    asked = 0
    best: tuple[str, tuple[Substitution, ...], float] = (text, (), -np.inf)
    for _ in range(max_substitutions):
        options: dict[str, tuple[Substitution, ...]] = {}
        for current, done in frontier:
            words = [normalize(w) for w in _words(current, tokenize)]
            taken = {s.position for s in done}
            for edit in _opposite_edits(words, clouds, weight_gap, words_per_cloud):
                if edit.position not in taken:
                    options.setdefault(substitute(current, edit, tokenize), (*done, edit))
        if not options:
            break
        texts = list(options)
        gaps = decide(texts)
        asked += len(texts)
        order = np.argsort(-gaps, kind="stable")
        winner = int(order[0])
        if gaps[winner] > best[2]:
            best = (texts[winner], options[texts[winner]], float(gaps[winner]))
        if gaps[winner] > 0:
            return SearchResult(texts[winner], options[texts[winner]], True, asked)
        frontier = [(texts[i], options[texts[i]]) for i in order[:beam]]
    return SearchResult(best[0], best[1], False, asked)


def insert_word(text: str, word: str, tokenize: Tokenizer, rng: np.random.Generator) -> str:
    """Put a word in front of a random word of the text (or after the last one)."""
    pieces, positions = tokenize(text)
    if not positions:
        return f"{text} {word}".strip()
    place = int(rng.integers(len(positions) + 1))
    if place == len(positions):
        index = positions[-1] + 1
        return "".join([*pieces[:index], " ", word, *pieces[index:]])
    index = positions[place]
    return "".join([*pieces[:index], word, " ", *pieces[index:]])


def _words(text: str, tokenize: Tokenizer) -> list[str]:
    pieces, positions = tokenize(text)
    return [pieces[i] for i in positions]


def _members(
    words: Sequence[str], cloud: Mapping[int, Sequence[str]], features: Iterable[np.integer]
) -> list[tuple[int, int]]:
    found = []
    for feature in features:
        members = set(cloud.get(int(feature), ()))
        found += [(position, int(feature)) for position, word in enumerate(words) if word in members]
    return found


def _opposite_edits(
    words: Sequence[str], clouds: Clouds, weight_gap: np.ndarray, words_per_cloud: int
) -> list[Substitution]:
    """All substitutions that move a feature towards the target, from either cloud to the other."""
    edits = []
    for source, opposite, wanted in (
        (clouds.negative, clouds.positive, np.flatnonzero(weight_gap > 0)),
        (clouds.positive, clouds.negative, np.flatnonzero(weight_gap < 0)),
    ):
        for position, feature in _members(words, source, wanted):
            for word in list(opposite.get(feature, ()))[:words_per_cloud]:
                edits.append(Substitution(position, words[position], word, feature))
    return edits


def _match_case(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
