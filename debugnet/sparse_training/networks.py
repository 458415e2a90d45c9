"""Fresh networks by name, and rows as they reach them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.errors import UsageError
from debugnet.standardization import Standardizer

#: Up to this many bytes standardized rows are held in memory as one tensor.
IN_MEMORY = 2 << 30


def make_mlp(n_inputs: int, n_outputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """ReLU network on flattened samples: Flatten, Linear, ReLU, ..., Linear."""
    widths = [n_inputs, *hidden, n_outputs]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (inner, outer) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


def parse_mlp(name: str) -> tuple[int, ...]:
    """Hidden widths of "mlp:80,100"; "mlp:" alone is a linear network.

    Raises
    ------
    UsageError
        A width that is no positive integer.
    """
    words = [word for word in name.removeprefix("mlp:").split(",") if word]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--network {name}: give hidden widths, for example mlp:100 or mlp:80,100")
    return tuple(map(int, words))


class StandardizedRows:
    """Rows of a feature matrix, standardized as they are read; indexing gives float32 arrays.

    Parameters
    ----------
    X : ndarray (n, d)
        Raw features, a memory map too.
    rows : ndarray of int or None
        The rows to use.
    standardizer : Standardizer
    """

    def __init__(self, X: np.ndarray, rows: np.ndarray | None, standardizer: Standardizer) -> None:
        self._X, self._rows = X, rows
        self._mean = standardizer.mean.astype(np.float32)
        self._inverse = standardizer.inverse_scale.astype(np.float32)
        self.shape = (len(X) if rows is None else len(rows), X.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        chosen = index if self._rows is None else self._rows[index]
        return (np.asarray(self._X[chosen], dtype=np.float32) - self._mean) * self._inverse


def standardized(
    X: np.ndarray, usable: np.ndarray, standardizer: Standardizer, device: str
) -> Tensor | StandardizedRows:
    """The usable rows, standardized: one tensor on the device where it fits, else read batch by batch."""
    rows = StandardizedRows(X, None if usable.all() else np.flatnonzero(usable), standardizer)
    if 4 * rows.shape[0] * rows.shape[1] > IN_MEMORY:
        return rows
    return torch.from_numpy(rows[:]).to(device)
