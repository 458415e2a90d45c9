"""Penalties on units of a network: one contract for LassoNet and the group lasso.

A penalty sees the network's penalized weights as *rows*, one per unit, and knows the exact proximal
operator of its penalty on rows.  ``lam`` means the same in all of them: the objective is
``mean loss + lam * penalty``, the lambda that is reported is the lambda that is minimized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from debugnet.errors import UsageError
from debugnet.sparse_training.proximal import hierarchical_prox_rows, sparse_group_prox, survival
from debugnet.sparse_training.readers import InputReader
from debugnet.sparse_training.shrink import outgoing

UNIT_WEIGHTS = ("sqrt", "none")


class UnitPenalty(ABC):
    """A penalty whose units are dropped exactly when their row is zero.

    Attributes
    ----------
    parameters : sequence of nn.Parameter
        The penalized weights; an ordinary optimizer must leave them alone.
    unit_weight : Tensor (n_units,)
        What lambda is multiplied with for each unit: sqrt of its size, or 1.
    """

    parameters: Sequence[nn.Parameter]
    unit_weight: Tensor

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.unit_weight)

    @abstractmethod
    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """Arrange tensors shaped like ``parameters`` as one row per unit, (n_units, q)."""

    @abstractmethod
    def assign(self, rows: Tensor) -> None:
        """Write rows back into the parameters."""

    @abstractmethod
    def prox(self, rows: Tensor, step: Tensor, lam: float) -> Tensor:
        """Proximal step on rows (n_units, q) with one step size per unit, (n_units,)."""

    @abstractmethod
    def value(self, rows: Tensor) -> Tensor:
        """The penalty at lambda 1, a scalar."""

    @abstractmethod
    def pull(self, gradient_rows: Tensor) -> Tensor:
        """Dual norm of the loss gradient at a dropped unit, in units of lambda, (n_units,).

        A dropped unit is certified (satisfies its optimality condition) iff its pull is <= lambda.
        """

    def current(self) -> Tensor:
        """The rows of the weights as they are, detached."""
        return self.rows([p.detach() for p in self.parameters])

    def gradient(self) -> Tensor:
        """The rows of the gradients as they are (zero where there is none)."""
        return self.rows([p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters])

    def alive(self, rows: Tensor | None = None) -> Tensor:
        """Units with a non-zero row, (n_units,) bool."""
        return (self.current() if rows is None else rows).any(dim=1)


class LassoNetPenalty(UnitPenalty):
    """``lam sum_j omega_j ||theta_j||_2`` subject to ``||W_j||_inf <= M ||theta_j||_2``.

    Parameters
    ----------
    reader : InputReader
        First-layer weights W_j of each unit.
    skip : nn.Linear
        The residual layer theta on the flattened input, without bias.
    hierarchy : float
        M > 0; large M gives the network its full strength as soon as a unit is alive.
    unit_weights : str
        "sqrt" (of the unit's number of input features) or "none".

    References
    ----------
    Lemhadri, Ruan, Abraham & Tibshirani, JMLR 22(127), 2021, eq. (3).
    """

    def __init__(
        self, reader: InputReader, skip: nn.Linear, hierarchy: float = 10.0, unit_weights: str = "sqrt"
    ) -> None:
        if not hierarchy >= 0 or hierarchy == float("inf"):
            raise UsageError(f"the hierarchy coefficient M is {hierarchy}; give a finite number >= 0 (10 is usual)")
        self.reader, self.skip, self.hierarchy = reader, skip, hierarchy
        self.parameters = [skip.get_parameter("weight"), *reader.parameters]
        self.unit_weight = _weights(reader.unit_sizes, unit_weights)
        self._width = reader.skip_rows(skip.weight.detach()).shape[1]

    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """See :class:`UnitPenalty`; the skip weights come first in each row."""
        return torch.cat([self.reader.skip_rows(tensors[0]), self.reader.rows(tensors[1:])], dim=1)

    def assign(self, rows: Tensor) -> None:
        """See :class:`UnitPenalty`."""
        V, U = self._split(rows)
        with torch.no_grad():
            self.skip.weight.copy_(self.reader.skip_from_rows(V, self.skip.out_features))
        self.reader.assign(U)

    def prox(self, rows: Tensor, step: Tensor, lam: float) -> Tensor:
        """HIER-PROX."""
        return hierarchical_prox_rows(rows, self._width, step * lam * self.unit_weight, self.hierarchy)

    def value(self, rows: Tensor) -> Tensor:
        """``sum_j omega_j ||theta_j||_2``."""
        return (torch.linalg.vector_norm(self._split(rows)[0], dim=1) * self.unit_weight).sum()

    def pull(self, gradient_rows: Tensor) -> Tensor:
        """``(||dL/dtheta_j||_2 + M ||dL/dW_j||_1) / omega_j``: HIER-PROX at zero after a gradient step."""
        return survival(*self._split(gradient_rows), self.hierarchy) / self.unit_weight

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[:, : self._width], rows[:, self._width :]


class GroupPenalty(UnitPenalty):
    """Group lasso on rows: ``lam sum_j omega_j ||W_j||_2``, optionally sparse-group.

    Attributes
    ----------
    l1_share : float
        In [0, 1]: ``lam ((1 - l1_share) sum_j omega_j ||W_j||_2 + l1_share ||W||_1)``.

    References
    ----------
    Yuan & Lin (2006); Simon et al. (2013) for the sparse-group mix.
    """

    l1_share: float

    def prox(self, rows: Tensor, step: Tensor, lam: float) -> Tensor:
        """Soft threshold, then block soft threshold."""
        threshold, share = step * lam, self.l1_share
        if share:
            inner = (threshold * share)[:, None]
            rows = rows - rows.clamp(min=-inner, max=inner)
        return sparse_group_prox(rows, threshold * (1 - share) * self.unit_weight)

    def value(self, rows: Tensor) -> Tensor:
        """The penalty at lambda 1."""
        group = (torch.linalg.vector_norm(rows, dim=1) * self.unit_weight).sum()
        return (1 - self.l1_share) * group + self.l1_share * rows.abs().sum()

    def pull(self, gradient_rows: Tensor) -> Tensor:
        """Solve ``||S(g, share lam)||_2 = (1 - share) omega lam`` for lam, per row, by bisection."""
        share, weight = self.l1_share, self.unit_weight
        if share == 0:
            return torch.linalg.vector_norm(gradient_rows, dim=1) / weight
        low = torch.zeros_like(weight)
        high = gradient_rows.abs().amax(dim=1) / share  # everything is thresholded away here
        for _ in range(60):
            middle = (low + high) / 2
            inner = (gradient_rows.abs() - share * middle[:, None]).clamp(min=0)
            inside = torch.linalg.vector_norm(inner, dim=1) <= (1 - share) * weight * middle
            low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
        return high


class InputGroupPenalty(GroupPenalty):
    """Group lasso on what reads each input unit.

    Parameters
    ----------
    reader : InputReader
    l1_share : float
        See :class:`GroupPenalty`.
    unit_weights : str
        "sqrt": omega_j is the square root of the number of penalized weights in the row; "none": 1.
    """

    def __init__(self, reader: InputReader, l1_share: float = 0.0, unit_weights: str = "sqrt") -> None:
        self.reader, self.l1_share = reader, _share(l1_share)
        self.parameters = reader.parameters
        ones = [torch.ones_like(p) for p in reader.parameters]
        self.unit_weight = _weights(reader.rows(ones).sum(dim=1), unit_weights)

    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """See :class:`UnitPenalty`."""
        return self.reader.rows(tensors)

    def assign(self, rows: Tensor) -> None:
        """See :class:`UnitPenalty`."""
        self.reader.assign(rows)


class OutgoingGroupPenalty(GroupPenalty):
    """Group lasso on hidden units by what reads them: a unit's outgoing weights vanish together.

    Unlike incoming weights these never overlap with the groups of the inputs or of other layers.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer behind the units; behind a Flatten each unit has a block of columns.
    n_units : int
    l1_share, unit_weights
        As in :class:`InputGroupPenalty`.

    References
    ----------
    Scardapane et al., Neurocomputing 241 (2017), section 3.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, n_units: int, *, l1_share: float = 0.0, unit_weights: str = "sqrt"
    ) -> None:
        self.l1_share, self._n = _share(l1_share), n_units
        self.parameters = [layer.get_parameter("weight")]
        size = layer.weight.numel() // n_units
        self.unit_weight = _weights(layer.weight.new_full((n_units,), size), unit_weights)

    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """See :class:`UnitPenalty`."""
        return outgoing(tensors[0], self._n)

    def assign(self, rows: Tensor) -> None:
        """See :class:`UnitPenalty`."""
        weight = self.parameters[0]
        with torch.no_grad():
            weight.copy_(rows.reshape(self._n, len(weight), -1).transpose(0, 1).reshape(weight.shape))


class HiddenGroupPenalty(GroupPenalty):
    """Group lasso on hidden units: a unit's incoming weights, bias and normalization vanish together.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer whose outputs are the units.
    normalization : nn.BatchNorm1d or nn.BatchNorm2d, optional
        The normalization right behind it: its scale and shift belong to the unit, so that a dropped
        unit gives exactly zero.
    l1_share, unit_weights
        As in :class:`InputGroupPenalty`.

    References
    ----------
    Scardapane et al., Neurocomputing 241 (2017), section 3.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        normalization: nn.Module | None = None,
        *,
        l1_share: float = 0.0,
        unit_weights: str = "sqrt",
    ) -> None:
        self.layer, self.normalization, self.l1_share = layer, normalization, _share(l1_share)
        extra = [] if normalization is None else [normalization.weight, normalization.bias]
        found = [layer.weight, *([layer.bias] if layer.bias is not None else []), *extra]
        self.parameters = [p for p in found if isinstance(p, nn.Parameter)]
        width = self.rows([p.detach() for p in self.parameters]).shape[1]
        self.unit_weight = _weights(layer.weight.new_full((len(layer.weight),), width), unit_weights)

    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """See :class:`UnitPenalty`."""
        return torch.cat([t.reshape(len(t), -1) for t in tensors], dim=1)

    def assign(self, rows: Tensor) -> None:
        """See :class:`UnitPenalty`."""
        start = 0
        with torch.no_grad():
            for parameter in self.parameters:
                width = parameter[0].numel()
                parameter.copy_(rows[:, start : start + width].reshape(parameter.shape))
                start += width


def _weights(sizes: Tensor, rule: str) -> Tensor:
    if rule not in UNIT_WEIGHTS:
        raise UsageError(f"unit weights '{rule}' are unknown; use one of {', '.join(UNIT_WEIGHTS)}")
    sizes = sizes.to(torch.get_default_dtype())
    return sizes.sqrt() if rule == "sqrt" else torch.ones_like(sizes)


def _share(l1_share: float) -> float:
    if not 0 <= l1_share <= 1:
        raise UsageError(f"the l1 share is {l1_share}; give a fraction in [0, 1]")
    return l1_share
