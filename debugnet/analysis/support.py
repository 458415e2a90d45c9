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


def entry_order(path: RegularizationPath, limit: int | None = None) -> list[list[dict[str, Any]]]:
    """Rank the features of each output by the first lambda at which their weight is non-zero.

    Source: paper, appendix A.3 (figures 12-15).  Features that enter at the same lambda are
    ordered by their absolute weight there, then by feature number.

    Parameters
    ----------
    path : RegularizationPath
    limit : int, optional
        Keep this many features per output, the first to enter.

    Returns
    -------
    list (K,) of list of dict
        ``feature``, ``index`` and ``lam`` of the point of entry, ``weight`` there, and ``sign``.
    """
    row = np.repeat(np.arange(len(path) * path.n_outputs), np.diff(path.indptr))
    point, output = np.divmod(row, path.n_outputs)
    # non-zeros are stored point by point, so the first of a (output, feature) pair is its entry
    _, first = np.unique(output * path.n_features + path.indices, return_index=True)
    first = first[np.lexsort((path.indices[first], -np.abs(path.data[first]), point[first], output[first]))]
    ends = np.searchsorted(output[first], np.arange(path.n_outputs + 1))
    return [
        [
            {
                "feature": int(path.indices[at]),
                "index": int(point[at]),
                "lam": float(path.lam[point[at]]),
                "weight": float(path.data[at]),
                "sign": 1 if path.data[at] > 0 else -1,
            }
            for at in first[ends[k] : ends[k + 1]][:limit]
        ]
        for k in range(path.n_outputs)
    ]


def coefficient_traces(path: RegularizationPath, output: int, features: list[int]) -> np.ndarray:
    """Return the standardized weights of ``features`` in one output along the path, (L, len(features))."""
    traces = np.zeros((len(path), len(features)))
    dense = np.zeros(path.n_features)
    for i in range(len(path)):
        row = slice(*path.indptr[i * path.n_outputs + output : i * path.n_outputs + output + 2])
        dense[path.indices[row]] = path.data[row]
        traces[i] = dense[features]
        dense[path.indices[row]] = 0.0
    return traces
