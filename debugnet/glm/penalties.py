"""The penalties: value, prox, optimality residual, conjugate and lambda_max.

``lam * (l1_ratio * P1(W) + (1 - l1_ratio) / 2 * sum_j f_j ||W_j||^2)`` where ``f_j`` is the
penalty factor of feature j (it multiplies both parts, as in glmnet, and is not rescaled), and
P1 is ``sum_jk f_j |W_kj|`` (:class:`ElasticNet`) or ``sum_j g f_j ||W_j||_2``
(:class:`GroupLasso`, over all outputs of a feature, group weight g).  With ``nonnegative`` the
penalty is infinite where an entry is negative.

An excluded feature (penalty factor infinity) never reaches a penalty: its column of the
design is zero (:class:`debugnet.glm.design.Design`) and its factor here is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from debugnet.glm.prox import group_soft_threshold, nonnegative_soft_threshold, soft_threshold


class Penalty(Protocol):
    """What a solver and the certificate may ask of a penalty; W, G, C are (K, d) with d = len(factor).

    All but :meth:`prox` also take P points at once: W, G, C (P, K, d) and lam (P,).

    Attributes
    ----------
    name : str
        As in the registry.
    l1_ratio : float
    factor : Tensor (d,), float64
        Finite; 0 = never penalized.
    nonnegative : bool
    entrywise : bool
        True where P1 is a sum over single entries (so single entries can be screened).
    """

    name: str
    l1_ratio: float
    factor: Tensor
    nonnegative: bool
    entrywise: bool

    def value(self, W: Tensor, lam: float | Tensor) -> Tensor:
        """Penalty at W, () or (P,) (0 outside of the constraint's view: W is taken as feasible)."""

    def prox(self, V: Tensor, lam: float, step: Tensor | float) -> Tensor:
        """``argmin_W ||W - V||^2 / (2 step) + penalty(W)``; step a float, or (d,)."""

    def kkt_violation(self, W: Tensor, G: Tensor, lam: float | Tensor) -> Tensor:
        """Distance of 0 from ``G + d penalty(W)``, G the gradient of the loss, per feature: (d,) or (P, d)."""

    def conjugate(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """``sup_W <C, W> - penalty(W)``, () or (P,); may be infinite."""

    def feasible_scale(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """Largest s in [0, 1] such that s C has a zero l1 part of the conjugate: () or (P,)."""

    def strength(self, G: Tensor) -> Tensor:
        """Per feature, the ``lam * l1_ratio`` (divided by nothing else) below which 0 stops being optimal.

        G is the gradient (K, d) at W = 0; (d,) or (P, d), with the factor divided out; 0 for unpenalized features.
        """

    def select(self, index: Tensor) -> Penalty:
        """The same penalty on some of the features (a working set)."""


@dataclass(frozen=True)
class ElasticNet:
    """Elastic net per coefficient (Zou and Hastie 2005)."""

    l1_ratio: float
    factor: Tensor
    nonnegative: bool = False
    name: str = "elastic_net"
    entrywise: bool = True

    def value(self, W: Tensor, lam: float | Tensor) -> Tensor:
        """Return ``lam sum_j f_j (rho sum_k |W_kj| + (1 - rho)/2 sum_k W_kj^2)``."""
        per_feature = self.l1_ratio * W.abs().sum(dim=-2) + (1 - self.l1_ratio) / 2 * W.square().sum(dim=-2)
        return lam * (per_feature @ self.factor.to(W.dtype))

    def prox(self, V: Tensor, lam: float, step: Tensor | float) -> Tensor:
        """Soft threshold, then ridge shrinkage."""
        t = (lam * step * self.factor).to(V.dtype)
        shrink = nonnegative_soft_threshold if self.nonnegative else soft_threshold
        return shrink(V, t * self.l1_ratio) / (1 + t * (1 - self.l1_ratio))

    def kkt_violation(self, W: Tensor, G: Tensor, lam: float | Tensor) -> Tensor:
        """Entrywise distance, the largest of a feature's."""
        t = _times(lam, self.factor)[..., None, :]
        smooth = G + t * (1 - self.l1_ratio) * W
        at_zero = -(smooth + t * self.l1_ratio) if self.nonnegative else smooth.abs() - t * self.l1_ratio
        entries = torch.where(W == 0, at_zero.clamp(min=0), (smooth + t * self.l1_ratio * W.sign()).abs())
        return entries.amax(dim=-2)

    def conjugate(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """``sum (|C| - lam rho f)_+^2 / (2 lam (1 - rho) f)``, infinite where the divisor is 0."""
        size, t = C if self.nonnegative else C.abs(), _times(lam, self.factor)[..., None, :]
        return _squared_excess(size - t * self.l1_ratio, t * (1 - self.l1_ratio)).sum(dim=(-2, -1))

    def feasible_scale(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """``min(1, lam rho f / |C|)``."""
        size = (C.clamp(min=0) if self.nonnegative else C.abs()).amax(dim=-2)
        return _scale(size, _times(lam, self.l1_ratio * self.factor))

    def strength(self, G: Tensor) -> Tensor:
        """``max_k |G_kj| / f_j``."""
        size = ((-G).clamp(min=0) if self.nonnegative else G.abs()).amax(dim=-2)
        return torch.where(self.factor > 0, size / self.factor, 0.0)

    def select(self, index: Tensor) -> ElasticNet:
        """Restrict to some features."""
        return ElasticNet(self.l1_ratio, self.factor[index], self.nonnegative)


@dataclass(frozen=True)
class GroupLasso:
    """Group lasso over a feature's weights to all outputs (Yuan and Lin 2006), plus ridge.

    ``group_weight`` is 1 by default; sqrt(K) is Yuan and Lin's choice.
    """

    l1_ratio: float
    factor: Tensor
    nonnegative: bool = False
    group_weight: float = 1.0
    name: str = "group_lasso"
    entrywise: bool = False

    def value(self, W: Tensor, lam: float | Tensor) -> Tensor:
        """Return ``lam sum_j f_j (rho g ||W_j||_2 + (1 - rho)/2 ||W_j||_2^2)``."""
        norm = torch.linalg.vector_norm(W, dim=-2)
        per_feature = self.l1_ratio * self.group_weight * norm + (1 - self.l1_ratio) / 2 * norm.square()
        return lam * (per_feature @ self.factor.to(W.dtype))

    def prox(self, V: Tensor, lam: float, step: Tensor | float) -> Tensor:
        """Group threshold, then ridge shrinkage; with the constraint, of the positive part."""
        t = (lam * step * self.factor).to(V.dtype)
        V = V.clamp(min=0) if self.nonnegative else V
        return group_soft_threshold(V, t * self.l1_ratio * self.group_weight) / (1 + t * (1 - self.l1_ratio))

    def kkt_violation(self, W: Tensor, G: Tensor, lam: float | Tensor) -> Tensor:
        """Distance per group."""
        t = _times(lam, self.factor)
        threshold = t * self.l1_ratio * self.group_weight
        smooth = G + (t * (1 - self.l1_ratio))[..., None, :] * W
        norm = torch.linalg.vector_norm(W, dim=-2)
        inside = smooth + (threshold / norm.clamp(min=torch.finfo(W.dtype).tiny))[..., None, :] * W
        if self.nonnegative:  # a zero entry of a living group may have a positive gradient
            inside = torch.where(W == 0, inside.clamp(max=0), inside)
            smooth = smooth.clamp(max=0)
        at_zero = torch.linalg.vector_norm(smooth, dim=-2) - threshold
        return torch.where(norm == 0, at_zero.clamp(min=0), torch.linalg.vector_norm(inside, dim=-2))

    def conjugate(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """``sum_j (||C_j|| - lam rho g f_j)_+^2 / (2 lam (1 - rho) f_j)``."""
        t = _times(lam, self.factor)
        excess = self._norm(C) - t * self.l1_ratio * self.group_weight
        return _squared_excess(excess, t * (1 - self.l1_ratio)).sum(dim=-1)

    def feasible_scale(self, C: Tensor, lam: float | Tensor) -> Tensor:
        """``min(1, lam rho g f_j / ||C_j||)``."""
        return _scale(self._norm(C), _times(lam, self.l1_ratio * self.group_weight * self.factor))

    def strength(self, G: Tensor) -> Tensor:
        """``||G_j|| / (g f_j)``."""
        return torch.where(self.factor > 0, self._norm(-G) / (self.group_weight * self.factor), 0.0)

    def select(self, index: Tensor) -> GroupLasso:
        """Restrict to some features."""
        return GroupLasso(self.l1_ratio, self.factor[index], self.nonnegative, self.group_weight)

    def _norm(self, C: Tensor) -> Tensor:
        return torch.linalg.vector_norm(C.clamp(min=0) if self.nonnegative else C, dim=-2)


def _times(lam: float | Tensor, factor: Tensor) -> Tensor:
    """``lam f``: (d,) for a number, (P, d) for lam (P,)."""
    return lam[:, None] * factor if isinstance(lam, Tensor) else lam * factor


def _squared_excess(excess: Tensor, ridge: Tensor) -> Tensor:
    """``excess_+^2 / (2 ridge)``: 0 where there is no excess, infinite where it meets no ridge."""
    return torch.where(excess > 0, excess.square() / (2 * ridge), 0.0)


def _scale(size: Tensor, bound: Tensor) -> Tensor:
    """Largest s in [0, 1] with s * size <= bound, last dim; unpenalized features (bound 0) do not count."""
    ratio = torch.where((size > bound) & (bound > 0), bound / size, 1.0)
    return ratio.amin(dim=-1) if ratio.shape[-1] else ratio.sum(dim=-1) + 1.0
