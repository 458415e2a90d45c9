"""Raw features seen through their standardization, without ever making a standardized copy.

``x_std = (x - mean) * inverse_scale`` is folded into the products: ``x_std @ W.T`` is a product
of the raw x with scaled weights plus a constant, and ``R.T @ x_std`` is a scaled product with
the raw x minus a rank-one term.  X may be a numpy array, a memory map larger than memory or a
torch tensor, in float16, float32 or float64; products run over row blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from debugnet.errors import InputError
from debugnet.standardization import Standardizer

#: Bytes of one row block after conversion: small enough for a CPU's cache, large enough for a GPU.
BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
#: Above this |mean|/scale a float32 product of raw features loses too many digits to cancellation.
MAX_FLOAT32_OFFSET = 50.0
#: Entries gathered at a time from chosen columns (8 MB in float64).
GATHER_ENTRIES = 1 << 20
#: Share of the columns up to which gathering them is cheaper than a product with all: as they are, or converted.
FEW, FEW_CONVERTED = 1 / 8, 1 / 2
#: Up to this many entries (32 MB) products simply run in float64.
SMALL = 4_000_000


class Communicator(Protocol):
    """Sums over the ranks that share the rows; the default has one rank and does nothing."""

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, in place, and return it."""

    def max_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its maximum over all ranks, in place, and return it."""

    def share(self, n: int) -> tuple[int, int]:
        """First and past-the-last of ``n`` rows that are this rank's."""


class SingleProcess:
    """The communicator of a fit that holds all rows itself."""

    def sum_(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return tensor

    def share(self, n: int) -> tuple[int, int]:
        """Return all rows."""
        return 0, n


def as_tensor(X: np.ndarray | Tensor) -> Tensor:
    """View X (n, d) as a CPU or CUDA tensor without copying (a memory map stays one).

    Raises
    ------
    InputError
        If X is not a 2-d float16, float32 or float64 array.
    """
    if isinstance(X, np.ndarray):
        if X.dtype.kind in "iub":
            X = X.astype(np.float32)
        if X.dtype.kind != "f" or X.dtype.itemsize > 8:
            raise InputError(f"features have dtype {X.dtype}: need float16, float32 or float64")
        if not X.dtype.isnative or any(s < 0 for s in X.strides):
            X = np.ascontiguousarray(X, dtype=X.dtype.newbyteorder("="))
        with warnings.catch_warnings():  # a read-only map is fine: nothing here writes to X
            warnings.filterwarnings("ignore", message=".*not writable.*")
            X = torch.from_numpy(X)
    if X.ndim != 2 or not X.is_floating_point() or X.dtype == torch.bfloat16:
        raise InputError(
            f"features have shape {tuple(X.shape)} and dtype {X.dtype}: need (n_samples, n_features) "
            "in float16, float32 or float64"
        )
    return X


class Design:
    """The standardized design matrix, as products.

    Parameters
    ----------
    X : Tensor (n_total, d)
        Raw features, from :func:`as_tensor`.
    mean, inverse_scale : ndarray (d,), float64
        ``inverse_scale`` is exactly 0 on dead and excluded features: their column is zero.
    rows : Tensor (n,), int64, optional
        The rows used, ascending; all by default.
    device : torch.device
    communicator : Communicator

    Attributes
    ----------
    shape : (int, int)
        Local rows used, features.
    dtype : torch.dtype
        In which products run fast and safely: float64 for float64 storage, small problems and
        features far from zero mean; else float32.
    far_from_zero : bool
        True where a feature's mean is so large that float32 products of raw values lose too much.
    single_is_safe : bool
        True where float32 products lose nothing but rounding: the storage is no finer, and no feature is far from zero.
    mean, inverse_scale : Tensor (d,), float64, on the device
    """

    def __init__(
        self,
        X: Tensor,
        mean: np.ndarray,
        inverse_scale: np.ndarray,
        *,
        rows: Tensor | None = None,
        device: torch.device | str = "cpu",
        communicator: Communicator | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.communicator = communicator or SingleProcess()
        self.X = X if X.device == self.device else _move_if_it_fits(X, self.device)
        self.rows = rows
        self.shape = (len(X) if rows is None else len(rows), X.shape[1])
        self.mean = torch.as_tensor(mean, dtype=torch.float64, device=self.device)
        self.inverse_scale = torch.as_tensor(inverse_scale, dtype=torch.float64, device=self.device)
        self.far_from_zero = bool(((self.mean * self.inverse_scale).abs() > MAX_FLOAT32_OFFSET).any())
        self.single_is_safe = X.dtype != torch.float64 and not self.far_from_zero
        self.dtype = torch.float32 if self.single_is_safe and X.numel() > SMALL else torch.float64

    @classmethod
    def standardized(cls, X: Tensor, communicator: Communicator) -> Design:
        """Wrap columns that are standardized already (a gathered working set)."""
        d = X.shape[1]
        return cls(X, np.zeros(d), np.ones(d), device=X.device, communicator=communicator)

    @property
    def alive(self) -> Tensor:
        """Boolean (d,): features that are neither dead nor excluded."""
        return self.inverse_scale > 0

    def blocks(self, dtype: torch.dtype, max_rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield (local rows, raw block (B, d) in ``dtype`` on the device), in order; uncopied where X has the dtype."""
        yield from row_blocks(self.X, self.rows, dtype, self.device, max_rows)

    def scores(self, W: Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """``X_std W' + bias``: W (K, d), bias (K,) -> (n, K) in ``dtype`` (default :attr:`dtype`).

        Only the columns on which some output has a weight are read where they are few.  On the CPU each
        output's scores lie together in memory: sums over few classes are fast that way.
        """
        dtype = dtype or self.dtype
        scaled = W.to(torch.float64) * self.inverse_scale
        shift = -(scaled @ self.mean) if bias is None else bias.to(torch.float64) - scaled @ self.mean
        used = torch.nonzero(scaled.abs().amax(dim=0)).ravel()
        if self.device.type == "cpu":
            out = shift.to(dtype)[:, None].expand(-1, self.shape[0]).clone().T
        else:
            out = shift.to(dtype).expand(self.shape[0], -1).clone()
        if len(used) == 0:
            return out
        few = len(used) <= self.shape[1] * (FEW if dtype == self.X.dtype else FEW_CONVERTED)
        weight = (scaled[:, used] if few else scaled).to(dtype).T
        source_dtype = self.X.dtype if few else dtype
        max_rows = GATHER_ENTRIES // len(used) + 1 if few else None
        for rows, block in row_blocks(self.X, self.rows, source_dtype, self.device, max_rows):
            block = block.index_select(1, used).to(dtype) if few else block
            out[rows].addmm_(block, weight)
        return out

    def gradient(self, residual: Tensor, dtype: torch.dtype | None = None, max_rows: int | None = None) -> Tensor:
        """``residual' X_std``: (n, K) -> (K, d) float64, summed over all ranks.

        The residual carries the sample weights (see :meth:`GLMProblem.residual`).  Products run in
        ``dtype`` over blocks of at most ``max_rows`` rows; sums across blocks are float64.
        """
        dtype = dtype or self.dtype
        total = torch.zeros((residual.shape[1], self.shape[1] + 1), dtype=torch.float64, device=self.device)
        for rows, block in row_blocks(self.X, self.rows, dtype, self.device, max_rows):
            total[:, :-1] += residual[rows].to(dtype).T @ block
        total[:, -1] = residual.sum(dim=0, dtype=torch.float64)
        self.communicator.sum_(total)
        return (total[:, :-1] - total[:, -1:] * self.mean) * self.inverse_scale

    def columns(self, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Standardized columns, copied: index (s,) -> (n, s) in ``dtype`` (local rows)."""
        dtype = dtype or self.dtype
        out = torch.empty((self.shape[0], len(index)), dtype=dtype, device=self.device)
        mean, scale = self.mean[index], self.inverse_scale[index]
        max_rows = GATHER_ENTRIES // max(1, len(index)) + 1
        for rows, block in row_blocks(self.X, self.rows, self.X.dtype, self.device, max_rows):
            out[rows] = ((block.index_select(1, index).to(torch.float64) - mean) * scale).to(dtype)
        return out

    def take_rows(self, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Standardized rows, copied: local row index (B,) int64 -> (B, d) in ``dtype``."""
        dtype = dtype or self.dtype
        index = index if self.rows is None else self.rows[index]
        block = self.X.index_select(0, index.to(self.X.device)).to(self.device, dtype)
        return (block - self.mean.to(dtype)).mul_(self.inverse_scale.to(dtype))


def row_blocks(
    X: Tensor, rows: Tensor | None, dtype: torch.dtype, device: torch.device, max_rows: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice of the used rows, block (B, d) of X in ``dtype`` on ``device``), in order."""
    n = len(X) if rows is None else len(rows)
    itemsize = torch.empty((), dtype=dtype).element_size()
    size = max(1, BLOCK_BYTES.get(device.type, BLOCK_BYTES["cpu"]) // (itemsize * max(1, X.shape[1])))
    if rows is None and X.dtype == dtype and X.device == device:
        size = max(size, 16384)  # nothing is copied: the block only bounds float32 accumulation
    size = min(size, max_rows or size)
    for start in range(0, n, size):
        part = slice(start, min(n, start + size))
        block = X[part] if rows is None else X.index_select(0, rows[part])
        yield part, block.to(device=device, dtype=dtype, non_blocking=True)


def _move_if_it_fits(X: Tensor, device: torch.device) -> Tensor:
    """Put X on the device whole where it takes at most 80% of the free memory; else stream it."""
    if device.type != "cuda":
        return X.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    return X.to(device) if X.numel() * X.element_size() <= 0.8 * free else X


def measure_standardizer(
    X: Tensor,
    rows: Tensor | None,
    sample_weight: Tensor,
    *,
    center: bool,
    scale: bool,
    device: torch.device,
    communicator: Communicator,
    first_row: int = 0,
) -> Standardizer:
    """Weighted mean and standard deviation (1/n) of the used rows, in two passes over the data.

    With sample weights the statistics are weighted, so that an integer weight is the same as
    repeating the row.  A feature counts as dead where its spread is no more than the rounding of
    its own mean.  ``first_row`` is where this rank's X begins in the user's.

    Raises
    ------
    InputError
        If a used row holds NaN or infinity; the message names the first such row and column.
    """
    d = X.shape[1]
    first = torch.zeros(d, dtype=torch.float64, device=device)
    refusal: InputError | None = None
    for part, block in row_blocks(X, rows, torch.float64, device):
        first += sample_weight[part] @ block
        if refusal is None and not bool(torch.isfinite(block.sum())):
            refusal = _non_finite(block, part.start, rows, first_row)
    if bool(communicator.max_(torch.tensor(float(refusal is not None), device=device))):
        raise refusal or InputError("features are not finite in the rows of another rank")
    mean = communicator.sum_(first)
    second = torch.zeros(d, dtype=torch.float64, device=device)
    peak = torch.zeros(d, dtype=torch.float64, device=device)
    for part, block in row_blocks(X, rows, torch.float64, device):
        second += sample_weight[part] @ (block - mean).square_()
        peak = torch.maximum(peak, block.abs().amax(dim=0))
    deviation = communicator.sum_(second).sqrt()
    peak = communicator.max_(peak)
    # Rounding in the mean leaves about 1e-16 of the largest value; nothing real is that small.
    deviation[deviation <= 1e-13 * peak] = 0.0
    mean = mean if center else torch.zeros_like(mean)
    deviation = deviation if scale else torch.ones_like(deviation)
    return Standardizer(mean.cpu().numpy(), deviation.cpu().numpy())


def _non_finite(block: Tensor, start: int, rows: Tensor | None, first_row: int) -> InputError | None:
    """Describe the first NaN or infinity of a block; None where finite values only summed to one."""
    bad = torch.nonzero(~torch.isfinite(block))
    if len(bad) == 0:
        return None
    local, column = (int(i) for i in bad[0])
    row = first_row + start + local if rows is None else int(rows[start + local])
    return InputError(
        f"features hold {float(block[local, column])} at row {row}, column {column}: "
        "leave such rows out (rows=) or repair them"
    )
