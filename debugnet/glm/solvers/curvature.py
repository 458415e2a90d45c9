"""Explicit Hessians on a working set of coefficients, grown column by column and kept along the path.

A block remembers the probabilities it was built at, so that a coefficient which enters later gets the column it
would have had then: the matrix stays a Hessian, and positive semi-definite, at one point of the path.
"""

from __future__ import annotations

import numpy as np
import torch

from debugnet.glm.solvers.columns import ColumnCache
from debugnet.glm.solvers.quadratic import StaleFactor

#: Bytes of one row chunk of the scaled columns.
CHUNK_BYTES = 4 << 20
#: Share of the total curvature that may be left out with the samples that carry least of it.
NEGLIGIBLE = 1e-3


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
        self._root = np.empty((1, 0), dtype=cache.dtype)
        self._samples = np.empty(0, dtype=np.int64)

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
        output, column : ndarray (s,), int64
            Output and feature of each coefficient.
        factor : ndarray (K, n) or (1, n)
            Coupled: probabilities.  Else: the square root of the row curvatures.
        weight : ndarray (n,) or None
            n * sample_weight, for the coupled case (else it is inside ``factor``).
        """
        self.factor.clear()
        curvature = 1 - np.square(factor).sum(axis=0) if self.coupled else np.square(factor[0])
        if self.coupled and weight is not None:
            curvature = curvature * weight
        self._samples = heaviest(curvature, NEGLIGIBLE)
        whole = len(self._samples) == factor.shape[1]
        self._factor = factor if whole else np.ascontiguousarray(factor[:, self._samples])
        self._root = np.ones((1, len(self._samples)), dtype=factor.dtype)
        if self.coupled and weight is not None:
            self._root = np.sqrt(weight[self._samples])[None]
            self._factor = self._factor * self._root
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

    def _products(self, ka: np.ndarray, ca: np.ndarray, kb: np.ndarray | None, cb: np.ndarray | None) -> np.ndarray:
        """Block of the Hessian between coefficients a and b (b = a where None)."""
        n = len(self._samples)
        sizes = len(ka), len(ka if kb is None else kb)
        out = np.zeros(sizes)
        # Of a large matrix more rows at once: each chunk reads and writes all of it.
        chunk = max(256, CHUNK_BYTES // (self.cache.dtype.itemsize * max(*sizes, 1)), min(sizes) // 2)
        chunk = min(chunk, self.cache.most_samples)
        same = self._same_output(ka, ka if kb is None else kb) if self.coupled else []
        ones = np.zeros(max(sizes), dtype=np.int64)
        for start in range(0, n, chunk):
            stop = min(n, start + chunk)

            def scaled(
                index: np.ndarray, factor: np.ndarray, which: np.ndarray, start: int = start, stop: int = stop
            ) -> np.ndarray:
                return self.cache.scaled(index, self._samples, factor, which, start, stop)

            Qa = scaled(ca, self._factor, ka if self.coupled else ones)
            Qb = Qa if kb is None or cb is None else scaled(cb, self._factor, kb if self.coupled else ones)
            if not self.coupled:
                out += _product(Qa, Qb)
                continue
            out -= _product(Qa, Qb)
            for ia, ib in same:
                out[ia[:, None], ib] += Qa[ia] @ scaled((ca if cb is None else cb)[ib], self._root, ones).T
        return out / self.cache.design.shape[0]

    @staticmethod
    def _same_output(ka: np.ndarray, kb: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(ka == k), np.flatnonzero(kb == k)) for k in np.intersect1d(ka, kb)]


def _product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``A @ B.T``: numpy sees the symmetry where B is A, and torch is faster where it is not."""
    return A @ A.T if A is B else (torch.from_numpy(A) @ torch.from_numpy(B).T).numpy()


def heaviest(curvature: np.ndarray, negligible: float) -> np.ndarray:
    """Samples that carry all but this share of the curvature (n,), ascending; all where that saves little."""
    order = np.argsort(curvature)
    lightest = np.cumsum(curvature[order], dtype=np.float64)
    dropped = int(np.searchsorted(lightest, negligible * lightest[-1]))
    if dropped < 0.3 * len(curvature):
        return np.arange(len(curvature))
    return np.sort(order[dropped:])
