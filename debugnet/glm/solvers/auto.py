"""Which solver a problem gets when nobody names one."""

from __future__ import annotations

from debugnet.glm.problem import GLMProblem


def choose(problem: GLMProblem) -> tuple[str, str]:
    """Return (name in the registry, one line of why) for this problem."""
    from debugnet.glm.solvers.group_newton import GroupNewton
    from debugnet.glm.solvers.prox_newton import ProxNewton

    n, d, K = problem.n_samples, problem.n_features, problem.n_outputs
    size = f"{n} x {d} features, {K} output{'s' if K > 1 else ''}"
    solver = ProxNewton if problem.penalty.entrywise else GroupNewton
    refusal = solver.refusal(problem)
    if refusal is None:
        return solver.name, f"{solver.name} is the fastest here for {problem.penalty.name} on a CPU ({size})"
    return "fista", f"fista solves every family, penalty and option on every device; {solver.name} {refusal} ({size})"
