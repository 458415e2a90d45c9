"""Whether a network's weights look trained: their entries shuffled, would anything be lost?

An untrained network is near one sample as smooth as a trained one, so fit, agreement and deletion
find nothing wrong with its explanations.  Its weights give it away: independent draws stay what
they are when their entries are shuffled, and training ties entries together, which widens the
spectrum (Martin and Mahoney, "Implicit self-regularization in deep neural networks", JMLR 2021).
So every weight matrix is compared with itself, shuffled.  No forward pass is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SHUFFLES = 20
_SMALLEST_SIDE = 16  # of a matrix that can be judged
_LARGEST_SIDE = 256  # a random block of larger ones says as much
_MIN_Z = 6.0


@dataclass(frozen=True)
class WeightCheck:
    """What the weight matrices of a network look like.

    Attributes
    ----------
    n_matrices : int
        Those large enough to be judged: 16 x 16, a convolution as outputs x all else.
    untrained : tuple of str
        Names of those that shuffling does not change.
    """

    n_matrices: int
    untrained: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """What it says against every explanation of the network: one line where most matrices look untrained."""
        if 2 * len(self.untrained) <= self.n_matrices or not self.n_matrices:
            return ()
        return (f"the network looks untrained: {self.describe()}",)

    def describe(self) -> str:
        """One line."""
        names = ", ".join(self.untrained[:3]) + (", …" if len(self.untrained) > 3 else "")
        return (
            f"{len(self.untrained)} of {self.n_matrices} weight matrices hold nothing that shuffling them destroys"
            + (f" ({names})" if names else "")
        )


def check_weights(network: nn.Module) -> WeightCheck:
    """Compare every weight matrix with its own shuffled entries.

    The statistic is ``sum(s**4) / sum(s**2)**2`` over the singular values s of the matrix less its
    mean; a matrix looks trained where it exceeds the mean of 20 shuffles by 6 of their standard
    deviations.  Orthogonal starts lie below their shuffles and count as untrained; identities and
    sinusoidal tables are structured without training and do not.
    """
    generator = torch.Generator().manual_seed(0)
    judged, untrained = 0, []
    for name, weight in network.named_parameters():
        matrix = _block(weight, generator)
        if matrix is None:
            continue
        judged += 1
        if _excess(matrix, generator) < _MIN_Z:
            untrained.append(name)
    return WeightCheck(judged, tuple(untrained))


def _block(weight: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return a random block of at most 256 x 256, without rows of zeros (padding); None if it is too small."""
    if weight.ndim < 2 or not weight.is_floating_point():
        return None
    matrix = weight.detach().reshape(len(weight), -1)
    for axis in range(2):
        chosen = torch.randperm(matrix.shape[axis], generator=generator)[:_LARGEST_SIDE]
        matrix = matrix.index_select(axis, chosen.to(matrix.device))
    matrix = matrix.cpu().double()
    matrix = matrix[matrix.abs().sum(dim=1) > 0]
    return matrix if min(matrix.shape) >= _SMALLEST_SIDE and bool(matrix.std() > 0) else None


def _excess(matrix: Tensor, generator: torch.Generator) -> float:
    """By how many standard deviations of its shuffles the matrix's statistic exceeds their mean."""
    shuffled = [
        _concentration(matrix.flatten()[torch.randperm(matrix.numel(), generator=generator)].reshape(matrix.shape))
        for _ in range(_SHUFFLES)
    ]
    null = torch.tensor(shuffled, dtype=torch.float64)
    return float((_concentration(matrix) - null.mean()) / null.std())


def _concentration(matrix: Tensor) -> float:
    centred = matrix - matrix.mean()
    gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    return float(gram.square().sum() / gram.trace().square())
