"""Which words of a text are removed together: the perturbations of LIME on words.

LIME draws how many words to remove, uniformly, and then which.  It draws some subsets often (the
empty text is one of K + 1 sizes) and leaves others of the same size out.  Here every size gets an
equal share of the forward passes and no subset is tried twice; a size with fewer subsets than its
share has all of them and leaves the rest to the others.  The weights make up for it, so that the
regression estimates the same thing with less noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np


@dataclass(frozen=True)
class Neighbourhood:
    """The perturbations of one text.

    Attributes
    ----------
    switches : ndarray (n, K), bool
        Distinct rows, True for a word that is kept; row 0 keeps everything.
    counts : ndarray (2, n), float64
        Weight of each row in the first and in the second half of the perturbations, the kernel left
        aside; they add up to the number of perturbations.
    noise : ndarray (2, n), float64
        What a row adds to the variance of a sum over ``counts``, in units of its squared value: 0
        where all subsets of its size are there.
    enumerated : bool
        All 2^K subsets are there.
    """

    switches: np.ndarray
    counts: np.ndarray
    noise: np.ndarray
    enumerated: bool


def draw_subsets(n_words: int, n_samples: int, seed: int) -> Neighbourhood:
    """Spread ``n_samples`` distinct subsets evenly over the numbers of words kept, 0 to ``n_words``.

    Parameters
    ----------
    n_words : int
    n_samples : int
        Forward passes; with 2^K or more, all subsets are enumerated.
    seed : int

    Returns
    -------
    Neighbourhood
        Each size has the same total weight (LIME's distribution, except that LIME has the whole text once among
        all its draws), each subset of a size the same.
    """
    random = np.random.RandomState(seed)
    available = np.array([float(math.comb(n_words, size)) for size in range(n_words + 1)])
    whole, share = _allocate(available, n_samples)
    wanted = np.zeros(n_words + 1, dtype=np.int64)
    wanted[~whole] = np.diff(np.floor(share * np.arange((~whole).sum() + 1) + random.rand())).astype(np.int64)
    complete = np.concatenate([_all_of_size(n_words, int(size)) for size in np.flatnonzero(whole)[::-1]])
    drawn = _distinct(n_words, wanted, random)
    second = np.arange(len(drawn)) % 2 == 1  # within every size the two halves get alternate draws
    drawn, second = np.concatenate([drawn[~second], drawn[second]]), np.sort(second)
    switches = np.concatenate([complete, drawn])
    size = switches.sum(axis=1)
    rows_of_size = np.where(whole, available, wanted if share >= 1 else share)
    weight = len(switches) / (n_words + 1) / np.where(rows_of_size > 0, rows_of_size, 1.0)[size]
    in_half = np.full((2, len(switches)), 0.5)
    in_half[:, len(complete) :] = [~second, second]
    missing = np.where(whole, 0.0, 1.0 - wanted / available)[size]
    return Neighbourhood(switches, in_half * weight, in_half * weight**2 * missing, bool(whole.all()))


def _allocate(available: np.ndarray, n_samples: int) -> tuple[np.ndarray, float]:
    """Return which sizes are taken whole, and how many subsets each of the others gets."""
    whole = np.zeros(len(available), dtype=bool)
    whole[-1] = True  # the text itself
    while not whole.all():
        share = max(n_samples - float(available[whole].sum()), 0.0) / float((~whole).sum())
        small = ~whole & (available <= share)
        if not small.any():
            return whole, share
        whole |= small
    return whole, 0.0


def _all_of_size(n_words: int, size: int) -> np.ndarray:
    rows = math.comb(n_words, size)
    kept = np.fromiter(chain.from_iterable(combinations(range(n_words), size)), np.int64, rows * size)
    switches = np.zeros((rows, n_words), dtype=bool)
    np.put_along_axis(switches, kept.reshape(rows, size), True, axis=1)
    return switches


def _distinct(n_words: int, wanted: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Draw ``wanted[k]`` distinct subsets of every size k, alike probable; by size, else in random order."""
    drawn = np.empty((0, n_words), dtype=bool)
    lacking = wanted
    while lacking.any():
        drawn = np.concatenate([drawn, _subsets(np.repeat(np.arange(n_words + 1), lacking), n_words, random)])
        drawn = drawn[_first_of_each(drawn)[0]]
        lacking = wanted - np.bincount(drawn.sum(axis=1), minlength=n_words + 1)
    return drawn[np.argsort(drawn.sum(axis=1), kind="stable")]


def _subsets(sizes: np.ndarray, n_words: int, random: np.random.RandomState) -> np.ndarray:
    order = np.argsort(random.random_sample((len(sizes), n_words)), axis=1)
    switches = np.empty((len(sizes), n_words), dtype=bool)
    np.put_along_axis(switches, order, np.arange(n_words) < sizes[:, None], axis=1)
    return switches


def _first_of_each(switches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of every distinct one, in order, and for all rows which of these it is."""
    packed = np.ascontiguousarray(np.packbits(switches, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.ravel()]


def draw_subsets_as_lime(n_words: int, n_samples: int, seed: int) -> Neighbourhood:
    """LIME's own draws, by its random stream, for ``LimeTextExplainer(random_state=seed)``; repeats are merged."""
    random = np.random.RandomState(seed)
    n_removed = random.randint(1, n_words + 1, n_samples - 1)
    switches = np.ones((n_samples, n_words), dtype=bool)
    for row, size in zip(switches[1:], n_removed, strict=True):
        row[random.choice(n_words, size, replace=False)] = False
    first, which = _first_of_each(switches)
    second = np.arange(n_samples) % 2 == 1
    counts = np.stack([np.bincount(which[second == half], minlength=len(first)) for half in (False, True)])
    return Neighbourhood(switches[first], counts.astype(np.float64), counts.astype(np.float64), False)
