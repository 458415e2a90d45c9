"""Scores (n, K) seen along shifts of all rows, ``s_i + c``: what a fit of the bias asks of a family.

The exponentials are taken once: ``exp(s + c) = exp(s) exp(c)``, so that a Newton step on the bias costs a few
products.  Exact to rounding for shifts of up to some hundred; :mod:`debugnet.glm.unpenalized` starts over beyond.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class ShiftedScores(Protocol):
    """One block of scores; ``shift`` is (K,), ``weight`` (n,), both float64."""

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``weight @ mean(s + shift)``: (K,)."""

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """Second derivative of ``weight @ loss(s + shift)`` in the shift: (K, K), or its diagonal (K,) if separable."""

    def mean(self, shift: Tensor) -> Tensor:
        """Mean of the family at ``s + shift``: (n, K)."""


class ShiftedSoftmax:
    """``softmax(s + c) = P exp(c) / (P exp(c)).sum()`` with ``P = exp(s)``."""

    def __init__(self, scores: Tensor) -> None:
        self._powers = (scores - scores.amax(dim=1, keepdim=True)).exp_()

    def _inverse_total(self, factor: Tensor) -> Tensor:
        return (self._powers @ factor).reciprocal_()

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        factor = shift.exp()
        return (self._powers.T @ (weight * self._inverse_total(factor))) * factor

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``diag(w @ p) - p' diag(w) p``."""
        p = self.mean(shift)
        return torch.diag(p.T @ weight) - p.T @ (p * weight[:, None])

    def mean(self, shift: Tensor) -> Tensor:
        """Class probabilities."""
        factor = shift.exp()
        return (self._powers * factor).mul_(self._inverse_total(factor)[:, None])


class ShiftedLogistic:
    """``sigmoid(s + c) = 1 / (1 + exp(-s) exp(-c))``; a score below -700 counts as -700."""

    def __init__(self, scores: Tensor) -> None:
        self._powers = (-scores).clamp_(max=700).exp_()

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        return self.mean(shift).T @ weight

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``w @ (p (1 - p))``, the diagonal."""
        p = self.mean(shift)
        return (p - p.square()).T @ weight

    def mean(self, shift: Tensor) -> Tensor:
        """Probability of 1."""
        return (self._powers * (-shift).exp()).add_(1).reciprocal_()


class ShiftedIdentity:
    """Gaussian: the mean is the score."""

    def __init__(self, scores: Tensor) -> None:
        self._scores = scores

    def average(self, shift: Tensor, weight: Tensor) -> Tensor:
        """See :class:`ShiftedScores`."""
        return self._scores.T @ weight + shift * weight.sum()

    def hessian(self, shift: Tensor, weight: Tensor) -> Tensor:
        """``sum(w)``, the diagonal."""
        return weight.sum().expand(len(shift))

    def mean(self, shift: Tensor) -> Tensor:
        """The scores themselves."""
        return self._scores + shift
