"""A prediction is the exact sum of what its features contribute."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.analysis.contributions import explain_logit, explain_prediction, probabilities
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer


def make_head(family="multinomial", task="single-label", n_outputs=3):
    rng = np.random.default_rng(0)
    standardizer = Standardizer(rng.normal(size=8), np.append(rng.uniform(0.5, 2, size=7), 0.0))
    weight = rng.normal(size=(n_outputs, 8)) * (rng.uniform(size=(n_outputs, 8)) < 0.6)
    weight[:, 7] = 0
    raw = standardizer.to_raw(weight, rng.normal(size=n_outputs))
    return LinearHead(*raw, standardizer, family, ["a", "b", "c"][: max(2, n_outputs)], task)


@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_contributions_add_up_to_the_logit(n):
    head = make_head()
    for x in np.random.default_rng(1).normal(2, 3, size=(20, 8)).astype(np.float32):
        for k in range(3):
            found = explain_logit(head, x, k, n)
            total = found["bias"] + sum(f["contribution"] for f in found["features"]) + found["others"]
            assert total == pytest.approx(head.logits(x[None])[0, k], abs=1e-9)
            assert abs(found["residual"]) < 1e-9
            assert len(found["features"]) == (min(n, head.support[k].sum()) if n else head.support[k].sum())
            sizes = [abs(f["contribution"]) for f in found["features"]]
            assert sizes == sorted(sizes, reverse=True)
            for f in found["features"]:
                j = f["feature"]
                z = (x[j] - head.standardizer.mean[j]) / head.standardizer.scale[j]
                assert f["contribution"] == pytest.approx(z * head.weight[k, j] * head.standardizer.scale[j], abs=1e-9)


def test_predictions_of_every_kind_of_head():
    x = np.random.default_rng(2).normal(2, 3, size=8)
    head = make_head()
    found = explain_prediction(head, x)
    scores = np.exp(head.logits(x[None])[0])
    assert found["prediction"] == "abc"[scores.argmax()] == found["outputs"][0]["class"]
    assert found["score"] == pytest.approx(scores.max() / scores.sum())
    one = make_head("binomial", n_outputs=1)
    p = 1 / (1 + np.exp(-one.logits(x[None])[0, 0]))
    found = explain_prediction(one, x)
    assert found["prediction"] == ("b" if p > 0.5 else "a") and found["score"] == pytest.approx(max(p, 1 - p))
    multi = make_head("binomial", "multi-label")
    found = explain_prediction(multi, x)
    assert found["prediction"] == [n for n, s in zip("abc", multi.logits(x[None])[0], strict=True) if s > 0]
    assert len(found["outputs"]) == 3 and "score" not in found
    value = make_head("gaussian", "regression", 1)
    assert explain_prediction(value, x)["prediction"] == pytest.approx(value.logits(x[None])[0, 0])


def test_probabilities_survive_large_scores():
    scores = np.array([[1e4, 0.0, -1e4]])
    np.testing.assert_allclose(probabilities(scores, "multinomial"), [[1, 0, 0]])
    np.testing.assert_allclose(probabilities(scores, "binomial"), [[1, 0.5, 0]])
