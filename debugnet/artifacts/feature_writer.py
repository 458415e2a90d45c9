"""Writing a feature store so that a kill costs at most the batch in flight.

The space is reserved at the start.  Rows go to their final place by ``pwrite``, and a line with
their checksum goes to a journal beside the file.  A new run believes the journal as far as the
checksums hold, and goes on from there.  Only a file that was read back and found whole gets the
final name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts import atomic
from debugnet.artifacts.column_statistics import column_statistics
from debugnet.artifacts.container import StoredArray, checksums, read_header, seal
from debugnet.artifacts.hdf5_layout import Shape, layout
from debugnet.artifacts.journal import Journal
from debugnet.artifacts.provenance import Provenance, describe_difference
from debugnet.errors import InputError, OutputExists

NON_FINITE = 3  # index into feature_store.STATUSES
_DTYPES = {"float32": "<f4", "float16": "<f2"}
_FLOAT16_MAX = 65504.0
_SYNC_SECONDS = 30.0
_SYNC_BYTES = 256 << 20
#: Room kept for labels, ids and statistics, which come at the end: bytes per row and per feature.
_RESERVE = 64


@dataclasses.dataclass
class _Progress:
    """What the journal says of one split."""

    shape: Shape
    offset: int
    status: np.ndarray
    next_row: int = 0
    batches: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)  # first row, rows, CRC-32


def create_feature_store(
    path: str | os.PathLike[str],
    splits: Mapping[str, int],
    n_features: int,
    dtype: str = "float32",
    *,
    provenance: Provenance,
    force: bool = False,
) -> FeatureStoreWriter:
    """Begin a feature store, or go on with one that was interrupted.

    Parameters
    ----------
    path : path
        Final name.  Until `finish`, everything is in ``path.partial`` and ``path.partial.journal``.
    splits : mapping of str to int
        Number of rows of each split, in the order in which they are stored.
    n_features : int
    dtype : str
        "float32" or "float16" (half the size; lossless for features computed in half precision).
    provenance : Provenance
        Its key decides whether a partial file can be gone on with.
    force : bool
        Discard a partial file that was made with other options.

    Returns
    -------
    FeatureStoreWriter
        Holds the lock of ``path``; use it as a context manager, or close it.

    Raises
    ------
    OutputExists
        A partial file made with other options is there (the message names them).
    Locked
        Another process is writing it.
    StorageError
        No room for the whole of it, no permission, read-only.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}: features are stored as {' or '.join(_DTYPES)}")
    shapes = {name: Shape(_DTYPES[dtype], (n, n_features)) for name, n in splits.items()}
    return FeatureStoreWriter(Path(path), shapes, provenance, force)


class FeatureStoreWriter:
    """Writes the rows of each split in order; made by :func:`create_feature_store`."""

    def __init__(self, path: Path, shapes: Mapping[str, Shape], provenance: Provenance, force: bool = False) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.journal = path.with_name(path.name + ".partial.journal")
        self._provenance = provenance
        offsets = layout({f"{name}/features": shape for name, shape in shapes.items()}).offsets
        self._splits = {
            name: _Progress(shape, offsets[f"{name}/features"], np.zeros(shape.shape[0], np.uint8))
            for name, shape in shapes.items()
        }
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(atomic.lock(path))
        try:
            with atomic.storage_errors(path):
                if not self._resume(force):
                    self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FeatureStoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files and the lock; what was written stays and can be gone on with."""
        self._closing.close()

    _data: int
    _journal: Journal

    def _open(self, flags: int = 0) -> None:
        self._data = os.open(self.partial, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        self._closing.callback(os.close, self._data)
        self._journal = Journal(self.journal)
        self._closing.callback(self._journal.close)

    def _begin(self) -> None:
        self.journal.unlink(missing_ok=True)  # first, so that no old journal ever describes the new file
        self._open(os.O_CREAT | os.O_TRUNC)
        n_rows = sum(split.shape.shape[0] for split in self._splits.values())
        n_features = max((split.shape.shape[1] for split in self._splits.values()), default=0)
        end = max((split.offset + split.shape.nbytes for split in self._splits.values()), default=0)
        try:
            atomic.allocate(self._data, end + _RESERVE * (n_rows + n_features) + (1 << 16))
        except OSError:
            self.partial.unlink()  # nothing is in it yet
            self.journal.unlink()
            raise
        os.fsync(self._data)
        self._journal.append({"shapes": self._shapes(), "provenance": self._provenance.to_json()})
        self._journal.sync()
        atomic.sync_file(self.path.parent)

    def _shapes(self) -> dict[str, Any]:
        return {name: [split.shape.dtype, *split.shape.shape] for name, split in self._splits.items()}

    def _resume(self, force: bool) -> bool:
        """Take up what an interrupted run left; False where there is nothing to take up."""
        if not (self.journal.exists() and self.partial.exists()):
            return False
        self._open()
        lines = self._journal.replay()
        first = next(lines, None)
        if first is None:
            return False
        difference = describe_difference(Provenance.from_json(first["provenance"]), self._provenance)
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
        split = self._splits[name]
        if first != split.next_row or first + n_rows > len(split.status):
            return False
        if self._crc_on_disk(split, first, n_rows) != crc:
            return False
        self._note(split, first, n_rows, crc)
        for row, status in bad:
            split.status[row] = status
        return True

    def _row_bytes(self, split: _Progress) -> int:
        return Shape(split.shape.dtype, split.shape.shape[1:]).nbytes

    def _crc_on_disk(self, split: _Progress, first: int, n_rows: int) -> int:
        row_bytes, crc = self._row_bytes(split), 0
        position, end = split.offset + first * row_bytes, split.offset + (first + n_rows) * row_bytes
        while position < end:
            piece = os.pread(self._data, min(1 << 22, end - position), position)
            if not piece:
                return -1  # the file ends before it should
            crc = zlib.crc32(piece, crc)
            position += len(piece)
        return crc

    def _note(self, split: _Progress, first: int, n_rows: int, crc: int) -> None:
        split.next_row = first + n_rows
        split.batches.append((first, n_rows, crc))

    def next_row(self, split: str) -> int:
        """First row of ``split`` that is still to be written."""
        return self._splits[split].next_row

    def status(self, split: str) -> np.ndarray:
        """Status of the rows of ``split`` (n,), uint8; 0 for those still to come."""
        return self._splits[split].status.copy()

    def write(self, split: str, start: int, features: np.ndarray, status: np.ndarray | None = None) -> None:
        """Write the next rows of a split.

        Parameters
        ----------
        split : str
        start : int
            First row; must be ``next_row(split)``.
        features : ndarray (b, d), float
            Raw features; what rows with a status hold does not matter.
        status : ndarray (b,), integer, optional
            0 for good rows.  Good rows with a non-finite feature get status 3 here.

        Raises
        ------
        InputError
            A feature does not fit float16.
        StorageError
            The disk fails.
        """
        to = self._splits[split]
        features = np.asarray(features)
        n_rows = len(features)
        if start != to.next_row or start + n_rows > len(to.status) or features.shape[1:] != to.shape.shape[1:]:
            raise ValueError(
                f"{split}: rows {start} to {start + n_rows} of width {features.shape[1:]} cannot be written: "
                f"next is {to.next_row} of {to.shape.shape}"
            )
        rows, row_status = self._prepare(split, start, features, to, status)
        data = rows.reshape(-1).view(np.uint8).data
        crc = zlib.crc32(data)
        bad = [[start + int(i), int(row_status[i])] for i in np.flatnonzero(row_status)]
        with atomic.storage_errors(self.path):
            atomic.write_all(self._data, data, to.offset + start * self._row_bytes(to))
            self._journal.append([split, start, n_rows, crc, bad])
            self._unsynced += len(data)
            if self._unsynced > _SYNC_BYTES or time.monotonic() - self._synced_at > _SYNC_SECONDS:
                self.flush()
        to.status[start : start + n_rows] = row_status
        self._note(to, start, n_rows, crc)

    def _prepare(
        self, split: str, start: int, features: np.ndarray, to: _Progress, status: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        row_status = np.zeros(len(features), np.uint8) if status is None else np.array(status, dtype=np.uint8)
        finite = np.isfinite(features).all(axis=1)
        row_status[~finite & (row_status == 0)] = NON_FINITE
        if to.shape.dtype == "<f2" and features.dtype != np.float16:
            large = (np.abs(features) > _FLOAT16_MAX) & (row_status == 0)[:, None]
            if large.any():
                i, j = np.argwhere(large)[0]
                raise InputError(
                    f"feature {features[i, j]:g} (split {split}, row {start + i}, feature {j}) does not fit float16, "
                    f"whose largest is {_FLOAT16_MAX:g}: store float32"
                )
        with np.errstate(over="ignore"):  # of rows that become NaN below
            rows = np.ascontiguousarray(features, dtype=to.shape.dtype)
        if row_status.any():
            rows = np.where((row_status != 0)[:, None], np.array(np.nan, rows.dtype), rows)
        return rows, row_status

    def flush(self) -> None:
        """Force what was written onto the disk: first the rows, then the journal that vouches for them."""
        with atomic.storage_errors(self.path):
            os.fsync(self._data)
            self._journal.sync()
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def finish(
        self,
        *,
        labels: Mapping[str, np.ndarray],
        ids: Mapping[str, Iterable[str]],
        task: str,
        class_names: Sequence[str],
        config: Mapping[str, Any],
        groups: Mapping[str, np.ndarray] | None = None,
        group_names: Sequence[str] = (),
        dense_head: tuple[np.ndarray, np.ndarray] | None = None,
        dense_class_names: Sequence[str] | None = None,
        provenance: Provenance | None = None,
    ) -> Path:
        """Read the rows back, add all that goes with them, and give the file its final name.

        Parameters
        ----------
        labels : mapping of split to ndarray
            (n,) int64 classes, (n, K) uint8 for multi-label, (n,) or (n, K) float64 for regression.
        ids : mapping of split to n strings
        task : str
            "single-label", "multi-label" or "regression".
        class_names : sequence of str
        config : mapping
            JSON; what builds the same backbone and data again.
        groups : mapping of split to ndarray (n,) int64, optional
        group_names : sequence of str
        dense_head : (weight (K, d), bias (K,)), optional
            The network's own last layer on these features, raw coordinates.
        dense_class_names : sequence of str, optional
            Where its outputs are not ``class_names``.
        provenance : Provenance, optional
            Final one (with the seconds it took); the key must be that of the start.

        Returns
        -------
        Path
            The final name.

        Raises
        ------
        InputError
            The file does not hold what was written, or no train row is usable.
        StorageError
            The disk fails; the partial file stays and can be gone on with.
        """
        provenance = provenance or self._provenance
        if provenance.key != self._provenance.key:
            raise ValueError("finish was given the provenance of something else")
        for name, split in self._splits.items():
            if split.next_row != len(split.status):
                raise ValueError(f"split {name} has {split.next_row} of {len(split.status)} rows")
        small = self._small_arrays(labels, ids, groups or {}, dense_head)
        meta = {
            "task": task,
            "class_names": list(class_names),
            "group_names": list(group_names),
            "dense_class_names": None if dense_class_names is None else list(dense_class_names),
            "config": config,
            "n_features": next(iter(self._splits.values())).shape.shape[1],
            "splits": [
                {"name": name, "rows": len(s.status), "status_counts": np.bincount(s.status, minlength=7)}
                for name, s in self._splits.items()
            ],
        }
        with atomic.storage_errors(self.path):
            filled = {
                f"{name}/features": StoredArray(*split.shape, split.offset, self._verified(split))
                for name, split in self._splits.items()
            }
            seal(self._data, "features", filled, small, meta, provenance)
            os.fsync(self._data)
            read_header(self.partial)
            atomic.publish(self.partial, self.path)
            self.journal.unlink()
        self.close()
        return self.path

    def _map(self, split: _Progress) -> np.ndarray:
        if not split.shape.nbytes:
            return np.zeros(split.shape.shape, split.shape.dtype)
        return np.memmap(self.partial, split.shape.dtype, "r", offset=split.offset, shape=split.shape.shape)

    def _verified(self, split: _Progress) -> list[int]:
        """Check the rows on disk against the journal; returns the checksums for the header."""
        for first, n_rows, crc in split.batches:
            if self._crc_on_disk(split, first, n_rows) != crc:
                self.journal.unlink()
                raise InputError(f"{self.partial} does not hold what was written to it: the disk is failing; run again")
        return checksums(self._map(split).reshape(-1).view(np.uint8).data)

    def _small_arrays(
        self,
        labels: Mapping[str, np.ndarray],
        ids: Mapping[str, Iterable[str]],
        groups: Mapping[str, np.ndarray],
        dense_head: tuple[np.ndarray, np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for name, split in self._splits.items():
            encoded = [text.encode("utf-8", "surrogateescape") for text in ids[name]]
            found = {
                "labels": _label_array(np.asarray(labels[name])),
                "status": split.status,
                "ids_utf8": np.frombuffer(b"".join(encoded), np.uint8),
                "ids_ends": np.cumsum([len(text) for text in encoded], dtype=np.uint64),
            }
            if name in groups:
                found["groups"] = np.asarray(groups[name], dtype=np.int64)
            for key, array in found.items():
                if key != "ids_utf8" and len(array) != len(split.status):
                    raise ValueError(f"split {name} has {len(split.status)} rows and {len(array)} {key}")
                arrays[f"{name}/{key}"] = array
        if dense_head is not None:
            arrays["dense_head/weight"], arrays["dense_head/bias"] = map(np.asarray, dense_head)
        train = self._splits.get("train") or next(iter(self._splits.values()))
        statistics = column_statistics(self._map(train), train.status == 0)
        return arrays | {f"statistics/{name}": value for name, value in statistics.items()}


def _label_array(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f":
        return labels.astype(np.float64)
    return labels.astype(np.int64 if labels.ndim == 1 else np.uint8)
