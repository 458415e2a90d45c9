"""Sentences with their words marked by what they do to a feature."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from debugnet.explain.fonts import caption_font, choose_font, missing_characters
from debugnet.explain.overlay import NEGATIVE, POSITIVE
from debugnet.explain.tokenization import Words

_WIDTH = 720
_LINE = 24
_MARGIN = 8
_LONGEST = 60


def sentence_panel(
    sentences: Sequence[tuple[Words, np.ndarray, str, str]], title: str, *, limit: float, font: Path | None = None
) -> Image.Image:
    """Draw sentences on a fixed symmetric scale.

    A word that raises the feature sits on blue with a solid line under it, one that lowers it
    on orange with a dashed line: the two differ without colour too.

    Parameters
    ----------
    sentences : sequence of (Words, ndarray (K,), str, str)
        The text, the effects of its distinct words (NaN: not measured), and two lines of
        notes; a second note that starts with "unstable" is drawn in red.
    title : str
    limit : float
        The scale's end, in sd: its numbers are written above.
    font : Path, optional
        Tried where the bundled ones lack a glyph; without any, the scale's line says so.
    """
    face, complete = _face([words.text for words, *_ in sentences], font)
    lines = [_layout(words, face) for words, *_ in sentences]
    height = 64 + sum(len(layout) * _LINE + 46 for layout in lines)
    picture = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 4), title, fill="black", font=caption_font(14))
    scale = f"full blue, solid line: {limit:+.2g} sd, raises it; full orange, dashed line: {-limit:+.2g} sd, lowers it"
    if not complete:
        scale += "; no font here has all glyphs (--font FILE)"
    draw.text((_MARGIN, 26), scale, fill="#555555", font=caption_font(11))
    y = 52
    for (words, effect, note, verdict), layout in zip(sentences, lines, strict=True):
        mirrored = _is_right_to_left(words.text)
        for line in layout:
            _draw_line(draw, line, effect, limit, y, face, mirrored)
            y += _LINE
        draw.text((_MARGIN, y), note, fill="#555555", font=caption_font(11))
        colour = "#8a1f11" if verdict.startswith("unstable") else "#555555"
        draw.text((_MARGIN, y + 15), verdict, fill=colour, font=caption_font(11))
        y += 46
    return picture


def _face(texts: list[str], font: Path | None) -> tuple[ImageFont.FreeTypeFont, bool]:
    """Return a font that has all glyphs of the texts, or the captions' and False."""
    captions = caption_font(14)
    if not missing_characters(texts, Path(str(captions.path))):
        return captions, True
    chosen = choose_font(texts, font)
    return (captions, False) if chosen is None else (ImageFont.truetype(str(chosen), 14), True)


def _is_right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction runs to the left."""
    directions = (unicodedata.bidirectional(c) for c in text)
    return next((d for d in directions if d in ("L", "R", "AL")), "L") != "L"


def _layout(words: Words, font: ImageFont.FreeTypeFont) -> list[list[tuple[str, int, int]]]:
    """Break a text into lines of (piece, word index or -1, x)."""
    pieces: list[tuple[str, int]] = []
    position = 0
    for start, stop, word in words.spans[:_LONGEST]:
        pieces += [(words.text[position:start], -1), (words.text[start:stop], word)]
        position = stop
    pieces.append((words.text[position:] if len(words.spans) <= _LONGEST else " …", -1))
    lines: list[list[tuple[str, int, int]]] = [[]]
    x = _MARGIN
    for piece, word in pieces:
        piece = " ".join(piece.split("\n")) if word < 0 else piece
        width = round(font.getlength(piece))
        if x + width > _WIDTH - _MARGIN and x > _MARGIN:
            lines.append([])
            x, piece = _MARGIN, piece.lstrip()
            width = round(font.getlength(piece))
        lines[-1].append((piece, word, x))
        x += width
    return lines


def _draw_line(
    draw: ImageDraw.ImageDraw,
    line: list[tuple[str, int, int]],
    effect: np.ndarray,
    limit: float,
    y: int,
    font: ImageFont.FreeTypeFont,
    mirrored: bool,
) -> None:
    for piece, word, x in line:
        strength = 0.0 if word < 0 or not limit > 0 else float(np.nan_to_num(np.clip(effect[word] / limit, -1, 1)))
        width = round(font.getlength(piece))
        x = _WIDTH - x - width if mirrored else x
        if abs(strength) > 0.05:
            tint = POSITIVE if strength > 0 else NEGATIVE
            ground = tuple(int(v) for v in (255 + (tint - 255) * 0.75 * abs(strength)).round())
            draw.rectangle((x, y, x + width, y + 17), fill=ground)
            step, dash = (width, width) if strength > 0 else (6, 3)
            for at in range(0, width, max(step, 1)):
                draw.line((x + at, y + 19, x + min(at + dash, width), y + 19), fill="black", width=2)
        draw.text((x, y), piece, fill="white" if strength > 0.75 else "black", font=font)
