"""LIME on words: one set of perturbed texts explains every deep feature of the sentence.

Every distinct perturbed text is pushed through the network once.  Sentences go in groups, their
perturbations sorted by length.  Which ones are tried (:mod:`debugnet.explain.word_subsets`) and
what is done about pairs of words (:mod:`debugnet.explain.interactions`) reach the precision of
lime's draws with fewer of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.explain.forward import NotExplainable, Probe, require_finite
from debugnet.explain.interactions import control_interactions
from debugnet.explain.surrogate import Moments, Surrogate, fit_selected, fit_surrogate, kernel_weights
from debugnet.explain.tokenization import Words
from debugnet.explain.word_subsets import Neighbourhood, draw_subsets, draw_subsets_as_lime

KERNEL_WIDTH = 25.0
LIME_WORDS = 10
"""Words that lime keeps per sentence and feature, as the paper's code ran it."""
_TINY_RIDGE = 1e-12


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
        return draw_subsets_as_lime(n_words, n_samples, seed)
    return draw_subsets(n_words, max(n_samples, 2**n_words) if n_words <= exhaustive_words else n_samples, seed)


def _explain(words: Words, near: Neighbourhood, answers: np.ndarray, lime_compat: bool) -> TextExplanation:
    weights = _kernel(near.switches)
    moments = Moments.of_switches(near.switches, weights, near.counts, answers.shape[1], near.noise)
    moments.add(near.switches, weights, near.counts, answers, answers[0])
    if not lime_compat:
        n_words = len(words.vocabulary)
        size_weights = _kernel(np.tri(n_words + 1, n_words, -1, dtype=bool))
        moments = control_interactions(moments, near, weights, size_weights, answers - answers[0])
    return TextExplanation(words, answers[0].copy(), moments, near.enumerated, lime_compat)


def _kernel(switches: np.ndarray) -> np.ndarray:
    return kernel_weights(switches, KERNEL_WIDTH, distance_scale=100.0)
