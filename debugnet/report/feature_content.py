"""Features of a report: a line for each in the list, and a part with its evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from debugnet.artifacts.explanation_bundle import SIDES
from debugnet.report.blocks import Blocks, shorten
from debugnet.report.material import Material

_WORDS_IN_LIST, _WORDS_IN_TABLE, _BINS, _MEANS = 6, 120, 24, 12
_TRUST = (
    "r2", "split_half", "n_removed", "predicted", "measured", "random_mean", "random_as_strong", "stable", "flags",
    "parts_unchanged",
)  # fmt: skip


def feature_content(material: Material, blocks: Blocks, n_prototypes: int) -> list[dict[str, Any]]:
    """Return the list of features; each one's evidence becomes the part ``f<feature>``."""
    explained = set(material.explanations.features) if material.explanations else set()
    shares = _selection_shares(material)
    suspects = {row["feature"]: row for row in (material.diagnosis or {}).get("suspects", ())}
    content = []
    for at, feature in enumerate(map(int, material.used)):
        column = material.weight[:, feature]
        users = np.flatnonzero(column)
        users = users[np.argsort(-np.abs(column[users]), kind="stable")]
        entry: dict[str, Any] = {"id": feature, "weights": [[int(k), float(column[k])] for k in users]}
        if feature in shares:
            entry["share"] = shares[feature]
        if suspects.get(feature, {}).get("suspect"):
            entry["suspect"] = True
        if feature in material.notes.features:
            entry["note"] = material.notes.features[feature]
        part: dict[str, Any] = {
            "sides": {side: _side(material, blocks, feature, at, side, n_prototypes) for side in SIDES},
            "histogram": _histogram(material.Z[:, at]),
            "means": _means(material, at),
        }
        if feature in explained:
            entry |= _words(material, feature, part)
            entry |= _trust(part)
        if feature in suspects:
            part["ablation"] = {
                key: suspects[feature][key] for key in ("fixed", "broken", "p_value", "errors_dominated", "suspect")
            }
        if (bias := _bias(material, feature)) is not None:
            part["bias"] = bias
        entry["picture"] = next((p["picture"] for p in part["sides"]["positive"]["prototypes"] if "picture" in p), None)
        blocks.add(f"f{feature}", shorten(part))
        content.append(shorten(entry))
    return content


def _selection_shares(material: Material) -> dict[int, float]:
    """Feature -> how often the resamples select its least stable weight."""
    if material.stability is None:
        return {}
    found: dict[int, float] = {}
    for row in material.stability["weights"]:
        found[row["feature"]] = min(found.get(row["feature"], 1.0), row["share"])
    return found


def _side(material: Material, blocks: Blocks, feature: int, at: int, side: str, n_prototypes: int) -> dict[str, Any]:
    """One tail: its samples with their explanations, its words, its visualization."""
    bundle = material.explanations
    if bundle is None or feature not in bundle.features or side not in bundle.sides(feature):
        return {"prototypes": _extremes(material, blocks, at, side, n_prototypes)}
    lime = {record["sample_id"]: record for record in bundle.records(feature, side, "lime")}
    records = bundle.records(feature, side, "prototypes") or list(lime.values())
    content: dict[str, Any] = {"split": material.explained_split}
    content["prototypes"] = [
        _prototype(material, blocks, record, lime.get(record["sample_id"])) for record in records[:n_prototypes]
    ] or _extremes(material, blocks, at, side, n_prototypes)
    if not any("picture" in p or "text" in p for p in content["prototypes"]):
        pictures = [*bundle.pictures(feature, side, "prototypes"), *bundle.pictures(feature, side, "lime")]
        content["sheets"] = [blocks.figure(path) for path in pictures if path.suffix == ".png" and path.exists()][:4]
    if words := bundle.records(feature, side, "words"):
        content["words"] = [[w["word"], w["mean"], w["n"]] for w in words]
    for record in bundle.records(feature, side, "visualization"):
        content["visualization"] = {key: record.get(key) for key in ("activation", "percentile", "failed", "steps")}
        for path in bundle.pictures(feature, side, "visualization"):
            if path.suffix == ".png" and path.exists():
                content["visualization"]["picture"] = blocks.figure(path)
    return content


def _prototype(
    material: Material, blocks: Blocks, record: Mapping[str, Any], lime: Mapping[str, Any] | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": record["sample_id"], "z": record["activation"], "label": record["classes"]}
    shown = material.samples.show(material.explained_split, int(record["row"]))
    if shown is None:
        shown = record.get("text")
    _attach(entry, blocks, shown)
    if lime is None:
        return entry
    entry["lime"] = {key: lime[key] for key in _TRUST if key in lime} | {"limit": lime["limit"]}
    if "parts" in lime:
        entry["lime"]["pieces"] = mark_words(entry.get("text", ""), lime["parts"], lime["effects"])
        entry["lime"]["words"] = sorted(map(list, zip(lime["parts"], lime["effects"], strict=True)), key=_strongest)
    elif "picture" in entry and material.explanations is not None:
        entry["lime"]["map"] = blocks.segments(material.explanations.segments(lime))
        entry["lime"]["effects"] = lime["effects"]
    return entry


def _strongest(pair: list[Any]) -> float:
    return -abs(pair[1] or 0.0)


def mark_words(text: str, words: list[str], effects: list[float]) -> list[list[Any]]:
    """Cut a text into ``[piece, effect]``; the effect is None between words."""
    effect = {word.casefold(): value for word, value in zip(words, effects, strict=True)}
    known = sorted({re.escape(word) for word in effect}, key=len, reverse=True)
    if not known:
        return [[text, None]]
    pieces: list[list[Any]] = []
    end = 0
    for match in re.finditer(rf"(?<!\w)(?:{'|'.join(known)})(?!\w)", text, flags=re.IGNORECASE):
        if match.start() > end:
            pieces.append([text[end : match.start()], None])
        pieces.append([match.group(), effect.get(match.group().casefold())])
        end = match.end()
    return [*pieces, [text[end:], None]] if end < len(text) else pieces


def _extremes(material: Material, blocks: Blocks, at: int, side: str, n: int) -> list[dict[str, Any]]:
    """The most extreme of the report's own samples, where nothing explains the feature."""
    values = material.Z[:, at]
    signed = -values if side == "positive" else values
    first = np.argpartition(signed, min(n, len(signed) - 1))[:n] if n else np.array([], dtype=int)
    entries = []
    for i in first[np.argsort(signed[first], kind="stable")]:
        entry = {"id": str(material.ids[i]), "z": float(values[i]), "label": label_of(material, int(i))}
        _attach(entry, blocks, material.samples.show(material.split_name, int(material.rows[i])))
        entries.append(entry)
    return entries


def _attach(entry: dict[str, Any], blocks: Blocks, shown: np.ndarray | str | None) -> None:
    if isinstance(shown, str):
        entry["text"] = shown
    elif shown is not None:
        entry["picture"] = blocks.photo(shown)


def label_of(material: Material, i: int) -> str:
    """The true class or classes of a sample, for people."""
    label = material.y[i]
    if material.head.task == "regression":
        return ", ".join(f"{v:.3g}" for v in np.atleast_1d(label))
    if np.ndim(label):
        return ", ".join(material.classes[k] for k in np.flatnonzero(label)) or "none"
    return material.classes[int(label)] if 0 <= int(label) < len(material.classes) else "unlabelled"


def _histogram(values: np.ndarray) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=_BINS)
    return {"counts": counts.tolist(), "low": float(edges[0]), "high": float(edges[-1])}


def _means(material: Material, at: int) -> list[list[Any]]:
    """Mean of the feature over the samples of each class: the farthest from 0 first."""
    if material.right is None:
        return []
    members = material.y == 1 if material.y.ndim == 2 else material.y[:, None] == np.arange(len(material.classes))
    n = members.sum(axis=0)
    means = members.T.astype(np.float64) @ material.Z[:, at] / np.maximum(n, 1)
    order = [k for k in np.argsort(-np.abs(means), kind="stable") if n[k]][:_MEANS]
    return [[int(k), float(means[k]), int(n[k])] for k in order]


def _words(material: Material, feature: int, part: dict[str, Any]) -> dict[str, Any]:
    """Put the whole table into the part, the strongest words into the list."""
    assert material.explanations is not None
    table = material.explanations.word_table(feature)
    if not table:
        return {}
    half = _WORDS_IN_TABLE // 2
    rows = table if len(table) <= _WORDS_IN_TABLE else table[:half] + table[-half:]
    part["table"] = [[w["word"], w["mean"], w["n"], w["low"], w["high"]] for w in rows]
    part["table_size"] = len(table)
    return {
        side: [w["word"] for w in material.explanations.records(feature, side, "words")[:_WORDS_IN_LIST]]
        for side in SIDES
    }


def _trust(part: Mapping[str, Any]) -> dict[str, Any]:
    """How many of a feature's explanations passed every check, and their median fit."""
    found = [p["lime"] for side in part["sides"].values() for p in side["prototypes"] if "lime" in p]
    if not found:
        return {"explained": True}
    fits = [lime["r2"] for lime in found if lime["r2"] is not None]  # None where the feature does not react
    return {
        "explained": True,
        "stable": sum(bool(lime["stable"]) for lime in found),
        "checked": len(found),
        "r2": float(np.median(fits)) if fits else None,
    }


def _bias(material: Material, feature: int) -> list[dict[str, Any]] | None:
    rows = [row for row in (material.bias or {}).get("features", ()) if row["feature"] == feature]
    return rows or None
