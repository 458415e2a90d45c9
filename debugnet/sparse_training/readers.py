"""Where a network reads its inputs: the weights whose rows can be switched off to drop an input.

LassoNet and the group lasso select *units* of the input (a feature, a channel, a pixel, a group).
A unit is dropped exactly when all weights that read it are zero, so those weights must be known,
and every path from the input must go through them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from debugnet.errors import UsageError

MODES = ("auto", "linear", "channels", "gate")


class InputGate(nn.Module):
    """Elementwise gate on the input, so that single pixels of a convolutional network can be dropped.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the input by the gate: (n, *shape) -> (n, *shape)."""
        return x * self.weight


class InputReader:
    """The weights that read the input, seen as one row per unit.

    Parameters
    ----------
    network : nn.Module
        Any feed-forward module.
    example : Tensor (n, *shape)
        A few samples, to find what reads them.
    groups : Tensor (n_features,), int64, optional
        Unit of every flattened input feature, ids 0..G-1; by default every feature (every channel
        in mode "channels") is a unit of its own.
    mode : str
        "linear": first nn.Linear layers, one unit per feature.  "channels": first Conv2d layers,
        one unit per input channel.  "gate": an elementwise gate is put before the network, one
        unit per input element.  "auto": linear, else channels.

    Attributes
    ----------
    network : nn.Module
        The network to train: with the gate in front in mode "gate".
    n_units : int
    unit_sizes : Tensor (n_units,)
        Input features in each unit.
    grouped : bool
        Whether ``groups`` were given.

    Raises
    ------
    UsageError
        If nothing that can be switched off reads the input, or something else reads it too.
    """

    def __init__(
        self, network: nn.Module, example: Tensor, *, groups: Tensor | None = None, mode: str = "auto"
    ) -> None:
        if mode not in MODES:
            raise UsageError(f"input units '{mode}' are unknown; use one of {', '.join(MODES)}")
        self.shape = tuple(example.shape[1:])
        if mode == "gate":
            self.network: nn.Module = nn.Sequential(InputGate(self.shape), network)
            self._weights: list[nn.Parameter] = [self.network[0].weight]  # type: ignore[list-item]
            self.mode = "gate"
        else:
            self.network = network
            example = example.contiguous()  # flattening an image that is stored channels last would copy it
            readers = _find_readers(network, example)
            kinds = {type(module) for module in readers}
            self.mode = "linear" if kinds == {nn.Linear} else "channels" if kinds == {nn.Conv2d} else ""
            if not self.mode or mode not in ("auto", self.mode):
                found = ", ".join(type(m).__name__ for m in readers) or "no Linear or Conv2d layer"
                raise UsageError(
                    f"the input of {type(network).__name__} is read by {found}, which cannot be switched off as "
                    f"'{mode}'; let the first layer be Linear or Conv2d, or use --input-units gate"
                )
            self._weights = [module.get_parameter("weight") for module in readers]
            _check_nothing_else_reads(network, example, self._weights)
        n_elements = int(torch.tensor(self.shape).prod())
        self._per_unit = n_elements // self.shape[0] if self.mode == "channels" else 1
        self._n_atoms = n_elements // self._per_unit
        self.grouped = groups is not None
        self._gather, self._present = _group_index(groups, self._n_atoms, example.device)
        self.n_units = len(self._gather)
        self.unit_sizes = self._present.sum(dim=1) * self._per_unit

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights that read the input."""
        return self._weights

    def rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """Arrange weights (or their gradients) as one row per unit, (n_units, q)."""
        atoms = [self._atoms(t) for t in tensors]
        return self._to_rows(atoms[0] if len(atoms) == 1 else torch.cat(atoms, dim=1))

    def assign(self, rows: Tensor) -> None:
        """Write rows (n_units, q) back into the weights."""
        atoms = self._from_rows(rows)
        start = 0
        with torch.no_grad():
            for weight in self._weights:
                width = self._atoms(weight).shape[1]
                part = atoms[:, start : start + width]
                start += width
                if self.mode == "gate":
                    weight.copy_(part.reshape(weight.shape))
                elif self.mode == "linear":
                    weight.copy_(part.T)
                else:
                    weight.copy_(part.reshape(weight.shape[1], weight.shape[0], *weight.shape[2:]).transpose(0, 1))

    def skip_rows(self, theta: Tensor) -> Tensor:
        """Arrange skip weights (K, n_elements) as one row per unit, (n_units, p)."""
        atoms = theta.reshape(len(theta), self._n_atoms, self._per_unit).permute(1, 0, 2)
        return self._to_rows(atoms.reshape(self._n_atoms, -1))

    def skip_from_rows(self, rows: Tensor, n_outputs: int) -> Tensor:
        """Inverse of :meth:`skip_rows`: (n_units, p) -> (K, n_elements)."""
        atoms = self._from_rows(rows).reshape(self._n_atoms, n_outputs, self._per_unit)
        return atoms.permute(1, 0, 2).reshape(n_outputs, -1)

    def element_mask(self, units: Tensor) -> Tensor:
        """Spread a boolean over units to the flattened input elements, (n_elements,) bool."""
        atoms = torch.zeros(self._n_atoms, dtype=torch.bool, device=units.device)
        atoms[self._gather[self._present]] = units[:, None].expand_as(self._present)[self._present]
        return atoms.repeat_interleave(self._per_unit)

    def _atoms(self, weight: Tensor) -> Tensor:
        """One row per input feature (or channel) of a weight tensor."""
        if self.mode == "gate":
            return weight.reshape(-1, 1)
        if self.mode == "linear":
            return weight.T
        return weight.transpose(0, 1).reshape(weight.shape[1], -1)

    def _to_rows(self, atoms: Tensor) -> Tensor:
        if not self.grouped:
            return atoms
        rows = atoms[self._gather] * self._present[..., None]
        return rows.reshape(self.n_units, -1)

    def _from_rows(self, rows: Tensor) -> Tensor:
        if not self.grouped:
            return rows
        width = rows.shape[1] // self._gather.shape[1]
        atoms = rows.new_zeros(self._n_atoms, width)
        atoms[self._gather[self._present]] = rows.reshape(*self._gather.shape, width)[self._present]
        return atoms


def _find_readers(network: nn.Module, example: Tensor) -> list[nn.Module]:
    """Modules whose input is the network's own input (or a flattened view of it)."""
    readers: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].data_ptr() == example.data_ptr():
            readers.append(module)

    leaves = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [m.register_forward_pre_hook(look) for m in leaves]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(readers))


def _check_nothing_else_reads(network: nn.Module, example: Tensor, weights: Sequence[nn.Parameter]) -> None:
    """With all reading weights at zero, the output must not depend on the input."""
    kept = [w.detach().clone() for w in weights]
    modes = [(m, m.training) for m in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            for weight in weights:
                weight.zero_()
        x = example.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = network(x)
            gradient = torch.autograd.grad(output.sum(), x, allow_unused=True)[0] if output.requires_grad else None
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        for module, training in modes:
            module.training = training
    if gradient is not None and bool((gradient != 0).any()):
        raise UsageError(
            f"{type(network).__name__} reads its input elsewhere than in its first layer (a skip connection or a "
            "normalization in front), so dropping a feature there would not drop it; use --input-units gate"
        )


def _group_index(groups: Tensor | None, n_atoms: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Padded members (G, size) of every unit, and which entries are real."""
    if groups is None:
        index = torch.arange(n_atoms, device=device)[:, None]
        return index, torch.ones_like(index, dtype=torch.bool)
    if len(groups) != n_atoms or int(groups.min()) < 0:
        raise UsageError(
            f"the groups name {len(groups)} features and the input has {n_atoms}; give one id >= 0 for each"
        )
    sizes = torch.bincount(groups.cpu())
    if bool((sizes == 0).any()):
        empty = int((sizes == 0).nonzero()[0])
        raise UsageError(f"group {empty} has no feature; number the groups 0..{len(sizes) - 1} without gaps")
    order = torch.argsort(groups.cpu(), stable=True)
    present = torch.arange(int(sizes.max()))[None] < sizes[:, None]
    index = torch.zeros(present.shape, dtype=torch.int64)
    index[present] = order
    return index.to(device), present.to(device)
