"""Mask compositing, superpixel masks and controls."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.counterfactual.image import composite, random_pattern, shift_mask, superpixel_mask
from debugnet.errors import InputError

RNG = np.random.default_rng(0)


def test_composite_is_the_formula():
    images, pattern, mask = RNG.random((2, 5, 6, 3)), RNG.random((5, 6, 3)), RNG.random((5, 6))
    out = composite(images, pattern, mask)
    assert out[1, 2, 3, 0] == pytest.approx(mask[2, 3] * pattern[2, 3, 0] + (1 - mask[2, 3]) * images[1, 2, 3, 0])


def test_sizes_must_agree():
    with pytest.raises(InputError, match="mask is 4x4 pixels"):
        composite(np.zeros((5, 6, 3)), np.zeros((5, 6, 3)), np.zeros((4, 4)))


def test_superpixel_mask_takes_positive_ones_only():
    segments = np.array([[0, 0, 1], [2, 2, 1]])
    np.testing.assert_array_equal(superpixel_mask(segments, np.array([0.1, 0.5, -1]), 3), [[1, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(superpixel_mask(segments, np.array([0.1, 0.5, -1]), 1), [[0, 0, 1], [0, 0, 1]])
    with pytest.raises(InputError, match="no superpixel"):
        superpixel_mask(segments, -np.ones(3))


def test_controls_keep_area_and_colours():
    mask = np.zeros((8, 8))
    mask[:2, :3] = 1
    pattern = np.zeros((8, 8, 3))
    pattern[:2, :3] = [0.2, 0.4, 0.6]
    control = random_pattern(pattern, mask, np.random.default_rng(1))
    np.testing.assert_allclose(control.reshape(-1, 3), np.tile([0.2, 0.4, 0.6], (64, 1)), rtol=1e-6)
    assert shift_mask(mask, np.random.default_rng(2)).sum() == mask.sum()
