"""Which subsets of the words are tried: all sizes alike, none twice, unbiased."""

from __future__ import annotations

import math

import numpy as np
import pytest

from debugnet.explain.word_subsets import draw_subsets


@pytest.mark.parametrize(
    ("n_words", "n_samples"),
    [(1, 2), (2, 4), (6, 64), (6, 30), (12, 300), (20, 1000), (40, 100), (90, 50), (300, 1000)],
)
def test_no_subset_twice_and_every_size_weighs_alike(n_words, n_samples):
    near = draw_subsets(n_words, n_samples, seed=1)
    assert near.switches[0].all() and abs(len(near.switches) - n_samples) <= 1
    assert len(np.unique(near.switches, axis=0)) == len(near.switches)
    assert near.enumerated == (n_samples >= 2**n_words)
    kept = near.switches.sum(axis=1)
    if n_samples > n_words:
        shares = np.bincount(kept, near.counts.sum(axis=0), minlength=n_words + 1)
        np.testing.assert_allclose(shares, shares[0])
        assert near.counts.sum() == pytest.approx(len(near.switches))
        np.testing.assert_allclose(near.counts.sum(axis=1), near.counts.sum() / 2, rtol=0.2)
    for size in np.unique(kept):
        whole = (kept == size).sum() == math.comb(n_words, int(size))
        assert (near.noise[:, kept == size].sum() == 0) == whole


def test_a_size_with_few_subsets_leaves_its_share_to_the_others():
    kept = draw_subsets(20, 1000, seed=0).switches.sum(axis=1)
    assert np.bincount(kept)[[0, 1, 19, 20]].tolist() == [1, 20, 20, 1]
    assert set(np.bincount(kept)[3:18].tolist()) <= {56, 57}


def test_same_seed_same_subsets_and_another_seed_others():
    first, again, other = (draw_subsets(15, 200, seed).switches for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sums_over_the_draws_are_unbiased_and_their_noise_is_what_it_says():
    """Estimate the mean over all 2^9 subsets of a function that hangs on single subsets."""
    every = ((np.arange(512)[:, None] >> np.arange(9)) & 1).astype(bool)
    value = np.random.RandomState(0).randn(512)
    kept = every.sum(axis=1)
    value -= np.array([value[kept == k].mean() for k in range(10)])[kept] - 0.1  # no variance between sizes
    truth = np.mean([value[kept == k].mean() for k in range(10)])
    means, noises = [], []
    for seed in range(400):
        near = draw_subsets(9, 120, seed)
        row = near.switches @ (1 << np.arange(9))
        counts = near.counts.sum(axis=0)
        means.append(counts @ value[row] / counts.sum())
        noises.append(near.noise.sum(axis=0) @ (value[row] - 0.1) ** 2 / counts.sum() ** 2)
    assert np.mean(means) == pytest.approx(truth, abs=4 * np.std(means) / 20)
    assert np.var(means) == pytest.approx(np.mean(noises), rel=0.25)
