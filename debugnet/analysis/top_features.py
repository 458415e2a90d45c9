"""How much of a decision layer's accuracy sits in its largest weights (paper, D.2 and Table 37).

Per class the ``k`` entries of largest absolute weight are kept ("top-k"), or everything but them
("rest"); the bias stays and nothing is fitted again.  A sparse layer that is debuggable keeps its
accuracy with the top-k alone and has none left in the rest.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from debugnet.analysis.accuracy import evaluate
from debugnet.heads import LinearHead

#: What a feature that is turned off contributes: its train mean, or a raw zero.
OFF_VALUES = ("mean", "zero")


def largest_per_output(weight: np.ndarray, k: int) -> np.ndarray:
    """Mark the ``k`` largest non-zero |weights| of each row (ties: the lower feature).

    Parameters
    ----------
    weight : ndarray (K, d)
        Standardized coordinates, where weights of different features compare.
    k : int

    Returns
    -------
    ndarray (K, d), bool
        At most k True per row; fewer where the row has fewer non-zeros.
    """
    order = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :k]
    mask = np.zeros(weight.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask & (weight != 0)


def keep_entries(head: LinearHead, mask: np.ndarray, *, off: str = "mean") -> LinearHead:
    """Return ``head`` with the weights outside ``mask`` turned off.

    Parameters
    ----------
    head : LinearHead
    mask : ndarray (K, d), bool
        The entries that stay.
    off : str
        "mean": a turned-off entry sees the standardized feature at 0, its train mean, so the
        *standardized* bias stays (the paper's layer lives in these coordinates).  "zero": it sees
        the raw feature at 0, so the *raw* bias stays.
    """
    if off == "zero":
        return dataclasses.replace(head, weight=np.where(mask, head.weight, 0.0))
    weight = np.where(mask, head.standardized_weight, 0.0)
    raw_weight, raw_bias = head.standardizer.to_raw(weight, head.standardized_bias)
    return dataclasses.replace(head, weight=raw_weight, bias=raw_bias)


def all_topk_rest(
    head: LinearHead, X: np.ndarray, y: np.ndarray, k: int, *, off: str = "mean"
) -> dict[str, dict[str, float]]:
    """Measure the layer whole, with its top-k entries per class only, and without them.

    Parameters
    ----------
    head : LinearHead
    X : ndarray (n, d)
        Raw features.
    y : ndarray (n,) or (n, K)
        Labels of the rows (see :func:`debugnet.analysis.accuracy.evaluate`).
    k : int
        Entries per class (row), by absolute standardized weight; ties go to the lower feature.
    off : str
        See :func:`keep_entries`.

    Returns
    -------
    dict
        ``{"all": metrics, "top_k": metrics, "rest": metrics}``; "rest" is the accuracy *of* the
        remaining features, not the accuracy they add.
    """
    top = largest_per_output(head.standardized_weight, k)
    return {
        "all": evaluate(head, X, y),
        "top_k": evaluate(keep_entries(head, top, off=off), X, y),
        "rest": evaluate(keep_entries(head, ~top, off=off), X, y),
    }


def top_feature_table(head: LinearHead, n: int) -> list[dict[str, Any]]:
    """List each class's ``n`` features of largest absolute standardized weight, largest first.

    Returns
    -------
    list of dict
        One per output: ``class``, ``n_features`` (all non-zeros of the row), ``bias``
        (standardized) and ``features``: ``[{feature, weight, raw_weight, classes}]`` where
        ``weight`` is standardized and ``classes`` is the number of outputs using the feature.
    """
    weight, users = head.standardized_weight, head.support.sum(axis=0)
    order = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :n]
    return [
        {
            "class": name,
            "n_features": int(head.support[k].sum()),
            "bias": float(head.standardized_bias[k]),
            "features": [
                {
                    "feature": int(j),
                    "weight": float(weight[k, j]),
                    "raw_weight": float(head.weight[k, j]),
                    "classes": int(users[j]),
                }
                for j in order[k]
                if weight[k, j] != 0
            ],
        }
        for k, name in enumerate(head.output_names)
    ]
