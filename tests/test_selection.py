"""The selection rules against hand-made paths, against brute force, and against the published bugs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from debugnet import selection
from debugnet.errors import InputError, NotConverged, UsageError
from debugnet.regularization_path import PathPoint, RegularizationPath
from debugnet.standardization import Standardizer

# procedures.md, bug 3: the published rule returns index 9 here, the over-fitted tail.
BUG_3 = np.array([10, 40, 60, 68, 72, 74, 75, 74, 71, 69.9]) / 100


def make_path(val, nnz=None, *, test=None, status=None, n_outputs=2, d=40, task="single-label"):
    """Build a path whose point i has ``nnz[i]`` non-zeros in each row and validation accuracy ``val[i]``."""
    nnz = np.arange(len(val)) if nnz is None else nnz
    rng = np.random.default_rng(1)
    points = []
    for i, accuracy in enumerate(val):
        weight = np.zeros((n_outputs, d))
        weight[:, : nnz[i]] = rng.uniform(0.1, 1, size=(n_outputs, nnz[i]))
        metrics = {"val": {"accuracy": accuracy, "accuracy_se": 0.03, "balanced_accuracy": accuracy**2}}
        if test is not None:
            metrics["test"] = {"accuracy": test[i]}
        points.append(
            PathPoint(
                0.5**i, weight, np.zeros(n_outputs), 0.0, 0.0, 0.0,
                status[i] if status else "converged", 1, 0.0, metrics,
            )
        )  # fmt: skip
    meta = {"family": "multinomial", "class_names": ["a", "b"], "task": task}
    return RegularizationPath.from_points(points, Standardizer(np.zeros(d), np.ones(d)), meta)


def test_the_example_of_the_published_bug_gives_the_sparsest_point_within_tolerance():
    chosen = selection.select_by_drop(make_path(BUG_3), 0.05)
    assert (chosen.index, chosen.reference_index) == (4, 6)
    assert chosen.threshold == pytest.approx(0.70)
    assert chosen.rule == "drop"


def test_relative_drop_is_a_fraction_of_the_reference():
    path = make_path(BUG_3)
    assert selection.select_by_drop(path, 0.05, relative=True).index == 4  # .75 * .95 = .7125
    assert selection.select_by_drop(path, 0.10, relative=True).index == 3  # .675
    assert selection.select_by_drop(path, 0.10).index == 3  # .65


def test_the_dense_reference_is_the_least_regularized_point():
    chosen = selection.select_by_drop(make_path(BUG_3), 0.05, reference="dense")
    assert (chosen.reference_index, chosen.index) == (9, 3)  # .699 - .05 <= .68


def test_a_point_exactly_on_the_line_counts_in_spite_of_rounding():
    val = np.array([0.1, 0.85, 0.9])  # 0.9 - 0.05 == 0.8500000000000001
    assert selection.select_by_drop(make_path(val), 0.05).index == 1


def test_fewest_non_zeros_wins_even_where_the_support_shrinks_and_ties_go_to_the_larger_lambda():
    val = np.array([0.1, 0.8, 0.8, 0.8, 0.8])
    assert selection.select_by_drop(make_path(val, [0, 7, 5, 5, 9]), 0.05).index == 2


def test_drop_agrees_with_brute_force_over_random_paths():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = rng.integers(1, 12)
        val, nnz = rng.choice([0.2, 0.5, 0.55, 0.6], size=n), rng.integers(0, 6, size=n)
        drop = float(rng.choice([0.0, 0.05, 0.2, 1.0]))
        chosen = selection.select_by_drop(make_path(val, nnz), drop).index
        candidates = [(nnz[i], i) for i in range(n) if val[i] >= max(val) - drop - 1e-9]
        assert chosen == min(candidates)[1]


def test_the_test_split_is_never_looked_at():
    rng = np.random.default_rng(0)
    choices = set()
    for _ in range(20):
        path = make_path(BUG_3, test=rng.uniform(size=10))
        choices.add(
            (
                selection.select_by_drop(path, 0.05).index,
                selection.select_by_drop(path, 0.05, relative=True, reference="dense").index,
                selection.select_one_standard_error(path).index,
            )
        )
    assert len(choices) == 1


def test_one_standard_error():
    chosen = selection.select_one_standard_error(make_path(BUG_3))
    assert chosen.index == 4  # .75 - .03 = .72
    assert chosen.drop == pytest.approx(0.03)


def test_index_and_lambda():
    path = make_path(BUG_3)
    assert selection.select_index(path, -1).index == 9
    assert selection.select_lam(path, 0.5**3 * 1.2).index == 3
    with pytest.raises(UsageError, match="10 points"):
        selection.select_index(path, 10)
    with pytest.raises(UsageError, match="no point at lambda 0"):
        selection.select_lam(path, 0.0)


def test_multi_label_paths_compare_balanced_accuracy_because_labels_are_rare():
    path = make_path(BUG_3, task="multi-label")
    assert selection.select_by_drop(path, 0.05).metric == "balanced_accuracy"
    assert selection.select_by_drop(path, 0.05, metric="accuracy").index == 4


def test_features_per_class_starts_at_the_first_point_with_enough_in_every_class():
    path = make_path(BUG_3, [0, 1, 2, 4, 3, 6, 8, 9, 9, 9])
    assert selection.select_features_per_class(path, 3).index == 3
    with pytest.raises(UsageError, match="at best 9"):
        selection.select_features_per_class(path, 10)
    with pytest.raises(UsageError, match="at least 1"):
        selection.select_features_per_class(path, 0)


def test_unconverged_points_are_refused_unless_accepted():
    status = ["converged"] * 9 + ["max_iterations"]
    path = make_path(BUG_3, status=status)
    with pytest.raises(NotConverged, match=r"point 9.*max_iterations"):
        selection.select_by_drop(path, 0.05)
    assert selection.select_by_drop(path, 0.05, allow_unconverged=True).index == 4
    assert selection.select_index(path, 4).index == 4  # the bad point is not in this rule's range
    with pytest.raises(NotConverged):
        selection.select_index(path, 9)


def test_bad_requests_get_one_clear_line():
    path = make_path(BUG_3)
    with pytest.raises(UsageError, match="between 0% and 100%"):
        selection.select_by_drop(path, 1.2)
    with pytest.raises(UsageError, match="unknown reference 'worst'"):
        selection.select_by_drop(path, 0.05, reference="worst")
    with pytest.raises(UsageError, match="no validation metric 'auc'"):
        selection.select_by_drop(path, 0.05, metric="auc")
    with pytest.raises(InputError, match="no validation metrics"):
        selection.select_by_drop(dataclasses.replace(path, metrics={}), 0.05)
