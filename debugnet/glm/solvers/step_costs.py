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
#: Seconds per sample and entry of a large Hessian.
LARGE_BUILD = 1.5e-11
#: Steps that a lambda is expected to take in the shift metric.
METRIC_STEPS = 80
#: Factor by which a step with a fresh Hessian reduces the gap.
FRESH = 1e-3
#: Seconds of interpreter time per block, or per step without one.
CALLS = 1e-4


def one_pass(n: int, m: int, n_outputs: int) -> float:
    """Scores and gradient on m columns."""
    return PRODUCT * n * m * n_outputs + SCORE * n * n_outputs


def metric_is_cheaper(n: int, m: int, n_outputs: int, s: int, steps: float = METRIC_STEPS) -> bool:
    """Steps in the shift metric, or 2.5 with the whole Hessian of s coefficients?

    A Hessian is built for every second lambda.

    Parameters
    ----------
    n, m : int
        Rows, columns of the working set.
    n_outputs, s : int
        Classes, coefficients in the working set.
    steps : float
        Steps in the metric.
    """
    touch = one_pass(n, m, n_outputs) + CALLS / 2
    whole = 2.5 * (touch + 60 * s * s * LARGE_SWEEP) + n * s * s * LARGE_BUILD / 2
    return steps * 2 * touch < whole


def rebuild_pays(n: int, m: int, n_outputs: int, per_block: np.ndarray, logs_to_go: float, rate: float) -> bool:
    """Whether the steps that a fresh Hessian saves cost more than building it.

    Parameters
    ----------
    n, m, n_outputs : int
        Rows, columns of the working set, outputs.
    per_block : ndarray (n_blocks,), int
        Coefficients in each block.
    logs_to_go : float
        log of the gap over the gap wanted.
    rate : float
        Factor by which a step reduces the gap, as observed.
    """
    rate = min(max(rate, 1e-6), 0.99)
    saved = max(logs_to_go / -np.log(rate), 1) - max(logs_to_go / -np.log(FRESH), 1)
    squares, blocks = float(np.square(per_block, dtype=np.float64).sum()), CALLS * len(per_block)
    step = one_pass(n, m, n_outputs) + 30 * squares * 3e-10 + blocks
    build = n * squares * 6e-12 + n * float(per_block.sum()) * 1e-9 + blocks
    return bool(saved * step > build)
