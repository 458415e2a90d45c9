"""What a step of proximal Newton costs: seconds on one core of 2023, from measured rates, so that choices repeat.

No clock is read: the same problem takes the same steps on every machine.
"""

from __future__ import annotations

import numpy as np

#: Seconds per multiply-add of the products with K rows, which memory bounds.
PRODUCT = 4e-11
#: Seconds per score: softmax and residual.
SCORE = 3e-9
#: Seconds per matrix entry of a coordinate descent sweep, for small and for large matrices.
SWEEP, LARGE_SWEEP = 2e-10, 4e-10
#: Seconds of interpreter time per block.
BLOCK = 1e-4


def one_pass(n: int, m: int, n_outputs: int) -> float:
    """Scores and gradient on m columns."""
    return PRODUCT * n * m * n_outputs + SCORE * n * n_outputs


def blocks_are_cheaper(n: int, m: int, per_class: np.ndarray) -> bool:
    """60 combined steps in the metric of per-class blocks, or 2.5 with the whole Hessian?

    Blocks take 20 steps with ten classes and 100 with four correlated ones, so they have to pay clearly.

    Parameters
    ----------
    n, m : int
        Rows, columns of the working set.
    per_class : ndarray (K,)
        Coefficients of each class in the working set.
    """
    K, s, squares = len(per_class), float(per_class.sum()), float(np.square(per_class, dtype=np.float64).sum())
    touch = one_pass(n, m, K)
    whole = 2.5 * (touch + 60 * s * s * LARGE_SWEEP) + n * s * s * 4e-12 / 3
    return 60 * (touch + 30 * squares * SWEEP + BLOCK * K) + n * squares * 1e-12 < whole


def rebuild_pays(
    n: int, m: int, n_outputs: int, per_block: np.ndarray, logs_to_go: float, rate: float, fresh: float
) -> bool:
    """Whether the steps that a fresh Hessian saves cost more than building it.

    Parameters
    ----------
    n, m, n_outputs : int
        Rows, columns of the working set, outputs.
    per_block : ndarray (n_blocks,), int
        Coefficients in each block.
    logs_to_go : float
        log of the gap over the gap wanted.
    rate, fresh : float
        Factor by which a step reduces the gap, as observed and as expected from a fresh Hessian.
    """
    rate = min(max(rate, 1e-6), 0.99)
    saved = max(logs_to_go / -np.log(rate), 1) - max(logs_to_go / -np.log(fresh), 1)
    squares, blocks = float(np.square(per_block, dtype=np.float64).sum()), BLOCK * len(per_block)
    step = one_pass(n, m, n_outputs) + 30 * squares * 3e-10 + blocks
    build = n * squares * 6e-12 + n * float(per_block.sum()) * 1e-9 + blocks
    return bool(saved * step > build)
