"""The losses that networks are trained with: the decision layer's, so that one lambda means one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
FAMILIES = ("multinomial", "binomial", "gaussian")


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class FamilyLoss:
    """Mean loss of a family: outputs (n, K), targets -> scalar.

    multinomial: cross-entropy; binomial: logistic loss summed over outputs; gaussian: half the
    squared error summed over outputs.

    Attributes
    ----------
    family : str

    Raises
    ------
    ValueError
        An unknown family.
    """

    family: str

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is '{self.family}'; use multinomial, binomial or gaussian")

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean over samples, a scalar."""
        if self.family == "multinomial":
            return nn.functional.cross_entropy(outputs, y)
        target = y.reshape(outputs.shape).to(outputs.dtype)
        if self.family == "gaussian":
            return 0.5 * (outputs - target).square().sum() / len(outputs)
        return nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum") / len(outputs)
