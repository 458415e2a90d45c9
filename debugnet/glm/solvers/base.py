"""The contract between the path and a solver.

A solver is a class, registered in ``debugnet.registry.SOLVERS``.  It is made once per path and
asked for one lambda after another, in descending order, so it may keep what it likes between
calls (Hessians, gathered columns, momentum, a SAGA table, the last two solutions for
extrapolation).

What it gets
    ``problem``: a :class:`~debugnet.glm.problem.GLMProblem`, everything about the data.  Feature
    columns of dead and excluded features are exactly zero, so their gradient is exactly 0 and a
    weight that starts at 0 stays 0.
    ``weight (K, d)``, ``bias (K,)``: float64 warm start on the device (copy before writing): the
    last solution, or, when the same lambda is asked for again, the solution that was not good enough.
    ``monitor``: the stopping rule of this lambda.  ``monitor.tol`` is the relative duality gap
    (to ``monitor.null_objective``) wanted; ``monitor.done(weight, bias)`` runs the certificate
    (:mod:`debugnet.glm.optimality`; about one pass over X, so call it when you believe to be
    done, not every iteration) and says whether it is met; ``monitor.certificate`` is the last one,
    before the first ``done`` that of an earlier point of the path (its ``bias`` is the exact optimum
    for its ``weight``, its ``gradient`` (K, d) is free for screening).
    ``monitor.tick(state)`` once per iteration or so: ``state`` is a function returning a dict of
    tensors from which ``resume`` goes on; it is called at most every ``checkpoint_seconds``.

What it must return
    A :class:`Solution`: the last weight and bias, exact zeros off the support, and a status:
    "converged" (believed or certified), "max_iterations" (budget spent), "stalled" (no further
    progress in this arithmetic) or "diverged" (NaN or infinity).  The path certifies what is
    returned, whatever the status says.

A solver with ``trusts_itself = True`` need not call ``monitor.done``: the path then certifies
several lambdas in one pass over the data, and asks again for those that miss the tolerance
(same lambda, ``monitor.tol`` ten times smaller, at most :data:`MAX_RETRIES` times).  One with
``compiled = True`` runs numba code, which a command compiles before its progress line starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from debugnet.glm.optimality import Certificate
from debugnet.glm.problem import GLMProblem

#: How often the path asks a solver that trusts itself to do better at one lambda.
MAX_RETRIES = 2


@dataclass(frozen=True)
class Solution:
    """What a solver found at one lambda.

    Attributes
    ----------
    weight : Tensor (K, d), float64
    bias : Tensor (K,), float64
    status : str
        One of ``debugnet.regularization_path.STATUSES``.
    n_epochs : float
        Passes over the data this point took, certificates excluded (fractions count).
    """

    weight: Tensor
    bias: Tensor
    status: str
    n_epochs: float


class Monitor(Protocol):
    """One lambda's stopping rule, as a solver sees it."""

    tol: float
    null_objective: float
    max_epochs: float
    certificate: Certificate

    def done(self, weight: Tensor, bias: Tensor) -> bool:
        """Run the certificate and say whether the tolerance is met."""

    def tick(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Offer a checkpoint; raises whatever the caller's callback raises."""


class Solver(Protocol):
    """One algorithm; see the module's docstring."""

    name: ClassVar[str]
    trusts_itself: ClassVar[bool]

    def __init__(self, problem: GLMProblem) -> None: ...

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Why this solver cannot solve this problem ("needs an entrywise penalty"), or None."""

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Solve at one lambda (0 too) from a warm start, or from a ``tick`` state of the same lambda."""
