"""Hessians of the mean loss per output, all on the same columns: one array (K, s, s), grown and kept along the path.

It is the exact Hessian where outputs do not interact and the block diagonal of the softmax Hessian otherwise: the
metric of the proximal steps and the preconditioner of the Newton steps.  Either bears some error, so that samples
which carry little of an output's curvature are left out, output by output: with many classes that is most of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.curvature import heaviest

#: Share of an output's curvature that may be left out with the samples that carry least of it.
NEGLIGIBLE = 3e-3
#: Bytes of one chunk of scaled columns.
CHUNK_BYTES = 8 << 20


class GroupCurvature:
    """See the module's docstring.

    Attributes
    ----------
    column : ndarray (s,), int64
        Rows of the cache (0 is the bias) in the order of the matrices.
    buffer : ndarray (K, capacity, capacity)
        The matrices in the upper left corners.
    """

    def __init__(self, cache: ColumnCache, n_outputs: int) -> None:
        self.cache, self.n_outputs = cache, n_outputs
        self.column = np.empty(0, dtype=np.int64)
        self.buffer = np.empty((n_outputs, 0, 0), dtype=cache.dtype)
        self._samples: list[np.ndarray] = []
        self._root: list[np.ndarray] = []

    @property
    def matrix(self) -> np.ndarray:
        """Hessians (K, s, s), in the dtype of the cache."""
        s = len(self.column)
        return self.buffer[:, :s, :s]

    def rebuild(self, column: np.ndarray, curvature: Iterable[np.ndarray]) -> None:
        """Start over with these columns at present curvatures: K of (n,), or one where all outputs share it."""
        self._samples, self._root = [], []
        for row in curvature:
            samples = heaviest(row, NEGLIGIBLE)
            self._samples.append(samples)
            # What is left out is given back in proportion: the trace stays right.
            kept = row[samples]
            self._root.append(np.sqrt(kept * (row.sum(dtype=np.float64) / max(kept.sum(dtype=np.float64), 1e-300))))
        self.column = column
        self._reserve(len(column))
        self._fill(slice(0, len(column)), column, None)

    def extend(self, column: np.ndarray) -> None:
        """Append columns, with the curvatures of the last rebuild."""
        old, s = len(self.column), len(self.column) + len(column)
        self._reserve(s)
        self._fill(slice(old, s), column, self.column)
        self.column = np.concatenate([self.column, column])

    def _reserve(self, size: int) -> None:
        K, capacity, _ = self.buffer.shape
        if size <= capacity:
            return
        grown = np.empty((K, *(size + size // 8 + 4,) * 2), dtype=self.buffer.dtype)
        grown[:, :capacity, :capacity] = self.buffer
        self.buffer = grown

    def _fill(self, new: slice, column: np.ndarray, old: np.ndarray | None) -> None:
        n = self.cache.design.shape[0]
        both = column if old is None else np.concatenate([column, old])
        size = min(self.cache.most_samples, max(256, CHUNK_BYTES // (self.cache.dtype.itemsize * len(both))))
        for k, (samples, root) in enumerate(zip(self._samples, self._root, strict=True)):
            products = np.zeros((len(column), len(both)))
            for start in range(0, len(samples), size):
                stop = min(start + size, len(samples))
                Q = self.cache.scaled(both, samples, root[None], np.zeros_like(both), start, stop)
                products += Q[: len(column)] @ Q.T
            products /= n
            self.buffer[k, new, new] = products[:, : len(column)]
            if old is not None:
                self.buffer[k, new, : len(old)] = products[:, len(column) :]
                self.buffer[k, : len(old), new] = products[:, len(column) :].T
        if len(self._samples) == 1 < self.n_outputs:
            self.buffer[1:, : new.stop, : new.stop] = self.buffer[:1, : new.stop, : new.stop]
