"""Edits, audits and diffs."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.analysis.edit import Edit, apply_edits, audit, diff, parse_edits
from debugnet.errors import InputError, UsageError
from tests.analysis.heads import random_head, random_samples


def test_removed_feature_stands_at_its_mean():
    head = random_head(11)
    X = random_samples(head, 30, seed=1)
    feature = int(head.used_features[0])
    edited = apply_edits(head, [Edit("remove", feature)])
    X_off = X.copy()
    X_off[:, feature] = head.standardizer.mean[feature]
    np.testing.assert_allclose(edited.logits(X), head.logits(X_off), atol=1e-12)
    assert not edited.support[:, feature].any()


def test_scale_and_set_one_class():
    head = random_head(12, density=1.0)
    edited = apply_edits(head, [Edit("scale", 2, "class1", 0.5), Edit("set", 3, "class0", -1.25)])
    expected = head.standardized_weight
    expected[1, 2] *= 0.5
    expected[0, 3] = -1.25
    np.testing.assert_allclose(edited.standardized_weight, expected)
    np.testing.assert_allclose(edited.standardized_bias, head.standardized_bias)


@pytest.mark.parametrize(
    "record, says",
    [
        ("remove 12", "mapping"),
        ({"action": "drop", "feature": 1}, "remove, scale, set"),
        ({"action": "remove", "feature": "x"}, "integer"),
        ({"action": "scale", "feature": 1}, "number"),
        ({"action": "scale", "feature": 1, "value": float("nan")}, "number"),
        ({"action": "remove", "feature": 1, "value": 2}, "remove none"),
        ({"action": "remove", "feature": 1, "class": "cat"}, "unknown keys"),
    ],
)
def test_unclear_edits_are_refused(record, says):
    with pytest.raises(InputError, match=says):
        parse_edits([record])


def test_edits_of_what_does_not_exist_are_refused():
    head = random_head(13)
    for edit in (Edit("remove", 99), Edit("remove", 1, "zebra"), Edit("set", 11, None, 1.0)):
        with pytest.raises(UsageError):
            apply_edits(head, [edit])


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_audit_counts_against_loops(task):
    head = random_head(14, task=task)
    X = random_samples(head, 150, seed=2)
    rng = np.random.default_rng(3)
    y = np.where(rng.random(head.predict(X).shape) < 0.2, rng.integers(0, 2, head.predict(X).shape), head.predict(X))
    groups = rng.integers(0, 3, 150)
    after = apply_edits(head, [Edit("remove", int(head.used_features[0]))])
    ids = [f"id{i}" for i in range(150)]
    report = audit(head, after, X, y, ids=ids, groups=groups, group_names=["g0", "g1", "g2"])
    fixed, broken, right = [], [], [0, 0]
    for i in range(150):
        ok = [bool(np.all(h.predict(X[i : i + 1])[0] == y[i])) for h in (head, after)]
        right = [right[0] + ok[0], right[1] + ok[1]]
        if ok == [False, True]:
            fixed.append(ids[i])
        if ok == [True, False]:
            broken.append(ids[i])
    assert report["fixed"] == fixed and report["broken"] == broken
    assert [report[w]["count"] for w in ("before", "after")] == right
    assert sum(row["before"]["n"] for row in report["groups"]) == 150
    worst = min(row["after"]["value"] for row in report["groups"])
    assert report["worst_group"]["after"]["after"]["value"] == worst


def test_diff_lists_exactly_the_changes():
    head = random_head(15, density=0.5)
    feature = int(np.flatnonzero(head.support[0])[0])
    absent = int(np.flatnonzero(~head.support[0] & (head.standardizer.scale > 0))[0])
    after = apply_edits(head, [Edit("remove", feature, "class0"), Edit("set", absent, "class0", 0.5)])
    report = diff(head, after)
    assert report["counts"] == {"added": 1, "removed": 1, "changed": 0}
    assert {(w["feature"], w["change"]) for w in report["weights"]} == {(feature, "removed"), (absent, "added")}
    assert diff(head, head)["weights"] == []
    with pytest.raises(UsageError, match="belong together"):
        diff(head, random_head(1, n_outputs=3))
