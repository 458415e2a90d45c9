"""Explicit Hessians on a working set of coefficients, grown column by column and kept along the path.

A block remembers the probabilities it was built at, so that a coefficient which enters later gets the column it
would have had then: the matrix stays a Hessian, and positive semi-definite, at one point of the path.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.quadratic import StaleFactor

#: Bytes of one row chunk of the scaled columns.
CHUNK_BYTES = 4 << 20


@njit(cache=True, nogil=True)
def _scale_rows(rows, index, factor, factor_row, start, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``out[a, i] = rows[index[a], start + i] * factor[factor_row[a], start + i]``."""
    for a in range(out.shape[0]):
        x = rows[index[a]]
        f = factor[factor_row[a]]
        for i in range(out.shape[1]):
            out[a, i] = x[start + i] * f[start + i]


class CurvatureBlock:
    """Hessian of the mean loss in some coefficients (output k, cached column c).

    Parameters
    ----------
    cache : ColumnCache
    coupled : bool
        True: ``diag(p) - pp'`` between outputs (softmax).  False: one output, diagonal weights.

    Attributes
    ----------
    output, column : ndarray (s,), int64
        The coefficients, in the order of the matrix.
    """

    def __init__(self, cache: ColumnCache, coupled: bool) -> None:
        self.cache, self.coupled = cache, coupled
        self.output = np.empty(0, dtype=np.int64)
        self.column = np.empty(0, dtype=np.int64)
        self._matrix = np.empty((0, 0), dtype=cache.dtype)
        self.factor = StaleFactor()
        self._factor = np.empty((0, 0), dtype=cache.dtype)
        self._root: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.output)

    @property
    def matrix(self) -> np.ndarray:
        """Hessian (s, s), in the dtype of the cache."""
        s = len(self)
        return self._matrix[:s, :s]

    def rebuild(self, output: np.ndarray, column: np.ndarray, factor: np.ndarray, weight: np.ndarray | None) -> None:
        """Start over with these coefficients at present probabilities.

        Parameters
        ----------
        factor : ndarray (K, n) or (1, n)
            Coupled: probabilities.  Else: the square root of the row curvatures.
        weight : ndarray (n,) or None
            n * sample_weight, for the coupled case (else it is inside ``factor``).
        """
        self._factor = factor
        self._root = None
        self.factor.clear()
        if self.coupled and weight is not None:
            self._root = np.sqrt(weight)[None]
            self._factor = factor * self._root
        self.output, self.column = output, column
        self._reserve(len(output))
        self._matrix[: len(output), : len(output)] = self._products(output, column, None, None)

    def extend(self, output: np.ndarray, column: np.ndarray) -> None:
        """Append coefficients."""
        old, s = len(self), len(self) + len(output)
        self._reserve(s)
        cross = self._products(output, column, self.output, self.column)
        self._matrix[old:s, :old] = cross
        self._matrix[:old, old:s] = cross.T
        self._matrix[old:s, old:s] = self._products(output, column, None, None)
        self.output = np.concatenate([self.output, output])
        self.column = np.concatenate([self.column, column])

    def _reserve(self, size: int) -> None:
        if size <= len(self._matrix):
            return
        grown = np.empty((size + size // 4 + 8,) * 2, dtype=self._matrix.dtype)
        old = len(self._matrix)
        grown[:old, :old] = self._matrix
        self._matrix = grown

    def _products(
        self, ka: np.ndarray, ca: np.ndarray, kb: np.ndarray | None, cb: np.ndarray | None
    ) -> np.ndarray:
        """Block of the Hessian between coefficients a and b (b = a where None)."""
        rows = self.cache.rows
        n = rows.shape[1]
        out = np.zeros((len(ka), len(ka) if kb is None else len(kb)))
        chunk = max(256, min(n, CHUNK_BYTES // (rows.itemsize * max(out.shape[0], out.shape[1], 1))))
        same = self._same_output(ka, ka if kb is None else kb) if self.coupled else []
        Qa = np.empty((len(ka), chunk), dtype=rows.dtype)
        Qb = Qa if kb is None else np.empty((len(kb), chunk), dtype=rows.dtype)
        for start in range(0, n, chunk):
            stop = min(n, start + chunk)
            if stop - start < Qa.shape[1]:
                Qa = np.empty((len(ka), stop - start), dtype=rows.dtype)
                Qb = Qa if kb is None else np.empty((len(kb), stop - start), dtype=rows.dtype)
            _scale_rows(rows, ca, self._factor, ka if self.coupled else np.zeros_like(ka), start, Qa)
            if kb is not None:
                _scale_rows(rows, cb, self._factor, kb if self.coupled else np.zeros_like(kb), start, Qb)
            if not self.coupled:
                out += Qa @ Qb.T
                continue
            out -= Qa @ Qb.T
            for ia, ib in same:
                right = rows[(ca if cb is None else cb)[ib], start:stop]
                if self._root is not None:
                    right = right * self._root[:, start:stop]
                out[ia[:, None], ib] += Qa[ia] @ right.T
        return out / n

    @staticmethod
    def _same_output(ka: np.ndarray, kb: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(ka == k), np.flatnonzero(kb == k)) for k in np.intersect1d(ka, kb)]
