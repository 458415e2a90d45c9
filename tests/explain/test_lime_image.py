"""Superpixel LIME: against the lime package, and on networks whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.errors import DeviceError, UsageError
from debugnet.explain.forward import NotExplainable, Probe, sample_seed
from debugnet.explain.lime_image import ImagePerturber, draw_switches, explain_image
from debugnet.explain.superpixels import FILLS, SEGMENTATIONS, fill_image, segment_image


def grid_segments(side: int = 48, cell: int = 8) -> np.ndarray:
    index = np.arange(side) // cell
    return index[:, None] * (side // cell) + index[None]


def picture(side: int = 48, seed: int = 0) -> np.ndarray:
    image = np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)
    image[: side // 2, : side // 2] //= 3
    return image


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2), torch.nn.Tanh(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    ).double()  # fmt: skip


def lime_effects(image, network, segments, n_samples, seed, hide_color) -> np.ndarray:
    lime_image = pytest.importorskip("lime.lime_image")

    def classify(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(batch).permute(0, 3, 1, 2).double() / 255).numpy()

    explainer = lime_image.LimeImageExplainer(random_state=seed, feature_selection="none")
    found = explainer.explain_instance(
        image, classify, labels=range(16), top_labels=None, hide_color=hide_color, num_samples=n_samples,
        segmentation_fn=lambda _: segments,
    )  # fmt: skip
    return np.array([[dict(found.local_exp[j])[k] for j in range(16)] for k in range(segments.max() + 1)])


@pytest.mark.parametrize(("fill", "hide_color"), [("mean", None), ("black", 0)])
def test_equals_lime_with_its_random_stream(network, fill, hide_color):
    image, segments = picture(), grid_segments()
    probe = Probe(lambda pixels: network(pixels.double()), 37)
    ours = explain_image(image, probe, n_samples=200, segmentation=segments, fill=fill, seed=7).fit()
    theirs = lime_effects(image, network, segments, 200, 7, hide_color)
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours.effect, theirs, atol=1e-6)


def test_one_neighbourhood_serves_all_features_and_later_ones_cost_nothing(network):
    probe = Probe(lambda pixels: network(pixels.double()), 64)
    explained = explain_image(picture(), probe, n_samples=120, segmentation=grid_segments(), seed=1)
    assert probe.n_forwards == 120
    first = explained.fit(np.array([2]))
    later = explained.fit(np.array([9, 2]))
    assert probe.n_forwards == 120
    np.testing.assert_allclose(later.effect[:, 1], first.effect[:, 0], atol=1e-12)


@pytest.mark.parametrize("name", SEGMENTATIONS)
@pytest.mark.parametrize("side", [32, 64])
def test_segments_are_zero_based_and_contiguous(name, side):
    segments = segment_image(picture(side), name, seed=max(sample_seed(0, str(i)) for i in range(100)))
    assert segments.shape == (side, side)
    np.testing.assert_array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_one_based_segments_are_relabelled_and_every_part_is_perturbed(network):
    """With slic's own labels lime never perturbs the last segment and is one off everywhere."""
    image, segments = picture(), grid_segments()
    probe = Probe(lambda pixels: network(pixels.double()), 64)
    zero = explain_image(image, probe, n_samples=100, segmentation=segments, seed=3)
    one = explain_image(image, probe, n_samples=100, segmentation=segments * 5 + 1, seed=3)
    np.testing.assert_array_equal(one.segments, zero.segments)
    np.testing.assert_array_equal(one.fit().effect, zero.fit().effect)
    seen = []
    explain_image(image, Probe(lambda p: seen.append(p) or p.mean((2, 3)), 64), n_samples=64, segmentation=segments + 1)
    last = torch.cat(seen)[:, :, segments == segments.max()]
    assert (last != last[:1]).any()


def test_a_planted_patch_gets_the_weight_and_nothing_else():
    image, segments = picture(), grid_segments()
    patch = np.isin(segments, [7, 8])
    where = torch.from_numpy(patch)

    def features(pixels: torch.Tensor) -> torch.Tensor:
        red = (pixels[:, 0] * where).sum((1, 2)) / where.sum()
        return torch.stack([red, -red], dim=1)

    image[patch] = [250, 10, 10]
    surrogate = explain_image(image, Probe(features), n_samples=300, segmentation=segments, fill="black").fit()
    assert set(np.argsort(-surrogate.effect[:, 0])[:2]) == {7, 8}
    others = np.setdiff1d(np.arange(36), [7, 8])
    assert np.abs(surrogate.effect[others]).max() < 0.01 * surrogate.effect[[7, 8], 0].min()
    np.testing.assert_allclose(surrogate.effect[:, 1], -surrogate.effect[:, 0], atol=1e-9)  # what lowers is negative
    assert surrogate.r2.min() > 0.99 and surrogate.split_half.min() > 0.99


def test_noise_is_unstable():
    generator = torch.Generator().manual_seed(0)
    probe = Probe(lambda pixels: torch.randn(len(pixels), 8, generator=generator))
    surrogate = explain_image(picture(), probe, n_samples=300, segmentation=grid_segments()).fit()
    assert surrogate.split_half.max() < 0.8 and np.median(surrogate.r2) < 0.3


@pytest.mark.parametrize("fill", FILLS)
def test_composites_keep_what_is_on_and_fill_what_is_off(fill):
    image, segments = picture(), grid_segments().astype(np.int32)
    filled = fill_image(image, segments, fill, seed=4)
    np.testing.assert_array_equal(filled, fill_image(image, segments, fill, seed=4))
    switches = np.ones((2, 36), dtype=bool)
    switches[1, 5] = False
    out = (ImagePerturber(image, segments, filled).compose(switches) * 255).round().numpy().astype(np.uint8)
    np.testing.assert_array_equal(out[0].transpose(1, 2, 0), image)
    off = segments == 5
    np.testing.assert_array_equal(out[1].transpose(1, 2, 0)[off], filled[off])
    np.testing.assert_array_equal(out[1].transpose(1, 2, 0)[~off], image[~off])


def test_a_single_superpixel_is_refused_with_the_way_out():
    with pytest.raises(NotExplainable, match="--segmentation grid"):
        explain_image(np.full((32, 32, 3), 90, np.uint8), Probe(lambda p: p.mean((2, 3))), segmentation="felzenszwalb")


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(NotExplainable, match="not finite"):
        explain_image(picture(), Probe(lambda p: p.mean((2, 3)) / 0 * 0), n_samples=20, segmentation=grid_segments())


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="quickshift, slic, felzenszwalb, grid"):
        segment_image(picture(), "watershed")
    with pytest.raises(UsageError, match="mean, black, blur, noise"):
        fill_image(picture(), grid_segments(), "red")


def test_out_of_memory_halves_the_batch_until_one():
    sizes = []

    def features(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels.mean((2, 3))

    options = {"n_samples": 100, "segmentation": grid_segments(), "seed": 2}
    explained = explain_image(picture(), Probe(features, 64), **options)
    whole = explain_image(picture(), Probe(lambda pixels: pixels.mean((2, 3))), **options)
    assert sizes[:4] == [64, 32, 16, 8]
    np.testing.assert_allclose(explained.fit().effect, whole.fit().effect, atol=1e-7)

    def never(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceError, match="single sample"):
        explain_image(picture(), Probe(never), segmentation=grid_segments())


def test_seeds_are_of_the_sample_not_of_its_place():
    assert sample_seed(0, "a") != sample_seed(0, "b") != sample_seed(1, "b")
    assert sample_seed(3, "a") == sample_seed(3, "a")
    np.testing.assert_array_equal(draw_switches(5, 10, 1), draw_switches(5, 10, 1))
