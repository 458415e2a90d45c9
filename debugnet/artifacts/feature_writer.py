"""Writing a feature store: rows split by split, then labels, ids and statistics.

Only a file that was read back and found whole gets the final name; `partial_rows` keeps it until then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts import atomic
from debugnet.artifacts.column_statistics import column_statistics
from debugnet.artifacts.container import StoredArray, seal
from debugnet.artifacts.hdf5_layout import Shape
from debugnet.artifacts.partial_rows import PartialRows, SplitRows
from debugnet.artifacts.provenance import Provenance
from debugnet.errors import InputError

NON_FINITE = 3  # index into feature_store.STATUSES
_DTYPES = {"float32": "<f4", "float16": "<f2"}
_FLOAT16_MAX = 65504.0


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
        self._provenance = provenance
        self._rows = PartialRows(path, shapes, provenance, force)
        self._splits = self._rows.splits
        self.partial = self._rows.partial

    def __enter__(self) -> FeatureStoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files and the lock; what was written stays and can be gone on with."""
        self._rows.close()

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
        self._rows.append(split, rows, row_status)

    def _prepare(
        self, split: str, start: int, features: np.ndarray, to: SplitRows, status: np.ndarray | None
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
        """Force what was written onto the disk."""
        self._rows.flush()

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
                f"{name}/features": StoredArray(*split.shape, split.offset, self._rows.verify(split))
                for name, split in self._splits.items()
            }
            seal(self._rows.descriptor, "features", filled, small, meta, provenance)
            self._rows.publish()
        self.close()
        return self.path

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
        statistics = column_statistics(self._rows.map(train), train.status == 0)
        return arrays | {f"statistics/{name}": value for name, value in statistics.items()}


def _label_array(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f":
        return labels.astype(np.float64)
    return labels.astype(np.int64 if labels.ndim == 1 else np.uint8)
