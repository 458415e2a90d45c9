"""LassoNet: a residual linear layer that decides which inputs a network may use.

Lemhadri, Ruan, Abraham & Tibshirani (JMLR 22(127), 2021), around any feed-forward module, with
minibatches and a proximal step after every one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from debugnet.sparse_training.penalties import LassoNetPenalty
from debugnet.sparse_training.readers import InputReader


class LassoNet(nn.Module):
    """``f(x) = theta' x + g(x)``: a network with a linear skip from its input to its outputs.

    Parameters
    ----------
    network : nn.Module
        Any feed-forward module, (n, *shape) -> (n, K).
    example : Tensor (n, *shape)
        A few samples.
    groups : Tensor, optional
        Unit of every input feature (see :class:`InputReader`).
    mode : str
        How single units are switched off: "auto", "linear", "channels" or "gate".

    Attributes
    ----------
    reader : InputReader
    skip : nn.Linear
        theta, (K, n_elements), without bias.
    """

    def __init__(
        self, network: nn.Module, example: Tensor, *, groups: Tensor | None = None, mode: str = "auto"
    ) -> None:
        super().__init__()
        self.reader = InputReader(network, example, groups=groups, mode=mode)
        self.network = self.reader.network
        with torch.no_grad():
            n_outputs = self.network(example).shape[1]
        self.skip = nn.Linear(example[0].numel(), n_outputs, bias=False).to(example.device)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, K) of raw samples (n, *shape)."""
        out: Tensor = self.skip(x.flatten(1)) + self.network(x)
        return out

    def penalty(self, hierarchy: float = 10.0, unit_weights: str = "sqrt") -> LassoNetPenalty:
        """Return the penalty on this model's units."""
        return LassoNetPenalty(self.reader, self.skip, hierarchy, unit_weights)
