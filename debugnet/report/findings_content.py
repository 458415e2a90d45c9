"""What debugging found, for the report: errors, pairs, counterfactuals, other heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from debugnet.analysis.edit import audit, diff
from debugnet.report.blocks import Blocks, shorten
from debugnet.report.material import Counterfactuals, Material, OtherHead

_SHARED, _ROWS, _CHANGES, _LISTED = 150, 60, 300, 24


def error_content(material: Material, place: Mapping[str, int]) -> dict[str, Any] | None:
    """Errors by the feature behind them, and what removing each feature would do; None without a diagnosis."""
    if material.diagnosis is None:
        return None
    keys = ("split", "off", "accuracy", "errors", "fixed_by_one_feature", "published_fixable", "threshold",
            "suspects", "never_predicted")  # fmt: skip
    content = {key: material.diagnosis[key] for key in keys}
    pages: dict[int, list[int]] = {}
    for error in material.errors:
        if (number := place.get(str(error["id"]))) is not None:
            pages.setdefault(int(error["feature_wrong"]), []).append(number)
    content["groups"] = [
        group | {"examples": pages.get(group["feature"], [])[:_LISTED]}
        for group in material.diagnosis["dominant_features"]
    ]
    return shorten(content)


def pair_content(material: Material, blocks: Blocks) -> dict[str, Any] | None:
    """Confused pairs and shared features with their samples (part ``pairs``); None without pairs."""
    if material.pairs is None:
        return None
    shared = sorted(material.shared, key=lambda row: -row["strength"])
    shown = []
    for row in shared[:_SHARED]:
        entry = {key: row[key] for key in ("classes", "feature", "weights", "strength")}
        entry["samples"] = [[_evidence(material, blocks, s) for s in samples] for samples in row["samples"]]
        shown.append(entry)
    blocks.add("pairs", shorten(shown))
    keys = ("split", "overlap", "correlation", "published", "confused_pairs", "n_shared")
    return shorten({key: material.pairs[key] for key in keys} | {"shown": len(shown)})


def _evidence(material: Material, blocks: Blocks, sample: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": sample["id"]}
    i = material.place.get(str(sample["id"]))
    if i is None:
        return entry
    shown = material.samples.show(material.split_name, int(material.rows[i]))
    if isinstance(shown, str):
        entry["text"] = shown
    elif shown is not None:
        entry["picture"] = blocks.photo(shown)
    return entry


def counterfactual_content(material: Material, blocks: Blocks) -> list[dict[str, Any]]:
    """Every counterfactual experiment: rates, controls, examples."""
    return [_counterfactual(found, blocks) for found in material.counterfactuals]


def _counterfactual(found: Counterfactuals, blocks: Blocks) -> dict[str, Any]:
    rates = dict(found.rates)
    rates["skipped"] = len(rates.get("skipped") or ())
    entry: dict[str, Any] = {"name": found.name, "command": found.command, "rates": rates}
    entry["kind"] = "text" if "layers" in rates else "image"
    rows = [row for row in found.rows if row.get("flipped")] + [
        row for row in found.rows if row.get("flipped") is False
    ]
    flips, others = rows[: 2 * _ROWS // 3], [row for row in rows[2 * _ROWS // 3 :] if not row["flipped"]]
    entry["rows"] = [
        {key: row[key] for key in row if not key.startswith("logits") or len(row[key]) <= 4}
        for row in flips + others[: _ROWS // 3]
    ]
    entry["search"] = list(found.search[:_ROWS])
    entry["pictures"] = {name: blocks.figure(path) for name, path in found.pictures.items()}
    return shorten(entry)


def edit_content(material: Material, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """The audit of every edited head."""
    content = []
    for other in material.others:
        if other.audit is None:
            continue
        entry = {key: value for key, value in other.audit.items() if key not in ("fixed", "broken")}
        for kind in ("fixed", "broken"):
            ids = list(map(str, other.audit[kind]))
            entry[kind] = {
                "n": len(ids),
                "examples": [place[i] for i in ids if i in place][:_LISTED],
                "ids": [i for i in ids if i not in place][:_LISTED],
            }
        entry |= {"name": other.name, "command": other.command}
        content.append(entry)
    return shorten(content)


def compare_content(material: Material, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """The head beside each other one, on the same samples."""
    if material.head.task == "regression":
        return []
    return [_compared(material, other, place) for other in material.others]


def _compared(material: Material, other: OtherHead, place: Mapping[str, int]) -> dict[str, Any]:
    weights = diff(material.head, other.head)
    # The sums of both heads are over the columns that either uses: the rest of X is not read.
    columns = np.union1d(material.used, other.head.used_features)
    first, second = (_narrow(head, columns) for head in (material.head, other.head))
    X = np.asarray(material.X[:, columns])
    effect = audit(
        first, second, X, material.y, ids=material.ids, groups=material.groups, group_names=material.group_names
    )
    changed: dict[str, Any] = {}
    for kind in ("fixed", "broken"):
        ids: list[str] = effect[kind]  # type: ignore[assignment]
        changed[kind] = {"n": len(ids), "examples": [place[i] for i in ids if i in place][:_LISTED]}
    rows: list[Any] = weights["weights"]  # type: ignore[assignment]
    return shorten(
        {
            "name": other.name,
            "nnz": weights["nnz"],
            "counts": weights["counts"],
            "weights": rows[:_CHANGES],
            "n_weights": len(rows),
            "features": [len(material.used), len(other.head.used_features)],
            "per_class": [float(h.support.sum(axis=1).mean()) for h in (material.head, other.head)],
            "before": effect["before"],
            "after": effect["after"],
            "mcnemar_p": effect["mcnemar_p"],
            "classes": effect["classes"],
            "groups": effect.get("groups"),
        }
        | changed
    )


def _narrow(head: Any, columns: np.ndarray) -> Any:
    standardizer = dataclasses.replace(
        head.standardizer, mean=head.standardizer.mean[columns], scale=head.standardizer.scale[columns]
    )
    return dataclasses.replace(head, weight=head.weight[:, columns], standardizer=standardizer)
