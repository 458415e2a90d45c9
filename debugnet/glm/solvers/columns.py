"""The few standardized columns a working set needs, one contiguous row per feature, while they are few.

Beyond :func:`column_budget` nothing is kept: products then run over X itself, and a Hessian reads X by chunks of rows.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import DTypeLike

from debugnet.glm.design import Design

#: Rows of a block in float32 products: short sums keep the noise near 1e-9 of the residual's size.
FLOAT32_ROWS = 1024
#: Columns gathered at once.
GATHER = 64
#: Share of the columns up to which a copy of them is cheaper than a product with all.
GATHER_SHARE = 0.3
#: Bytes read from X at once for a Hessian.
READ_BYTES = 2 << 20
#: What the gathered columns may take: so many bytes, or this share of X.
BUDGET_BYTES, BUDGET_SHARE = 256 << 20, 0.25

_ALL = np.empty(0, dtype=np.int64)


def column_budget(design: Design) -> int:
    """Bytes that gathered columns may take beside X."""
    n, d = design.shape
    return max(BUDGET_BYTES, int(BUDGET_SHARE * n * d * design.X.element_size()))


@njit(cache=True, nogil=True)
def _scale(columns, index, samples, first, factor, which, start, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``out[a, i] = columns[index[a], samples[i]] * factor[which[a], start + i]``; no samples: ``first + i``."""
    for a in range(out.shape[0]):
        x = columns[index[a]]
        f = factor[which[a]]
        if samples.shape[0] == 0:
            for i in range(out.shape[1]):
                out[a, i] = x[first + i] * f[start + i]
        else:
            for i in range(out.shape[1]):
                out[a, i] = x[samples[i]] * f[start + i]


class ColumnCache:
    """Standardized columns gathered on demand, transposed; row 0 is all ones (the bias).

    Attributes
    ----------
    features : ndarray (m,), int64
        Feature of each row; -1 for the bias.
    position : ndarray (d,), int64
        Row of each feature, -1 where it is not here.
    kept : bool
        False once the columns would take more than their budget: they are read from X from then on.
    """

    def __init__(self, design: Design, dtype: DTypeLike = np.float32) -> None:
        self.design = design
        self.dtype = np.dtype(dtype)
        self.torch_dtype = torch.float32 if self.dtype == np.float32 else torch.float64
        n, d = design.shape
        self.kept, self._most = True, max(1, column_budget(design) // (n * self.dtype.itemsize))
        self._rows, self._size = np.empty((0, n), dtype=self.dtype), 0
        self._reserve(1)
        self._rows[0], self._size = 1, 1
        self.features = np.array([-1])
        self.position = np.full(d, -1)
        self._chunk: tuple[np.ndarray, int, int, np.ndarray] | None = None  # samples, start, stop, their columns
        self._gradient: tuple[np.ndarray, np.ndarray] | None = None  # residual, gradient of all features

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> np.ndarray:
        """Columns (m, n) while they are :attr:`kept`: row i is feature ``features[i]``, standardized."""
        return self._rows[: self._size]

    def add(self, features: np.ndarray) -> None:
        """Gather the features that are not here yet."""
        new = features[self.position[features] < 0]
        if len(new) == 0:
            return
        if self._size + len(new) > self._most:
            self.kept, self._rows = False, np.empty((0, 0), dtype=self.dtype)
        if self.kept:
            self._gather(new)
        self.position[new] = np.arange(self._size, self._size + len(new))
        self.features = np.concatenate([self.features, new])
        self._size += len(new)

    def _gather(self, new: np.ndarray) -> None:
        self._reserve(self._size + len(new))
        for start in range(0, len(new), GATHER):
            part = new[start : start + GATHER]
            columns = self.design.columns(torch.from_numpy(part), self.torch_dtype).numpy()
            self._rows[self._size + start : self._size + start + len(part)] = columns.T

    def _reserve(self, size: int) -> None:
        """Make room.  Address space for all columns costs nothing until they are written, and growing copies none."""
        if size <= len(self._rows):
            return
        n, d = self.design.shape
        try:
            grown = np.empty((min(d + 1, self._most), n), dtype=self.dtype)
        except MemoryError:  # more than the system promises
            grown = np.empty((min(d + 1, self._most, max(size, len(self._rows) * 5 // 4 + 16)), n), dtype=self.dtype)
        grown[: self._size] = self._rows[: self._size]
        self._rows = grown

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """``residual @ rows'``: (K, n) -> (K, m), float64 sums across row blocks."""
        if not self.kept:
            whole = self.full_gradient(residual)[:, self.features]
            whole[:, 0] = residual.sum(axis=1, dtype=np.float64)
            return whole
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
        if not self.kept:
            whole = torch.zeros((len(weight), self.design.shape[1]), dtype=torch.float64)
            whole[:, torch.from_numpy(self.features[1:])] = torch.from_numpy(weight[:, 1:])
            out = self.design.scores(whole, torch.from_numpy(weight[:, 0]), self.torch_dtype)
            return np.ascontiguousarray(out.numpy().T)
        used = np.flatnonzero(weight.any(axis=0))
        rows, left = torch.from_numpy(self.rows), torch.from_numpy(weight.astype(self.dtype))
        if len(used) < GATHER_SHARE * self._size:
            index = torch.from_numpy(used)
            rows, left = rows[index], left[:, index]
        return (left @ rows).numpy()

    def full_gradient(self, residual: np.ndarray) -> np.ndarray:
        """``residual @ X_std``: (K, n) -> (K, d), one pass over the raw features."""
        if self._gradient is None or self._gradient[0] is not residual:
            rows = FLOAT32_ROWS if self.dtype == np.float32 else None
            full = self.design.gradient(torch.from_numpy(residual).T, self.torch_dtype, rows).numpy()
            self._gradient = residual, full
        return self._gradient[1]

    @property
    def most_samples(self) -> int:
        """Samples that :meth:`scaled` should be asked for at once."""
        n, d = self.design.shape
        return n if self.kept else max(256, READ_BYTES // (self.dtype.itemsize * d))

    def scaled(
        self, index: np.ndarray, samples: np.ndarray, factor: np.ndarray, which: np.ndarray, start: int, stop: int
    ) -> np.ndarray:
        """``columns[index[a], samples[i]] * factor[which[a], i]`` for start <= i < stop, for a Hessian's products.

        Parameters
        ----------
        index, which : ndarray (s,), int64
            Row of the cache and of ``factor`` for each row of the result.
        samples : ndarray (r,), int64
            Ascending.
        factor : ndarray (f, r)
        start, stop : int

        Returns
        -------
        ndarray (s, stop - start), in the dtype of the cache
        """
        out = np.empty((len(index), stop - start), dtype=self.dtype)
        if not self.kept:
            _scale(self._part(samples, start, stop), index, _ALL, 0, factor, which, start, out)
        elif len(samples) == self.design.shape[0]:
            _scale(self.rows, index, _ALL, start, factor, which, start, out)
        else:
            _scale(self.rows, index, samples[start:stop], 0, factor, which, start, out)
        return out

    def _part(self, samples: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Columns (m, stop - start) of a few samples, read from X; the last ones are asked for again."""
        last = self._chunk
        if last is None or last[0] is not samples or last[1:3] != (start, stop) or len(last[3]) != self._size:
            rows = self.design.take_rows(torch.from_numpy(samples[start:stop]), self.torch_dtype)
            columns = np.ones((self._size, stop - start), dtype=self.dtype)
            columns[1:] = rows.numpy().T[self.features[1:]]
            self._chunk = last = samples, start, stop, columns
        return last[3]
