"""Bias shares, selection shares, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from debugnet.analysis.bias import measure_bias, signed_for_output, summarize_bias
from debugnet.analysis.intervals import holm, proportion, sign_test, wilson_interval
from debugnet.analysis.stability import bootstrap_weights, count_selections, rank_unstable


def test_wilson_against_scipy():
    for k, n in [(0, 10), (3, 10), (10, 10), (26, 1000)]:
        interval = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson_interval(k, n) == pytest.approx((interval.low, interval.high))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert proportion(0, 0)["value"] is None


def test_sign_test_against_scipy():
    for fixed, broken in [(0, 0), (5, 0), (7, 3), (2, 9)]:
        expected = stats.binomtest(fixed, fixed + broken, alternative="greater").pvalue if fixed + broken else 1.0
        assert sign_test(np.array(fixed), np.array(broken)) == pytest.approx(expected)


def test_holm_against_its_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])


def test_bias_counts_listed_words_in_any_case_and_script():
    clouds = {
        3: {"positive": ["Muslim", "bad", "straße", "x"], "negative": ["kind"]},
        5: {"positive": ["fine"], "negative": []},
    }
    rows = measure_bias(clouds, ["muslim", "STRASSE", "христианин"], top=3)
    first = rows[0]
    assert (first.feature, first.side, first.matched, first.n_words) == (3, "positive", ("Muslim", "straße"), 3)
    summary = summarize_bias(rows, [3])
    assert summary["all"]["count"] == 2 and summary["all"]["n"] == 4
    assert signed_for_output(first, -1.0) == "against"
    assert summarize_bias(measure_bias(clouds, ["христианин"]), [3, 5])["all"]["count"] == 0


def test_selection_shares():
    weights = [np.array([[1.0, 0, -1]]), np.array([[2.0, 0, 1]]), np.array([[0.0, 0, -1]])]
    shares = count_selections(weights)
    np.testing.assert_allclose(shares.share, [[2 / 3, 0, 1]])
    np.testing.assert_allclose(shares.sign_agreement, [[1, np.nan, 2 / 3]])
    ranked = rank_unstable(shares, np.array([[True, False, True]]), ["only"])
    assert [row["feature"] for row in ranked] == [0, 2]


def test_bootstrap_keeps_class_sizes():
    y = np.array([0] * 50 + [1] * 2)
    weights = bootstrap_weights(y, np.random.default_rng(0))
    assert weights[y == 1].sum() == 2 and weights[y == 0].sum() == 50
