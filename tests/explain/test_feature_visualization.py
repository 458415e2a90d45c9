"""Optimized images: they reach what they should, at any size, and a dead unit is never shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.errors import UsageError
from debugnet.explain.feature_visualization import FourierImage, compare_with_data, visualize_features


def features(pixels: torch.Tensor) -> torch.Tensor:
    """0: red minus blue; 1: vertical stripes; 2: dead; 3: red minus blue behind a ReLU."""
    red = pixels[:, 0].mean((1, 2)) - pixels[:, 2].mean((1, 2))
    wave = torch.sin(torch.arange(pixels.shape[-1]) * 2 * np.pi / 8)
    stripes = ((pixels.mean(1) - 0.5) * wave).mean((1, 2))
    return torch.stack([red, stripes, torch.relu(0 * red - 1), torch.relu(red - 0.05)], dim=1)


@pytest.mark.parametrize("parametrization", ["fourier", "pixel"])
@pytest.mark.parametrize("side", [32, 47])
def test_both_sides_are_driven_at_any_size(parametrization, side):
    units = [(0, "positive"), (0, "negative"), (1, "positive")]
    high, low, stripes = visualize_features(features, units, side=side, steps=120, parametrization=parametrization)
    assert high.image.shape == (side, side, 3) and high.activation > 0.2 and low.activation < -0.2
    assert (high.image[:, :, 0].mean() > high.image[:, :, 2].mean()) and stripes.activation > 0.03
    assert {v.failed for v in (high, low, stripes)} == {None}


def test_the_achieved_activation_is_that_of_the_stored_image():
    (found,) = visualize_features(features, [(0, "positive")], side=32, steps=20)
    stored = torch.from_numpy(found.image).permute(2, 0, 1)[None].float() / 255
    assert found.activation == pytest.approx(float(features(stored)[0, 0]), abs=1e-6)


def test_a_dead_unit_is_failed_not_grey():
    (dead,) = visualize_features(features, [(2, "positive")], side=32, steps=5)
    assert "dead unit" in dead.failed
    (broken,) = visualize_features(lambda x: features(x).log() * 0 - np.inf, [(0, "positive")], side=32, steps=3)
    assert "not finite" in broken.failed


def test_a_unit_behind_a_relu_is_found_from_a_stronger_start():
    (found,) = visualize_features(features, [(3, "positive")], side=32, steps=120)
    assert found.failed is None and found.activation > 0.2


def test_the_percentile_is_of_the_data_and_below_the_median_is_failed():
    (found,) = visualize_features(features, [(0, "positive")], side=32, steps=20)
    spread = np.linspace(found.activation - 0.9, found.activation + 0.1, 100)
    judged = compare_with_data(found, np.append(spread, np.nan))
    assert judged.percentile == pytest.approx(90, abs=1) and judged.failed is None
    beaten = compare_with_data(found, spread + 10)
    assert beaten.percentile == 0 and "within the data" in beaten.failed


def test_a_unit_looks_the_same_whatever_stands_beside_it():
    (alone,) = visualize_features(features, [(1, "positive")], side=32, steps=5)
    beside = visualize_features(features, [(0, "negative"), (1, "positive"), (3, "positive")], side=32, steps=5)[1]
    assert np.abs(alone.image.astype(int) - beside.image).max() <= 1  # sums in another order
    other = visualize_features(features, [(1, "positive")], side=32, steps=5, seed=1)[0]
    assert np.abs(alone.image.astype(int) - other.image).max() > 1


def test_the_same_seed_gives_the_same_image_and_nothing_global_is_touched():
    state = torch.random.get_rng_state()
    first, second = (visualize_features(features, [(0, "positive")], side=32, steps=5, seed=4)[0] for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(UsageError, match="fourier, pixel"):
        visualize_features(features, [(0, "positive")], side=32, parametrization="wavelet")


@pytest.mark.parametrize("side", [32, 224])
def test_the_start_is_a_faint_grey_not_saturated(side):
    """With a spectrum too strong the sigmoid saturates, its gradient vanishes, and the steps change nothing."""
    start = FourierImage([1, 2], side, "cpu").images()
    assert abs(float(start.mean()) - 0.5) < 0.05 and float(start.std()) < 0.05
