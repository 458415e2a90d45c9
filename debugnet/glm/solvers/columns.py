"""The few standardized columns a working set needs, one contiguous row per feature."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import DTypeLike

from debugnet.glm.design import Design

#: Rows of a block in float32 products: short sums keep the noise near 1e-9 of the residual's size.
FLOAT32_ROWS = 1024
#: Columns gathered at once.
GATHER = 64
#: Share of the columns up to which a copy of them is cheaper than a product with all.
GATHER_SHARE = 0.3


class ColumnCache:
    """Standardized columns gathered on demand, transposed; row 0 is all ones (the bias).

    Attributes
    ----------
    features : ndarray (m,), int64
        Feature of each row; -1 for the bias.
    position : ndarray (d,), int64
        Row of each feature, -1 where it is not here.
    """

    def __init__(self, design: Design, dtype: DTypeLike = np.float32) -> None:
        self.design = design
        self.dtype = np.dtype(dtype)
        self.torch_dtype = torch.float32 if self.dtype == np.float32 else torch.float64
        n, d = design.shape
        self._rows, self._size = np.empty((0, n), dtype=self.dtype), 0
        self._reserve(1)
        self._rows[0], self._size = 1, 1
        self.features = np.array([-1])
        self.position = np.full(d, -1)

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> np.ndarray:
        """Columns (m, n): row i is feature ``features[i]``, standardized."""
        return self._rows[: self._size]

    def add(self, features: np.ndarray) -> None:
        """Gather the features that are not here yet."""
        new = features[self.position[features] < 0]
        if len(new) == 0:
            return
        self._reserve(self._size + len(new))
        for start in range(0, len(new), GATHER):
            part = new[start : start + GATHER]
            columns = self.design.columns(torch.from_numpy(part), self.torch_dtype).numpy()
            self._rows[self._size + start : self._size + start + len(part)] = columns.T
        self.position[new] = np.arange(self._size, self._size + len(new))
        self.features = np.concatenate([self.features, new])
        self._size += len(new)

    def _reserve(self, size: int) -> None:
        """Make room.  Address space for all columns costs nothing until they are written, and growing copies none."""
        if size <= len(self._rows):
            return
        n, d = self.design.shape
        try:
            grown = np.empty((d + 1, n), dtype=self.dtype)
        except MemoryError:  # more than the system promises
            grown = np.empty((min(d + 1, max(size, len(self._rows) * 5 // 4 + 16)), n), dtype=self.dtype)
        grown[: self._size] = self._rows[: self._size]
        self._rows = grown

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """``residual @ rows'``: (K, n) -> (K, m), float64 sums across row blocks."""
        # torch's products of this shape are two to three times as fast as numpy's.
        rows, right = torch.from_numpy(self.rows), torch.from_numpy(residual).T
        n = residual.shape[1]
        if self.dtype == np.float64 or n <= FLOAT32_ROWS:
            return (rows @ right).to(torch.float64).numpy().T
        out = torch.zeros((self._size, len(residual)), dtype=torch.float64)
        for start in range(0, n, FLOAT32_ROWS):
            part = slice(start, start + FLOAT32_ROWS)
            out += rows[:, part] @ right[part]
        return out.numpy().T

    def scores(self, weight: np.ndarray) -> np.ndarray:
        """``weight @ rows``: (K, m) -> (K, n), in the cache's dtype; columns without a weight are not read."""
        used = np.flatnonzero(weight.any(axis=0))
        rows, left = torch.from_numpy(self.rows), torch.from_numpy(weight.astype(self.dtype))
        if len(used) < GATHER_SHARE * self._size:
            index = torch.from_numpy(used)
            rows, left = rows[index], left[:, index]
        return (left @ rows).numpy()

    def full_gradient(self, residual: np.ndarray) -> np.ndarray:
        """``residual @ X_std``: (K, n) -> (K, d), one pass over the raw features."""
        rows = FLOAT32_ROWS if self.dtype == np.float32 else None
        return self.design.gradient(torch.from_numpy(residual).T, self.torch_dtype, rows).numpy()
