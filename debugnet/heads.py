"""The decision layer as an object: weights in raw and standardized coordinates, and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from debugnet.html_table import html_table
from debugnet.standardization import Standardizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LinearHead:
    """A linear decision layer on deep features.

    Attributes
    ----------
    weight : ndarray (K, d), float64
        Raw-feature coordinates; exact zeros off the support.
    bias : ndarray (K,), float64
        Raw-feature coordinates.
    standardizer : Standardizer
        Links raw to standardized coordinates (see :attr:`standardized_weight`).
    family : str
        "multinomial" (argmax), "binomial" (one-vs-rest, multi-label, or one row for two
        classes), or "gaussian".
    class_names : sequence of str
        One per class; two for a one-row binomial head.
    task : str
        "single-label", "multi-label" or "regression".
    meta : mapping
        How the head was chosen: rule, reference, drop, index, lambda, accuracies.
    """

    weight: np.ndarray
    bias: np.ndarray
    standardizer: Standardizer
    family: str
    class_names: Sequence[str]
    task: str = "single-label"
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def standardized_weight(self) -> np.ndarray:
        """Weight (K, d) on standardized features: comparable across features."""
        return self.weight * self.standardizer.scale

    @property
    def standardized_bias(self) -> np.ndarray:
        """Bias (K,) on standardized features: the logits of the average train sample."""
        return self.bias + self.weight @ self.standardizer.mean

    @property
    def support(self) -> np.ndarray:
        """Boolean (K, d): the features each output uses."""
        return self.weight != 0

    @property
    def used_features(self) -> np.ndarray:
        """Sorted indices of the features that any output uses."""
        return np.flatnonzero(self.support.any(axis=0))

    @property
    def output_names(self) -> list[str]:
        """One name per row of ``weight``: the class whose score the row raises."""
        return list(self.class_names[-1:] if len(self.weight) == 1 else self.class_names)

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Scores (n, K), float64, of raw features X (n, d)."""
        columns = self.used_features
        if len(columns) < X.shape[1] // 2:  # gather the few used columns: less memory traffic
            return X[:, columns].astype(np.float64) @ self.weight[:, columns].T + self.bias
        return X.astype(np.float64, copy=False) @ self.weight.T + self.bias

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict from raw features X (n, d).

        Returns
        -------
        ndarray
            Class indices (n,) int64 for a single-label head, 0/1 (n, K) int64 for a
            multi-label head, values (n, K) float64 for regression.
        """
        return self.decide(self.logits(X))

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Turn scores (n, K) from :meth:`logits` into what :meth:`predict` returns."""
        if self.task == "regression":
            return scores
        if self.task == "multi-label":
            return (scores > 0).astype(np.int64)
        if scores.shape[1] == 1:
            return (scores[:, 0] > 0).astype(np.int64)
        return scores.argmax(axis=1)

    def _repr_html_(self) -> str:
        weight = self.standardized_weight
        rows = []
        for name, row in zip(self.output_names, weight, strict=True):
            used = np.flatnonzero(row)
            top = used[np.argsort(-np.abs(row[used]), kind="stable")[:5]]
            rows.append((name, len(used), ", ".join(f"{row[j]:+.3g} · {j}" for j in top)))
        facts = {
            "family": self.family,
            "classes": len(self.class_names),
            "features in use": f"{len(self.used_features):,} of {self.weight.shape[1]:,}",
            "per class": float(self.support.sum(axis=1).mean()),
        }
        return html_table("LinearHead", facts, ("class", "features", "strongest (weight · feature)"), rows)

    def to_linear(self) -> torch.nn.Linear:
        """Return a float32 ``torch.nn.Linear`` on raw features with this head's weights."""
        import torch

        linear = torch.nn.Linear(self.weight.shape[1], self.weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))
        return linear
