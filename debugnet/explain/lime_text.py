"""LIME on words: one set of perturbed texts explains every deep feature of the sentence.

Perturbed texts repeat themselves (a 10-word sentence has 1,024, lime's protocol asks 5,000
times), so each distinct one is pushed through the network once and counted as often as it was
drawn, which changes no sum.  Sentences go in groups, their perturbations sorted by length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.explain.forward import NotExplainable, Probe, require_finite
from debugnet.explain.surrogate import Moments, Surrogate, fit_selected, fit_surrogate, kernel_weights
from debugnet.explain.tokenization import Words

KERNEL_WIDTH = 25.0
LIME_WORDS = 10
"""Words that lime keeps per sentence and feature, as the paper's code ran it."""
_TINY_RIDGE = 1e-12


@dataclass(frozen=True)
class Neighbourhood:
    """The perturbations of one sentence.

    Attributes
    ----------
    switches : ndarray (n, K), bool
        Distinct rows; row 0 keeps everything.
    counts : ndarray (2, n), float64
        How often each was drawn, among the even and among the odd draws; for an enumerated
        neighbourhood half its probability, scaled to 2^K, in each.
    enumerated : bool
        All 2^K subsets are there.
    """

    switches: np.ndarray
    counts: np.ndarray
    enumerated: bool


def enumerate_switches(n_words: int) -> Neighbourhood:
    """All 2^K subsets, weighted so that each number of removed words, none included, is equally likely.

    This is lime's sampling distribution (uniform number of removed words, then a uniform choice of
    them) except that lime has the sentence itself once among all its draws; with every subset at
    hand nothing needs regularizing, so words without effect get none (lime gives the neutral
    word of a two-word text a third of the other's weight, with the sign turned).
    """
    switches = ((np.arange(2**n_words)[::-1, None] >> np.arange(n_words)) & 1).astype(bool)
    kept = switches.sum(axis=1)
    size_of = np.bincount(kept)
    probability = 1.0 / ((n_words + 1) * size_of[kept])
    return Neighbourhood(switches, np.stack([probability, probability]) * 2**n_words / 2, True)


def draw_switches(n_words: int, n_samples: int, seed: int) -> Neighbourhood:
    """Draw ``n_samples`` rows: 1..K words removed with equal probability, then which, uniformly; row 0 none."""
    random = np.random.RandomState(seed)
    n_removed = random.randint(1, n_words + 1, n_samples - 1)
    order = np.argsort(random.random_sample((n_samples - 1, n_words)), axis=1)
    switches = np.ones((n_samples, n_words), dtype=bool)
    np.put_along_axis(switches[1:], order, np.arange(n_words) >= n_removed[:, None], axis=1)
    return _count_repeats(switches)


def draw_switches_as_lime(n_words: int, n_samples: int, seed: int) -> Neighbourhood:
    """The same distribution by lime's own random stream, for ``LimeTextExplainer(random_state=seed)``."""
    random = np.random.RandomState(seed)
    n_removed = random.randint(1, n_words + 1, n_samples - 1)
    switches = np.ones((n_samples, n_words), dtype=bool)
    for row, size in zip(switches[1:], n_removed, strict=True):
        row[random.choice(n_words, size, replace=False)] = False
    return _count_repeats(switches)


def _count_repeats(switches: np.ndarray) -> Neighbourhood:
    """Merge equal rows; row 0 stays first."""
    packed = np.ascontiguousarray(np.packbits(switches, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)[inverse.ravel()]
    parity = np.arange(len(switches)) % 2
    counts = np.stack([np.bincount(rank[parity == half], minlength=len(first)) for half in range(2)])
    return Neighbourhood(switches[first[order]], counts.astype(np.float64), False)


@dataclass
class TextExplanation:
    """All that LIME found out about one text, for all d features.

    Attributes
    ----------
    words : Words
    activation : ndarray (d,), float32
        The features of the text.
    moments : Moments
    enumerated : bool
        Every subset of the words was tried: no sampling error, no ridge.
    lime_compat : bool
        Fit as lime does: the 10 strongest words only, refitted, ridge 1.
    """

    words: Words
    activation: np.ndarray
    moments: Moments
    enumerated: bool
    lime_compat: bool = False

    def fit(self, features: np.ndarray | None = None) -> Surrogate:
        """Solve the local linear models of ``features`` (all by default); costs no forward pass."""
        if self.lime_compat:
            features = np.arange(self.moments.shape[1]) if features is None else np.asarray(features)
            return fit_selected(self.moments, features, LIME_WORDS)
        ridge = _TINY_RIDGE * float(self.moments.w.sum()) if self.enumerated else 1.0
        return fit_surrogate(self.moments, features, ridge=ridge, enumerated=self.enumerated)


def explain_texts(
    texts: Sequence[str],
    probe: Probe,
    seeds: Sequence[int],
    *,
    n_samples: int = 1000,
    exhaustive_words: int = 10,
    mask_token: str | None = None,
    lime_compat: bool = False,
) -> list[TextExplanation | NotExplainable]:
    r"""Explain every deep feature of some texts by their words.

    Parameters
    ----------
    texts : sequence of str
        A group, whose perturbations share batches: all their features are held at once, so
        pass tens of sentences, not thousands.
    probe : Probe
        List of n texts -> features (n, d).
    seeds : sequence of int
        One per text; see :func:`debugnet.explain.forward.sample_seed`.
    n_samples : int
        Perturbations per text, the text itself among them.
    exhaustive_words : int
        Texts of up to so many distinct words have all their subsets tried instead.
    mask_token : str, optional
        Replaces removed words; they are deleted by default.
    lime_compat : bool
        lime's exact protocol: its splitting at ``\W+``, its random stream, its choice of 10
        words, its ridge; never exhaustive.

    Returns
    -------
    list
        One TextExplanation per text, or the NotExplainable that says why there is none.
    """
    results: list[TextExplanation | NotExplainable] = []
    neighbourhoods: list[tuple[int, Words, Neighbourhood]] = []
    pool: list[str] = []
    for i, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        words = Words.of(text, as_lime=lime_compat)
        results.append(NotExplainable("it has no words"))
        if words.vocabulary:
            near = _neighbourhood(len(words.vocabulary), n_samples, seed, exhaustive_words, lime_compat)
            neighbourhoods.append((i, words, near))
            pool += words.perturbed(near.switches, mask_token)
    answers = probe.texts(pool) if pool else np.empty((0, 0), np.float32)
    start = 0
    for i, words, near in neighbourhoods:
        mine = answers[start : start + len(near.switches)]
        start += len(near.switches)
        try:
            results[i] = _explain(words, near, require_finite(mine), lime_compat)
        except NotExplainable as reason:
            results[i] = reason
    return results


def _neighbourhood(n_words: int, n_samples: int, seed: int, exhaustive_words: int, lime_compat: bool) -> Neighbourhood:
    if lime_compat:
        return draw_switches_as_lime(n_words, n_samples, seed)
    return enumerate_switches(n_words) if n_words <= exhaustive_words else draw_switches(n_words, n_samples, seed)


def _explain(words: Words, near: Neighbourhood, answers: np.ndarray, lime_compat: bool) -> TextExplanation:
    weights = kernel_weights(near.switches, KERNEL_WIDTH, distance_scale=100.0)
    moments = Moments.of_switches(near.switches, weights, near.counts, answers.shape[1])
    moments.add(near.switches, weights, near.counts, np.subtract(answers, answers[0], dtype=np.float64))
    return TextExplanation(words, answers[0].copy(), moments, near.enumerated, lime_compat)
