"""spred on the decision layer: a dense-to-sparse path of factored layers, each polished to a certified solution.

The factored layer is trained at growing lambda (Ziyin & Wang 2023: zero factors are stationary, so
sparse-to-dense would never leave zero).  Gradient training ends near the optimum and has no exact
zeros; FISTA started there has, and the path's certificate says how good the result is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.errors import UsageError
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.fista import Fista
from debugnet.sparse_training.spred import Spred

#: Factor products below this are what a user would prune; counted, never set to zero.
PRUNING_THRESHOLD = 1e-3


@dataclass(frozen=True)
class FactoredLayer:
    """What spred itself found at one lambda.

    Attributes
    ----------
    lam : float
    weight : Tensor (K, d), float64
        The product; without exact zeros.
    bias : Tensor (K,), float64
    first, second : Tensor
        The factors.
    objective : float
        Mean loss plus penalty of the product.
    steps : int
    """

    lam: float
    weight: Tensor
    bias: Tensor
    first: Tensor
    second: Tensor
    objective: float
    steps: int

    @property
    def above_threshold(self) -> int:
        """Weights of at least :data:`PRUNING_THRESHOLD` in absolute value."""
        return int((self.weight.abs() >= PRUNING_THRESHOLD).sum())


def train_factored(
    problem: GLMProblem,
    lambdas: np.ndarray,
    *,
    steps: int = 300,
    lr: float = 0.02,
    start: FactoredLayer | None = None,
) -> Iterator[FactoredLayer]:
    """Yield the factored layer at every lambda, in ascending order.

    Full-gradient Adam with coupled decay and a cosine schedule per lambda, warm-started.  Weight
    decay ``lam l1_ratio`` on both factors is the l1 (or group) part; the ridge is added to the loss.

    Parameters
    ----------
    problem : GLMProblem
    lambdas : ndarray (L,)
        Positive.
    steps : int
        Gradient steps per lambda (three times as many at the first).
    lr : float
        Largest step, in standardized coordinates.
    start : FactoredLayer, optional
        A layer of this path: only larger lambdas are trained.

    Raises
    ------
    UsageError
        Penalty factors, sign constraints or lambda 0, which the factorization cannot express.
    """
    penalty = problem.penalty
    if penalty.nonnegative or not bool((penalty.factor == 1).all()):
        raise UsageError("--method spred has neither penalty factors nor sign constraints: use --method elastic-net")
    if not (np.asarray(lambdas) > 0).all():
        raise UsageError("--method spred needs lambdas > 0: without decay a product of factors is no penalty")
    linear = nn.Linear(problem.n_features, problem.n_outputs).to(problem.device, torch.float64)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    spred = Spred(linear, ["*"], structure="element" if penalty.entrywise else "column")
    if start is not None:
        with torch.no_grad():
            for factor, value in zip(spred.weights[0].factors, (start.first, start.second), strict=True):
                factor.copy_(value)
            linear.bias.copy_(start.bias)
    rising = np.sort(lambdas) if start is None else np.sort(lambdas[lambdas > start.lam * (1 + 1e-9)])
    for lam in map(float, rising):
        count = steps if start is not None or lam > rising[0] else 3 * steps
        decay = lam * penalty.l1_ratio * getattr(penalty, "group_weight", 1.0)
        optimizer = torch.optim.Adam(spred.parameter_groups(decay), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
        for _ in range(count):
            _set_gradients(problem, linear, lam * (1 - penalty.l1_ratio))
            optimizer.step()
            schedule.step()
        first, second = (factor.detach().clone() for factor in spred.weights[0].factors)
        weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        yield FactoredLayer(lam, weight, bias, first, second, problem.objective(weight, bias, lam), count)


def _set_gradients(problem: GLMProblem, linear: nn.Linear, ridge: float) -> None:
    """Gradient of ``mean loss + ridge/2 ||V||^2`` in the factors, through the product V."""
    weight = linear.weight
    residual = problem.residual(problem.scores(weight.detach(), linear.bias.detach()).to(torch.float64))
    for parameter in linear.parameters():
        parameter.grad = None
    weight.backward(problem.gradient(residual) + ridge * weight.detach())
    linear.bias.grad = problem.bias_gradient(residual) * problem.fit_intercept


def polishing_solver(layers: Mapping[float, FactoredLayer]) -> Callable[[GLMProblem], PolishedSpred]:
    """Make the solver (see :mod:`debugnet.glm.solvers.base`) that starts at each lambda from spred's own layer."""
    return lambda problem: PolishedSpred(problem, layers)


class PolishedSpred:
    """FISTA from the factored layer's product: exact zeros, and the certificate decides when it is done."""

    name: ClassVar[str] = "spred"
    trusts_itself: ClassVar[bool] = False

    def __init__(self, problem: GLMProblem, layers: Mapping[float, FactoredLayer]) -> None:
        self.fista, self.layers = Fista(problem), layers

    @classmethod
    def refusal(cls, problem: GLMProblem) -> str | None:
        """Nothing that :func:`train_factored` has not refused already."""
        return None

    def solve(
        self, lam: float, weight: Tensor, bias: Tensor, monitor: Monitor, resume: Mapping[str, Tensor] | None = None
    ) -> Solution:
        """Polish spred's layer at ``lam``; the warm start given counts only where spred has none."""
        layer = self.layers.get(lam)
        if layer is not None:
            weight, bias = layer.weight.to(weight), layer.bias.to(bias)
        found = self.fista.solve(lam, weight, bias, monitor, resume)
        steps = 0 if layer is None else layer.steps
        return Solution(found.weight, found.bias, found.status, found.n_epochs + steps)
