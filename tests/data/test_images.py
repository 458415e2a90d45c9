"""Image decoding by fixed rules."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from debugnet.data import BadSample, Status
from debugnet.data.images import decode_image


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def gradient() -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, 12 * 9 * 3).reshape(9, 12, 3).astype(np.uint8))


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_lossless_formats_come_back_as_they_were(format: str) -> None:
    assert np.array_equal(decode_image(encoded(gradient(), format)), gradient())


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(format: str) -> None:
    image = decode_image(encoded(gradient(), format))
    assert image.mode == "RGB" and image.size == (12, 9)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert decode_image(encoded(gradient().convert(mode), "PNG")).mode == "RGB"


def test_cmyk_becomes_rgb() -> None:
    assert decode_image(encoded(gradient().convert("CMYK"), "JPEG")).mode == "RGB"


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode_image(encoded(Image.fromarray(values), "PNG")))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert decode_image(encoded(gradient(), "JPEG", exif=exif)).size == (9, 12)


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.asarray(decode_image(data))[0, 0].tolist() == [255, 0, 0]


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status.DECODE_ERROR),
        (b"no image at all", Status.DECODE_ERROR),
        (encoded(gradient(), "GIF"), Status.DECODE_ERROR),
        (encoded(gradient(), "TIFF"), Status.DECODE_ERROR),
        (encoded(gradient().resize((300, 300)), "JPEG")[:-800], Status.DECODE_ERROR),
        (encoded(gradient().resize((300, 300)), "PNG")[:-400], Status.DECODE_ERROR),
        (bomb(9000, 9000), Status.OVERSIZED),
        (bomb(60000, 60000), Status.OVERSIZED),
        (b"\xff\xd8" + bytes(64 * 2**20), Status.OVERSIZED),
    ],
    ids=["empty", "text", "gif", "tiff", "cut jpeg", "cut png", "81 Mpx", "3600 Mpx", "65 MB"],
)
def test_bad_files_get_a_status_and_no_warning(data: bytes, status: Status) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadSample) as caught:
            decode_image(data)
    assert caught.value.status == status
    again = pickle.loads(pickle.dumps(caught.value))  # as it travels out of a worker
    assert (again.status, str(again)) == (status, caught.value.reason)


def test_forty_nine_megapixels_are_not_too_many() -> None:
    assert decode_image(encoded(Image.new("L", (7000, 7000)), "PNG", compress_level=1)).size == (7000, 7000)


def test_random_damage_never_escapes() -> None:
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "BMP"):
        whole = bytearray(encoded(gradient(), format))
        for _ in range(60):
            damaged = whole.copy()
            for position in rng.integers(0, len(whole), 3):
                damaged[position] = rng.integers(256)
            try:
                assert decode_image(bytes(damaged)).mode == "RGB"
            except BadSample:
                pass
