"""What every data set looks like from outside: rows with stable ids, labels and a status, read one at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from debugnet.data.spec import DataSpec


class Status(IntEnum):
    """Why a row cannot be used; the codes of the feature store."""

    GOOD = 0
    DECODE_ERROR = 1
    OVERSIZED = 2
    NON_FINITE = 3
    EMPTY_TEXT = 4
    LABEL_MISSING = 5
    DUPLICATE_ID = 6


class BadSample(Exception):
    """A row that cannot be used; the row keeps its place and gets ``status``.

    Attributes
    ----------
    status : Status
        The code that the feature store records.
    reason : str
        One line for people.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)  # both arguments, so that it survives the trip out of a worker process
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Source(Protocol):
    """Where samples come from: a folder, an archive, an array, a table.

    Implementations are picklable, open files only when a sample is read, and may be read from
    forked and spawned worker processes at once.
    """

    def read(self, row: int) -> Any:
        """Return sample ``row`` (PIL image, str or ndarray) or raise :class:`BadSample`."""

    def identity(self, rows: np.ndarray) -> bytes:
        """Bytes that change when the content of ``rows`` may have changed; cheap, reads no image."""

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """One digest per row, equal for equal contents; None where that would mean reading everything."""


class Dataset:
    """One split: a map-style data set (``len``, ``[i]``) that a torch ``DataLoader`` takes as it is.

    Parameters
    ----------
    source : Source
        Reads the samples.
    rows : ndarray (n,), int64
        Row of ``source`` behind each row of this data set.
    ids : sequence of str
        Stable ids, one per row.
    labels : ndarray
        (n,) int64 class indices, -1 where missing; (n, K) uint8 for multi-label; (n,) float64 for regression.
    status : ndarray (n,), uint8, optional
        What the manifest alone tells: LABEL_MISSING, DUPLICATE_ID; all GOOD when left out.
    groups : ndarray (n,), int64, optional
        Group index of each row (for worst-group accuracy), -1 where unknown.
    """

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        ids: Sequence[str],
        labels: np.ndarray,
        status: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        self.source = source
        self.rows = np.asarray(rows, dtype=np.int64)
        self.ids = list(ids)
        self.labels = labels
        self.status = np.zeros(len(self.rows), dtype=np.uint8) if status is None else status
        self.groups = groups

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        """Return sample ``i``: an RGB PIL image, a str or an ndarray.

        Raises
        ------
        BadSample
            If the row cannot be used; its ``status`` says why.
        """
        i = range(len(self))[i]  # bounds and negative indices
        if self.status[i] != Status.GOOD:
            status = Status(int(self.status[i]))
            raise BadSample(status, f"{self.ids[i]}: {status.name.lower().replace('_', ' ')}")
        try:
            return self.source.read(int(self.rows[i]))
        except BadSample as bad:
            raise BadSample(bad.status, f"{self.ids[i]}: {bad.reason}") from None

    def subset(self, indices: np.ndarray) -> Dataset:
        """Return the data set of these rows, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        return Dataset(
            self.source,
            self.rows[indices],
            [self.ids[i] for i in indices],
            self.labels[indices],
            self.status[indices],
            None if self.groups is None else self.groups[indices],
        )

    def flag_duplicate_ids(self) -> None:
        """Give every later row with an id seen before the status DUPLICATE_ID."""
        if len(set(self.ids)) == len(self.ids):
            return
        seen: set[str] = set()
        for i, name in enumerate(self.ids):
            if name in seen and self.status[i] == Status.GOOD:
                self.status[i] = Status.DUPLICATE_ID
            seen.add(name)


class DatasetSplits:
    """Named splits of one data set with what they have in common.

    Attributes
    ----------
    splits : dict of str to Dataset
        "train", "val", "test"; a split that the data does not have is absent.
    class_names : list of str
        Name of class k (or of output k); empty for regression and for unlabelled data.
    task : str
        "single-label", "multi-label" or "regression".
    modality : str
        "image", "text" or "tensor".
    group_names : list of str
        Name of group g; empty when the data has no groups.
    spec : DataSpec
        What loads the same data again.
    notes : list of str
        Facts worth a line on the terminal: rows without label, replaced bytes, ignored files.
    """

    def __init__(
        self,
        splits: Mapping[str, Dataset],
        class_names: Sequence[str],
        task: str,
        modality: str,
        spec: DataSpec,
        group_names: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.splits = dict(splits)
        self.class_names = list(class_names)
        self.task = task
        self.modality = modality
        self.spec = spec
        self.group_names = list(group_names)
        self.notes = list(notes)

    def fingerprint(self, split: str) -> str:
        """Sha256 (hex) of the split's manifest: ids, labels, groups, statuses, class names and content identity.

        Content identity is the text itself, the archive's CRC-32 per member, the array file's CRC-32,
        or the size of each file of a folder (a same-sized edit of an image in a folder goes unnoticed).
        """
        dataset = self.splits[split]
        digest = hashlib.sha256(b"debugnet manifest 1\n")
        names = [*self.class_names, "", *self.group_names, "", self.task, self.modality]
        parts = ["\n".join(dataset.ids).encode(), "\n".join(names).encode()]
        parts += [np.ascontiguousarray(dataset.labels).tobytes(), dataset.status.tobytes()]
        parts += [b"" if dataset.groups is None else dataset.groups.tobytes(), dataset.source.identity(dataset.rows)]
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def shared_contents(self) -> dict[tuple[str, str], int]:
        """Count the rows of one split whose content another split has too: (earlier, later) -> rows of later.

        Pairs without such rows, and sources where it would mean reading every file, are left out.
        """
        keys = {name: split.source.content_keys(split.rows) for name, split in self.splits.items()}
        names = [name for name, values in keys.items() if values]
        shared = {}
        for position, first in enumerate(names):
            known = set(keys[first] or ())
            for second in names[position + 1 :]:
                count = sum(key in known for key in keys[second] or ())
                if count:
                    shared[first, second] = count
        return shared

    def warnings(self) -> list[str]:
        """Lines a user should read before trusting the data: ``notes``, unusable rows, contents shared by splits."""
        lines = list(self.notes)
        for name, split in self.splits.items():
            for code, count in sorted(Counter(split.status[split.status != 0].tolist()).items()):
                lines.append(f"{name}: {count} of {len(split)} rows: {Status(code).name.lower().replace('_', ' ')}")
        for (first, second), count in self.shared_contents().items():
            lines.append(f"{count} of {len(self.splits[second])} {second} rows have the same content as a {first} row")
        return lines
