"""The parts of a report that are read only when they are opened, and the pictures among them, each stored once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from debugnet.artifacts.canonical import jsonable

#: Longer side of a stored photograph, pixels.
PHOTO_SIDE = 160
#: Pictures up to this side are stored without loss and enlarged without smoothing.
TINY_SIDE = 64
_FIGURE_SIDE = 1100
_PHOTO_QUALITY = 72

#: How a page refers to a picture: key, width, height.
Picture = list[Any]


def inert_json(value: Any) -> str:
    r"""Write JSON that cannot end a script element: ``<``, ``>``, ``&`` and line separators become ``\u...``."""
    text = json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be written
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def shorten(value: Any, digits: int = 4) -> Any:
    """Round every float in nested lists and mappings to so many significant digits."""
    if isinstance(value, dict):
        return {key: shorten(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shorten(item, digits) for item in value]
    if isinstance(value, np.ndarray):
        return shorten(value.tolist(), digits)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.{digits}g}") if np.isfinite(value) else None
    return value


class Blocks:
    """Named parts, each a piece of inert JSON."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._texts.items())

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def size(self) -> int:
        """Characters of all parts together, with what surrounds each in the page."""
        return sum(len(text) + 70 for text in self._texts.values())

    def add(self, key: str, value: Any) -> None:
        """Store a part; a key is used once."""
        if key in self._texts:
            raise ValueError(f"part {key!r} is there already")
        self._texts[key] = inert_json(value)

    def photo(self, pixels: np.ndarray | Image.Image) -> Picture:
        """Store a photograph, made smaller where it is large; returns the reference."""
        image = _photo(pixels)
        return self._picture(image, lossless=max(image.size) <= TINY_SIDE, quality=_PHOTO_QUALITY)

    def figure(self, path: Path) -> Picture:
        """Store a drawing from an artefact (PNG), re-encoded."""
        with Image.open(path) as opened:
            image = _fit(opened.convert("RGB"), _FIGURE_SIDE)
        return self._picture(image, quality=84)

    def segments(self, segments: np.ndarray) -> Picture:
        """Store a map of superpixels (H, W): the index is red + 256 green."""
        if max(segments.shape) > PHOTO_SIDE:
            segments = segments[np.ix_(*(_thinned(n, n * PHOTO_SIDE / max(segments.shape)) for n in segments.shape))]
        channels = np.zeros((*segments.shape, 3), dtype=np.uint8)
        channels[..., 0], channels[..., 1] = segments % 256, segments // 256
        return self._picture(Image.fromarray(channels), lossless=True)

    def _picture(self, image: Image.Image, *, lossless: bool = False, quality: int = 80) -> Picture:
        digest = hashlib.sha256(f"{image.size}{lossless}{quality}".encode() + image.tobytes())
        key = "p" + digest.hexdigest()[:16]
        if key not in self._texts:
            self.add(key, _encode(image, lossless=lossless, quality=quality))
        return [key, *image.size]


def encode_photo(pixels: np.ndarray | Image.Image) -> tuple[str, int, int]:
    """Encode a photograph as `Blocks.photo` stores it; returns the data URI, width and height."""
    image = _photo(pixels)
    return _encode(image, lossless=max(image.size) <= TINY_SIDE, quality=_PHOTO_QUALITY), *image.size


def _photo(pixels: np.ndarray | Image.Image) -> Image.Image:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return _fit(image.convert("RGB"), PHOTO_SIDE)


def _encode(image: Image.Image, *, lossless: bool, quality: int) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=lossless, quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = tuple(max(1, round(n * scale)) for n in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _thinned(n: int, wanted: float) -> np.ndarray:
    """Indices of the ``wanted`` centres of n pixels."""
    m = max(1, round(wanted))
    return np.asarray(((np.arange(m) + 0.5) * n / m).astype(int))
