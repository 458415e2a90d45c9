"""One fitting problem: design, target, family, penalty, weights, offset, as a solver sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from debugnet.glm.design import Communicator, Design
from debugnet.glm.families import Family
from debugnet.glm.penalties import Penalty


@dataclass(frozen=True)
class GLMProblem:
    """``min_{W, b} sum_i w_i l(y_i, W x_i + b + o_i) + penalty(W; lam)`` on standardized x.

    Everything a solver may touch.  All tensors are on ``design.device``; row-wise ones cover
    this process's rows, and every method that sums over rows sums over all ranks too.

    Attributes
    ----------
    design : Design
        Products with the standardized features, (n, d).
    target : Tensor
        int64 (n,) for multinomial; float64 (n, K) for gaussian; float32 0/1 (n, K) for binomial.
    family : Family
    penalty : Penalty
        Over all d features; dead and excluded ones have a zero column in the design.
    sample_weight : Tensor (n,), float64
        Positive or zero, summing to 1 over all rows (of all ranks).
    n_outputs : int
        K, the rows of W.
    offset : Tensor (n, K), float64, or None
    fit_intercept : bool
        Where False the bias is 0 and stays 0.
    uniform : bool
        True where all sample weights are 1/n.
    total_rows : int
        Rows of all ranks together.
    seed : int
    """

    design: Design
    target: Tensor
    family: Family
    penalty: Penalty
    sample_weight: Tensor
    n_outputs: int
    offset: Tensor | None = None
    fit_intercept: bool = True
    uniform: bool = True
    total_rows: int = 0
    seed: int = 0

    @property
    def n_samples(self) -> int:
        """Rows of this process."""
        return self.design.shape[0]

    @property
    def n_features(self) -> int:
        """Features d, dead and excluded ones included."""
        return self.design.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the work happens."""
        return self.design.device

    @property
    def communicator(self) -> Communicator:
        """Sums over ranks."""
        return self.design.communicator

    @cached_property
    def free_features(self) -> Tensor:
        """Indices (int64) of the living features that are never penalized."""
        return torch.nonzero((self.penalty.factor == 0) & self.design.alive).ravel()

    @cached_property
    def target_mass(self) -> Tensor:
        """Weighted mean of the target, (K,) float64: class frequencies, or means."""
        dense = self.family.dense_target(self.target, self.n_outputs, torch.float64)
        return self.communicator.sum_(self.sample_weight @ dense)

    def zeros(self) -> tuple[Tensor, Tensor]:
        """Weight (K, d) and bias (K,), float64, all zero."""
        weight = torch.zeros((self.n_outputs, self.n_features), dtype=torch.float64, device=self.device)
        return weight, torch.zeros(self.n_outputs, dtype=torch.float64, device=self.device)

    def scores(self, W: Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """``X W' + bias + offset``, (n, K) in ``dtype`` (the design's own by default)."""
        out = self.design.scores(W, bias, dtype)
        return out if self.offset is None else out.add_(self.offset)

    def loss(self, scores: Tensor) -> float:
        """Weighted mean loss of scores (n, K), accumulated in float64."""
        return float(self.losses(scores))

    def losses(self, scores: Tensor) -> Tensor:
        """Weighted mean loss at each of P points, accumulated in float64: (P, n, K) -> (P,)."""
        rows = self.family.loss(scores, self.target).to(torch.float64)
        return self.communicator.sum_(rows @ self.sample_weight)

    def residual(self, scores: Tensor) -> Tensor:
        """Derivative of the mean loss in the scores, sample weights included: (n, K)."""
        return self.family.residual(scores, self.target).mul_(self.sample_weight[:, None])

    def residual_of_mean(self, weighted_mean: Tensor) -> Tensor:
        """:meth:`residual` from the mean of P points times the sample weights (P, n, K), float64; written into it."""
        weight = self.sample_weight[:, None]
        if self.target.ndim == 2:
            return weighted_mean.sub_(self.target * weight)
        shape = (*weighted_mean.shape[:-1], 1)
        return weighted_mean.scatter_add_(-1, self.target[:, None].expand(shape), -weight.expand(shape))

    def gradient(self, residual: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Gradient of the mean loss in W from :meth:`residual`: (K, d) float64."""
        return self.design.gradient(residual, dtype)

    def bias_gradient(self, residual: Tensor) -> Tensor:
        """Gradient of the mean loss in the bias from :meth:`residual`, (n, K) or (P, n, K): (K,) or (P, K) float64."""
        return self.communicator.sum_(residual.sum(dim=-2, dtype=torch.float64))

    def objective(self, W: Tensor, bias: Tensor, lam: float) -> float:
        """Mean loss plus penalty in float64; one pass over the data."""
        return self.loss(self.scores(W, bias, torch.float64)) + float(self.penalty.value(W.to(torch.float64), lam))

    def with_penalty(self, penalty: Penalty) -> GLMProblem:
        """The same problem under another penalty."""
        return replace(self, penalty=penalty)
