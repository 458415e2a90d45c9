"""Reading a feature store: deep features, labels and ids per split, memory-mapped.

Row i of a split is always line i of its data set.  A row that could not be used is not dropped:
its features are NaN and its status says why (see :data:`STATUSES`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from debugnet.artifacts.container import Header, StoredArray, map_array, read_array, read_header, verify_arrays
from debugnet.artifacts.feature_writer import FeatureStoreWriter, create_feature_store
from debugnet.artifacts.provenance import Provenance
from debugnet.errors import InputError
from debugnet.heads import LinearHead
from debugnet.html_table import html_table
from debugnet.standardization import Standardizer

__all__ = ["STATUSES", "FeatureStore", "FeatureStoreWriter", "Split", "create_feature_store", "load_features"]

#: What the status of a row means; only rows with status 0 are used.
STATUSES = (
    "good",
    "decode error",
    "oversized",
    "non-finite feature",
    "empty text",
    "label missing",
    "duplicate id",
)
_ID_BLOCK = 65536
_FAMILIES = {"single-label": "multinomial", "multi-label": "binomial", "regression": "gaussian"}


class IdSequence(Sequence[str]):
    """The ids of a split as a sequence of str, decoded one by one as they are asked for."""

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self._text = text.view(np.ndarray)  # a plain view of the map: scalars come cheaper
        self._ends = ends.view(np.ndarray)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        start = int(self._ends[i - 1]) if i else 0
        return bytes(self._text[start : int(self._ends[i])]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), _ID_BLOCK):
            ends = self._ends[first : first + _ID_BLOCK].tolist()
            text, base = bytes(self._text[start : ends[-1]]), start
            for end in ends:
                yield text[start - base : end - base].decode("utf-8", "surrogateescape")
                start = end


class Split:
    """One split of a feature store.

    Attributes
    ----------
    name : str
    X : memmap (n, d), float32 or float16
        Raw features, read from the file as they are touched; NaN in unusable rows.
    y : ndarray
        (n,) int64 classes, (n, K) uint8 labels, or float64 values.
    ids : sequence of str, length n
    status : ndarray (n,), uint8
        Index into :data:`STATUSES`.
    usable : ndarray (n,), bool
        ``status == 0``.
    groups : ndarray (n,), int64, or None
    """

    def __init__(self, path: Path, name: str, arrays: Mapping[str, StoredArray]) -> None:
        self.name = name
        self._path = path
        self._arrays = arrays

    def __len__(self) -> int:
        return self._arrays["features"].shape[0]

    def __repr__(self) -> str:
        return f"Split({self.name!r}, X {self._arrays['features'].shape} {self._arrays['features'].dtype})"

    @cached_property
    def X(self) -> np.ndarray:
        """Raw features (n, d), memory-mapped."""
        return map_array(self._path, self._arrays["features"])

    @cached_property
    def y(self) -> np.ndarray:
        """Labels, (n,) or (n, K)."""
        return read_array(self._path, self._arrays["labels"])

    @cached_property
    def ids(self) -> IdSequence:
        """Ids of the rows, in order."""
        arrays = self._arrays
        return IdSequence(map_array(self._path, arrays["ids_utf8"]), map_array(self._path, arrays["ids_ends"]))

    @cached_property
    def status(self) -> np.ndarray:
        """Status of each row, (n,) uint8."""
        return read_array(self._path, self._arrays["status"])

    @property
    def usable(self) -> np.ndarray:
        """Rows with status 0, (n,) bool."""
        return self.status == 0

    @cached_property
    def groups(self) -> np.ndarray | None:
        """Group of each row, (n,) int64, or None."""
        return read_array(self._path, self._arrays["groups"]) if "groups" in self._arrays else None

    def blocks(self, n_rows: int = 8192) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, features of up to ``n_rows`` rows) in order: views, not copies."""
        for start in range(0, len(self), n_rows):
            yield start, self.X[start : start + n_rows]


class FeatureStore:
    """A finished feature store; opening it reads its header only.

    Attributes
    ----------
    path : Path
    splits : dict of str to Split
        Usually "train", "val" and "test".
    standardizer : Standardizer
        Mean and 1/n standard deviation, float64, over the usable train rows.
    feature_min, feature_max : ndarray (d,), float64
        Over the usable train rows.
    class_names, group_names : list of str
    task : str
        "single-label", "multi-label" or "regression".
    dense_head : LinearHead or None
        The network's own last layer, where it has one on these features.
    config : dict
        ``config["backbone"]`` and ``config["data"]`` build the same network and data again.
    provenance : Provenance
    digest : str
        sha256 of the content.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.digest = header.digest
        self.provenance = Provenance.from_json(header.provenance)
        self._arrays = header.arrays
        meta = header.meta
        self.class_names: list[str] = list(meta["class_names"])
        self.group_names: list[str] = list(meta["group_names"])
        self.task: str = meta["task"]
        self.config: dict[str, Any] = dict(meta["config"])
        self.n_features: int = meta["n_features"]
        self._dense_class_names = meta["dense_class_names"]
        self.splits = {split["name"]: self._split(split["name"]) for split in meta["splits"]}
        for name in ("mean", "scale", "min", "max"):
            if header.arrays[f"statistics/{name}"].shape != (self.n_features,):
                raise ValueError(f"statistics/{name} has another shape")

    def _repr_html_(self) -> str:
        rows = [(name, len(split), int(split.usable.sum())) for name, split in self.splits.items()]
        names = ", ".join(map(str, self.class_names[:8])) + (" …" if len(self.class_names) > 8 else "")
        facts = {"features": self.n_features, "task": self.task, "classes": f"{len(self.class_names)} ({names})"}
        return html_table("FeatureStore", facts, ("split", "rows", "usable"), rows)

    def _split(self, name: str) -> Split:
        prefix = f"{name}/"
        arrays = {key.removeprefix(prefix): a for key, a in self._arrays.items() if key.startswith(prefix)}
        features = arrays["features"]
        if features.dtype not in ("<f4", "<f2") or features.shape[1:] != (self.n_features,):
            raise ValueError(f"split {name} has features {features.dtype} {features.shape}")
        for key in ("labels", "status", "ids_ends", *(("groups",) if "groups" in arrays else ())):
            if arrays[key].shape[:1] != features.shape[:1]:
                raise ValueError(f"split {name} has {features.shape[0]} rows and {arrays[key].shape[0]} {key}")
        return Split(self.path, name, arrays)

    def split(self, name: str) -> Split:
        """Return a split by name.

        Raises
        ------
        InputError
            The store has no such split; the message lists those it has.
        """
        if name not in self.splits:
            raise InputError(f"{self.path} has no split '{name}': it has {', '.join(self.splits)}")
        return self.splits[name]

    @cached_property
    def standardizer(self) -> Standardizer:
        """Coordinates of the fit, from the usable train rows."""
        return Standardizer(mean=self._statistic("mean"), scale=self._statistic("scale"))

    @property
    def feature_min(self) -> np.ndarray:
        """Smallest value of each feature over the usable train rows, (d,) float64."""
        return self._statistic("min")

    @property
    def feature_max(self) -> np.ndarray:
        """Largest value of each feature over the usable train rows, (d,) float64."""
        return self._statistic("max")

    def _statistic(self, name: str) -> np.ndarray:
        return read_array(self.path, self._arrays[f"statistics/{name}"])

    @cached_property
    def dense_head(self) -> LinearHead | None:
        """The network's own last layer on these features, or None."""
        if "dense_head/weight" not in self._arrays:
            return None
        weight = read_array(self.path, self._arrays["dense_head/weight"]).astype(np.float64)
        bias = read_array(self.path, self._arrays["dense_head/bias"]).astype(np.float64)
        family = "binomial" if self.task == "single-label" and len(weight) == 1 else _FAMILIES[self.task]
        names = self._dense_class_names or self.class_names
        return LinearHead(weight, bias, self.standardizer, family, names, self.task, {"rule": "dense"})

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"FeatureStore({os.fspath(self.path)!r}: {sizes}; {self.n_features} features)"


def load_features(path: str | os.PathLike[str], verify: bool = False) -> FeatureStore:
    """Open a feature store.

    Parameters
    ----------
    path : path
        Made by ``debugnet extract``.
    verify : bool
        Check every byte against its checksum first (about 1.5 GB/s); otherwise only the
        header and the structure are checked, and labels and statistics as they are read.

    Raises
    ------
    InputError
        Missing, still partial, truncated, foreign or damaged.
    """
    path = Path(path)
    header = read_header(path)
    if header.kind != "features":
        raise InputError(f"{path} is a {header.kind} file, and a features file is needed")
    if verify:
        verify_arrays(path, header)
    try:
        return FeatureStore(path, header)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): make it again with debugnet extract") from error
