"""spred: sparsity by a redundant product of factors under weight decay, for any weight of any network.

Ziyin & Wang, "spred: Solving L1 Penalty with SGD" (ICML 2023).  With ``V = U * W`` elementwise,
``min L(U * W) + (lam/2)(||U||^2 + ||W||^2)`` has the minima of ``min L(V) + lam ||V||_1``, because
``min over U W = V of (U^2 + W^2)/2 = |V|``.  torch's ``weight_decay=lam`` adds exactly
``(lam/2) ||.||^2`` to what an optimizer with *coupled* decay minimizes, so lambda here is the lambda
of every other method.  With one scalar per group, ``V_g = u_g W_g``, the penalty is ``lam ||V_g||_2``.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from debugnet.errors import UsageError
from debugnet.sparse_training.optimizers import decay_is_coupled

STRUCTURES = ("element", "row", "column")
INITS = ("uneven", "balanced")


class _Product(nn.Module):
    """``U * W``, with ``U`` of W's shape or one scalar per row or column."""

    def __init__(self, structure: str, init: str) -> None:
        super().__init__()
        self.structure, self.init = structure, init

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the weight: factors -> (same shape as the second factor)."""
        return first * second

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Split a weight into factors with ``||U||^2 - ||W||^2 = c``, whose product it is."""
        if self.structure == "element":
            size = weight.abs()
        else:
            inner = 1 if self.structure == "row" else 0
            dims = tuple(d for d in range(weight.ndim) if d != 1 - inner)
            size = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
        # At c = 0 the decay starts at its minimum for this product, but gradient flow keeps
        # U^2 = W^2, and a product can shrink to zero and never cross it.
        gap = size.mean() if self.init == "uneven" else size.new_zeros(())
        gap = gap if bool(gap > 0) or self.init == "balanced" else gap + 1.0
        first = ((gap + (gap.square() + 4 * size.square()).sqrt()) / 2).sqrt()
        return first, weight / first.clamp(min=torch.finfo(weight.dtype).tiny)


@dataclass(frozen=True)
class Factored:
    """One weight that spred has split.

    Attributes
    ----------
    module : nn.Module
        Its owner.
    name : str
        Name of the weight in its module.
    path : str
        Its full name in the network.
    structure : str
    """

    module: nn.Module
    name: str
    path: str
    structure: str

    @property
    def factors(self) -> list[nn.Parameter]:
        """The two factors."""
        originals = self.module.get_submodule(f"parametrizations.{self.name}")
        return [originals.get_parameter("original0"), originals.get_parameter("original1")]


class Spred:
    """The weights of a network that train as products.

    Parameters
    ----------
    network : nn.Module
    patterns : sequence of str
        Names of modules or weights, with wildcards: "fc.*", "layer?.conv*", "classifier".  Of a
        module its ``weight`` is taken; biases and normalization are left alone.
    structure : str
        "element" (lasso), "row" (one group per output) or "column" (one per input).
    init : str
        "uneven": ``U^2 - W^2`` is the mean absolute weight (mean norm of the groups), so that every
        weight, zero ones too, can still move either way.  "balanced" splits evenly, which starts at
        the smallest decay but lets no weight change its sign.  Neither changes what the network
        computes.

    Raises
    ------
    UsageError
        A pattern that matches nothing, or an unknown option.
    """

    def __init__(
        self, network: nn.Module, patterns: Sequence[str], *, structure: str = "element", init: str = "uneven"
    ) -> None:
        if structure not in STRUCTURES or init not in INITS:
            raise UsageError(
                f"structure '{structure}' or init '{init}' is unknown; use one of {', '.join(STRUCTURES)} and "
                f"one of {', '.join(INITS)}"
            )
        self.network = network
        self.weights: list[Factored] = []
        for path, module, name in _matching(network, patterns):
            parametrize.register_parametrization(module, name, _Product(structure, init))
            self.weights.append(Factored(module, name, path, structure))

    def parameter_groups(self, lam: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: the factors decay with ``lam``, nothing else decays."""
        factors = [p for weight in self.weights for p in weight.factors]
        mine = {id(p) for p in factors}
        others = [p for p in self.network.parameters() if id(p) not in mine]
        return [{"params": factors, "weight_decay": lam}, {"params": others, "weight_decay": 0.0}]

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer that breaks the equivalence.

        Raises
        ------
        UsageError
            Decoupled weight decay (AdamW) or none, factors and other weights in one group, or other
            weights that decay too.
        """
        if not decay_is_coupled(optimizer):
            raise UsageError(
                f"{type(optimizer).__name__} decays weights apart from the gradient or not at all, which breaks "
                "spred's equivalence with the l1 norm; use SGD, Adam, RMSprop or another one with coupled decay"
            )
        factors = {id(p) for weight in self.weights for p in weight.factors}
        for group in optimizer.param_groups:
            mine = [id(p) in factors for p in group["params"]]
            if any(mine) and not all(mine):
                raise UsageError("factors and other weights share a parameter group; use Spred.parameter_groups(lam)")
            if not any(mine) and group.get("weight_decay", 0):
                raise UsageError("weights that spred does not split decay too; use Spred.parameter_groups(lam)")
        for weight in self.weights:
            first, second = weight.factors
            if first.shape == second.shape and first.numel() and bool((first == second).all()):
                raise UsageError(
                    f"both factors of {weight.path} are equal: they stay equal, and no weight could become negative"
                )

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """``||V||_1``, or the sum of group norms: the penalty at lambda 1 of the products."""
        products = [self.units(weight, getattr(weight.module, weight.name)) for weight in self.weights]
        return torch.stack([torch.linalg.vector_norm(rows, dim=1).sum().cpu() for rows in products]).sum()

    def collapse(self) -> None:
        """Put the products in the factors' place: the network has its plain weights again."""
        for weight in self.weights:
            parametrize.remove_parametrizations(weight.module, weight.name, leave_parametrized=True)

    def units(self, weight: Factored, tensor: Tensor) -> Tensor:
        """Arrange a tensor like a weight as one row per unit: (n, 1), or one row per group."""
        if weight.structure == "element":
            return tensor.reshape(-1, 1)
        return (tensor if weight.structure == "row" else tensor.transpose(0, 1)).flatten(1)

    def from_units(self, weight: Factored, rows: Tensor) -> Tensor:
        """Inverse of :meth:`units`."""
        shape = getattr(weight.module, weight.name).shape
        if weight.structure != "column":
            return rows.reshape(shape)
        return rows.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1)

    @torch.no_grad()
    def prune(self, threshold: float) -> int:
        """After :meth:`collapse`: zero what is below ``threshold`` in absolute value; returns the non-zeros left."""
        left = 0
        for weight in self.weights:
            value = getattr(weight.module, weight.name)
            value.mul_(value.abs() >= threshold)
            left += int((value != 0).sum())
        return left


def _matching(network: nn.Module, patterns: Iterable[str]) -> list[tuple[str, nn.Module, str]]:
    """(full name, owner, weight name) of every weight that a pattern names."""
    found: dict[str, tuple[str, nn.Module, str]] = {}
    modules = dict(network.named_modules())
    candidates = [
        (f"{path}.weight".lstrip("."), module, "weight")
        for path, module in modules.items()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim > 1
    ]
    for pattern in patterns:
        hits = [
            c for c in candidates
            if fnmatch.fnmatch(c[0], pattern) or fnmatch.fnmatch(c[0].removesuffix(".weight"), pattern)
        ]  # fmt: skip
        if not hits:
            names = ", ".join(c[0] for c in candidates[:8])
            raise UsageError(f"--sparsify '{pattern}' matches no weight of {type(network).__name__}; it has {names}")
        found |= {hit[0]: hit for hit in hits}
    return list(found.values())
