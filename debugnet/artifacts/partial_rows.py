"""The rows of a feature store while it grows: a kill costs at most the batch in flight.

The space is reserved at the start.  Rows go to their final place by ``pwrite``, and a line with
their checksum goes to a journal beside the file.  A new run believes the journal as far as the
checksums hold, and goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts import atomic
from debugnet.artifacts.container import checksums, read_header
from debugnet.artifacts.hdf5_layout import Shape, layout
from debugnet.artifacts.journal import Journal
from debugnet.artifacts.provenance import Provenance, describe_difference
from debugnet.errors import InputError, OutputExists

_SYNC_SECONDS = 30.0
_SYNC_BYTES = 256 << 20
#: Room kept for labels, ids and statistics, which come at the end: bytes per row and per feature.
_RESERVE = 64


@dataclasses.dataclass
class SplitRows:
    """What has been written of one split.

    Attributes
    ----------
    shape : Shape
        Of all its rows.
    offset : int
        Byte of the file at which they begin.
    status : ndarray (n,), uint8
        0 for rows still to come.
    next_row : int
    batches : list of (first row, number of rows, CRC-32 of their bytes)
    """

    shape: Shape
    offset: int
    status: np.ndarray
    next_row: int = 0
    batches: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return Shape(self.shape.dtype, self.shape.shape[1:]).nbytes


class PartialRows:
    """``NAME.partial`` and its journal, opened anew or taken up where an interrupted run left them.

    Parameters
    ----------
    path : Path
        Final name; its lock is held until :meth:`close`.
    shapes : mapping of str to Shape
        Of each split's rows, in the order in which they are stored.
    provenance : Provenance
        Says whether what is there can be gone on with.
    force : bool
        Discard what was begun otherwise.

    Raises
    ------
    OutputExists
        It was begun with other options (the message names them), and ``force`` is false.
    Locked, StorageError
    """

    def __init__(self, path: Path, shapes: Mapping[str, Shape], provenance: Provenance, force: bool) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.journal = path.with_name(path.name + ".partial.journal")
        offsets = layout({f"{name}/features": shape for name, shape in shapes.items()}).offsets
        self.splits = {
            name: SplitRows(shape, offsets[f"{name}/features"], np.zeros(shape.shape[0], np.uint8))
            for name, shape in shapes.items()
        }
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(atomic.lock(path))
        try:
            with atomic.storage_errors(path):
                if not self._resume(provenance, force):
                    self._begin(provenance)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files and the lock; what was written stays and can be gone on with."""
        self._closing.close()

    descriptor: int
    _journal: Journal

    def _open(self, flags: int = 0) -> None:
        self.descriptor = os.open(self.partial, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        self._closing.callback(os.close, self.descriptor)
        self._journal = Journal(self.journal)
        self._closing.callback(self._journal.close)

    def _begin(self, provenance: Provenance) -> None:
        self.journal.unlink(missing_ok=True)  # first, so that no old journal ever describes the new file
        self._open(os.O_CREAT | os.O_TRUNC)
        n_rows = sum(split.shape.shape[0] for split in self.splits.values())
        n_features = max((split.shape.shape[1] for split in self.splits.values()), default=0)
        end = max((split.offset + split.shape.nbytes for split in self.splits.values()), default=0)
        try:
            atomic.allocate(self.descriptor, end + _RESERVE * (n_rows + n_features) + (1 << 16))
        except OSError:
            self.partial.unlink()  # nothing is in it yet
            self.journal.unlink()
            raise
        os.fsync(self.descriptor)
        self._journal.append({"shapes": self._shapes(), "provenance": provenance.to_json()})
        self._journal.sync()
        atomic.sync_file(self.path.parent)

    def _shapes(self) -> dict[str, Any]:
        return {name: [split.shape.dtype, *split.shape.shape] for name, split in self.splits.items()}

    def _resume(self, provenance: Provenance, force: bool) -> bool:
        """Take up what an interrupted run left; False where there is nothing to take up."""
        if not (self.journal.exists() and self.partial.exists()):
            return False
        self._open()
        lines = self._journal.replay()
        first = next(lines, None)
        if first is None:
            return False
        difference = describe_difference(Provenance.from_json(first["provenance"]), provenance)
        if not difference and first["shapes"] != self._shapes():
            difference = "other numbers of rows or features"
        if difference:
            if force:
                return False
            raise OutputExists(f"{self.partial} is there, begun with {difference}; --force discards it")
        for line in lines:
            if not self._believe(line):
                break
        self._journal.cut()
        return True

    def _believe(self, line: Any) -> bool:
        """Whether a journal line holds: the rows follow on and the file has the bytes it says."""
        name, first, n_rows, crc, bad = line
        split = self.splits[name]
        if first != split.next_row or first + n_rows > len(split.status):
            return False
        if self._crc_on_disk(split, first, n_rows) != crc:
            return False
        self._note(split, first, n_rows, crc)
        for row, status in bad:
            split.status[row] = status
        return True

    def _crc_on_disk(self, split: SplitRows, first: int, n_rows: int) -> int:
        row_bytes, crc = split.row_bytes, 0
        position, end = split.offset + first * row_bytes, split.offset + (first + n_rows) * row_bytes
        while position < end:
            piece = os.pread(self.descriptor, min(1 << 22, end - position), position)
            if not piece:
                return -1  # the file ends before it should
            crc = zlib.crc32(piece, crc)
            position += len(piece)
        return crc

    def _note(self, split: SplitRows, first: int, n_rows: int, crc: int) -> None:
        split.next_row = first + n_rows
        split.batches.append((first, n_rows, crc))

    def append(self, name: str, rows: np.ndarray, status: np.ndarray) -> None:
        """Write the next rows of a split, and vouch for them.

        Parameters
        ----------
        name : str
        rows : ndarray (b, d), C-contiguous
            Of the split's dtype.
        status : ndarray (b,), uint8
        """
        split, data = self.splits[name], rows.reshape(-1).view(np.uint8).data
        start, crc = split.next_row, zlib.crc32(data)
        bad = [[start + int(i), int(status[i])] for i in np.flatnonzero(status)]
        with atomic.storage_errors(self.path):
            atomic.write_all(self.descriptor, data, split.offset + start * split.row_bytes)
            self._journal.append([name, start, len(rows), crc, bad])
            self._unsynced += len(data)
            if self._unsynced > _SYNC_BYTES or time.monotonic() - self._synced_at > _SYNC_SECONDS:
                self.flush()
        split.status[start : start + len(rows)] = status
        self._note(split, start, len(rows), crc)

    def flush(self) -> None:
        """Force what was written onto the disk: first the rows, then the journal that vouches for them."""
        with atomic.storage_errors(self.path):
            os.fsync(self.descriptor)
            self._journal.sync()
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def map(self, split: SplitRows) -> np.ndarray:
        """The rows of a split as they are on the disk, (n, d)."""
        if not split.shape.nbytes:
            return np.zeros(split.shape.shape, split.shape.dtype)
        return np.memmap(self.partial, split.shape.dtype, "r", offset=split.offset, shape=split.shape.shape)

    def verify(self, split: SplitRows) -> list[int]:
        """Check the rows on the disk against the journal; returns their checksums for the header.

        Raises
        ------
        InputError
            They are not what was written.
        """
        for first, n_rows, crc in split.batches:
            if self._crc_on_disk(split, first, n_rows) != crc:
                self.journal.unlink()
                raise InputError(f"{self.partial} does not hold what was written to it: the disk is failing; run again")
        return checksums(self.map(split).reshape(-1).view(np.uint8).data)

    def publish(self) -> None:
        """Give the sealed file its final name, once its header can be read back."""
        os.fsync(self.descriptor)
        read_header(self.partial)
        atomic.publish(self.partial, self.path)
        self.journal.unlink()
