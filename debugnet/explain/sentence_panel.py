"""Sentences with their words marked by what they do to a feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from debugnet.explain.fonts import caption_font
from debugnet.explain.overlay import NEGATIVE, POSITIVE
from debugnet.explain.tokenization import Words

_WIDTH = 720
_LINE = 24
_MARGIN = 8
_LONGEST = 60


def sentence_panel(sentences: Sequence[tuple[Words, np.ndarray, str, str]], title: str, *, limit: float) -> Image.Image:
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
    """
    lines = [_layout(words) for words, *_ in sentences]
    height = 64 + sum(len(layout) * _LINE + 46 for layout in lines)
    picture = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 4), title, fill="black", font=caption_font(14))
    scale = f"full blue, solid line: {limit:+.2g} sd, raises it; full orange, dashed line: {-limit:+.2g} sd, lowers it"
    draw.text((_MARGIN, 26), scale, fill="#555555", font=caption_font(11))
    y = 52
    for (_, effect, note, verdict), layout in zip(sentences, lines, strict=True):
        for line in layout:
            _draw_line(draw, line, effect, limit, y)
            y += _LINE
        draw.text((_MARGIN, y), note, fill="#555555", font=caption_font(11))
        colour = "#8a1f11" if verdict.startswith("unstable") else "#555555"
        draw.text((_MARGIN, y + 15), verdict, fill=colour, font=caption_font(11))
        y += 46
    return picture


def _layout(words: Words) -> list[list[tuple[str, int, int]]]:
    """Break a text into lines of (piece, word index or -1, x)."""
    font = caption_font(14)
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
    draw: ImageDraw.ImageDraw, line: list[tuple[str, int, int]], effect: np.ndarray, limit: float, y: int
) -> None:
    font = caption_font(14)
    for piece, word, x in line:
        strength = 0.0 if word < 0 or not limit > 0 else float(np.nan_to_num(np.clip(effect[word] / limit, -1, 1)))
        width = round(font.getlength(piece))
        if abs(strength) > 0.05:
            tint = POSITIVE if strength > 0 else NEGATIVE
            ground = tuple(int(v) for v in (255 + (tint - 255) * 0.75 * abs(strength)).round())
            draw.rectangle((x, y, x + width, y + 17), fill=ground)
            step, dash = (width, width) if strength > 0 else (6, 3)
            for at in range(0, width, max(step, 1)):
                draw.line((x + at, y + 19, x + min(at + dash, width), y + 19), fill="black", width=2)
        draw.text((x, y), piece, fill="white" if strength > 0.75 else "black", font=font)
