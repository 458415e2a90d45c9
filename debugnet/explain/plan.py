"""What an explanation run consists of, before a network is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.errors import InputError, UsageError
from debugnet.explain.prototypes import extreme_samples, is_one_sided
from debugnet.heads import LinearHead

METHODS_OF = {
    "image": ("prototypes", "lime", "visualization"),
    "text": ("prototypes", "lime", "words", "cloud"),
    "tensor": ("prototypes",),
}
Unit = tuple[int, str]
"""A feature and one of its sides."""


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes
    ----------
    methods : tuple of str
    prototypes : mapping of (feature, side) to ndarray of rows
        Most extreme first; a side whose feature is dead has none.
    activations : ndarray (n, F), float32
        Standardized activations of the planned features over the split; NaN in unusable rows.
    features : tuple of int
        The F features, ascending.
    word_rows : ndarray
        Rows that word scores are taken from.
    notes : tuple of str
        What is left out and why.
    """

    methods: tuple[str, ...]
    prototypes: Mapping[Unit, np.ndarray]
    activations: np.ndarray
    features: tuple[int, ...]
    word_rows: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> list[Unit]:
        """All (feature, side) pairs, in order."""
        return list(self.prototypes)

    @property
    def pairs(self) -> dict[int, list[Unit]]:
        """Row -> the (feature, side) pairs that it is a prototype of; rows ascending."""
        found: dict[int, list[Unit]] = {}
        for unit, rows in self.prototypes.items():
            for row in rows:
                found.setdefault(int(row), []).append(unit)
        return dict(sorted(found.items()))

    @property
    def lime_rows(self) -> list[int]:
        """Rows that get a neighbourhood, ascending."""
        rows = set(self.pairs) if "lime" in self.methods else set()
        if {"words", "cloud"} & set(self.methods):
            rows |= set(self.word_rows.tolist())
        return sorted(rows)

    def column(self, feature: int) -> np.ndarray:
        """Standardized activations (n,) of a planned feature."""
        return self.activations[:, self.features.index(feature)]


def choose_methods(asked: Sequence[str] | None, modality: str) -> tuple[str, ...]:
    """Return the methods to run.

    Raises
    ------
    UsageError
        One is asked for that the data does not allow.
    """
    allowed = METHODS_OF[modality]
    if asked is None:
        return allowed
    if wrong := [method for method in asked if method not in allowed]:
        raise UsageError(f"--methods {wrong[0]} is not for {modality} data: there {', '.join(allowed)} are")
    return tuple(method for method in allowed if method in asked)


def choose_features(
    head: LinearHead, features: Sequence[int] | str | None, for_class: Sequence[str] | None, top: int | None
) -> list[int]:
    """Return the features to explain, ascending.

    Parameters
    ----------
    head : LinearHead
    features : sequence of int, or "all", optional
        These, whatever the head uses.
    for_class : sequence of str, optional
        Only what these outputs use.
    top : int, optional
        Only the largest standardized weights of each output.

    Raises
    ------
    UsageError
        An unknown class, a feature outside the layer, or two rules that exclude each other.
    InputError
        The head uses no feature at all.
    """
    d = head.weight.shape[1]
    if features is not None:
        if for_class is not None or top is not None:
            raise UsageError("--features names them already: leave out --for-class and --top")
        if isinstance(features, str):
            return list(range(d))
        if wrong := [j for j in features if not 0 <= j < d]:
            raise UsageError(f"--features {wrong[0]}: the layer has the features 0 to {d - 1}")
        return sorted(set(features))
    names = [str(name) for name in head.output_names]
    outputs = list(range(len(names)))
    if for_class is not None:
        # A one-row binomial head scores its second class; its first class reads the same features.
        known = [str(name) for name in head.class_names]
        if wrong_names := [name for name in for_class if name not in known]:
            raise UsageError(f"--for-class '{wrong_names[0]}': the classes are {', '.join(known[:20])}")
        outputs = [0] if len(names) == 1 else [names.index(name) for name in for_class]
    strength = np.abs(head.standardized_weight)
    chosen: set[int] = set()
    for k in outputs:
        used = np.flatnonzero(head.weight[k])
        order = used[np.argsort(-strength[k, used], kind="stable")]
        chosen |= set(order[: len(order) if top is None else top].tolist())
    if not chosen:
        raise InputError(
            "the layer uses no feature there, so nothing is to be explained: choose another point or class"
        )
    return sorted(chosen)


def make_plan(
    X: np.ndarray,
    usable: np.ndarray,
    mean: np.ndarray,
    inverse_scale: np.ndarray,
    features: Sequence[int],
    methods: tuple[str, ...],
    *,
    sides: str = "auto",
    n_samples: int = 5,
    limit: int | None = None,
) -> Plan:
    """Choose sides and samples.

    Parameters
    ----------
    X : ndarray (n, d)
        Raw features of the split (memory-mapped); only the columns asked for are read.
    usable : ndarray (n,), bool
    mean, inverse_scale : ndarray (d,)
        Standardization; an inverse scale of 0 marks a dead feature.
    features : sequence of int
        Ascending.
    methods : tuple of str
    sides : str
        "auto", "both", "positive" or "negative".
    n_samples : int
        Prototypes per feature and side.
    limit : int, optional
        Rows for word scores: evenly spread over the usable ones.

    Raises
    ------
    InputError
        The split has no usable row.
    """
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise InputError("the split has no usable row: debugnet inspect shows why")
    raw = np.asarray(X[:, list(features)], dtype=np.float64)
    raw[~usable] = np.nan
    activations = ((raw - mean[list(features)]) * inverse_scale[list(features)]).astype(np.float32)
    prototypes: dict[Unit, np.ndarray] = {}
    notes = []
    for j, feature in enumerate(features):
        wanted = ["positive", "negative"] if sides in ("auto", "both") else [sides]
        if sides == "auto" and is_one_sided(raw[rows, j]):
            wanted = ["positive"]
        dead = inverse_scale[feature] == 0
        if dead:
            notes.append(f"feature {feature} is dead (constant on the train rows): it has no examples")
        for side in wanted:
            found = extreme_samples(activations[:, j], usable, side, 0 if dead else n_samples)
            prototypes[feature, side] = found
    if limit is not None and limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    return Plan(methods, prototypes, activations, tuple(features), rows, tuple(notes))
