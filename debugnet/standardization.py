"""Feature standardization: the coordinates in which the decision layer is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Standardizer:
    """Per-feature mean and scale, from train rows only.

    Attributes
    ----------
    mean : ndarray (d,), float64
        Mean of each feature over the train rows.
    scale : ndarray (d,), float64
        Standard deviation with 1/n.  Exactly 0 marks a dead (constant) feature:
        it is mapped to 0, and every weight on it is 0.
    """

    mean: np.ndarray
    scale: np.ndarray

    @property
    def alive(self) -> np.ndarray:
        """Boolean (d,): the features that vary on the train rows."""
        return self.scale > 0

    @property
    def inverse_scale(self) -> np.ndarray:
        """1/scale (d,), and 0 where the feature is dead."""
        return np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Standardize raw features: (n, d) any float -> (n, d) of X's dtype."""
        return ((X - self.mean) * self.inverse_scale).astype(X.dtype, copy=False)

    def to_raw(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fold the standardization into a layer: standardized (K, d), (K,) -> raw coordinates.

        ``raw_weight @ x + raw_bias == weight @ transform(x) + bias`` for every x.
        """
        raw = weight * self.inverse_scale
        return raw, bias - raw @ self.mean

    def to_standardized(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of :meth:`to_raw`; what a dead feature contributed at its mean goes to the bias."""
        return weight * self.scale, bias + weight @ self.mean
