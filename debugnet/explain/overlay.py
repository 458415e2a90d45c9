"""Superpixel explanations as pictures whose sign survives without colour and whose scale is stated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from debugnet.explain.fonts import caption_font
from debugnet.explain.trust import strongest_parts

POSITIVE = np.array([27, 94, 155], dtype=np.float64)
NEGATIVE = np.array([230, 120, 20], dtype=np.float64)
_PANEL = 224
_FOOTER = 76
_DIM = 0.6


def signed_overlay(
    pixels: np.ndarray, segments: np.ndarray, effect: np.ndarray, limit: float, *, outline: bool = True
) -> np.ndarray:
    """Tint each superpixel by its effect on a fixed symmetric scale.

    What raises the feature is blue with a solid white outline; what lowers it is orange with
    dark diagonal hatching: the two differ without colour too.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
    segments : ndarray (H, W), int
    effect : ndarray (K,)
        Positive raises the feature.
    limit : float
        The scale's end: an effect of +-limit or more is fully tinted.
    outline : bool
        Draw the white outline of what raises it.

    Returns
    -------
    ndarray (H, W, 3), uint8
    """
    strength = np.clip(effect / limit if limit > 0 else np.zeros_like(effect), -1.0, 1.0)[segments]
    ground = np.repeat(pixels.astype(np.float64).mean(axis=2, keepdims=True), 3, axis=2) * 0.5 + 80
    colour = np.where(strength[:, :, None] >= 0, POSITIVE, NEGATIVE)
    out = ground + (colour - ground) * (0.85 * np.abs(strength)[:, :, None])
    rows, columns = np.indices(segments.shape)
    stripes = (rows + columns) % 6 < 2
    out[(strength < -0.2) & stripes] *= 0.35
    if outline:
        out[_border(segments) & (strength > 0.2)] = 255
    return out.round().clip(0, 255).astype(np.uint8)


def masked_form(
    pixels: np.ndarray, segments: np.ndarray, effect: np.ndarray, side: str, n_parts: int = 3
) -> np.ndarray:
    """Show the ``n_parts`` strongest superpixels of one side, as the paper does, the rest veiled.

    The paper's composite is ``image * mask + 0.6 * (1 - mask)`` (pixels in [0, 1]), mask the
    effect over the largest one; its code chose the parts by absolute value before looking at the
    sign and flipped that twice, so that a feature's negative side showed what raises it. Here a
    side holds only parts with that effect.
    """
    signed = effect if side == "positive" else -effect
    mask = np.zeros(len(effect))
    parts = strongest_parts(effect, side, n_parts)
    mask[parts] = np.clip(signed[parts], 0.0, None)
    if mask.max() > 0:
        mask /= mask.max()
    weight = mask[segments][:, :, None]
    return (pixels * weight + 255 * _DIM * (1 - weight)).round().astype(np.uint8)


def _border(segments: np.ndarray) -> np.ndarray:
    """Inner boundary of every segment: (H, W) bool."""
    return (ndimage.minimum_filter(segments, 3) != segments) | (ndimage.maximum_filter(segments, 3) != segments)


def explanation_panel(
    pixels: np.ndarray,
    segments: np.ndarray,
    effect: np.ndarray,
    side: str,
    *,
    limit: float,
    title: str,
    notes: Sequence[str],
) -> Image.Image:
    """Draw the image, its signed overlay with the scale's numbers, and the paper's masked form, side by side.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
    segments : ndarray (H, W), int
    effect : ndarray (K,)
        Of each superpixel, in sd of the feature.
    side : str
        ``positive`` or ``negative``: the side that the masked form shows.
    limit : float
        End of the symmetric scale, the same for all panels of a feature, in sd.
    title : str
    notes : sequence of str
        Up to three lines below: what was measured, and whether to believe it.
    """
    picture = Image.new("RGB", (3 * _PANEL + 8, 22 + _PANEL + _FOOTER), "white")
    draw, small, large = ImageDraw.Draw(picture), caption_font(11), caption_font(14)
    draw.text((2, 2), title, fill="black", font=large)
    scale = max(1, round(_PANEL / max(pixels.shape[:2])))
    big, parts = (np.kron(a, np.ones((scale, scale, *[1] * (a.ndim - 2)), a.dtype)) for a in (pixels, segments))
    images = (big, signed_overlay(big, parts, effect, limit), masked_form(big, parts, effect, side))
    for i, image in enumerate(images):
        resized = Image.fromarray(image).resize((_PANEL, _PANEL), Image.Resampling.LANCZOS)
        picture.paste(resized, (i * (_PANEL + 4), 22))
    y = 22 + _PANEL + 2
    _draw_scale(picture, draw, small, (_PANEL + 4, y), limit)
    does = "raise" if side == "positive" else "lower"
    draw.text((2 * (_PANEL + 4), y), f"the {min(3, len(effect))} parts that {does} it most", fill="black", font=small)
    for line, note in enumerate(notes):
        draw.text((2, y + 28 + 15 * line), note, fill="#8a1f11" if note.startswith("unstable") else "black", font=small)
    return picture


def _draw_scale(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    corner: tuple[int, int],
    limit: float,
) -> None:
    """Draw the symmetric colour scale: hatched orange to outlined blue, its three numbers beneath."""
    width, height = _PANEL, 10
    ramp = np.arange(width)[None].repeat(height, axis=0)
    grey = np.full((height, width, 3), 128, np.uint8)
    bar = signed_overlay(grey, ramp, np.linspace(-limit, limit, width), limit, outline=False)
    bar[[0, -1], round(0.6 * width) :] = 255
    picture.paste(Image.fromarray(bar), corner)
    x, y = corner
    ends = ((0, f"{-limit:+.2g} sd lowers", "la"), (width // 2, "0", "ma"), (width, f"{limit:+.2g} sd raises", "ra"))
    for at, text, anchor in ends:
        draw.text((x + at, y + 12), text, fill="black", font=font, anchor=anchor)
