"""Which data to load, as a value that goes to JSON and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugnet.errors import InputError, UsageError
from debugnet.registry import DATASETS

#: A folder with this file describes its data itself (see ``described.py``).
DATA_FILE = "debugnet_data.json"
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TASKS = ("auto", "single-label", "multi-label", "regression")


@dataclass(frozen=True)
class DataSpec:
    """Everything :func:`debugnet.data.load_dataset` needs.

    Attributes
    ----------
    path : str
        A folder (of class folders, or with ``debugnet_data.json``), a zip file, an ``.npz`` file, a text
        table, ``torchvision:NAME``, ``demo:digits`` or ``demo:reviews``.
    val, test : str, optional
        Separate files or folders of the same kind for these splits.
    kind : str
        A name of ``registry.DATASETS``, or "auto" to tell it from the path.
    text_columns : tuple of str
        Text columns of a table; several are joined with a newline.  Empty: found by name.
    label_columns : tuple of str
        Label column of a table; several 0/1 columns make it multi-label.  Empty: found by name.
    id_column, group_column : str, optional
        Columns with row ids (default: file name and row number) and with group names.
    task : str
        "auto", "single-label", "multi-label" or "regression".
    class_names : tuple of str
        Names for integer labels 0, 1, ...; empty: taken from the data.
    val_fraction : float
        Share of train that becomes val, stratified, where the data has no val of its own; 0 for none.
    seed : int
        Seeds the split, the limit and the demo generators.
    limit : int, optional
        At most so many rows per split, drawn stratified.
    labeled : bool
        False accepts data without labels (they are -1), for prediction.
    root : str
        Where torchvision data sets lie.
    download : bool
        Whether torchvision may download into ``root``.
    """

    path: str
    val: str | None = None
    test: str | None = None
    kind: str = "auto"
    text_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    id_column: str | None = None
    group_column: str | None = None
    task: str = "auto"
    class_names: tuple[str, ...] = ()
    val_fraction: float = 0.1
    seed: int = 0
    limit: int | None = None
    labeled: bool = True
    root: str = "data"
    download: bool = False

    def __post_init__(self) -> None:
        for name in ("text_columns", "label_columns", "class_names"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("path", "val", "test", "root"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"validation fraction {self.val_fraction}: give a fraction from 0 up to, not with, 1")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}: give at least 1 row per split")
        if self.task not in TASKS:
            raise UsageError(f"task '{self.task}': one of {', '.join(TASKS)}")
        if self.kind != "auto" and self.kind not in DATASETS:
            raise UsageError(f"data kind '{self.kind}': one of auto, {', '.join(DATASETS)}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict that :meth:`from_json` reads."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSpec:
        """Rebuild a spec; unknown keys raise :class:`UsageError`."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown data option '{unknown[0]}': known: {', '.join(sorted(known))}")
        return cls(**values)

    def resolved_kind(self) -> str:
        """Return the kind of data, told from ``path`` when it is "auto".

        Raises
        ------
        InputError
            If there is nothing at ``path``, or nothing debugnet reads.
        """
        if self.kind != "auto":
            return self.kind
        scheme, _, name = self.path.partition(":")
        if scheme == "torchvision" and name:
            return "torchvision"
        if scheme == "demo" and name:
            return f"demo-{name.partition('?')[0]}"
        path = Path(self.path).expanduser()
        if path.is_dir():
            return "described" if (path / DATA_FILE).is_file() else "image-folder"
        if not path.exists():
            raise InputError(f"no data at '{self.path}': neither a file nor a folder (nor torchvision:NAME, demo:NAME)")
        suffix = path.suffix.lower()
        kinds = {".zip": "image-zip", ".npz": "npz"} | dict.fromkeys(TABLE_SUFFIXES, "table")
        if suffix not in kinds:
            raise InputError(f"data file '{self.path}': unknown type '{suffix}'; debugnet reads {', '.join(kinds)}")
        return kinds[suffix]
