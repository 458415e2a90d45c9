"""Class pairs: confusion, overlap and shared features against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from debugnet.analysis.class_pairs import (
    confusion_matrix,
    confusion_rate,
    correlate_pairs,
    rank_confused_pairs,
    shared_features,
    support_overlap,
    top_samples,
)
from tests.analysis.heads import random_head


def test_confusion_against_sklearn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    np.testing.assert_array_equal(confusion_matrix(y, p, 4), metrics.confusion_matrix(y, p))


def test_rate_is_the_larger_direction_and_nan_without_samples():
    rate = confusion_rate(np.array([[8, 2, 0], [5, 5, 0], [0, 0, 0]]))
    assert rate[0, 1] == rate[1, 0] == 0.5
    assert np.isnan(rate[0, 2])


@pytest.mark.parametrize("measure", ["jaccard", "overlap", "count"])
def test_overlap_against_sets(measure):
    head = random_head(7, n_outputs=6, d=20, density=0.3)
    overlap = support_overlap(head, measure)
    sets = [set(np.flatnonzero(row)) for row in head.weight]
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            shared = len(a & b)
            expected = {"count": shared, "jaccard": shared / len(a | b), "overlap": shared / min(len(a), len(b))}
            assert overlap[i, j] == pytest.approx(expected[measure])


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlation_value_against_scipy(method):
    rng = np.random.default_rng(1)
    a, b = (m + m.T for m in rng.random((2, 9, 9)))
    upper = np.triu_indices(9, 1)
    expected = getattr(stats, f"{method}r")(a[upper], b[upper]).statistic
    assert correlate_pairs(a, b, method=method, n_permutations=10).r == pytest.approx(expected)


def test_permutation_finds_planted_dependence_and_none_without():
    rng = np.random.default_rng(2)
    position = rng.random(15)
    distance = np.abs(np.subtract.outer(position, position))
    noise = rng.random((15, 15))
    assert correlate_pairs(distance, distance + 0.1 * (noise + noise.T), n_permutations=200).p_value < 0.01
    p_values = []
    for seed in range(40):
        other = np.random.default_rng(seed).random(15)
        p_values.append(correlate_pairs(distance, np.abs(np.subtract.outer(other, other)), n_permutations=99).p_value)
    assert 0.25 < np.mean(p_values) < 0.75 and np.mean(np.array(p_values) <= 0.05) < 0.2


def test_constant_side_has_no_correlation():
    assert np.isnan(correlate_pairs(np.ones((4, 4)), np.eye(4)).r)


@pytest.mark.parametrize("relative_to", ["class", "model"])
def test_shared_features_against_loops(relative_to):
    head = random_head(8, n_outputs=5, d=15, density=0.6)
    weight = head.standardized_weight
    expected = set()
    for i in range(5):
        for j in range(i + 1, 5):
            for f in range(15):
                top = [weight[k].max() if relative_to == "class" else weight.max() for k in (i, j)]
                if weight[i, f] > 0.3 * top[0] and weight[j, f] > 0.3 * top[1]:
                    expected.add((i, j, f))
    found = shared_features(head, threshold=0.3, relative_to=relative_to)
    assert {(*row.classes, row.feature) for row in found} == expected
    strengths = [row.strength for row in found]
    assert strengths == sorted(strengths, reverse=True)
    assert len(shared_features(head, threshold=0.3, relative_to=relative_to, limit=2)) == 2


def test_top_samples_and_ranked_pairs():
    z = np.array([0.0, 5, 2, 9, 7])
    np.testing.assert_array_equal(top_samples(z, np.array([0, 1, 4]), 2), [4, 1])
    assert len(top_samples(z, np.array([], dtype=int), 2)) == 0
    confusion = np.array([[5, 5, 0], [1, 9, 0], [0, 2, 8]])
    pairs = rank_confused_pairs(confusion, np.eye(3), ["a", "b", "c"])
    assert [p["classes"] for p in pairs] == [["a", "b"], ["b", "c"]]
