"""Zip archives of class folders, read member by member where they lie; nothing is ever unpacked to disk.

Members are read with ``pread`` from offsets taken once from the central directory, so a data set pickles as a few
arrays and any number of processes and threads may read at once.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from debugnet.data.dataset import BadSample, DatasetSplits, Status
from debugnet.data.image_folder import assign, build, is_image_name
from debugnet.data.images import MAX_FILE_BYTES, decode_image
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError

MAX_MEMBERS = 20_000_000
#: Members are streamed one at a time, each capped at MAX_FILE_BYTES, so the total costs no memory and no disk; the cap
#: only refuses nonsense.  (ImageNet's archive is 0.15 TB.)
MAX_TOTAL_BYTES = 2**41
MAX_RATIO = 200
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class ZipSource:
    """Image members of one archive.

    Parameters
    ----------
    path : Path
        The archive.
    members : list of zipfile.ZipInfo
        The image members, in row order.
    """

    def __init__(self, path: Path, members: list[zipfile.ZipInfo]) -> None:
        self.path = path
        self.offsets = np.array([m.header_offset for m in members], dtype=np.int64)
        self.packed = np.array([m.compress_size for m in members], dtype=np.int64)
        self.sizes = np.array([m.file_size for m in members], dtype=np.int64)
        self.crcs = np.array([m.CRC for m in members], dtype=np.uint32)
        self.deflated = np.array([m.compress_type == zipfile.ZIP_DEFLATED for m in members], dtype=bool)
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_descriptor": None}

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]

    def _pread(self, size: int, offset: int) -> bytes:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        return os.pread(self._descriptor, size, offset)

    def read(self, row: int) -> Image.Image:
        """Decode the image of ``row``."""
        return decode_image(self.read_bytes(row))

    def read_bytes(self, row: int) -> bytes:
        """Return the member's bytes, checked against its CRC-32."""
        size, packed = int(self.sizes[row]), int(self.packed[row])
        if max(size, packed) > MAX_FILE_BYTES:
            raise BadSample(Status.OVERSIZED, f"member of {size} bytes, more than {MAX_FILE_BYTES}")
        offset = int(self.offsets[row])
        try:
            header = self._pread(_LOCAL_HEADER.size, offset)
            magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            data = self._pread(packed, offset + _LOCAL_HEADER.size + name_length + extra_length)
            if self.deflated[row]:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise BadSample(Status.DECODE_ERROR, f"zip member cannot be read: {error}") from None
        if magic != b"PK\3\4" or len(data) != size or zlib.crc32(data) != self.crcs[row]:
            raise BadSample(Status.DECODE_ERROR, "zip member is damaged (size or CRC-32 differ from the directory)")
        return data

    def identity(self, rows: np.ndarray) -> bytes:
        """Sizes and CRC-32s from the central directory."""
        return bytes(self.sizes[rows].tobytes() + self.crcs[rows].tobytes())

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """CRC-32 and size of each member."""
        return [b"%d:%d" % (self.crcs[i], self.sizes[i]) for i in rows]


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse archives that no honest tool writes."""
    if len(members) > MAX_MEMBERS:
        raise InputError(f"'{archive}' has {len(members)} members, more than {MAX_MEMBERS}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES or total > MAX_RATIO * archive.stat().st_size:
        raise InputError(
            f"'{archive}' claims {total} bytes unpacked from {archive.stat().st_size}: refused as a zip bomb "
            f"(limits: ratio {MAX_RATIO}, {MAX_TOTAL_BYTES} bytes)"
        )
    for member in members:
        # orig_filename: zipfile has cut .filename at a NUL and turned backslashes round
        name = member.orig_filename
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or "\0" in name or name[1:2] == ":":
            raise InputError(f"'{archive}': member name {name!r} leaves the archive; refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"'{archive}': member {name!r} is a symbolic link; refused")
        if member.flag_bits & 0x1:
            raise InputError(f"'{archive}': member {name!r} is encrypted; write the archive without a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = member.compress_type
            raise InputError(f"'{archive}': member {name!r} uses compression method {method}; use store or deflate")


def load(spec: DataSpec) -> DatasetSplits:
    """Load the archive ``spec.path``; it holds all splits (layouts of :mod:`debugnet.data.image_folder`)."""
    if spec.val or spec.test:
        raise InputError(f"'{spec.path}': a zip holds its own splits (train/, val/, test/); leave out --val and --test")
    archive = Path(spec.path).expanduser()
    try:
        with zipfile.ZipFile(archive) as handle:
            members = [member for member in handle.infolist() if not member.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"'{archive}' is not a complete zip file: {error}; fetch it again") from None
    _check(archive, members)
    images = sorted((m for m in members if is_image_name(PurePosixPath(m.filename))), key=lambda m: m.filename)
    names = [member.filename for member in images]
    splits, classes = assign(names, str(archive), spec.labeled)
    others = len(members) - len(images)
    notes = [f"{others} members that are no images were ignored"] if others else []
    return build(spec, ZipSource(archive, images), names, splits, classes, notes)
