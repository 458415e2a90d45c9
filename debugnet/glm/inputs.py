"""Checking and encoding what a user hands to a fit; every refusal is one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from debugnet.errors import DeviceError, InputError, UsageError
from debugnet.glm.families import FAMILIES


@dataclass(frozen=True)
class Target:
    """An encoded target.

    Attributes
    ----------
    family : str
    task : str
        "single-label", "multi-label" or "regression".
    values : ndarray
        int64 (n,) labels among the *fitted* outputs (multinomial), float32 0/1 (n, K') (binomial)
        or float64 (n, K) (gaussian).
    n_outputs : int
        Rows K of the decision layer that comes out.
    fitted : ndarray (K',), int64
        The outputs that are fitted; the others are constant on these rows (``allow_empty_class``).
    constant : ndarray (K,)
        NaN for fitted outputs; 0 or 1 for an output that is constant.
    """

    family: str
    task: str
    values: np.ndarray
    n_outputs: int
    fitted: np.ndarray
    constant: np.ndarray


def to_numpy(values: Any, what: str) -> np.ndarray:
    """Return an array of numbers from numpy, torch or a sequence; strings and objects are refused."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{what} has dtype {array.dtype}: need numbers; encode names with "
            "classes, y = np.unique(y, return_inverse=True)"
        )
    return array


def resolve_family(family: str, y: np.ndarray) -> str:
    """Resolve "auto": float y -> gaussian, 2-d 0/1 y -> binomial, else multinomial."""
    if family == "auto":
        if y.ndim == 2 and np.isin(y, (0, 1)).all():
            return "binomial"
        return "gaussian" if y.dtype.kind == "f" else "multinomial"
    if family not in FAMILIES:
        raise UsageError(f"unknown family '{family}': known: auto, {', '.join(FAMILIES)}")
    return family


def encode_target(
    y: np.ndarray,
    family: str,
    *,
    weight: np.ndarray,
    n_classes: int | None = None,
    allow_empty_class: bool = False,
) -> Target:
    """Check y (n,) or (n, K) for a resolved family and encode it.

    Labels are 0..K-1 with K = ``n_classes`` or the largest label + 1.  A class without a row of
    positive weight is refused unless ``allow_empty_class``.

    Raises
    ------
    InputError
        For anything else.
    """
    if y.ndim not in (1, 2) or len(y) == 0:
        raise InputError(f"y has shape {y.shape}: need (n_samples,) or (n_samples, n_outputs)")
    if not np.isfinite(y).all():
        raise InputError(f"y holds {y[~np.isfinite(y)].flat[0]} at row {_first_row(~np.isfinite(y))}")
    if family == "gaussian":
        return _encode_values(y)
    if y.ndim == 2:
        return _encode_multi_label(y, family, weight, n_classes, allow_empty_class)
    return _encode_labels(y, family, weight, n_classes, allow_empty_class)


def encode_evaluation(y: Any, target: Target, split: str, n: int) -> np.ndarray:
    """Encode the y of another split like the training one, over all outputs; empty classes are fine there."""
    array = to_numpy(y, f"y of {split}")
    if len(array) != n:
        raise InputError(f"{split}: X has {n} rows and y has {len(array)}")
    if target.task != "single-label":
        array = array.reshape(n, -1)
        if array.shape[1] != target.n_outputs:
            raise InputError(f"{split}: y has {array.shape[1]} columns, the model has {target.n_outputs} outputs")
        return array.astype(np.float64 if target.task == "regression" else np.float32)
    K = 2 if target.n_outputs == 1 else target.n_outputs
    bad = (array < 0) | (array >= K) | (array != np.floor(array))
    if array.ndim != 1 or bad.any():
        value = array[bad][0] if bad.any() else f"shape {array.shape}"
        raise InputError(f"{split}: label {value}: the training rows have the classes 0..{K - 1}")
    labels = array.astype(np.int64)
    if target.family == "multinomial":
        return labels
    if target.n_outputs == 1:
        return labels[:, None].astype(np.float32)
    return (labels[:, None] == np.arange(K)).astype(np.float32)


def _encode_values(y: np.ndarray) -> Target:
    values = y.reshape(len(y), -1).astype(np.float64)
    if (values == values[0]).all():
        raise InputError(f"y has one value only ({values[0].tolist()}): there is nothing to fit")
    K = values.shape[1]
    return Target("gaussian", "regression", values, K, np.arange(K), np.full(K, np.nan))


def _encode_multi_label(
    y: np.ndarray, family: str, weight: np.ndarray, n_classes: int | None, allow_empty_class: bool
) -> Target:
    if family != "binomial":
        raise InputError(f"y has shape {y.shape}: several labels per row need family='binomial'")
    bad = ~np.isin(y, (0, 1))
    if bad.any():
        raise InputError(f"multi-label y holds {y[bad][0]} at row {_first_row(bad)}: need 0 and 1")
    if n_classes not in (None, y.shape[1]):
        raise InputError(f"y has {y.shape[1]} columns, but there are {n_classes} classes")
    used = y[weight > 0]
    constant = np.where((used == used[0]).all(axis=0), used[0].astype(float), np.nan)
    _check_constant(constant, "label", allow_empty_class)
    fitted = np.flatnonzero(np.isnan(constant))
    return Target("binomial", "multi-label", y[:, fitted].astype(np.float32), y.shape[1], fitted, constant)


def _encode_labels(
    y: np.ndarray, family: str, weight: np.ndarray, n_classes: int | None, allow_empty_class: bool
) -> Target:
    bad = (y < 0) | (y != np.floor(y))
    if bad.any():
        raise InputError(f"label {y[bad][0]} at row {_first_row(bad)}: labels are integers 0..K-1")
    labels = y.astype(np.int64)
    K = int(labels.max()) + 1 if n_classes is None else n_classes
    if labels.max() >= K:
        raise InputError(f"label {labels.max()} at row {int(labels.argmax())}, but there are {K} classes (0..{K - 1})")
    mass = np.bincount(labels, weights=weight, minlength=K)
    constant = np.where(mass > 0, np.nan, 0.0)
    if (mass > 0).sum() < 2:
        raise InputError(f"y has one class only ({int(mass.argmax())}): nothing can be learned from it")
    _check_constant(constant, "class", allow_empty_class)
    fitted = np.flatnonzero(mass > 0)
    if family == "multinomial":
        position = np.zeros(K, dtype=np.int64)
        position[fitted] = np.arange(len(fitted))
        return Target("multinomial", "single-label", position[labels], K, fitted, constant)
    if K == 2:
        return Target("binomial", "single-label", labels[:, None].astype(np.float32), 1, np.arange(1), constant[1:])
    onehot = (labels[:, None] == fitted).astype(np.float32)
    return Target("binomial", "single-label", onehot, K, fitted, constant)


def _check_constant(constant: np.ndarray, what: str, allowed: bool) -> None:
    empty = np.flatnonzero(~np.isnan(constant))
    if len(empty) == len(constant):
        raise InputError(f"every {what} is constant on the rows given: nothing can be learned from them")
    if len(empty) and not allowed:
        names = ", ".join(str(k) for k in empty[:10]) + (", ..." if len(empty) > 10 else "")
        raise InputError(
            f"{what} {names} of 0..{len(constant) - 1} has no row (or no other value): relabel without gaps, "
            "or allow_empty_class=True to give it weight 0"
        )


def _first_row(bad: np.ndarray) -> int:
    return int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])


def check_sample_weight(weight: Any, n: int) -> np.ndarray:
    """Weights (n,) float64, ones by default; negative, non-finite or all-zero weights are refused."""
    if weight is None:
        return np.ones(n)
    array = to_numpy(weight, "sample_weight").astype(np.float64)
    if array.shape != (n,):
        raise InputError(f"sample_weight has shape {array.shape}: need ({n},), one per row")
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        raise InputError(f"sample_weight is {array[bad][0]} at row {_first_row(bad)}: need finite numbers >= 0")
    if not array.any():
        raise InputError("every sample_weight is zero")
    return array


def check_penalty_factor(factor: Any, d: int) -> np.ndarray:
    """Factors (d,) float64 in [0, inf], ones by default."""
    if factor is None:
        return np.ones(d)
    array = to_numpy(factor, "penalty_factor").astype(np.float64)
    if array.shape != (d,):
        raise InputError(f"penalty_factor has shape {array.shape}: need ({d},), one per feature")
    bad = np.isnan(array) | (array < 0)
    if bad.any():
        raise InputError(f"penalty_factor is {array[bad][0]} at feature {_first_row(bad)}: need 0 to infinity")
    return array


def check_offset(offset: Any, n: int, target: Target) -> np.ndarray | None:
    """Offsets (n, K) float64, for the fitted outputs."""
    if offset is None:
        return None
    array = to_numpy(offset, "offset").astype(np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.shape != (n, target.n_outputs):
        raise InputError(f"offset has shape {array.shape}: need ({n}, {target.n_outputs}), one per row and output")
    if not np.isfinite(array).all():
        raise InputError(f"offset is not finite at row {_first_row(~np.isfinite(array))}")
    return array[:, target.fitted]


def check_rows(rows: Any, n: int) -> np.ndarray | None:
    """Ascending row indices (int64) from a boolean mask or indices, or None for all rows."""
    if rows is None:
        return None
    array = np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (n,):
            raise InputError(f"rows has shape {array.shape}: a mask needs ({n},)")
        index = np.flatnonzero(array)
    else:
        index = np.unique(to_numpy(array, "rows").astype(np.int64))
    if len(index) == 0 or index[0] < 0 or index[-1] >= n:
        raise InputError(f"rows selects {len(index)} rows of {n}: need at least one, between 0 and {n - 1}")
    return None if len(index) == n else index


def check_length(y: np.ndarray, n: int) -> None:
    """X and y must have the same number of rows."""
    if len(y) != n:
        raise InputError(f"X has {n} rows and y has {len(y)}")


def check_device(device: str) -> torch.device:
    """Resolve "auto" to CUDA where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = torch.device(device)
    if resolved.type != "cuda":
        return resolved
    if not torch.cuda.is_available():
        raise DeviceError(f"device '{device}': no CUDA device is available; use device='cpu'")
    return resolved if resolved.index is not None else torch.device("cuda", torch.cuda.current_device())
