"""A head and the samples it is judged on: one split, or one half of it so that the other stays unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.head_store import load_head
from debugnet.errors import InputError, UsageError
from debugnet.heads import LinearHead
from debugnet.stages.inputs import find_input

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import FeatureStore

_BLOCK = 8192


@dataclass(frozen=True)
class Part:
    """A split, or one seeded half of it.

    Written ``val``, ``test``, ``test/a`` or ``test/b``.  The halves are drawn by a hash of each
    sample's id, so they stay the same when samples are added.

    Attributes
    ----------
    split : str
    half : str
        "", "a" or "b".
    """

    split: str
    half: str = ""

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``test`` or ``test/a``.

        Raises
        ------
        UsageError
        """
        split, _, half = text.partition("/")
        if half not in ("", "a", "b") or not split:
            raise UsageError(f"'{text}' is no split: write val, test, or a half of one (test/a, test/b)")
        return cls(split, half)

    def __str__(self) -> str:
        return f"{self.split}/{self.half}" if self.half else self.split

    def overlaps(self, other: Part) -> bool:
        """Whether the two share samples."""
        return self.split == other.split and (not self.half or not other.half or self.half == other.half)

    def complement(self, splits: Sequence[str]) -> Part:
        """Samples to audit on when something was chosen on this part: the other half, else test, else val."""
        if self.half:
            return Part(self.split, "b" if self.half == "a" else "a")
        for name in ("test", "val"):
            if name in splits and name != self.split:
                return Part(name)
        raise UsageError(f"no split is left to audit on beside '{self}'; choose on a half of one (--split {self}/a)")

    def rows(self, ids: Sequence[str], usable: np.ndarray) -> np.ndarray:
        """Indices of this part's usable rows, ascending."""
        rows = np.flatnonzero(usable)
        if not self.half:
            return rows
        first = np.array(
            [hashlib.sha256(ids[i].encode("utf-8", "replace")).digest()[0] < 128 for i in rows.tolist()], dtype=np.bool_
        )
        return rows[first if self.half == "a" else ~first]


class Evaluation:
    """A head with the samples of one part of its feature store.

    Parameters
    ----------
    head : path
    part : str
        See :class:`Part`.
    features : path, optional
        The feature file, if it is not where the head was made from it.

    Attributes
    ----------
    head : LinearHead
    store : FeatureStore
    part : Part
    rows : ndarray (n,), int64
        Rows of the split.
    """

    def __init__(self, head: Path, part: str, features: Path | None = None) -> None:
        self.head_path = Path(head)
        self.features_path = find_input(self.head_path, "features", features)
        self.head: LinearHead = load_head(head)
        self.store: FeatureStore = load_features(self.features_path)
        self.part = Part.parse(part)
        self._split = self.store.split(self.part.split)
        self.rows = self.part.rows(self._split.ids, self._split.usable)
        if self.head.task == "regression":
            raise UsageError(f"{head} is a regression head; errors and classes need a classification head")
        if not len(self.rows):
            raise InputError(f"split '{part}' of {self.features_path} has no usable row; choose another (--split)")
        if self.head.weight.shape[1] != self._split.X.shape[1]:
            raise InputError(
                f"{head} has {self.head.weight.shape[1]} features and {self.features_path} has "
                f"{self._split.X.shape[1]}: they do not belong together"
            )

    @cached_property
    def X(self) -> np.ndarray:
        """Raw features (n, d): the memory map itself where every row is taken."""
        return self._split.X if len(self.rows) == len(self._split) else self._split.X[self.rows]

    @cached_property
    def y(self) -> np.ndarray:
        """Labels (n,) int64 or (n, K)."""
        return np.asarray(self._split.y[self.rows])

    @cached_property
    def ids(self) -> list[str]:
        """Sample ids."""
        return [self._split.ids[i] for i in self.rows]

    @property
    def groups(self) -> np.ndarray | None:
        """Group of each sample (n,), or None."""
        return None if self._split.groups is None else self._split.groups[self.rows]

    @cached_property
    def scores(self) -> np.ndarray:
        """Logits (n, K), float64, computed by blocks of rows."""
        return np.concatenate([self.head.logits(np.asarray(block)) for block in self.blocks()])

    @cached_property
    def predictions(self) -> np.ndarray:
        """Decisions: (n,) int64, or 0/1 (n, K)."""
        return self.head.decide(self.scores)

    def blocks(self) -> Iterator[np.ndarray]:
        """Raw features by blocks of rows."""
        for start in range(0, len(self.rows), _BLOCK):
            yield self.X[start : start + _BLOCK]


def output_label(head: LinearHead, output: int) -> str:
    """Name of an output row; for a one-row head row 0 is the second class and -1 the first."""
    names = list(head.class_names)
    if len(head.weight) == 1:
        return names[-1] if output == 0 else names[0]
    return f"not {names[output]}" if output < 0 else names[output]
