"""Stratified division: exact, seeded, and fair to rare strata."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.data import Dataset
from debugnet.data.splits import draw, limited, split_off, strata
from debugnet.data.tables import TextSource


def dataset(labels: np.ndarray, groups: np.ndarray | None = None, status: np.ndarray | None = None) -> Dataset:
    n = len(labels)
    return Dataset(
        TextSource([f"t{i}" for i in range(n)]), np.arange(n), [f"r{i}" for i in range(n)], labels, status, groups
    )


@pytest.mark.parametrize("seed", range(5))
def test_draw_takes_each_stratum_in_proportion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = rng.integers(0, 7, 500)
    size = int(rng.integers(20, 400))
    rows = draw(members, size, seed)
    assert len(rows) == size == len(set(rows.tolist()))
    counts, taken = np.bincount(members, minlength=7), np.bincount(members[rows], minlength=7)
    assert np.all(np.abs(taken - counts * size / 500) < 1)


def test_draw_is_seeded() -> None:
    members = np.arange(200) % 4
    assert np.array_equal(draw(members, 20, 3), draw(members, 20, 3))
    assert not np.array_equal(draw(members, 20, 3), draw(members, 20, 4))


def test_a_rare_class_is_in_both_parts() -> None:
    rest, part = split_off(dataset(np.array([0] * 97 + [1] * 3)), 0.1, seed=0)
    assert len(part) == 10
    assert (part.labels == 1).sum() == 1 and (rest.labels == 1).sum() == 2
    assert not set(rest.ids) & set(part.ids) and len(rest) + len(part) == 100


def test_a_class_of_one_stays_in_train() -> None:
    rest, _ = split_off(dataset(np.array([0] * 30 + [1])), 0.1, seed=0)
    assert (rest.labels == 1).sum() == 1


def test_classes_of_two_keep_one_row_each() -> None:
    rest, part = split_off(dataset(np.repeat(np.arange(5), 2)), 0.9, seed=0)
    assert sorted(rest.labels.tolist()) == sorted(part.labels.tolist()) == [0, 1, 2, 3, 4]


def test_rare_labels_of_a_multi_label_set_are_spread() -> None:
    labels = np.zeros((100, 3), dtype=np.uint8)
    labels[:40, 0] = 1
    labels[:4, 2] = 1  # rare, and always beside the common one
    _, part = split_off(dataset(labels), 0.25, seed=0)
    assert part.labels[:, 2].sum() == 1 and len(part) == 25


def test_groups_are_strata_of_their_own() -> None:
    labels, groups = np.repeat([0, 1], 50), np.array([0] * 45 + [1] * 5 + [2] * 50)
    assert len(np.unique(strata(dataset(labels, groups)))) == 3
    _, part = split_off(dataset(labels, groups), 0.2, seed=0)
    assert np.bincount(part.groups).tolist() == [9, 1, 10]


def test_regression_is_split_along_its_range() -> None:
    labels = np.random.default_rng(0).normal(size=200)
    _, part = split_off(dataset(labels), 0.1, seed=0)
    tenths = np.searchsorted(np.quantile(labels, np.arange(1, 10) / 10), part.labels)
    assert np.bincount(tenths, minlength=10).tolist() == [2] * 10


def test_unusable_rows_stay_in_train() -> None:
    status = np.zeros(40, dtype=np.uint8)
    status[::4] = 5
    rest, part = split_off(dataset(np.arange(40) % 2, status=status), 0.2, seed=0)
    assert len(part) == 6 and not part.status.any() and rest.status.astype(bool).sum() == 10


def test_limit_keeps_the_order_and_the_proportions() -> None:
    data = limited(dataset(np.repeat([0, 1], [90, 10])), 20, seed=1)
    assert np.bincount(data.labels).tolist() == [18, 2]
    assert [int(name[1:]) for name in data.ids] == sorted(int(name[1:]) for name in data.ids)
