"""Which features a decision layer uses: counts per class, sharing between classes, order of entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from debugnet.heads import LinearHead
from debugnet.regularization_path import RegularizationPath


def counts_per_class(head: LinearHead) -> np.ndarray:
    """Return the number of features (exact non-zeros) of each output, (K,) int64."""
    return head.support.sum(axis=1)


def count_summary(head: LinearHead) -> dict[str, Any]:
    """Summarize the counts per class: mean, median, min, max, features used in total, non-zeros."""
    counts, names = counts_per_class(head), [str(name) for name in head.output_names]
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "min": int(counts.min()),
        "max": int(counts.max()),
        "nnz": int(counts.sum()),
        "features_used": len(head.used_features),
        "features_available": int(head.standardizer.alive.sum()),
        "per_class": dict(zip(names, counts.tolist(), strict=True)),
        "positive_per_class": dict(zip(names, (head.weight > 0).sum(axis=1).tolist(), strict=True)),
    }


def sharing(head: LinearHead) -> dict[str, Any]:
    """Count how many classes use each feature.

    Returns
    -------
    dict
        ``histogram``: list whose entry m is the number of used features that m classes use
        (entry 0 counts the unused ones); ``shared``: every feature that two or more classes use,
        most shared first, with the classes it speaks for (positive weight) and against.
    """
    users = head.support.sum(axis=0)
    names = head.output_names
    weight = head.standardized_weight
    shared = sorted(np.flatnonzero(users >= 2), key=lambda j: (-users[j], j))
    return {
        "histogram": np.bincount(users, minlength=2).tolist(),
        "shared": [
            {
                "feature": int(j),
                "classes": int(users[j]),
                "for": {names[k]: float(weight[k, j]) for k in np.flatnonzero(weight[:, j] > 0)},
                "against": {names[k]: float(weight[k, j]) for k in np.flatnonzero(weight[:, j] < 0)},
            }
            for j in shared
        ],
    }


def entry_order(path: RegularizationPath) -> list[list[dict[str, Any]]]:
    """Rank the features of each output by the first lambda at which their weight is non-zero.

    Source: paper, appendix A.3 (figures 12-15).  Features that enter at the same lambda are
    ordered by their absolute weight there, then by feature number.

    Returns
    -------
    list (K,) of list of dict
        ``feature``, ``index`` and ``lam`` of the point of entry, ``weight`` there, and ``sign``.
    """
    first: list[dict[int, tuple[int, float]]] = [{} for _ in range(path.n_outputs)]
    for i in range(len(path)):
        for k in range(path.n_outputs):
            row = slice(*path.indptr[i * path.n_outputs + k : i * path.n_outputs + k + 2])
            for j, w in zip(path.indices[row].tolist(), path.data[row].tolist(), strict=True):
                first[k].setdefault(j, (i, w))
    return [
        [
            {"feature": j, "index": i, "lam": float(path.lam[i]), "weight": w, "sign": 1 if w > 0 else -1}
            for j, (i, w) in sorted(entries.items(), key=lambda item: (item[1][0], -abs(item[1][1]), item[0]))
        ]
        for entries in first
    ]


def coefficient_traces(path: RegularizationPath, output: int, features: list[int]) -> np.ndarray:
    """Return the standardized weights of ``features`` in one output along the path, (L, len(features))."""
    position = {j: at for at, j in enumerate(features)}
    traces = np.zeros((len(path), len(features)))
    for i in range(len(path)):
        row = slice(*path.indptr[i * path.n_outputs + output : i * path.n_outputs + output + 2])
        for j, w in zip(path.indices[row].tolist(), path.data[row].tolist(), strict=True):
            if j in position:
                traces[i, position[j]] = w
    return traces
