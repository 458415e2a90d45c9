"""Label columns of any spelling to class indices, by rules that do not depend on the order of the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.errors import InputError

MISSING_WORDS = frozenset(("", "nan", "na", "n/a", "none", "null"))


@dataclass(frozen=True)
class EncodedLabels:
    """Labels per split with their classes.

    Attributes
    ----------
    values : dict of str to ndarray
        Per split: (n,) int64 (-1 missing), (n, K) uint8, or (n,) float64 (NaN missing).
    missing : dict of str to ndarray
        Per split (n,) bool: the row has no usable label.
    class_names : list of str
        Empty for regression.
    task : str
        "single-label", "multi-label" or "regression".
    """

    values: dict[str, np.ndarray]
    missing: dict[str, np.ndarray]
    class_names: list[str]
    task: str


Cells = Mapping[str, Sequence[object]]
Ids = Mapping[str, Sequence[str]]
Spelled = Mapping[str, Sequence[int | str | None]]


def _number(cell: object) -> float | None:
    """The cell as a number, NaN when it is missing, None when it is a word."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in MISSING_WORDS:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and "_" not in text else None
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _first_ids(ids: Sequence[str], bad: np.ndarray) -> str:
    rows = np.flatnonzero(bad)
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return ", ".join(ids[i] for i in rows[:10]) + more


def _refuse_systematic(missing: Mapping[str, np.ndarray], ids: Ids, column: str) -> None:
    for split, bad in missing.items():
        if len(bad) and bad.mean() > 0.5:
            raise InputError(
                f"labels '{column}': {int(bad.sum())} of {len(bad)} {split} rows are missing, NaN or negative: "
                f"{_first_ids(ids[split], bad)}; fill or remove them"
            )


def encode_single(cells: Cells, ids: Ids, column: str, task: str, class_names: Sequence[str] = ()) -> EncodedLabels:
    """Encode one label column.

    Integers (also "3" and 3.0, with gaps) are sorted as numbers, anything else as words; class k is the k-th value
    that occurs in train.  Missing, NaN and negative labels are marked missing (a column of just -1 and 1 is two
    classes); more than half of a split missing is refused.

    Parameters
    ----------
    cells, ids : mapping of split to sequence
        Raw cells and row ids.
    column : str
        Name of the column, for messages.
    task : str
        "auto", "single-label" or "regression".
    class_names : sequence of str
        When given, integer labels index it directly and words must occur in it.

    Raises
    ------
    InputError
        Labels with a fraction, classes in val or test that train does not have, systematic gaps.
    """
    numbers = {split: [_number(cell) for cell in column_cells] for split, column_cells in cells.items()}
    is_numeric = all(value is not None for values in numbers.values() for value in values)
    if task == "regression":
        return _encode_regression(numbers, ids, column)
    if is_numeric:
        keys = {split: np.array(values, dtype=np.float64) for split, values in numbers.items()}
        found = np.unique(np.concatenate([values[~np.isnan(values)] for values in keys.values()]))
        if np.any(found != np.round(found)):
            value = found[found != np.round(found)][0]
            raise InputError(f"labels '{column}': {value:g} is no class number; use --task regression for a number")
        signed = found.tolist() == [-1, 1]
        missing = {split: np.isnan(values) | ((values < 0) & (not signed)) for split, values in keys.items()}
        spelled: Spelled = {s: [None if m else int(k) for k, m in zip(keys[s], missing[s], strict=True)] for s in keys}
    else:
        gaps = {s: [value is not None and math.isnan(value) for value in numbers[s]] for s in cells}
        spelled = {s: [None if m else str(c).strip() for c, m in zip(cells[s], gaps[s], strict=True)] for s in cells}
        missing = {split: np.array(values, dtype=bool) for split, values in gaps.items()}
    _refuse_systematic(missing, ids, column)
    return _index_classes(spelled, missing, ids, column, class_names, numeric=is_numeric)


def _encode_regression(numbers: Mapping[str, Sequence[float | None]], ids: Ids, column: str) -> EncodedLabels:
    for split, values in numbers.items():
        words = np.array([value is None for value in values], dtype=bool)
        if words.any():
            raise InputError(f"labels '{column}': not a number in {split} rows {_first_ids(ids[split], words)}")
    targets = {split: np.array(values, dtype=np.float64) for split, values in numbers.items()}
    missing = {split: ~np.isfinite(values) for split, values in targets.items()}
    _refuse_systematic(missing, ids, column)
    return EncodedLabels(targets, missing, [], "regression")


def _index_classes(
    spelled: Spelled,
    missing: dict[str, np.ndarray],
    ids: Ids,
    column: str,
    class_names: Sequence[str],
    *,
    numeric: bool,
) -> EncodedLabels:
    first = "train" if "train" in spelled else next(iter(spelled))
    if class_names:
        classes: list[int | str] = list(range(len(class_names))) if numeric else list(class_names)
    else:
        classes = sorted({value for value in spelled[first] if value is not None})
    index: dict[int | str | None, int] = {value: k for k, value in enumerate(classes)} | {None: -1}
    values = {}
    for split, column_values in spelled.items():
        unknown = np.array([value not in index for value in column_values], dtype=bool)
        if unknown.any():
            strange = sorted({str(v) for v, u in zip(column_values, unknown, strict=True) if u})
            where = "the given class names" if class_names else "train"
            raise InputError(
                f"labels '{column}': class {', '.join(strange[:5])} of {split} does not occur in {where}: "
                f"{_first_ids(ids[split], unknown)}"
            )
        values[split] = np.array([index[value] for value in column_values], dtype=np.int64)
    return EncodedLabels(values, missing, [str(name) for name in class_names or classes], "single-label")


def encode_multi(columns: Mapping[str, Cells], ids: Ids) -> EncodedLabels:
    """Encode several 0/1 columns as one multi-label target (n, K) uint8; class names are the column names.

    A row with a missing or negative cell (Jigsaw writes -1 for "not rated") is marked missing as a whole.

    Raises
    ------
    InputError
        If a cell is neither 0 nor 1, or most rows of a split are missing.
    """
    names = list(columns)
    values: dict[str, np.ndarray] = {}
    missing: dict[str, np.ndarray] = {}
    for split in columns[names[0]]:
        table = np.empty((len(ids[split]), len(names)))
        for k, name in enumerate(names):
            table[:, k] = [2 if (value := _number(cell)) is None else value for cell in columns[name][split]]
            strange = (table[:, k] > 0) & (table[:, k] != 1)
            if strange.any():
                raise InputError(
                    f"label column '{name}' is not 0/1 in {split} rows {_first_ids(ids[split], strange)}; "
                    "for one column of classes give that column alone"
                )
        missing[split] = np.any(np.isnan(table) | (table < 0), axis=1)
        values[split] = np.where(missing[split][:, None], 0, np.nan_to_num(table)).astype(np.uint8)
    _refuse_systematic(missing, ids, ",".join(names))
    return EncodedLabels(values, missing, names, "multi-label")
