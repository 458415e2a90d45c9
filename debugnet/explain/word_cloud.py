"""Word clouds: one per feature and side, drawn by the wordcloud package from signed, checked scores.

wordcloud takes what it is given: a negative score alone is drawn as if it were the strongest
positive one, next to a positive one it vanishes, zeros divide by zero, and a script without
glyphs becomes boxes.  So scores are split by sign and made absolute before, and a font is chosen
that has the glyphs; without one the words become a list of bars.
"""

from __future__ import annotations

import contextlib
import html
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from debugnet.explain.fonts import caption_font, choose_font, missing_characters
from debugnet.explain.word_scores import WordScore

COLOURS = {"positive": "#1b5e9b", "negative": "#b3470b"}
_SIZE = (640, 320)
_MAX_LENGTH = 32
_CAPTION_HEIGHT = 44
_WEAKEST_LETTERS = 14


def draw_word_cloud(
    scores: Sequence[WordScore],
    side: str,
    title: str,
    path: Path,
    *,
    largest: float | None = None,
    font: Path | None = None,
    seed: int = 0,
) -> str:
    """Draw the words of one side to ``path``.png and ``path``.svg.

    Parameters
    ----------
    scores : sequence of WordScore
        What :func:`debugnet.explain.word_scores.cloud_words` returns; sizes follow the absolute
        shrunk mean.  Scores that are zero or not finite are left out.
    side : str
        "positive" or "negative": the colour and the sign in the caption.
    title : str
        Names the feature and side, in the caption and as the SVG's title.
    path : Path
        Without suffix.
    largest : float, optional
        Absolute mean of the feature's strongest word on either side: it has the largest letters, so that weak words
        look weak; this side's own by default.
    font : Path, optional
        Tried first.
    seed : int
        Of the layout: the same words and seed give the same bytes.

    Returns
    -------
    str
        "cloud", "bars" (no font at hand has the glyphs) or "empty".
    """
    kept = [s for s in scores if np.isfinite(s.shrunk) and s.shrunk != 0]
    if not kept:
        _draw_placeholder(title, path)
        return "empty"
    labels = _labels(kept)
    drawable, chosen = _drawable(labels, title, font)
    if chosen is None:
        _draw_bars(kept, side, title, path)
        return "bars"
    shown = [s for s, can in zip(kept, drawable, strict=True) if can]
    sizes = {label: abs(s.shrunk) for label, s, can in zip(labels, kept, drawable, strict=True) if can}
    strength = min(max(sizes.values()) / (largest or max(sizes.values())), 1.0)
    _draw_cloud(sizes, strength, _caption(shown, len(kept) - len(shown)), side, title, path, chosen, seed)
    return "cloud"


def _drawable(labels: list[str], title: str, font: Path | None) -> tuple[list[bool], Path | None]:
    """Which words can be drawn, and by which font; no font when fewer than half can."""
    chosen = choose_font([*labels, title], font)
    if chosen is not None:
        return [True] * len(labels), chosen
    fallback = font or choose_font([title])
    if fallback is None:
        return [False] * len(labels), None
    can = [not missing_characters([label], fallback) for label in labels]
    return can, fallback if sum(can) * 2 >= len(can) else None


def _labels(scores: Sequence[WordScore]) -> list[str]:
    """Cap long words (wordcloud finds no room for them), keeping distinct words distinct."""
    labels: list[str] = []
    for score in scores:
        label = score.word if len(score.word) <= _MAX_LENGTH else score.word[: _MAX_LENGTH - 1] + "…"
        labels.append(label if label not in labels else f"{label[: _MAX_LENGTH - 6]}…{len(labels)}")
    return labels


def _caption(scores: Sequence[WordScore], n_undrawn: int = 0) -> str:
    first, last = scores[0], scores[-1]
    undrawn = f"; {n_undrawn} more without glyphs: see the table" if n_undrawn else ""
    return (
        f"largest: {first.shrunk:+.2f} sd (n = {first.n}); smallest: {last.shrunk:+.2f} sd (n = {last.n}); "
        f"{len(scores)} word{'s' if len(scores) > 1 else ''}{undrawn}"
    )


def _draw_cloud(
    sizes: dict[str, float], strength: float, caption: str, side: str, title: str, path: Path, font: Path, seed: int
) -> None:
    from wordcloud import WordCloud

    cloud = WordCloud(
        width=_SIZE[0],
        height=_SIZE[1],
        background_color="white",
        font_path=str(font),
        random_state=seed,
        color_func=lambda *_, **__: COLOURS[side],
        prefer_horizontal=1.0,
        max_words=len(sizes),
        min_font_size=8,
        max_font_size=max(round(_SIZE[1] / 3 * strength), _WEAKEST_LETTERS),
        relative_scaling=0.6,
        margin=4,
    ).generate_from_frequencies(sizes)
    picture = Image.new("RGB", (_SIZE[0], _SIZE[1] + _CAPTION_HEIGHT), "white")
    picture.paste(cloud.to_image(), (0, _CAPTION_HEIGHT))
    draw = ImageDraw.Draw(picture)
    draw.text((8, 4), title, fill="black", font=ImageFont.truetype(str(font), 15))
    draw.text((8, 25), caption, fill="#555555", font=ImageFont.truetype(str(font), 12))
    picture.save(path.with_suffix(".png"), optimize=True)
    with _plain_font_subset():
        svg = cloud.to_svg(embed_font=True, optimize_embedded_font=True)
    path.with_suffix(".svg").write_text(_accessible(svg, title, caption), encoding="utf-8")


@contextlib.contextmanager
def _plain_font_subset() -> Iterator[None]:
    """Keep fontTools from reporting the tables it leaves out, and from writing the time into the font."""
    log = logging.getLogger("fontTools.subset")
    level, epoch = log.level, os.environ.get("SOURCE_DATE_EPOCH")
    log.setLevel(logging.ERROR)
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    try:
        yield
    finally:
        log.setLevel(level)
        if epoch is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = epoch


def _accessible(svg: str, title: str, description: str) -> str:
    """Let the picture scale and speak: viewBox, role, title and description."""
    width, height = (re.search(rf'<svg[^>]*\b{name}="(\d+)"', svg) for name in ("width", "height"))
    assert width and height, "wordcloud's svg states its size"
    head = f' viewBox="0 0 {width[1]} {height[1]}" role="img"'
    text = f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
    return re.sub(r"<svg\b([^>]*)>", lambda m: f"<svg{m[1]}{head}>{text}", svg, count=1)


def _draw_bars(scores: Sequence[WordScore], side: str, title: str, path: Path) -> None:
    """Draw bars instead of words: numbered in the PNG, spelled out in the SVG, where the viewer's fonts may do."""
    import matplotlib

    spelled = [f"{i}. {s.word}" for i, s in enumerate(scores, start=1)]
    numbered = [f"word {i} of the table" for i in range(1, len(scores) + 1)]
    note = "no font here has these glyphs (--font FILE names one)"
    plain_title = title.encode("ascii", "replace").decode()
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "hatch.linewidth": 0.5}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the SVG's viewer has its own fonts
        for suffix, labels in ((".png", numbered), (".svg", spelled)):
            stream = io.BytesIO()
            _bar_figure(scores, labels, side, f"{plain_title}\n{note}").savefig(
                stream, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else {"Software": None}
            )
            path.with_suffix(suffix).write_bytes(stream.getvalue())
    svg = path.with_suffix(".svg").read_text(encoding="utf-8")
    head = f' role="img"><title>{html.escape(title)}</title>'
    path.with_suffix(".svg").write_text(
        re.sub(r"<svg\b([^>]*)>", lambda m: f"<svg{m[1]}{head}", svg, count=1), encoding="utf-8"
    )


def _bar_figure(scores: Sequence[WordScore], labels: list[str], side: str, title: str):  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.9 + 0.22 * len(scores)), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.barh(labels, [s.shrunk for s in scores], color=COLOURS[side], hatch="//" if side == "negative" else None)
    axes.invert_yaxis()
    axes.set_xlabel("effect on the feature (sd)")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    return figure


def _draw_placeholder(title: str, path: Path) -> None:
    message = "no word on this side occurs often enough"
    picture = Image.new("RGB", (_SIZE[0], 80), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), title.encode("ascii", "replace").decode(), fill="black", font=caption_font(15))
    draw.text((8, 40), message, fill="#555555", font=caption_font(13))
    picture.save(path.with_suffix(".png"), optimize=True)
    path.with_suffix(".svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE[0]}" height="80" viewBox="0 0 {_SIZE[0]} 80" '
        'role="img">'
        f'<title>{html.escape(title)}</title><text x="8" y="24" font-size="15">{html.escape(title)}</text>'
        f'<text x="8" y="52" font-size="13" fill="#555">{message}</text></svg>\n',
        encoding="utf-8",
    )
