"""Laying out an HDF5 file in memory: libhdf5 decides where everything goes and never touches the disk."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

#: Bytes at the start that HDF5 leaves to applications; the seal lies there.
USER_BLOCK = 8192
_ALIGNMENT = 4096


class Shape(NamedTuple):
    """Type and shape of an array that is to be stored."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=object))


class _Memory(io.RawIOBase):
    """A file-like object that keeps what is written and forgets what is not: 10 GB of holes cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[tuple[int, bytes]] = []
        self.size = 0
        self._position = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self.chunks.append((self._position, piece))
        self._position += len(piece)
        self.size = max(self.size, self._position)
        return len(piece)

    def readinto(self, buffer: Any, /) -> int:
        start, stop = self._position, self._position + len(buffer)
        content = bytearray(len(buffer))
        for offset, piece in self.chunks:
            low, high = max(offset, start), min(offset + len(piece), stop)
            if low < high:
                content[low - start : high - start] = piece[low - offset : high - offset]
        buffer[:] = content
        self._position = stop
        return len(buffer)

    def truncate(self, size: int | None = None, /) -> int:
        self.size = self._position if size is None else size
        return self.size

    def flush(self) -> None:
        pass


class Layout(NamedTuple):
    """Where libhdf5 puts each array, the size of the file, and the bytes of structure it wrote."""

    offsets: dict[str, int]
    size: int
    structure: list[tuple[int, bytes]]


def layout(
    arrays: Mapping[str, Shape], header_length: int | None = None, attributes: Mapping[str, Any] | None = None
) -> Layout:
    """Let libhdf5 lay out contiguous datasets in a file that exists in memory only.

    An array's offset depends on those before it alone, so a store can be filled before all
    that follows is known.  The header, a fixed-length string, comes last.
    """
    import h5py

    memory = _Memory()
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.CONTIGUOUS)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    create.set_obj_track_times(False)  # the same content gives the same bytes
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    offsets: dict[str, int] = {}
    align = {"alignment_threshold": _ALIGNMENT, "alignment_interval": _ALIGNMENT}
    with h5py.File(memory, "w", userblock_size=USER_BLOCK, **align) as file:
        for name, (dtype, shape) in arrays.items():
            space = h5py.h5s.create_simple(shape)
            dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, create, link)
            offsets[name] = dataset.get_offset() if np.prod(shape, dtype=object) else USER_BLOCK
        if header_length is not None:
            text = h5py.h5t.C_S1.copy()
            text.set_size(header_length)
            text.set_cset(h5py.h5t.CSET_UTF8)
            text.set_strpad(h5py.h5t.STR_SPACEPAD)
            dataset = h5py.h5d.create(file.id, b"header", text, h5py.h5s.create(h5py.h5s.SCALAR), create)
            offsets["header"] = dataset.get_offset()
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
    return Layout(offsets, memory.size, memory.chunks)
