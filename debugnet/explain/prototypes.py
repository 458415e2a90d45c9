"""The samples that drive a feature to its extremes, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from debugnet.explain.fonts import caption_font

_TILE = 128
_TEXT_HEIGHT = 32
_MARGIN = 4


def extreme_samples(activations: np.ndarray, usable: np.ndarray, side: str, n: int) -> np.ndarray:
    """Return the rows of the ``n`` highest ("positive") or lowest activations, most extreme first.

    Parameters
    ----------
    activations : ndarray (n_samples,)
        One feature; rows that are not usable or not finite are passed over.
    usable : ndarray (n_samples,), bool
    side : str
    n : int

    Returns
    -------
    ndarray (at most n,), int64
        Ties in the order of the samples.
    """
    rows = np.flatnonzero(usable & np.isfinite(activations))
    signed = -activations[rows] if side == "positive" else activations[rows]
    return rows[np.argsort(signed, kind="stable")[:n]]


def is_one_sided(activations: np.ndarray) -> bool:
    """Whether a feature (n_samples,), raw, is never negative: its low side is mere absence."""
    return bool(np.nanmin(activations) >= 0)


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[tuple[str, str]], title: str, *, columns: int = 5
) -> Image.Image:
    """Lay images out on one sheet, each over two lines of text.

    Parameters
    ----------
    images : sequence of ndarray (H, W, 3), uint8
        Shown 128 pixels wide; small ones are enlarged without smoothing.
    captions : sequence of (str, str)
        One pair per image; cut to the tile's width.
    title : str
    columns : int
    """
    columns = max(1, min(columns, len(images)))
    n_rows = -(-len(images) // columns)
    cell = (_TILE + _MARGIN, _TILE + _TEXT_HEIGHT + _MARGIN)
    sheet = Image.new("RGB", (max(columns * cell[0] + _MARGIN, 420), 24 + n_rows * cell[1]), "white")
    draw, small, large = ImageDraw.Draw(sheet), caption_font(11), caption_font(14)
    draw.text((_MARGIN, 3), title, fill="black", font=large)
    for i, (image, lines) in enumerate(zip(images, captions, strict=True)):
        x, y = _MARGIN + i % columns * cell[0], 24 + i // columns * cell[1]
        sheet.paste(enlarge(image, _TILE), (x, y))
        for line, text in enumerate(lines):
            draw.text((x, y + _TILE + 14 * line), _fit(draw, text, small), fill="black", font=small)
    return sheet


def enlarge(image: np.ndarray, width: int) -> Image.Image:
    """Resize to a square of ``width`` pixels; small images keep their pixels visible."""
    picture = Image.fromarray(image)
    kind = Image.Resampling.NEAREST if picture.width < width else Image.Resampling.LANCZOS
    return picture.resize((width, width), kind)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont) -> str:
    while text and draw.textlength(text, font=font) > _TILE:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
