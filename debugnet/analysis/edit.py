"""Editing a decision layer: a small reviewable list of changes, its effect, and two heads compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from debugnet.analysis.intervals import proportion, sign_test
from debugnet.errors import InputError, UsageError
from debugnet.heads import LinearHead

ACTIONS = ("remove", "scale", "set")


@dataclass(frozen=True)
class Edit:
    """One change to the layer, in standardized coordinates.

    Attributes
    ----------
    action : str
        "remove" (weight becomes 0: the feature stands at its train mean for ever), "scale"
        (weight times ``value``) or "set" (standardized weight becomes ``value``).
    feature : int
    output : str or None
        Name of the class whose weight changes; None = all classes.
    value : float or None
        For "scale" and "set".
    note : str
        Why; kept with the edit.
    """

    action: str
    feature: int
    output: str | None = None
    value: float | None = None
    note: str = ""


def parse_edits(records: Sequence[Mapping[str, object]]) -> list[Edit]:
    """Read edits from plain records (a list in edits.yaml), refusing anything unclear.

    Raises
    ------
    InputError
        Naming the entry and what it may hold.
    """
    edits = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise InputError(f"edit {number} is {record!r}; write a mapping such as {{action: remove, feature: 12}}")
        unknown = set(record) - {"action", "feature", "output", "value", "note"}
        if unknown:
            raise InputError(
                f"edit {number} has unknown keys {sorted(map(str, unknown))}; use action, feature, output, value, note"
            )
        action, feature, value = record.get("action"), record.get("feature"), record.get("value")
        if action not in ACTIONS:
            raise InputError(f"edit {number} has action {action!r}; use one of {', '.join(ACTIONS)}")
        if not isinstance(feature, int) or isinstance(feature, bool):
            raise InputError(f"edit {number} has feature {feature!r}; give the feature's index, an integer")
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
        if (action == "remove") != (value is None) or (value is not None and not numeric):
            raise InputError(
                f"edit {number} ('{action}') has value {value!r}; scale and set take a number, remove none"
            )
        output = record.get("output")
        edits.append(
            Edit(str(action), feature, None if output is None else str(output),
                 float(value) if numeric else None, str(record.get("note", "")))  # type: ignore[arg-type]
        )  # fmt: skip
    return edits


def apply_edits(head: LinearHead, edits: Sequence[Edit]) -> LinearHead:
    """Return a new head with the edits applied in order; the bias in standardized coordinates stays.

    Raises
    ------
    UsageError
        If a feature or an output does not exist in this head.
    """
    weight = head.standardized_weight
    names = head.output_names
    for edit in edits:
        if not 0 <= edit.feature < weight.shape[1]:
            raise UsageError(f"feature {edit.feature} does not exist: this head has features 0..{weight.shape[1] - 1}")
        if edit.output is not None and edit.output not in names:
            raise UsageError(f"output '{edit.output}' does not exist: this head has {', '.join(names[:20])}")
        if edit.action == "set" and head.standardizer.scale[edit.feature] == 0:
            raise UsageError(f"feature {edit.feature} is constant on the train rows: a weight on it has no effect")
        rows = slice(None) if edit.output is None else names.index(edit.output)
        if edit.action == "remove":
            weight[rows, edit.feature] = 0.0
        elif edit.action == "scale":
            weight[rows, edit.feature] *= edit.value
        else:
            weight[rows, edit.feature] = edit.value
    raw_weight, raw_bias = head.standardizer.to_raw(weight, head.standardized_bias)
    return replace(head, weight=raw_weight, bias=raw_bias)


def audit(
    before: LinearHead,
    after: LinearHead,
    X: np.ndarray,
    y: np.ndarray,
    *,
    ids: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
    group_names: Sequence[str] = (),
) -> dict[str, object]:
    """Compare two heads on samples that were not used to choose the edit.

    Parameters
    ----------
    before, after : LinearHead
        Single-label or multi-label (a multi-label sample is right when all its labels are).
    X : ndarray (n, d)
        Raw features.
    y : ndarray
        (n,) class indices or (n, K) 0/1.
    ids : sequence of str, optional
        Sample ids; row numbers where not given.
    groups : ndarray (n,), int64, optional
        Group of each sample; the worst group's accuracy is reported.
    group_names : sequence of str

    Returns
    -------
    dict
        JSON-able: accuracy before and after with 95% Wilson intervals, ``classes``, ``groups``,
        ``worst_group``, ``fixed`` and ``broken`` (ids), and the exact McNemar p-value (two-sided).
    """
    right = [_right(head, X, y) for head in (before, after)]
    names = [str(i) for i in range(len(y))] if ids is None else ids
    fixed, broken = np.flatnonzero(~right[0] & right[1]), np.flatnonzero(right[0] & ~right[1])
    low, high = sorted((len(fixed), len(broken)))
    report: dict[str, object] = {
        "n": len(y),
        "before": proportion(int(right[0].sum()), len(y)),
        "after": proportion(int(right[1].sum()), len(y)),
        "fixed": [names[int(i)] for i in fixed],
        "broken": [names[int(i)] for i in broken],
        "mcnemar_p": min(1.0, 2 * float(sign_test(np.array(high), np.array(low)))),
    }
    if before.task == "multi-label":
        members = {name: y[:, k] == 1 for k, name in enumerate(before.output_names)}
    else:
        members = {name: y == k for k, name in enumerate(before.class_names)}
    report["classes"] = _by_member(members, right)
    if groups is not None:
        labels = {int(g): group_names[g] if g < len(group_names) else str(g) for g in np.unique(groups)}
        table = _by_member({label: groups == g for g, label in labels.items()}, right)
        report["groups"] = table
        report["worst_group"] = {
            when: min(table, key=lambda row: row[when]["value"]) | {"when": when} for when in ("before", "after")
        }
    return report


def diff(first: LinearHead, second: LinearHead) -> dict[str, object]:
    """List where two heads differ, in standardized coordinates.

    Raises
    ------
    UsageError
        If they do not have the same features and outputs.
    """
    if first.weight.shape != second.weight.shape or list(first.output_names) != list(second.output_names):
        raise UsageError(
            f"these heads do not belong together: {first.weight.shape} outputs x features and "
            f"{second.weight.shape}; compare heads of one feature store"
        )
    a, b = first.standardized_weight, second.standardized_weight
    rows, columns = np.nonzero(~np.isclose(a, b, rtol=1e-9, atol=1e-12))
    kinds = np.where(a[rows, columns] == 0, "added", np.where(b[rows, columns] == 0, "removed", "changed"))
    order = np.argsort(-np.abs(a[rows, columns] - b[rows, columns]), kind="stable")
    names = first.output_names
    return {
        "weights": [
            {
                "output": names[rows[i]],
                "feature": int(columns[i]),
                "change": str(kinds[i]),
                "first": float(a[rows[i], columns[i]]),
                "second": float(b[rows[i], columns[i]]),
            }
            for i in order
        ],  # fmt: skip
        "counts": {kind: int((kinds == kind).sum()) for kind in ("added", "removed", "changed")},
        "bias": [
            {"output": name, "first": float(p), "second": float(q)}
            for name, p, q in zip(names, first.standardized_bias, second.standardized_bias, strict=True)
        ],
        "nnz": [int(first.support.sum()), int(second.support.sum())],
    }


def _right(head: LinearHead, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each sample is predicted right, (n,) bool."""
    right = head.predict(X) == y
    return right.all(axis=1) if right.ndim == 2 else right


def _by_member(members: Mapping[str, np.ndarray], right: Sequence[np.ndarray]) -> list[dict]:
    """Accuracy before and after for each subset that has samples."""
    return [
        {
            "name": name,
            "before": proportion(int(right[0][chosen].sum()), int(chosen.sum())),
            "after": proportion(int(right[1][chosen].sum()), int(chosen.sum())),
            "fixed": int((~right[0] & right[1])[chosen].sum()),
            "broken": int((right[0] & ~right[1])[chosen].sum()),
        }
        for name, chosen in members.items()
        if chosen.any()
    ]
