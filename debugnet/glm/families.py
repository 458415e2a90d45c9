"""The likelihoods: loss, residual and convex conjugate of one row of scores.

Every method works on a block of rows and is elementwise in the rows: ``scores`` is ``(n, K)``, or ``(P, n, K)`` for
the scores of the same rows at P points; ``target`` is what :meth:`Family.encode` made of ``y``.  Weights, sums over
rows and penalties live elsewhere (:mod:`debugnet.glm.problem`, :mod:`debugnet.glm.penalties`).
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from debugnet.glm.shifted_scores import ShiftedIdentity, ShiftedLogistic, ShiftedScores, ShiftedSoftmax


class Family(Protocol):
    """What a solver and the certificate may ask of a likelihood.

    Attributes
    ----------
    name : str
        "multinomial", "binomial" or "gaussian".
    curvature : float
        Smallest known c with Hessian of the loss in one row of scores <= c I.
    separable : bool
        True where the Hessian in one row of scores is diagonal (no coupling of outputs).
    """

    name: ClassVar[str]
    curvature: ClassVar[float]
    separable: ClassVar[bool]

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Loss of each row: (n, K) -> (n,)."""

    def residual(self, scores: Tensor, target: Tensor) -> Tensor:
        """Derivative of the loss in the scores: (n, K), a new tensor."""

    def mean(self, scores: Tensor) -> Tensor:
        """Expected target given the scores: (n, K) -> (n, K), a new tensor (probabilities, or the scores)."""

    def shifted(self, scores: Tensor) -> ShiftedScores:
        """Scores (n, K), float64, along shifts of all rows (the bias)."""

    def variance(self, mean: Tensor) -> Tensor:
        """Diagonal of the Hessian in the scores, from :meth:`mean`: (n, K) -> (n, K)."""

    def dense_target(self, target: Tensor, n_outputs: int, dtype: torch.dtype) -> Tensor:
        """Target as (n, K): one-hot, 0/1 or values; ``mean - dense_target`` is the residual."""

    def conjugate(self, dual: Tensor, target: Tensor) -> Tensor:
        """Convex conjugate of the loss at ``dual`` (n, K) -> (n,); dual = s * residual, 0 <= s <= 1."""


def softmax(scores: Tensor) -> Tensor:
    """Softmax of each row; on the CPU torch's own is several times slower where the classes are few."""
    if scores.is_cuda or scores.shape[-1] >= 64:
        return torch.softmax(scores, dim=-1)
    out = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
    return out.div_(out.sum(dim=-1, keepdim=True))


def _column(target: Tensor, scores: Tensor) -> Tensor:
    """Class of each row (n,) as an index (..., n, 1) into the last dimension of ``scores``."""
    return target.expand(scores.shape[:-1])[..., None]


class Multinomial:
    """Softmax cross-entropy ``l(y, s) = logsumexp(s) - s_y``; target int64 (n,)."""

    name: ClassVar[str] = "multinomial"
    curvature: ClassVar[float] = 0.5  # diag(p) - pp' has eigenvalues <= 1/2 (Boehning 1992)
    separable: ClassVar[bool] = False

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each row, in nats."""
        return torch.logsumexp(scores, dim=-1) - scores.gather(-1, _column(target, scores))[..., 0]

    def residual(self, scores: Tensor, target: Tensor) -> Tensor:
        """``softmax(scores) - onehot``."""
        out = softmax(scores)
        return out.scatter_add_(-1, _column(target, out), out.new_full((), -1.0).expand(*out.shape[:-1], 1))

    def mean(self, scores: Tensor) -> Tensor:
        """Class probabilities."""
        return softmax(scores)

    def shifted(self, scores: Tensor) -> ShiftedScores:
        """See :class:`debugnet.glm.shifted_scores.ShiftedSoftmax`."""
        return ShiftedSoftmax(scores)

    def variance(self, mean: Tensor) -> Tensor:
        """``p (1 - p)``: only the diagonal of ``diag(p) - pp'``."""
        return mean * (1 - mean)

    def dense_target(self, target: Tensor, n_outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot rows."""
        return torch.nn.functional.one_hot(target, n_outputs).to(dtype)

    def conjugate(self, dual: Tensor, target: Tensor) -> Tensor:
        """``sum_k q_k log q_k`` with ``q = dual + onehot`` (negative entropy on the simplex)."""
        q = dual.scatter_add(-1, _column(target, dual), dual.new_ones(()).expand(*dual.shape[:-1], 1)).clamp_(min=0)
        return torch.xlogy(q, q).sum(dim=-1)


class Binomial:
    """Logistic loss summed over outputs, ``sum_k log(1 + exp(s_k)) - y_k s_k``; target 0/1 (n, K)."""

    name: ClassVar[str] = "binomial"
    curvature: ClassVar[float] = 0.25
    separable: ClassVar[bool] = True

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Logistic loss of each row, in nats, summed over outputs."""
        return (torch.nn.functional.softplus(scores) - target * scores).sum(dim=-1)

    def residual(self, scores: Tensor, target: Tensor) -> Tensor:
        """``sigmoid(scores) - y``."""
        return torch.sigmoid(scores).sub_(target)

    def mean(self, scores: Tensor) -> Tensor:
        """Probability of 1 for each output."""
        return torch.sigmoid(scores)

    def shifted(self, scores: Tensor) -> ShiftedScores:
        """See :class:`debugnet.glm.shifted_scores.ShiftedLogistic`."""
        return ShiftedLogistic(scores, self.loss)

    def variance(self, mean: Tensor) -> Tensor:
        """``p (1 - p)``."""
        return mean * (1 - mean)

    def dense_target(self, target: Tensor, n_outputs: int, dtype: torch.dtype) -> Tensor:
        """The 0/1 target itself."""
        return target.to(dtype)

    def conjugate(self, dual: Tensor, target: Tensor) -> Tensor:
        """``q log q + (1 - q) log(1 - q)`` with ``q = dual + y``, summed over outputs."""
        q = (dual + target).clamp_(0, 1)
        return (torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)).sum(dim=-1)


class Gaussian:
    """Half squared error summed over outputs, ``sum_k (s_k - y_k)^2 / 2``; target float (n, K)."""

    name: ClassVar[str] = "gaussian"
    curvature: ClassVar[float] = 1.0
    separable: ClassVar[bool] = True

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Half squared error of each row."""
        return (scores - target).square().sum(dim=-1).mul_(0.5)

    def residual(self, scores: Tensor, target: Tensor) -> Tensor:
        """``scores - y``."""
        return scores - target

    def mean(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores.clone()

    def shifted(self, scores: Tensor) -> ShiftedScores:
        """See :class:`debugnet.glm.shifted_scores.ShiftedIdentity`."""
        return ShiftedIdentity(scores, self.loss)

    def variance(self, mean: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(mean)

    def dense_target(self, target: Tensor, n_outputs: int, dtype: torch.dtype) -> Tensor:
        """The targets themselves."""
        return target.to(dtype)

    def conjugate(self, dual: Tensor, target: Tensor) -> Tensor:
        """``u^2 / 2 + u y``, summed over outputs."""
        return (dual.square() * 0.5 + dual * target).sum(dim=-1)


#: The families by the name a user types.
FAMILIES: dict[str, Family] = {f.name: f for f in (Multinomial(), Binomial(), Gaussian())}
