"""Table 37's protocol and the support counts, each against a brute-force rewrite."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.analysis.support import coefficient_traces, count_summary, entry_order, sharing
from debugnet.analysis.top_features import all_topk_rest, keep_entries, largest_per_output, top_feature_table
from debugnet.heads import LinearHead
from debugnet.regularization_path import PathPoint, RegularizationPath
from debugnet.standardization import Standardizer


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    n, d, K = 120, 9, 4
    X = rng.normal(2.0, 3.0, size=(n, d))
    X[:, 4] = 7.0  # dead
    standardizer = Standardizer(X.mean(axis=0), X.std(axis=0) * (np.arange(d) != 4))
    weight = rng.normal(size=(K, d)) * (rng.uniform(size=(K, d)) < 0.7)
    weight[:, 4] = 0.0
    raw = standardizer.to_raw(weight, rng.normal(size=K))
    head = LinearHead(*raw, standardizer, "multinomial", ["a", "b", "c", "d"])
    y = np.where(rng.uniform(size=n) < 0.8, head.predict(X), rng.integers(0, K, size=n))
    return head, X, y


def brute_force(head, X, y, k, part):
    """Plain loops: standardize, keep or drop the k largest |weights| of each row, add the bias."""
    mean, scale = head.standardizer.mean, head.standardizer.scale
    hits = 0
    for x, label in zip(X, y, strict=True):
        scores = []
        for row, bias in zip(head.weight, head.bias, strict=True):
            entries = [
                (-abs(w * s), j, w * s, (x[j] - mean[j]) / s if s > 0 else 0.0)
                for j, (w, s) in enumerate(zip(row, scale, strict=True))
            ]
            at_mean = bias + sum(w * m for w, m in zip(row, mean, strict=True))
            entries.sort()
            kept = {"all": entries, "top_k": entries[:k], "rest": entries[k:]}[part]
            scores.append(at_mean + sum(w * z for _, _, w, z in kept))
        hits += int(np.argmax(scores)) == label
    return hits / len(y)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_all_topk_rest_match_brute_force(problem, k):
    head, X, y = problem
    got = all_topk_rest(head, X, y, k)
    for part in ("all", "top_k", "rest"):
        assert got[part]["accuracy"] == pytest.approx(brute_force(head, X, y, k, part))


def test_nothing_left_in_the_rest_predicts_the_bias_class(problem):
    head, X, y = problem
    got = all_topk_rest(head, X, y, k=9)
    assert got["top_k"] == pytest.approx(got["all"])
    assert got["rest"]["accuracy"] == pytest.approx(np.mean(y == head.standardized_bias.argmax()))


def test_turning_off_at_the_mean_and_at_zero_are_what_they_say(problem):
    head, X, _ = problem
    mask = np.ones(head.weight.shape, dtype=bool)
    mask[:, 2] = False
    at_mean, at_zero = X.copy(), X.copy()
    at_mean[:, 2], at_zero[:, 2] = head.standardizer.mean[2], 0.0
    np.testing.assert_allclose(keep_entries(head, mask).logits(X), head.logits(at_mean), atol=1e-10)
    np.testing.assert_allclose(keep_entries(head, mask, off="zero").logits(X), head.logits(at_zero), atol=1e-10)


def test_a_networks_own_weights_on_dead_features_stay_in_the_bias(problem):
    head, X, _ = problem
    weight = head.weight.copy()
    weight[:, 4] = [1.0, -2.0, 3.0, 0.5]
    own = LinearHead(weight, head.bias, head.standardizer, "multinomial", head.class_names)
    everything = np.ones(weight.shape, dtype=bool)
    np.testing.assert_allclose(keep_entries(own, everything).logits(X), own.logits(X), atol=1e-10)


def test_top_feature_table_is_sorted_and_counts_users(problem):
    head, _, _ = problem
    table = top_feature_table(head, 3)
    for k, row in enumerate(table):
        expected = sorted(np.flatnonzero(head.support[k]), key=lambda j: -abs(head.standardized_weight[k, j]))[:3]
        assert [f["feature"] for f in row["features"]] == expected
        assert row["n_features"] == np.count_nonzero(head.weight[k])
        for f in row["features"]:
            assert f["classes"] == sum(head.weight[c, f["feature"]] != 0 for c in range(4))


def test_largest_per_output_keeps_exactly_k_of_the_largest():
    weight = np.array([[0.5, -3.0, 0.0, 2.0, 0.5], [0.0, 0.0, 0.0, -1.0, 0.0]])
    kept = largest_per_output(weight, 3)
    assert kept.tolist() == [[True, True, False, True, False], [False, False, False, True, False]]


def test_counts_and_sharing_match_loops(problem):
    head, _, _ = problem
    summary = count_summary(head)
    assert summary["per_class"] == {n: np.count_nonzero(head.weight[k]) for k, n in enumerate("abcd")}
    assert summary["nnz"] == np.count_nonzero(head.weight)
    assert summary["features_available"] == 8
    got = sharing(head)
    users = [sum(head.weight[k, j] != 0 for k in range(4)) for j in range(9)]
    for m, number in enumerate(got["histogram"]):
        assert number == users.count(m)
    assert {f["feature"] for f in got["shared"]} == {j for j in range(9) if users[j] >= 2}
    for f in got["shared"]:
        assert len(f["for"]) + len(f["against"]) == f["classes"] == users[f["feature"]]
        assert all(head.weight["abcd".index(c), f["feature"]] < 0 for c in f["against"])


def test_entry_order_and_traces():
    rows = [
        [[0, 0, 0, 0]],
        [[0, 0.1, 0, -0.3]],  # 3 before 1: larger at the same lambda
        [[0, 0.0, 0, -0.5]],  # 1 leaves again: it keeps its rank
        [[0.2, 0.4, 0, -0.6]],
    ]
    points = [
        PathPoint(0.5**i, np.array(w, dtype=float), np.zeros(1), 0, 0, 0, "converged", 1, 0) for i, w in enumerate(rows)
    ]
    path = RegularizationPath.from_points(points, Standardizer(np.zeros(4), np.ones(4)), {"family": "binomial"})
    order = entry_order(path)[0]
    assert [(f["feature"], f["index"], f["sign"]) for f in order] == [(3, 1, -1), (1, 1, 1), (0, 3, 1)]
    assert entry_order(path, 2)[0] == order[:2]
    np.testing.assert_array_equal(coefficient_traces(path, 0, [3, 1]), [[0, 0], [-0.3, 0.1], [-0.5, 0], [-0.6, 0.4]])


def test_entry_order_matches_a_search_through_every_point():
    rng = np.random.default_rng(8)
    weights = [rng.normal(size=(3, 12)) * (rng.uniform(size=(3, 12)) < 0.15 * i) for i in range(5)]
    points = [PathPoint(0.5**i, w, np.zeros(3), 0, 0, 0, "converged", 1, 0) for i, w in enumerate(weights)]
    path = RegularizationPath.from_points(points, Standardizer(np.zeros(12), np.ones(12)), {})
    for k, entries in enumerate(entry_order(path)):
        expected = []
        for w in weights:
            new = [j for j in np.flatnonzero(w[k]) if j not in expected]
            expected += sorted(new, key=lambda j, w=w: -abs(w[k, j]))
        assert [entry["feature"] for entry in entries] == expected
        for entry in entries:
            assert entry["weight"] == weights[entry["index"]][k, entry["feature"]] != 0
