"""The parts of an image that LIME switches off, and what they are replaced by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from debugnet.errors import UsageError

Segmenter = Callable[[np.ndarray], np.ndarray]

SEGMENTATIONS = ("quickshift", "slic", "felzenszwalb", "grid")
FILLS = ("mean", "black", "blur", "noise")
_GRID = 7
_REFERENCE_SIDE = 224  # the side, in pixels, for which lime's quickshift parameters were chosen


def segment_image(
    pixels: np.ndarray,
    method: str | Segmenter | np.ndarray = "quickshift",
    *,
    seed: int = 0,
    lime_compat: bool = False,
) -> np.ndarray:
    """Cut an image into superpixels.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
    method : str, callable or ndarray
        "quickshift" (lime's parameters at 224 pixels, its kernel scaled with the image's side
        below that), "slic" (about 50 compact segments), "felzenszwalb", "grid" (49 rectangles whatever the
        image shows); a function of the image; or ready segments (H, W) with any integer labels.
    seed : int
        For quickshift, whose tie-breaking noise is random.
    lime_compat : bool
        Quickshift exactly as lime has it: the same kernel for images of all sizes, a fixed seed
        (lime's own is dropped on the way to scikit-image).

    Returns
    -------
    ndarray (H, W), int32
        0-based and contiguous whatever the method's labels were: with ``slic``'s own 1-based
        labels lime never perturbs the last segment and shifts all others by one, silently.

    Raises
    ------
    UsageError
        Unknown method, or segments whose shape is not the image's.
    """
    if isinstance(method, np.ndarray):
        labels = method
    elif callable(method):
        labels = method(pixels)
    elif method in SEGMENTATIONS:
        labels = _segment_by_name(pixels, method, seed, lime_compat)
    else:
        raise UsageError(f"unknown segmentation '{method}': known: {', '.join(SEGMENTATIONS)}")
    if labels.shape != pixels.shape[:2]:
        raise UsageError(f"segments of shape {labels.shape} for an image of {pixels.shape[:2]}: they must agree")
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def _segment_by_name(pixels: np.ndarray, method: str, seed: int, lime_compat: bool) -> np.ndarray:
    from skimage.segmentation import felzenszwalb, quickshift, slic

    if method == "grid":
        rows, columns = (np.arange(n) * _GRID // n for n in pixels.shape[:2])
        return rows[:, None] * _GRID + columns
    side = min(pixels.shape[:2])
    if method == "slic":
        return slic(pixels, n_segments=50, compactness=10, sigma=1, start_label=0)
    if method == "felzenszwalb":
        return felzenszwalb(pixels, scale=100, sigma=0.5, min_size=max(4, pixels.shape[0] * pixels.shape[1] // 200))
    kernel = 4.0 if lime_compat else max(4.0 * min(1.0, side / _REFERENCE_SIDE), 1.0)
    return quickshift(pixels, kernel_size=kernel, max_dist=200, ratio=0.2, rng=42 if lime_compat else seed)


def fill_image(pixels: np.ndarray, segments: np.ndarray, fill: str = "black", *, seed: int = 0) -> np.ndarray:
    """Return the image that shows where a superpixel is switched off: (H, W, 3), uint8.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
    segments : ndarray (H, W), int
        0-based and contiguous.
    fill : str
        "black" (the paper's), "mean" (the segment's mean colour, lime's default: a part of one
        colour is not removed by it), "blur" (Gaussian, standard deviation a tenth of the
        shorter side) or "noise" (uniform).
    seed : int
        For "noise".
    """
    if fill == "mean":
        size = np.bincount(segments.ravel())
        means = [np.bincount(segments.ravel(), pixels[:, :, c].ravel()) / size for c in range(3)]
        return np.stack(means, axis=1)[segments].astype(np.uint8)
    if fill == "black":
        return np.zeros_like(pixels)
    if fill == "blur":
        sigma = min(pixels.shape[:2]) / 10
        return np.stack([ndimage.gaussian_filter(pixels[:, :, c], sigma) for c in range(3)], axis=2)
    if fill == "noise":
        return np.random.RandomState(seed).randint(0, 256, pixels.shape).astype(np.uint8)
    raise UsageError(f"unknown fill '{fill}': known: {', '.join(FILLS)}")
