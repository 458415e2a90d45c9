"""Networks that the tests of ``train-sparse`` name as ``python:tests.sparse_training.sparse_networks:...``."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


def convolutional() -> nn.Module:
    """3 x 3 images of three channels, two classes."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 6, 3, padding=1), norm=nn.BatchNorm2d(6), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(), fc1=nn.Linear(24, 8), relu2=nn.ReLU(), fc2=nn.Linear(8, 2),
        )
    )  # fmt: skip


def regressor() -> nn.Module:
    """Eight features, one output."""
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 1))


class Squashed(nn.Module):
    """Eight features, one output, which no linear layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 6), nn.Linear(6, 1)

    def forward(self, x):
        """Outputs (n, 1)."""
        return 5 * torch.tanh(self.outer(torch.relu(self.inner(x))))


class Hungry(nn.Module):
    """Eight features; as torch does it, ends where the memory ends, in the second training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.passes = nn.Linear(8, 2), 0

    def forward(self, x):
        """Outputs (n, 2)."""
        self.passes += self.training
        if self.passes > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return self.layer(x)


class Greedy(nn.Module):
    """Eight features; from the 40th training pass on it asks for more memory than any machine has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.passes = nn.Linear(8, 1), 0

    def forward(self, x):
        """Outputs (n, 1)."""
        self.passes += self.training
        if self.passes >= 40:
            torch.empty(1 << 55)
        return self.layer(x)


class Exploding(nn.Module):
    """Eight features; not a number in the training passes from ``first`` up to ``last``."""

    first, last = 200, 10**9

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.passes = nn.Linear(8, 1), 0

    def forward(self, x):
        """Outputs (n, 1)."""
        self.passes += self.training
        broken = self.training and self.first <= self.passes < self.last
        return self.layer(x) * (float("nan") if broken else 1.0)


class Hiccup(Exploding):
    """Not a number in one pass only."""

    last = 201


class Normalized(nn.Module):
    """Normalizes its eight features before its first layer: nothing there can be switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x):
        """Outputs (n, 2)."""
        return self.layer(self.norm(x))
