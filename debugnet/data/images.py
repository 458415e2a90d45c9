"""Bytes of an image file to an RGB picture, by fixed rules, or a reason why not."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from debugnet.data.dataset import BadSample, Status

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 64 * 2**20
#: Names taken for images.  Wider than FORMATS on purpose: a .gif among the photos becomes a row with a status
#: instead of vanishing.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif .heic".split()
)


def decode_image(data: bytes) -> Image.Image:
    """Decode one image file.

    First frame only; turned upright by its EXIF orientation; alpha is dropped and palettes are resolved (as
    ``convert("RGB")`` does, which is what torchvision's loaders do); CMYK, YCbCr and LAB go through Pillow's
    conversion without colour profile; 16-bit grey keeps its upper 8 bits.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    BadSample
        OVERSIZED above 50 million pixels or 64 MiB; DECODE_ERROR for other formats, truncated or corrupt files.
    """
    if len(data) > MAX_FILE_BYTES:
        raise BadSample(Status.OVERSIZED, f"file of {len(data)} bytes, more than {MAX_FILE_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size and format are checked below; a warning per image helps nobody
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BadSample(Status.OVERSIZED, f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            image.load()
            return _to_rgb(_upright(image))
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample(Status.OVERSIZED, str(error)) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they like on corrupt bytes
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else f"{error}" or repr(error)
        raise BadSample(Status.DECODE_ERROR, f"not a readable {'/'.join(FORMATS)} image: {reason}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # malformed EXIF: the pixels are good, their orientation stays as stored
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey PNG; convert("RGB") would clip it to white
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
