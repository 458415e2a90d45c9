"""Which solver a problem gets when nobody names one."""

from __future__ import annotations

from debugnet.glm.problem import GLMProblem


def choose(problem: GLMProblem) -> tuple[str, str]:
    """Return (name in the registry, one line of why) for this problem."""
    from debugnet.glm.solvers.prox_newton import ProxNewton

    n, d, K = problem.n_samples, problem.n_features, problem.n_outputs
    size = f"{n} x {d} features, {K} output{'s' if K > 1 else ''}"
    refusal = ProxNewton.refusal(problem)
    if refusal is None:
        return "prox-newton", f"prox-newton is the fastest here for {problem.penalty.name} on a CPU ({size})"
    return "fista", f"fista solves every family, penalty and option on every device; prox-newton {refusal} ({size})"
