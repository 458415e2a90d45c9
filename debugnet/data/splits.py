"""Seeded, stratified division of rows."""

from __future__ import annotations

import numpy as np

from debugnet.data.dataset import Dataset


def strata(dataset: Dataset) -> np.ndarray:
    """Return (n,) int64: which rows are alike for a split; -1 for rows that the manifest says are unusable.

    Single-label: the class, crossed with the group where there are groups.  Multi-label: the rarest label the
    row carries (so that rare labels are spread), or none.  Regression: the tenth of the labels it falls in.
    """
    labels = dataset.labels
    if labels.ndim == 2:
        rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
        stratum = np.where(labels.any(axis=1), labels[:, rarest_first].argmax(axis=1), labels.shape[1])
    elif labels.dtype.kind == "f":
        ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        stratum = ranks * 10 // max(len(labels), 1)
    else:
        stratum = labels + 1
    if dataset.groups is not None:
        stratum = stratum * (int(dataset.groups.max(initial=-1)) + 2) + dataset.groups + 1
    return np.where(dataset.status == 0, stratum, -1)


def draw(strata: np.ndarray, size: int, seed: int, *, leave_one: bool = False) -> np.ndarray:
    """Draw ``size`` rows, each stratum in proportion.

    Every stratum gives its share of ``size`` rounded down or up (largest remainder; exact totals), then strata
    with two rows or more that gave none give one, taken from the stratum that gave most above its share.

    Parameters
    ----------
    strata : ndarray (n,), int64
        Stratum of each row.
    size : int
        Rows to draw, in 0..n.
    seed : int
        Same seed, same rows.
    leave_one : bool
        Never take the last row of a stratum that has two or more.

    Returns
    -------
    ndarray (size,), int64
        Sorted row numbers; fewer than ``size`` only where the strata cannot give as many.
    """
    if size <= 0 or len(strata) == 0:
        return np.zeros(0, dtype=np.int64)
    _, members, counts = np.unique(strata, return_inverse=True, return_counts=True)
    if size >= len(strata):
        return np.arange(len(strata))
    share = counts * size / len(strata)
    quota = np.floor(share).astype(np.int64)
    order = np.argsort(-(share - quota), kind="stable")
    quota[order[: size - quota.sum()]] += 1
    for needy in np.flatnonzero((quota == 0) & (counts >= 2)):
        donors = np.flatnonzero(quota > 1)
        if len(donors):
            quota[donors[np.argmax(quota[donors] - share[donors])]] -= 1
            quota[needy] = 1
    if leave_one:
        quota = np.minimum(quota, np.where(counts >= 2, counts - 1, counts))
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    by_stratum = shuffled[np.argsort(members[shuffled], kind="stable")]  # grouped by stratum, shuffled inside
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = [by_stratum[start : start + take] for start, take in zip(starts, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def split_off(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return (rest, part) with round(fraction n) usable rows in part, stratified; unusable rows stay in rest."""
    stratum = strata(dataset)
    usable = np.flatnonzero(stratum >= 0)
    taken = usable[draw(stratum[usable], round(fraction * len(usable)), seed, leave_one=True)]
    kept = np.ones(len(dataset), dtype=bool)
    kept[taken] = False
    return dataset.subset(np.flatnonzero(kept)), dataset.subset(taken)


def limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """Return at most ``limit`` rows, drawn stratified, in the data's own order."""
    if limit is None or len(dataset) <= limit:
        return dataset
    return dataset.subset(draw(strata(dataset), limit, seed))
