"""Which solver a problem gets when nobody names one.

- ``gram`` for gaussian with a penalty per coefficient: it touches the data once, and all targets share the matrix
  (5,000 x 512, 5 targets, 100 lambdas: half of prox-newton's time).  The matrix has to fit into a quarter of the
  memory of X, or into 64 MB.
- ``prox-newton`` for every other penalty per coefficient, on the CPU in one process.  Inside a path the whole Hessian
  of a softmax gives way to a metric without a matrix (:mod:`.shift_metric`) where the support gets dense: by the cost
  model in :mod:`.step_costs`, at 650 to 6,000 coefficients on the problems measured.  Where memory has no room for the
  columns that it may keep (:func:`.columns.column_budget`), ``fista``.
- ``group-newton`` for group_lasso on the CPU in one process; its blocks, at most d x d per output, count as memory.
- ``fista`` on a GPU, in several processes, for X larger than the memory that is free, and for what the others refuse.
"""

from __future__ import annotations

import math
from pathlib import Path

from debugnet.glm.problem import GLMProblem

#: What prox-newton and group-newton may take, as a share of the memory that is free.
MEMORY_SHARE = 0.8
#: The Gram matrix may take so many bytes, or this share of X.
GRAM_BYTES, GRAM_SHARE = 64 << 20, 0.25


def choose(problem: GLMProblem) -> tuple[str, str]:
    """Return (name in the registry, one line of why) for this problem."""
    from debugnet.glm.solvers.columns import column_budget
    from debugnet.glm.solvers.gram import Gram
    from debugnet.glm.solvers.group_newton import GroupNewton
    from debugnet.glm.solvers.prox_newton import ProxNewton

    n, d, K = problem.n_samples, problem.n_features, problem.n_outputs
    size = f"{n} x {d} features, {K} output{'s' if K > 1 else ''}"
    X = problem.design.X
    if Gram.refusal(problem) is None and 8 * d * d <= max(GRAM_BYTES, GRAM_SHARE * X.numel() * X.element_size()):
        return Gram.name, f"gram touches the data once for all lambdas and targets ({size})"
    solver = ProxNewton if problem.penalty.entrywise else GroupNewton
    refusal = solver.refusal(problem)
    blocks = 0 if problem.penalty.entrywise else 4 * K * d * d
    free, needed = available_memory(), column_budget(problem.design) + blocks
    if refusal is None and needed > MEMORY_SHARE * free:
        refusal = f"might need {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} GiB are free"
    if refusal is None:
        return solver.name, f"{solver.name} is the fastest here for {problem.penalty.name} on a CPU ({size})"
    return "fista", f"fista solves every family, penalty and option on every device; {solver.name} {refusal} ({size})"


def available_memory() -> float:
    """Bytes that this machine can still give; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return math.inf
