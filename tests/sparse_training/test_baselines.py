"""The selections that others are compared to: planted pixels of smooth images, and where the linear path may end."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from debugnet.sparse_training import baselines
from debugnet.sparse_training.baselines import anova_order

SIDE = 10
linear_order = partial(baselines.linear_order, n_lambdas=20)
PLANTED = {22, 27, 75}


@pytest.fixture(scope="module")
def images():
    """Smooth images (neighbours correlate at 0.9); the class is the brightest of three pixels, one of them dim."""
    rng = np.random.default_rng(0)
    X = gaussian_filter(rng.normal(size=(300, SIDE, SIDE)), (0, 1.6, 1.6), mode="wrap").reshape(300, -1)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    assert 0.85 < np.corrcoef(X[:, 22], X[:, 23])[0, 1] < 0.95
    score = X[:, sorted(PLANTED)] * [1, 1, 0.5] + 0.2 * rng.normal(size=(300, 3))
    return X.astype(np.float32), score.argmax(axis=1), np.arange(SIDE * SIDE)


def test_planted_pixels_come_first(images):
    """ANOVA names their neighbours, which tell nearly as much: the linear path takes each once."""
    X, y, pixels = images
    assert set(linear_order(X, y, "multinomial", pixels)[:3]) == PLANTED
    assert not PLANTED <= set(anova_order(X, y, "multinomial", pixels)[:3])


def test_nothing_comes_first_where_nothing_is_planted(images):
    X, y, pixels = images
    shuffled = np.random.default_rng(1).permutation(y)
    assert not PLANTED & set(linear_order(X, shuffled, "multinomial", pixels, enough=10)[:10])


def test_a_path_that_stops_gives_the_same_first_units(images, monkeypatch):
    X, y, pixels = images
    points = []
    path = baselines.iter_path
    monkeypatch.setattr(baselines, "iter_path", lambda *a, **o: (points.append(p.lam) or p for p in path(*a, **o)))
    whole = linear_order(X, y, "multinomial", pixels)
    count = len(points)
    for enough in (3, 10):
        points.clear()
        np.testing.assert_array_equal(linear_order(X, y, "multinomial", pixels, enough=enough)[:enough], whole[:enough])
        assert len(points) < 0.7 * count
    points.clear()
    rows = pixels // SIDE  # units of several features count once
    assert len(linear_order(X, y, "multinomial", rows, enough=3)) == SIDE
    assert set(linear_order(X, y, "multinomial", rows, enough=3)[:2]) == {2, 7}


def test_units_that_never_enter_follow_by_their_f_statistic(images):
    X, y, pixels = images
    few = linear_order(X, y, "multinomial", pixels, enough=1)
    entered = np.flatnonzero(few == anova_order(X, y, "multinomial", pixels)[0])[0] + 1
    rest = [unit for unit in anova_order(X, y, "multinomial", pixels) if unit not in few[:entered]]
    assert set(few) == set(pixels) and list(few[entered:]) == rest
