"""Counterfactual images: put a pattern into images of other classes and see where the decision goes.

Wong, Santurkar & Madry (2021), appendix F.2: ``x' = mask * pattern + (1 - mask) * x``.
Images are float32 arrays (H, W, 3) in [0, 1]; masks (H, W) in [0, 1].
"""

from __future__ import annotations

import numpy as np

from debugnet.errors import InputError


def composite(images: np.ndarray, pattern: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend a pattern into images: ``mask * pattern + (1 - mask) * image``.

    Parameters
    ----------
    images : ndarray (n, H, W, 3) or (H, W, 3)
    pattern : ndarray (H, W, 3)
    mask : ndarray (H, W)

    Raises
    ------
    InputError
        If the pattern or the mask is of another size than the images.
    """
    size = images.shape[-3:-1]
    for name, array in (("pattern", pattern), ("mask", mask)):
        if array.shape[:2] != size:
            raise InputError(
                f"the {name} is {array.shape[1]}x{array.shape[0]} pixels and the network's images are "
                f"{size[1]}x{size[0]}; give it in that size, or let it be resized with --resize-mask"
            )
    weight = mask[..., None].astype(np.float32)
    return (weight * pattern + (1 - weight) * images).astype(np.float32)


def superpixel_mask(segments: np.ndarray, scores: np.ndarray, k: int = 1) -> np.ndarray:
    """Mask of the k superpixels with the largest positive score.

    Parameters
    ----------
    segments : ndarray (H, W), int
        0-based contiguous superpixel ids.
    scores : ndarray (S,)
        One per superpixel (a LIME coefficient); only positive ones are taken.
    k : int

    Returns
    -------
    ndarray (H, W), float32
        0 or 1.

    Raises
    ------
    InputError
        If no superpixel raises the feature.
    """
    order = [i for i in np.argsort(-scores, kind="stable")[:k] if scores[i] > 0]
    if not order:
        raise InputError("no superpixel of this sample raises the feature; choose another prototype or give --mask")
    return np.isin(segments, order).astype(np.float32)


def random_pattern(pattern: np.ndarray, mask: np.ndarray, rng: np.random.Generator, block: int = 4) -> np.ndarray:
    """Make the control pattern: the masked part's own colours in blocks, put in random order.

    Same area, same colours on average, no shape: what flips because *something* covers the image
    flips with this too.

    Parameters
    ----------
    pattern : ndarray (H, W, 3)
    mask : ndarray (H, W)
    rng : numpy Generator
    block : int
        Side of a block, pixels.
    """
    height, width = mask.shape
    colours = pattern[mask > 0.5] if (mask > 0.5).any() else pattern.reshape(-1, 3)
    rows, columns = -(-height // block), -(-width // block)
    blocks = colours[rng.integers(len(colours), size=(rows, columns))]
    return np.repeat(np.repeat(blocks, block, axis=0), block, axis=1)[:height, :width].astype(np.float32)


def shift_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move a mask to a random place (wrapping around), for a control of equal area elsewhere."""
    height, width = mask.shape
    return np.roll(mask, (int(rng.integers(height)), int(rng.integers(width))), axis=(0, 1))
