"""A font that really has the glyphs, found before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from debugnet.errors import InputError


@lru_cache(maxsize=64)
def _glyphs(font: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font, fontNumber=0, lazy=True) as opened:
        return frozenset(opened.getBestCmap())


def missing_characters(texts: Iterable[str], font: Path) -> list[str]:
    """Return the visible characters of ``texts`` for which ``font`` has no glyph, sorted.

    Raises
    ------
    InputError
        When the font cannot be read.
    """
    try:
        glyphs = _glyphs(Path(font))
    except Exception as error:  # fontTools raises a dozen kinds on a broken font
        raise InputError(f"cannot read the font {font}: {error}; give a .ttf or .otf file") from error
    return sorted({c for text in texts for c in text if ord(c) not in glyphs and not c.isspace()})


def choose_font(texts: Iterable[str], font: Path | None = None) -> Path | None:
    """Return the first font that can draw all ``texts``, or None when there is none.

    Tried in this order: ``font``, the one in the wordcloud package (Latin, Greek, Cyrillic), DejaVu
    Sans (Arabic and Hebrew too), then the machine's fonts by path.
    """
    import matplotlib
    import wordcloud

    texts = list(texts)
    bundled = [
        Path(wordcloud.__file__).parent / "DroidSansMono.ttf",
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf",
    ]
    for candidate in [*([font] if font else []), *bundled]:
        if not missing_characters(texts, candidate):
            return candidate
    from matplotlib.font_manager import findSystemFonts

    for name in sorted(findSystemFonts()):
        try:
            if not missing_characters(texts, Path(name)):
                return Path(name)
        except InputError:
            continue  # a broken font of the machine is none of the user's concern
    return None


def caption_font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib, for captions: Latin, Greek, Cyrillic, Arabic, Hebrew."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
