"""spred on the decision layer: a dense-to-sparse path of factored layers, each polished to a certified solution.

The factored objective is smooth, so L-BFGS minimizes it where plain gradient steps crawl: weights
near zero move at a rate that falls with their size (Ziyin & Wang 2023).  A weight that a smaller
lambda has brought to zero would never leave it again, zero factors being stationary; so at every
lambda the factors are split anew, unevenly, around the same product.  The result has no exact
zeros; FISTA started there has, and the path's certificate says how good it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from debugnet import interrupts
from debugnet.errors import UsageError
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.base import Monitor, Solution
from debugnet.glm.solvers.fista import Fista

#: Factor products below this are what a user would prune; counted, never set to zero.
PRUNING_THRESHOLD = 1e-3
#: ``U^2 - W^2`` at the start of every lambda: above zero, so that a weight at zero can move either way.
IMBALANCE = 0.1
#: L-BFGS ends where a step lowers the objective by less than this, relatively.
RELATIVE_DECREASE = 1e-9


@dataclass(frozen=True)
class FactoredLayer:
    """What spred itself found at one lambda.

    Attributes
    ----------
    lam : float
    weight : Tensor (K, d), float64
        The product; without exact zeros.
    bias : Tensor (K,), float64
    objective : float
        Mean loss plus penalty of the product.
    steps : int
        Gradients evaluated.
    """

    lam: float
    weight: Tensor
    bias: Tensor
    objective: float
    steps: int

    @property
    def above_threshold(self) -> int:
        """Weights of at least :data:`PRUNING_THRESHOLD` in absolute value."""
        return int((self.weight.abs() >= PRUNING_THRESHOLD).sum())


def train_factored(
    problem: GLMProblem, lambdas: np.ndarray, *, steps: int = 300, start: FactoredLayer | None = None
) -> Iterator[FactoredLayer]:
    """Yield the factored layer at every lambda, in ascending order, warm-started.

    Minimizes ``loss(U W) + lam rho/2 (||U||^2 + ||W||^2) + lam (1 - rho)/2 ||U W||^2`` (each feature's
    penalty factor on its decay), by L-BFGS.  Its minima are those of the elastic net, or of the
    group lasso with one scalar in U per feature.

    Parameters
    ----------
    problem : GLMProblem
    lambdas : ndarray (L,)
        Positive.
    steps : int
        L-BFGS steps per lambda, at most.
    start : FactoredLayer, optional
        A layer of this path: only larger lambdas are trained.

    Raises
    ------
    UsageError
        Sign constraints or lambda 0, which the factorization cannot express.
    """
    if problem.penalty.nonnegative:
        raise UsageError("--method spred has no sign constraints: use --method elastic-net")
    if not (np.asarray(lambdas) > 0).all():
        raise UsageError("--method spred needs lambdas > 0: without decay a product of factors is no penalty")
    weight, bias = problem.zeros() if start is None else (start.weight, start.bias)
    rising = np.sort(lambdas) if start is None else np.sort(lambdas[lambdas > start.lam * (1 + 1e-9)])
    for lam in map(float, rising):
        factored = _Factored(problem, lam)
        found = minimize(
            factored, factored.pack(weight, bias), jac=True, method="L-BFGS-B",
            options={"maxiter": steps, "maxfun": 2 * steps, "ftol": RELATIVE_DECREASE, "gtol": 1e-12},
        )  # fmt: skip
        first, second, bias = factored.unpack(found.x)
        weight = first * second
        yield FactoredLayer(lam, weight, bias, problem.objective(weight, bias, lam), int(found.nfev))


class _Factored:
    """The factored objective and its gradient at one lambda, on flat vectors (first, second, bias)."""

    def __init__(self, problem: GLMProblem, lam: float) -> None:
        self.problem, penalty = problem, problem.penalty
        self.decay = lam * penalty.l1_ratio * getattr(penalty, "group_weight", 1.0) * penalty.factor
        self.ridge = lam * (1 - penalty.l1_ratio) * penalty.factor
        self.rows = problem.n_outputs if penalty.entrywise else 1

    def pack(self, weight: Tensor, bias: Tensor) -> np.ndarray:
        """Split a weight (K, d) into factors with ``first^2 - second^2 = IMBALANCE``."""
        size = weight.square() if self.rows > 1 else weight.square().sum(dim=0, keepdim=True)
        first = ((IMBALANCE + (IMBALANCE**2 + 4 * size).sqrt()) / 2).sqrt()
        return torch.cat([first.ravel(), (weight / first).ravel(), bias]).cpu().numpy()

    def unpack(self, flat: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The factors (K or 1, d) and (K, d), and the bias (K,)."""
        K, d = self.problem.n_outputs, self.problem.n_features
        parts = torch.from_numpy(flat).to(self.problem.device).split([self.rows * d, K * d, K])
        return parts[0].reshape(self.rows, d), parts[1].reshape(K, d), parts[2].clone()

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        interrupts.check()
        first, second, bias = self.unpack(flat)
        weight, problem = first * second, self.problem
        scores = problem.scores(weight, bias).to(torch.float64)
        squares = (self.decay * (first.square().sum(dim=0) + second.square().sum(dim=0))).sum()
        value = problem.loss(scores) + 0.5 * float(squares + (self.ridge * weight.square()).sum())
        residual = problem.residual(scores)
        slope = problem.gradient(residual) + self.ridge * weight
        by_first = (slope * second).sum_to_size(first.shape) + self.decay * first
        by_second = slope * first + self.decay * second
        by_bias = problem.bias_gradient(residual) * problem.fit_intercept
        return value, torch.cat([by_first.ravel(), by_second.ravel(), by_bias]).cpu().numpy()


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
            weight, bias = self._sparsified(layer.weight.to(weight), layer.bias.to(bias), lam), layer.bias.to(bias)
        found = self.fista.solve(lam, weight, bias, monitor, resume)
        steps = 0 if layer is None else layer.steps
        return Solution(found.weight, found.bias, found.status, found.n_epochs + steps)

    def _sparsified(self, weight: Tensor, bias: Tensor, lam: float) -> Tensor:
        """One proximal step: most zeros appear in it, and FISTA can work on the features that are left."""
        problem, step = self.fista.problem, 1 / self.fista.lipschitz
        gradient = problem.gradient(problem.residual(problem.scores(weight, bias)))
        return problem.penalty.prox(weight - step * gradient, lam, step)
