"""Classes and single samples of a report: accuracies, confusions, and exact sums of contributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from debugnet.analysis.intervals import proportion
from debugnet.report.blocks import Blocks, shorten
from debugnet.report.material import Material

_CONFUSIONS, _CONTRIBUTIONS, _RUNNERS_UP = 8, 14, 3


def class_content(material: Material) -> list[dict[str, Any]]:
    """One entry per class: size, accuracy, bias, confusions, and its features by weight with mean contribution."""
    means = _class_means(material)
    content = []
    for k, name in enumerate(material.classes):
        row = material.weight[k]
        columns = np.flatnonzero(row)
        columns = columns[np.argsort(-np.abs(row[columns]), kind="stable")]
        entry: dict[str, Any] = {"name": name, "bias": float(material.bias_terms[k])}
        if means is not None:
            places = np.searchsorted(material.used, columns)
            entry["features"] = [
                [int(j), float(row[j]), float(row[j] * means[k, at])] for j, at in zip(columns, places, strict=True)
            ]
        else:
            entry["features"] = [[int(j), float(row[j]), None] for j in columns]
        if material.right is not None:
            entry |= _judged(material, k)
        if name in material.notes.classes:
            entry["note"] = material.notes.classes[name]
        content.append(entry)
    return shorten(content)


def _class_means(material: Material) -> np.ndarray | None:
    """Mean of each used feature over the samples of each class (K, m); None for regression."""
    if material.right is None:
        return None
    members = _members(material)
    return (members.T.astype(np.float64) @ material.Z) / np.maximum(members.sum(axis=0), 1)[:, None]


def _members(material: Material) -> np.ndarray:
    if material.y.ndim == 2:
        return np.asarray(material.y == 1)
    return np.asarray(material.y[:, None] == np.arange(len(material.classes)))


def _judged(material: Material, k: int) -> dict[str, Any]:
    if material.y.ndim == 2:
        agree = material.predictions[:, k] == material.y[:, k]
        positive = material.y[:, k] == 1
        return {
            "n": int(positive.sum()),
            "accuracy": proportion(int(agree.sum()), len(agree)),
            "found": proportion(int((agree & positive).sum()), int(positive.sum())),
        }
    mine, said = material.y == k, material.predictions == k
    away = np.bincount(material.predictions[mine & ~said], minlength=len(material.classes))
    come = np.bincount(material.y[said & ~mine], minlength=len(material.classes))
    return {
        "n": int(mine.sum()),
        "predicted": int(said.sum()),
        "accuracy": proportion(int((mine & said).sum()), int(mine.sum())),
        "taken_for": [[int(c), int(away[c])] for c in np.argsort(-away, kind="stable")[:_CONFUSIONS] if away[c]],
        "taken_from": [[int(c), int(come[c])] for c in np.argsort(-come, kind="stable")[:_CONFUSIONS] if come[c]],
    }


def choose_examples(material: Material, n: int) -> np.ndarray:
    """Choose the samples that get a page: up to two thirds errors, spread over the confusions, then right ones.

    Right ones come per class, the surest and the least sure in turn, so that every class is there.
    """
    if material.right is None:
        order = np.argsort(-material.scores[:, 0], kind="stable")
        return np.unique(np.concatenate([order[: n // 2], order[len(order) - n // 2 :]]))
    sure = material.sure.max(axis=1)
    wrong = _in_turn(np.flatnonzero(~material.right), sure, _kinds(material, both=True))
    right = _in_turn(np.flatnonzero(material.right), sure, _kinds(material, both=False))
    n_wrong = min(len(wrong), max(2 * n // 3, n - len(right)))
    return np.concatenate([wrong[:n_wrong], right[: n - n_wrong]])


def _kinds(material: Material, *, both: bool) -> np.ndarray:
    if material.predictions.ndim == 2:
        return np.zeros(len(material.y), dtype=np.int64)
    truth = np.asarray(material.y, dtype=np.int64)
    return truth * len(material.classes) + material.predictions if both else truth


def _in_turn(rows: np.ndarray, sure: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Order rows so that every kind comes once before any comes twice; big kinds first, surest first and last."""
    groups = [rows[kinds[rows] == kind] for kind in np.unique(kinds[rows])]
    ranked = []
    for group in sorted(groups, key=len, reverse=True):
        group = group[np.argsort(-sure[group], kind="stable")]
        half = -(-len(group) // 2)
        turned = np.empty_like(group)
        turned[0::2], turned[1::2] = group[:half], group[half:][::-1]
        ranked.append(turned)
    order = [(place, number, row) for number, group in enumerate(ranked) for place, row in enumerate(group)]
    return np.array([row for _, _, row in sorted(order, key=lambda item: item[:2])], dtype=np.int64)


def example_content(material: Material, blocks: Blocks, n: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the list of samples with pages, in the order chosen, and where each id is in it.

    Each page's contributions are a part of their own (``e<number>``).
    """
    content, place = [], {}
    causes = {str(error["id"]): error for error in material.errors}
    for number, i in enumerate(choose_examples(material, n)):
        shown = material.samples.show(material.split_name, int(material.rows[i]))
        entry: dict[str, Any] = {"id": str(material.ids[i]), "said": _decision(material, int(i))}
        entry["true"], entry["right"] = _truth(material, int(i)), bool(material.right is None or material.right[i])
        if isinstance(shown, str):
            entry["text"] = shown
        elif shown is not None:
            entry["picture"] = blocks.photo(shown)
        if material.groups is not None and material.groups[i] < len(material.group_names):
            entry["group"] = str(material.group_names[int(material.groups[i])])
        outputs = [_sum(material, int(i), k) for k in _outputs_of_interest(material, int(i))]
        cause = causes.get(entry["id"])
        if cause is not None:
            entry["cause"] = int(cause["feature_wrong"])
        elif outputs[0]["terms"]:
            entry["cause"] = outputs[0]["terms"][0][0]
        blocks.add(f"e{number}", {"outputs": outputs, "probabilities": _ranking(material, int(i)), "cause": cause})
        content.append(entry)
        place[entry["id"]] = number
    return content, place


def _decision(material: Material, i: int) -> dict[str, Any]:
    decided = material.predictions[i]
    if material.head.task == "regression":
        return {"text": ", ".join(f"{v:.3g}" for v in np.atleast_1d(decided))}
    if np.ndim(decided):
        return {"classes": np.flatnonzero(decided).tolist()}
    return {"classes": [int(decided)], "p": shorten(float(material.sure[i, decided]))}


def _truth(material: Material, i: int) -> dict[str, Any]:
    label = material.y[i]
    if material.head.task == "regression":
        return {"text": ", ".join(f"{v:.3g}" for v in np.atleast_1d(label))}
    return {"classes": np.flatnonzero(label).tolist() if np.ndim(label) else [int(label)]}


def _outputs_of_interest(material: Material, i: int) -> list[int]:
    """The predicted class, the true one where it is another, else the runner-up."""
    if material.head.task == "regression":
        return list(range(min(len(material.scores[i]), 4)))
    order = np.argsort(-material.scores[i], kind="stable")
    if material.predictions.ndim == 2:
        doubtful = np.flatnonzero(material.predictions[i] | (material.y[i] == 1))
        return [int(k) for k in (doubtful if len(doubtful) else order[:1])][:6]
    truth = int(material.y[i])
    second = truth if truth != order[0] and truth >= 0 else int(order[1])
    return [int(order[0]), second]


def _sum(material: Material, i: int, k: int) -> dict[str, Any]:
    """The exact sum behind one score: bias, the largest contributions, the others, and what rounding leaves."""
    row = material.weight[k, material.used]
    value = material.standardized(i)
    contribution = row * value
    columns = np.flatnonzero(row)
    order = columns[np.argsort(-np.abs(contribution[columns]), kind="stable")]
    listed, others = order[:_CONTRIBUTIONS], order[_CONTRIBUTIONS:]
    rest = float(contribution[others].sum())
    logit = _network_score(material, i, k)
    bias = float(material.bias_terms[k])
    return {
        "class": k,
        "logit": logit,
        "bias": bias,
        "terms": [[int(material.used[j]), float(contribution[j]), float(row[j]), float(value[j])] for j in listed],
        "others": rest,
        "n_others": len(others),
        "residual": logit - bias - float(contribution[listed].sum()) - rest,
    }


def _network_score(material: Material, i: int, k: int) -> float:
    """The score as the layer itself computes it, from raw features."""
    logits = material.head.logits(np.asarray(material.X[i : i + 1]))[0]
    if material.mirrored:
        return float(logits[0] if k == 1 else -logits[0])
    return float(logits[k])


def _ranking(material: Material, i: int) -> list[list[Any]]:
    if material.head.task == "regression":
        return []
    order = np.argsort(-material.sure[i], kind="stable")[: 2 + _RUNNERS_UP]
    return [[int(k), shorten(float(material.sure[i, k]))] for k in order]
