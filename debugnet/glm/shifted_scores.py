"""Scores (P, n, K) seen along shifts of all rows, ``s_i + c``: what a fit of the bias of P points asks of a family.

The exponentials are taken once: ``exp(s + c) = exp(s) exp(c)``, so that a Newton step on the bias costs a few
products.  Exact to rounding for shifts of up to some hundred; :mod:`debugnet.glm.unpenalized` starts over beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

#: Loss of each row from scores and target.
RowLoss = Callable[[Tensor, Tensor], Tensor]


class ShiftedScores(Protocol):
    """One block of scores; ``shift`` is (P, K), ``weight`` (n,), both float64."""

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``weight @ mean(s + shift)``: (P, K)."""

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """Second derivative of ``weight @ loss(s + shift)`` in the shift: (P, K, K), or its diagonal (P, K)."""

    def weighted_mean(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``weight * mean(s + shift)``, a new tensor (P, n, K)."""

    def loss(self, shift: Tensor, target: Tensor) -> Tensor:
        """Loss of each row at ``s + shift``, which the target (n,) or (n, K) alone decides: (P, n)."""


class ShiftedSoftmax:
    """``softmax(s + c) = P exp(c) / (P exp(c)).sum()`` with ``P = exp(s)``."""

    def __init__(self, scores: Tensor) -> None:
        self._scores, self._top = scores, scores.amax(dim=-1, keepdim=True)
        self._powers = (scores - self._top).exp_()

    def _inverse_total(self, factor: Tensor) -> Tensor:
        return (self._powers @ factor[:, :, None]).reciprocal_()  # (P, n, 1)

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        factor = shift.exp()
        return (self._powers.mT @ self._inverse_total(factor).mul_(weight[:, None]))[:, :, 0] * factor

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``diag(w @ p) - p' diag(w) p``."""
        factor = shift.exp()
        inverse = self._inverse_total(factor)
        products = self._powers.mT @ (self._powers * inverse.square_().mul_(weight[:, None]))
        products *= factor[:, :, None] * factor[:, None]
        # Rows of p sum to one, and so do those of the products, weighted.
        return torch.diag_embed(products.sum(dim=2)) - products

    def weighted_mean(self, shift: Tensor, weight: Tensor) -> Tensor:
        """Class probabilities times the weight."""
        factor = shift.exp()
        return (self._powers * factor[:, None]).mul_(self._inverse_total(factor).mul_(weight[:, None]))

    def loss(self, shift: Tensor, target: Tensor) -> Tensor:
        """``log sum exp(s + c) - s_y - c_y``."""
        total = (self._powers @ shift.exp()[:, :, None]).log_().add_(self._top)
        index = target.expand(self._scores.shape[:-1])
        return (total - self._scores.gather(-1, index[..., None]))[..., 0] - shift.gather(1, index)


class ShiftedLogistic:
    """``sigmoid(s + c) = 1 / (1 + exp(-s) exp(-c))``; in a mean a score below -700 counts as -700."""

    def __init__(self, scores: Tensor, loss: RowLoss) -> None:
        self._scores, self._loss = scores, loss
        self._powers = (-scores).clamp_(max=700).exp_()

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        return weight @ self._mean(shift)

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``w @ (p (1 - p))``, the diagonal."""
        p = self._mean(shift)
        return weight @ (p - p.square())

    def weighted_mean(self, shift: Tensor, weight: Tensor) -> Tensor:
        """Probability of 1 times the weight."""
        return self._mean(shift).mul_(weight[:, None])

    def loss(self, shift: Tensor, target: Tensor) -> Tensor:
        """The family's own."""
        return self._loss(self._scores + shift[:, None], target)

    def _mean(self, shift: Tensor) -> Tensor:
        return (self._powers * (-shift).exp()[:, None]).add_(1).reciprocal_()


class ShiftedIdentity:
    """Gaussian: the mean is the score."""

    def __init__(self, scores: Tensor, loss: RowLoss) -> None:
        self._scores, self._loss = scores, loss

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        return weight @ self._scores + shift * weight.sum()

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``sum(w)``, the diagonal."""
        return weight.sum().expand_as(shift)

    def weighted_mean(self, shift: Tensor, weight: Tensor) -> Tensor:
        """The scores themselves times the weight."""
        return (self._scores + shift[:, None]).mul_(weight[:, None])

    def loss(self, shift: Tensor, target: Tensor) -> Tensor:
        """The family's own."""
        return self._loss(self._scores + shift[:, None], target)
