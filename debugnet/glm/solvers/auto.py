"""Which solver a problem gets when nobody names one."""

from __future__ import annotations

from debugnet.glm.problem import GLMProblem


def choose(problem: GLMProblem) -> tuple[str, str]:
    """Return (name in the registry, one line of why) for this problem."""
    return "fista", "fista solves every family, penalty and option"
