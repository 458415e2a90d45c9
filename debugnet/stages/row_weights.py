"""Weights of the train rows: balanced classes, or one number per row from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from debugnet.artifacts.feature_store import Split


def train_weights(split: Split, class_weight: str | None, weights_file: Path | None) -> np.ndarray | None:
    """Return the weights (n_usable,) of a train split's usable rows, or None where all are equal.

    ``class_weight="balanced"`` weighs a row of class k by ``n / (K n_k)``, so that every class has
    the same total weight (scikit-learn's rule).  A weights file has one number per row of the
    split, unusable rows included.  Where both are given they multiply.

    Raises
    ------
    UsageError
        Balanced weights for labels that are not one class per row.
    InputError
        A file of another length, or a weight that is negative or not finite.
    """
    import numpy as np

    usable, weight = split.usable, None
    if class_weight == "balanced":
        y = split.y[usable]
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise UsageError(
                "--class-weight balanced needs one class per row; weigh multi-label rows with --weights-file"
            )
        counts = np.bincount(y)
        weight = (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y]
    if weights_file is not None:
        given = read_numbers(weights_file)
        if given.shape != (len(split),):
            raise InputError(f"{weights_file} has {given.size} weights for the {len(split)} rows of split {split.name}")
        bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if len(bad) or not given[usable].sum() > 0:
            where = f"weight {given[bad[0]]} in row {bad[0]}" if len(bad) else "all weights are 0"
            raise InputError(f"{weights_file}: {where}; weights are finite, not negative, and not all 0")
        weight = given[usable] if weight is None else weight * given[usable]
    return weight


def read_penalty_factors(path: Path, n_features: int) -> np.ndarray:
    """Read one factor on lambda per feature: 0 is never penalized, inf is left out.

    Raises
    ------
    InputError
        Another length, or a factor that is negative or NaN.
    """
    factors = read_numbers(path)
    if factors.shape != (n_features,):
        raise InputError(f"{path} has {factors.size} penalty factors for {n_features} features")
    if not (factors >= 0).all():
        raise InputError(f"{path}: factor {factors[~(factors >= 0)][0]} is not 0, positive or inf")
    return factors


def read_numbers(path: Path) -> np.ndarray:
    """Read a one-dimensional array from .npy (never unpickled) or from text, one number a line.

    Raises
    ------
    InputError
        Missing or not numbers.
    """
    import numpy as np

    try:
        values: Any = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        return np.asarray(values, dtype=np.float64)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} does not hold one number per line ({error})") from error


def file_reference(path: Path) -> dict[str, str]:
    """Refer to a plain file as an input: its content counts, not its name."""
    import hashlib
    import os

    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return {"kind": "file", "path": os.path.abspath(path), "digest": digest}
