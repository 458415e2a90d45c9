"""The null model, the exact lambda_max, and the grid of lambdas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from debugnet.errors import UsageError
from debugnet.glm.design import Design
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.fista import minimize
from debugnet.glm.unpenalized import Unpenalized, fit_unpenalized


@dataclass(frozen=True)
class NullModel:
    """The model in which every penalized weight is zero.

    Attributes
    ----------
    weight : Tensor (K, d), float64
        Non-zero only on features that are never penalized.
    bias : Tensor (K,), float64
    objective : float
        Its mean loss: the unit of the relative duality gap.
    lambda_max : float
        The smallest lam at which this model is optimal.
    """

    weight: Tensor
    bias: Tensor
    objective: float
    lambda_max: float


def fit_null_model(problem: GLMProblem) -> NullModel:
    """Fit intercept and unpenalized features, and read lambda_max off the gradient.

    At W = 0 feature j stays out while ``|dL/dW_kj| <= lam l1_ratio f_j`` (elastic net), or the
    2-norm over the outputs does (group lasso); so lambda_max is the largest of
    ``strength_j / l1_ratio`` (procedures.md row 10, with the statistics of the standardized
    features and the sample weights).
    """
    point = _at_optimum(problem, *problem.zeros())
    free = torch.nonzero((problem.penalty.factor == 0) & problem.design.alive).ravel()
    if len(free) and not bool(point.weight.any()):  # Newton left them alone
        point = _by_fista(problem, free)
    gradient = problem.gradient(problem.residual(point.scores[0]), torch.float64)
    strength = torch.where(problem.design.alive, problem.penalty.strength(gradient), 0.0)
    lambda_max = float(strength.max()) / problem.penalty.l1_ratio
    return NullModel(point.weight[0], point.bias[0], problem.loss(point.scores[0]), lambda_max)


def _by_fista(problem: GLMProblem, free: Tensor) -> Unpenalized:
    """Fit sign-constrained or very many unpenalized features by FISTA on them alone."""
    weight, bias = problem.zeros()
    design = Design.standardized(problem.design.columns(free, torch.float64), problem.communicator)
    part = replace(problem, design=design, penalty=problem.penalty.select(free))
    weight[:, free], bias = minimize(part, 0.0, *part.zeros(), threshold=1e-10, max_epochs=5000)
    return _at_optimum(problem, weight, bias)


def _at_optimum(problem: GLMProblem, weight: Tensor, bias: Tensor) -> Unpenalized:
    return fit_unpenalized(problem, weight[None], bias[None])


def make_grid(
    lambda_max: float,
    *,
    n_lambdas: int = 100,
    lambda_min_ratio: float = 1e-3,
    lambdas: Sequence[float] | float | None = None,
    lambda_zero: bool = False,
) -> np.ndarray:
    """Strictly descending lambdas (L,), float64.

    ``n_lambdas`` log-spaced values from lambda_max to ``lambda_min_ratio * lambda_max``;
    ``n_lambdas=1`` is the single value ``lambda_min_ratio * lambda_max``.  ``lambdas`` (a number,
    or a descending sequence) overrides the grid; ``lambda_zero`` appends 0.

    Raises
    ------
    UsageError
        If the numbers make no grid.
    """
    if lambdas is not None:
        grid = np.atleast_1d(np.asarray(lambdas, dtype=np.float64))
        if grid.ndim != 1 or len(grid) == 0 or not np.isfinite(grid).all() or (grid < 0).any():
            raise UsageError(f"lambdas {_shown(grid)}: need finite numbers >= 0")
        if (np.diff(grid) >= 0).any():
            i = int(np.flatnonzero(np.diff(grid) >= 0)[0])
            raise UsageError(
                f"lambdas must descend strictly: lambdas[{i}] = {grid[i]:g} is followed by {grid[i + 1]:g}; "
                "sort them with sorted(set(lambdas), reverse=True)"
            )
    else:
        if n_lambdas < 1:
            raise UsageError(f"n_lambdas = {n_lambdas}: need at least 1")
        if not 0 < lambda_min_ratio < 1:
            raise UsageError(f"lambda_min_ratio = {lambda_min_ratio:g}: need a fraction between 0 and 1 (1e-3)")
        first = math.log10(lambda_max) if n_lambdas > 1 else math.log10(lambda_max * lambda_min_ratio)
        grid = np.logspace(first, math.log10(lambda_max * lambda_min_ratio), n_lambdas)
        if n_lambdas > 1:
            grid[0] = lambda_max
    return np.append(grid, 0.0) if lambda_zero and grid[-1] > 0 else grid


def _shown(grid: np.ndarray) -> str:
    text = np.array2string(grid.ravel()[:4], precision=4, separator=", ")
    return text if grid.size <= 4 else text[:-1] + ", ...]"
