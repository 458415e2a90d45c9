"""What a report is made of: artefacts, loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from debugnet.artifacts.explanation_bundle import ExplanationBundle
from debugnet.artifacts.provenance import Provenance
from debugnet.heads import LinearHead


class Samples(Protocol):
    """Where pictures and texts come from."""

    def show(self, split: str, row: int) -> np.ndarray | str | None:
        """Return pixels (H, W, 3) uint8, a text, or None where there is nothing to show."""


@dataclass(frozen=True)
class OtherHead:
    """A second head on the same features."""

    name: str
    head: LinearHead
    audit: Mapping[str, Any] | None
    command: str


@dataclass(frozen=True)
class Counterfactuals:
    """One ``counterfactuals/`` folder."""

    name: str
    rates: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    search: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, Path]
    command: str


@dataclass(frozen=True)
class Notes:
    """The user's remarks."""

    report: str = ""
    features: Mapping[int, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """Everything that goes into a report.

    Attributes
    ----------
    title : str
    head : LinearHead
    head_path : str
        As the user wrote it: for the commands that the page names.
    split : str
        What the samples are called ("test", "test/a").
    X : ndarray (n, d)
        Raw features of the samples.
    y, ids, rows
        Labels, sample ids, and rows of the split.
    group_names, groups
        Groups of the samples, where the data has them.
    analysis, diagnosis, errors, pairs, shared, explanations, stability, shares, bias
        Contents of the artefacts; None or empty where there is none.
    explained_split : str
        Split that the explanations' rows belong to.
    network_figures : mapping
        Name -> PNG that train-sparse drew, where the head is a layer of such a network.
    made : sequence of (str, Provenance, str)
        Name, provenance and digest of every artefact used.
    """

    title: str
    head: LinearHead
    head_path: str
    split: str
    X: np.ndarray
    y: np.ndarray
    ids: Sequence[str]
    rows: np.ndarray
    samples: Samples
    modality: str
    groups: np.ndarray | None = None
    group_names: Sequence[str] = ()
    analysis: Mapping[str, Any] | None = None
    diagnosis: Mapping[str, Any] | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    pairs: Mapping[str, Any] | None = None
    shared: Sequence[Mapping[str, Any]] = ()
    explanations: ExplanationBundle | None = None
    explained_split: str = ""
    stability: Mapping[str, Any] | None = None
    shares: np.ndarray | None = None
    bias: Mapping[str, Any] | None = None
    counterfactuals: Sequence[Counterfactuals] = ()
    others: Sequence[OtherHead] = ()
    network_figures: Mapping[str, Path] = field(default_factory=dict)
    made: Sequence[tuple[str, Provenance, str]] = ()
    notes: Notes = field(default_factory=Notes)

    @property
    def split_name(self) -> str:
        """The split without its half."""
        return self.split.partition("/")[0]

    @cached_property
    def place(self) -> dict[str, int]:
        """Sample id -> index among the samples."""
        return {sample: i for i, sample in enumerate(self.ids)}

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes; of the outputs where labels can hold together."""
        return [str(name) for name in (self.head.class_names if self.single_label else self.head.output_names)]

    @property
    def single_label(self) -> bool:
        """Whether each sample has one class."""
        return self.head.task == "single-label"

    @cached_property
    def weight(self) -> np.ndarray:
        """Standardized weights, one row per class; a one-row head gives its mirror image to the first class."""
        weight = self.head.standardized_weight
        return np.concatenate([-weight, weight]) if self.mirrored else weight

    @cached_property
    def bias_terms(self) -> np.ndarray:
        """Standardized biases, one per class."""
        bias = self.head.standardized_bias
        return np.concatenate([-bias, bias]) if self.mirrored else bias

    @property
    def mirrored(self) -> bool:
        """Whether one row decides between two classes."""
        return self.single_label and len(self.head.weight) == 1

    @cached_property
    def opposite(self) -> bool:
        """Whether there are two classes and each one's score is the other's with its sign changed."""
        if not self.single_label or len(self.weight) != 2:
            return False
        rest = np.abs(self.weight.sum(axis=0)).max(initial=0.0) + abs(float(self.bias_terms.sum()))
        return bool(rest <= 1e-6 * np.abs(self.weight).max(initial=0.0))

    @cached_property
    def used(self) -> np.ndarray:
        """Features that any class uses."""
        return self.head.used_features

    @cached_property
    def Z(self) -> np.ndarray:
        """Standardized values (n, m) of the used features, float32."""
        standardizer, columns = self.head.standardizer, self.used
        values = np.asarray(self.X[:, columns], dtype=np.float32)
        return (values - standardizer.mean[columns].astype(np.float32)) * standardizer.inverse_scale[columns].astype(
            np.float32
        )

    def standardized(self, i: int) -> np.ndarray:
        """Standardized values (m,) of the used features of one sample, float64: for exact sums."""
        standardizer, columns = self.head.standardizer, self.used
        values = np.asarray(self.X[i, columns], dtype=np.float64)
        return np.asarray((values - standardizer.mean[columns]) * standardizer.inverse_scale[columns])

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores (n, K) of the classes, float64."""
        return self.Z.astype(np.float64) @ self.weight[:, self.used].T + self.bias_terms

    @cached_property
    def predictions(self) -> np.ndarray:
        """Decisions: classes (n,), 0/1 (n, K), or values (n, K)."""
        if self.single_label:
            return self.scores.argmax(axis=1)
        return self.head.decide(self.scores)

    @cached_property
    def right(self) -> np.ndarray | None:
        """Whether each sample is decided right, (n,); None for regression."""
        if self.head.task == "regression":
            return None
        right = self.predictions == self.y
        return right.all(axis=1) if right.ndim == 2 else right

    @cached_property
    def sure(self) -> np.ndarray:
        """Probability of each class (n, K); the scores themselves for regression."""
        from debugnet.analysis.contributions import probabilities

        if self.mirrored:
            positive = probabilities(self.scores[:, 1:], "binomial")
            return np.hstack([1 - positive, positive])
        return probabilities(self.scores, self.head.family)
