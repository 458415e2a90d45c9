"""Exact per-column statistics of a matrix that is larger than memory."""

from __future__ import annotations

import numpy as np

from debugnet.errors import InputError


def column_statistics(X: np.ndarray, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, 1/n standard deviation, minimum and maximum of each column, in one pass in float64.

    Blocks are merged by the update of Chan, Golub and LeVeque (1979), so a large mean costs
    no digits of a small deviation.

    Parameters
    ----------
    X : ndarray (n, d), float
    usable : ndarray (n,), bool
        Rows that count.

    Returns
    -------
    dict
        "mean", "scale" (exactly 0 for a constant column), "min", "max": (d,) float64.

    Raises
    ------
    InputError
        No row counts.
    """
    d = X.shape[1]
    n, mean, m2 = 0, np.zeros(d), np.zeros(d)
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    n_rows = max(1, (1 << 21) // max(d, 1))
    for start in range(0, len(X), n_rows):
        rows = usable[start : start + n_rows]
        X_block = X[start : start + n_rows][rows]
        block = X_block.astype(np.float64)
        if not len(block):
            continue
        block_mean = block.mean(axis=0)
        block -= block_mean
        rest = block.mean(axis=0)  # what rounding left in the sum of many rows
        block_mean += rest
        low, high = np.minimum(low, X_block.min(axis=0)), np.maximum(high, X_block.max(axis=0))
        delta = block_mean - mean
        total = n + len(block)
        m2 += np.einsum("ij,ij->j", block, block) - len(block) * rest**2 + delta**2 * (n * len(block) / total)
        mean += delta * (len(block) / total)
        n = total
    if not n:
        raise InputError("no train row is usable: look at the status counts of the rows")
    constant = low == high
    scale = np.where(constant, 0.0, np.sqrt(m2 / n))
    return {"mean": np.where(constant, low, mean), "scale": scale, "min": low, "max": high}
