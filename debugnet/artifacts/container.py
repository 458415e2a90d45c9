"""Sealed HDF5: a plain HDF5 file that every HDF5 tool reads, and that debugnet reads without libhdf5.

libhdf5 segfaults on a full disk, loses a file whose writer is killed, and can crash or hang on
damaged metadata.  So here it only ever writes to memory: it lays the file out (`layout`), and the
bytes reach the disk through ``os.pwrite``.  A *seal* in the HDF5 user block (the first 8 KiB, which
HDF5 leaves to applications) says where the header lies; the header says where each array lies.
Every byte of the file is under some checksum, and a damaged file is refused before anything trusts it.
docs/formats.md has the layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debugnet.artifacts.atomic import allocate, atomic_file, write_all
from debugnet.artifacts.canonical import canonical_json, parse_json
from debugnet.artifacts.hdf5_layout import USER_BLOCK, Layout, Shape, layout
from debugnet.artifacts.provenance import Provenance
from debugnet.errors import InputError

MAGIC = b"debugnet-hdf5 1\n"
#: Bytes of an array under one CRC-32.
CRC_BLOCK = 1 << 24
_DTYPES = ("<f2", "<f4", "<f8", "<i4", "<i8", "<u4", "<u8", "|u1")
_MAX_HEADER = 1 << 28
_MAX_STRUCTURE = 1 << 26


class StoredArray(NamedTuple):
    """Where an array lies in the file, and the CRC-32 of each 16 MiB of it."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    crc32: list[int]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return Shape(self.dtype, self.shape).nbytes


@dataclass(frozen=True)
class Header:
    """What a sealed file says of itself.

    Attributes
    ----------
    kind : str
        "features" or "path".
    digest : str
        sha256 of the meta data and of every array's type, shape and checksums; times and
        machines do not count, so the same content has the same digest.
    arrays : mapping of str to StoredArray
    meta : mapping
        Whatever the writer recorded, JSON.
    provenance : mapping
        See :class:`debugnet.artifacts.provenance.Provenance`.
    """

    kind: str
    digest: str
    arrays: Mapping[str, StoredArray]
    meta: Mapping[str, Any]
    provenance: Mapping[str, Any]


def checksums(data: memoryview) -> list[int]:
    """CRC-32 of each 16 MiB."""
    return [zlib.crc32(data[start : start + CRC_BLOCK]) for start in range(0, len(data), CRC_BLOCK)]


def seal(
    descriptor: int,
    kind: str,
    filled: Mapping[str, StoredArray],
    small: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    provenance: Provenance,
) -> str:
    """Complete a file whose big arrays are in place: small arrays, structure, header, and last the seal.

    Parameters
    ----------
    descriptor : int
        Open for writing; grown or cut to its final size.
    kind : str
    filled : mapping of str to StoredArray
        Arrays whose bytes are there already, at the offsets that `layout` gives for them alone.
    small : mapping of str to ndarray
        Arrays to be written now.
    meta : mapping
    provenance : Provenance

    Returns
    -------
    str
        The digest.
    """
    data = {name: np.ascontiguousarray(array) for name, array in small.items()}
    arrays = _placed(filled, data)
    described = {name: {"dtype": a.dtype, "shape": a.shape, "crc32": a.crc32} for name, a in arrays.items()}
    digest = hashlib.sha256(canonical_json({"arrays": described, "meta": meta})).hexdigest()
    fields = {"arrays": {n: array._asdict() for n, array in arrays.items()}, "meta": meta}
    header = canonical_json({**fields, "provenance": provenance.to_json()})
    attributes = {"format": f"debugnet {kind} {provenance.schema}", "complete": np.uint8(1)}
    final = layout({name: Shape(a.dtype, a.shape) for name, a in arrays.items()}, len(header), attributes)
    position = final.offsets["header"]
    extents = [*((a.offset, a.nbytes) for a in arrays.values()), (position, len(header))]
    gaps = list(_gaps(extents, final.size))
    _check_layout(final, arrays, gaps)
    allocate(descriptor, final.size)
    os.ftruncate(descriptor, final.size)
    for name, array in data.items():
        write_all(descriptor, _bytes_of(array), arrays[name].offset)
    for start, length in gaps:
        write_all(descriptor, _structure(final, start, length), start)
    write_all(descriptor, header, position)
    facts = {
        "kind": kind,
        "digest": digest,
        "key": provenance.key,
        "size": final.size,
        "header": [position, len(header)],
        "header_sha256": hashlib.sha256(header).hexdigest(),
        "structure_crc32": _structure_crc(descriptor, gaps),
    }
    write_all(descriptor, _seal_block(facts), 0)
    return digest


def _structure(final: Layout, start: int, length: int) -> bytes:
    """HDF5's own bytes in one gap between arrays; zeros where it wrote none."""
    content = bytearray(length)
    for offset, piece in final.structure:
        if start <= offset < start + length:
            content[offset - start : offset - start + len(piece)] = piece
    return bytes(content)


def _placed(filled: Mapping[str, StoredArray], data: Mapping[str, np.ndarray]) -> dict[str, StoredArray]:
    shapes = {name: Shape(array.dtype, array.shape) for name, array in filled.items()}
    shapes |= {name: Shape(array.dtype.str, array.shape) for name, array in data.items()}
    offsets = layout(shapes).offsets
    arrays = dict(filled)
    for name, array in data.items():
        arrays[name] = StoredArray(*shapes[name], offsets[name], checksums(_bytes_of(array)))
    return arrays


def _check_layout(final: Layout, arrays: Mapping[str, StoredArray], gaps: Sequence[tuple[int, int]]) -> None:
    """Check, rather than trust, how libhdf5 lays files out: it has always done so."""
    moved = [name for name, array in arrays.items() if final.offsets[name] != array.offset]
    inside = all(
        any(start <= offset and offset + len(piece) <= start + length for start, length in gaps)
        for offset, piece in final.structure
    )
    if moved or not inside:
        raise RuntimeError(f"this libhdf5 lays files out in another way (moved: {moved})")


def write_container(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    provenance: Provenance,
) -> str:
    """Write a whole sealed file atomically; returns its digest."""
    with atomic_file(path) as temporary:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            return seal(descriptor, kind, {}, arrays, meta, provenance)
        finally:
            os.close(descriptor)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _seal_block(facts: Mapping[str, Any]) -> bytes:
    body = canonical_json(facts).ljust(USER_BLOCK - len(MAGIC) - 9, b"\0")
    return MAGIC + b"%08x\n" % zlib.crc32(body) + body


def _gaps(extents: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what lies between the arrays: HDF5's own structure and padding."""
    position = USER_BLOCK
    for offset, length in sorted(extent for extent in extents if extent[1]):
        if offset < position:
            raise ValueError("its arrays overlap")
        if offset > position:
            yield position, offset - position
        position = offset + length
    if position < size:
        yield position, size - position


def _structure_crc(descriptor: int, gaps: Sequence[tuple[int, int]]) -> int:
    if sum(length for _, length in gaps) > _MAX_STRUCTURE:
        raise ValueError("its structure is too large")
    crc = 0
    for start, length in gaps:
        crc = zlib.crc32(os.pread(descriptor, length, start), crc)
    return crc


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check a sealed file's header, without libhdf5 and without touching the arrays.

    Raises
    ------
    InputError
        Missing, partial, truncated, foreign, damaged, or changed since it was sealed.
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if path.is_dir():
        os.close(descriptor)
        raise InputError(_missing(path) if path.suffix == ".partial" else f"{path} is a folder, and a file is needed")
    try:
        return _parse(path, descriptor)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise InputError(f"{path} is damaged ({_words(error)}): make it again") from error
    finally:
        os.close(descriptor)


def _words(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__


def _missing(path: Path) -> str:
    partial = path if path.suffix == ".partial" else path.with_name(path.name + ".partial")
    if partial.exists():
        return f"{partial} is not finished: run the command that makes it again, and it goes on from there"
    return f"{path} does not exist"


def _parse(path: Path, descriptor: int) -> Header:
    block = os.pread(descriptor, USER_BLOCK, 0)
    if not block.startswith(MAGIC):
        if path.suffix == ".partial":
            raise InputError(_missing(path))
        raise InputError(f"{path} is not a debugnet file (or was never finished): make it with debugnet")
    size = os.fstat(descriptor).st_size
    if len(block) < USER_BLOCK:
        raise ValueError(f"truncated to {size} bytes")
    body = block[len(MAGIC) + 9 :]
    if block[len(MAGIC) : len(MAGIC) + 9] != b"%08x\n" % zlib.crc32(body):
        raise ValueError("its seal fails the checksum")
    facts = json.loads(body.rstrip(b"\0"))
    if facts["size"] != size:
        raise ValueError(f"it has {size} bytes and should have {facts['size']}")
    start, length = facts["header"]
    if not 0 < length <= _MAX_HEADER:
        raise ValueError("its header is too large")
    header = os.pread(descriptor, length, start)
    if hashlib.sha256(header).hexdigest() != facts["header_sha256"]:
        raise ValueError("its header fails the checksum")
    content = parse_json(header)
    arrays = {name: _stored_array(name, entry, size) for name, entry in content["arrays"].items()}
    extents = [(array.offset, array.nbytes) for array in arrays.values()] + [(start, length)]
    if _structure_crc(descriptor, list(_gaps(extents, size))) != facts["structure_crc32"]:
        raise ValueError("its HDF5 structure was changed since it was written")
    if not isinstance(content["meta"], dict) or not isinstance(content["provenance"], dict):
        raise ValueError("its header has another form")
    return Header(str(facts["kind"]), str(facts["digest"]), arrays, content["meta"], content["provenance"])


def _stored_array(name: str, entry: Mapping[str, Any], size: int) -> StoredArray:
    dtype, shape, offset = entry["dtype"], tuple(entry["shape"]), entry["offset"]
    if dtype not in _DTYPES or len(shape) > 3 or not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape):
        raise ValueError(f"array {name} has type {dtype} and shape {shape}")
    array = StoredArray(dtype, shape, offset, list(entry["crc32"]))
    if not isinstance(offset, int) or offset < USER_BLOCK or offset + array.nbytes > size:
        raise ValueError(f"array {name} lies outside the file")
    return array


def map_array(path: str | os.PathLike[str], array: StoredArray) -> np.ndarray:
    """Memory-map an array read-only (an ordinary empty array where there is nothing to map)."""
    if not array.nbytes:
        return np.zeros(array.shape, dtype=array.dtype)
    return np.memmap(path, dtype=array.dtype, mode="r", offset=array.offset, shape=array.shape)


def read_array(path: str | os.PathLike[str], array: StoredArray) -> np.ndarray:
    """Read an array into memory, checked.

    Raises
    ------
    InputError
        Its checksum fails.
    """
    with open(path, "rb", buffering=0) as file:
        file.seek(array.offset)
        content = np.fromfile(file, dtype=array.dtype, count=array.nbytes // np.dtype(array.dtype).itemsize)
    if content.nbytes != array.nbytes or checksums(_bytes_of(content)) != array.crc32:
        raise InputError(f"{path} is damaged (an array fails its checksum): make it again")
    return content.reshape(array.shape)


def verify_arrays(path: str | os.PathLike[str], header: Header) -> None:
    """Check every array's checksums (about 1.5 GB per second and core).

    Raises
    ------
    InputError
        The first array that fails, and where.
    """
    buffer = memoryview(bytearray(CRC_BLOCK))
    with open(path, "rb", buffering=0) as file:
        for name, array in header.arrays.items():
            file.seek(array.offset)
            for i, start in enumerate(range(0, array.nbytes, CRC_BLOCK)):
                piece = buffer[: min(CRC_BLOCK, array.nbytes - start)]
                if file.readinto(piece) != len(piece) or array.crc32[i : i + 1] != [zlib.crc32(piece)]:
                    raise InputError(f"{path} is damaged ({name} fails its checksum at byte {start}): make it again")
