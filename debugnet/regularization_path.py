"""A fitted regularization path: one sparse decision layer per lambda.

The same object comes out of ``debugnet.glm`` (in memory) and of
``debugnet.load_path`` (from path.h5), so everything after the fit has one input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from debugnet.html_table import html_table
from debugnet.standardization import Standardizer

#: What can become of a point; anything but "converged" is shown to the user.
STATUSES = ("converged", "max_iterations", "stalled", "diverged")


@dataclass(frozen=True)
class PathPoint:
    """One lambda's solution, in standardized coordinates.

    Attributes
    ----------
    lam : float
        Regularization strength.
    weight : ndarray (K, d), float64
        Exact zeros off the support.
    bias : ndarray (K,), float64
    objective : float
        Mean loss plus penalty, in float64.
    duality_gap : float
        Relative to the objective of the null model; NaN where no dual is known.
    kkt_residual : float
        Largest violation of the subgradient condition, divided by lam (by 1 at lam = 0).
    status : str
        One of :data:`STATUSES`.
    n_epochs : float
        Passes over the data (fractions count).
    seconds : float
        Wall-clock time of this point.
    metrics : mapping
        ``{split: {"loss": float, "accuracy": float, ...}}``.
    """

    lam: float
    weight: np.ndarray
    bias: np.ndarray
    objective: float
    duality_gap: float
    kkt_residual: float
    status: str
    n_epochs: float
    seconds: float
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RegularizationPath:
    """All points of a path, weights in CSR over the rows of all points.

    Attributes
    ----------
    lam : ndarray (L,), float64
        Strictly descending; the last may be 0.
    indptr, indices, data : ndarray (L*K + 1,), (nnz,), (nnz,)
        CSR of the stacked (L*K, d) weights: row ``i*K + k`` is class k at lam[i].
    biases : ndarray (L, K), float64
    objective, duality_gap, kkt_residual, n_epochs, seconds : ndarray (L,), float64
    status : sequence of str, length L
    metrics : mapping
        ``{split: {name: ndarray (L,)}}``.
    standardizer : Standardizer
        The raw coordinates behind the standardized ones.
    meta : mapping
        family, penalty, l1_ratio, solver, solver_reason, tol, lambda_max,
        null_objective, class_names, method, and whatever the fit recorded.
    """

    lam: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    biases: np.ndarray
    objective: np.ndarray
    duality_gap: np.ndarray
    kkt_residual: np.ndarray
    status: Sequence[str]
    n_epochs: np.ndarray
    seconds: np.ndarray
    metrics: Mapping[str, Mapping[str, np.ndarray]]
    standardizer: Standardizer
    meta: Mapping[str, Any]

    @classmethod
    def from_points(
        cls, points: Sequence[PathPoint], standardizer: Standardizer, meta: Mapping[str, Any]
    ) -> RegularizationPath:
        """Stack points (in descending lam) into one path."""
        n_outputs = points[0].weight.shape[0]
        indptr = np.zeros(len(points) * n_outputs + 1, dtype=np.int64)
        indices, data = [], []
        for i, point in enumerate(points):
            rows, columns = np.nonzero(point.weight)
            indices.append(columns.astype(np.int32))
            data.append(point.weight[rows, columns])
            counts = np.bincount(rows, minlength=n_outputs)
            indptr[i * n_outputs + 1 : (i + 1) * n_outputs + 1] = counts
        names = {s: tuple(m) for s, m in points[0].metrics.items()}
        return cls(
            lam=np.array([p.lam for p in points]),
            indptr=np.cumsum(indptr),
            indices=np.concatenate(indices),
            data=np.concatenate(data),
            biases=np.stack([p.bias for p in points]),
            objective=np.array([p.objective for p in points]),
            duality_gap=np.array([p.duality_gap for p in points]),
            kkt_residual=np.array([p.kkt_residual for p in points]),
            status=[p.status for p in points],
            n_epochs=np.array([p.n_epochs for p in points]),
            seconds=np.array([p.seconds for p in points]),
            metrics={s: {m: np.array([p.metrics[s][m] for p in points]) for m in ms} for s, ms in names.items()},
            standardizer=standardizer,
            meta=dict(meta),
        )

    def __len__(self) -> int:
        return len(self.lam)

    @property
    def n_outputs(self) -> int:
        """Rows of the decision layer: K, or 1 for two-class binomial and scalar gaussian."""
        return self.biases.shape[1]

    @property
    def n_features(self) -> int:
        """Number of features d, dead ones included."""
        return len(self.standardizer.mean)

    @property
    def nnz(self) -> np.ndarray:
        """Exact non-zeros per point, (L,)."""
        return self.nnz_per_output.sum(axis=1)

    @property
    def nnz_per_output(self) -> np.ndarray:
        """Exact non-zeros per point and output, (L, K)."""
        return np.diff(self.indptr).reshape(len(self), self.n_outputs)

    def weight(self, i: int) -> np.ndarray:
        """Dense weight (K, d), float64, standardized coordinates, of point i."""
        i = range(len(self))[i]
        dense = np.zeros((self.n_outputs, self.n_features))
        for k in range(self.n_outputs):
            row = slice(*self.indptr[i * self.n_outputs + k : i * self.n_outputs + k + 2])
            dense[k, self.indices[row]] = self.data[row]
        return dense

    def bias(self, i: int) -> np.ndarray:
        """Bias (K,), float64, standardized coordinates, of point i."""
        return self.biases[i]

    def raw(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Weight (K, d) and bias (K,) of point i in raw-feature coordinates."""
        return self.standardizer.to_raw(self.weight(i), self.bias(i))

    def _repr_html_(self) -> str:
        shown = sorted({round(i) for i in np.linspace(0, len(self) - 1, min(len(self), 8))}) if len(self) else []
        splits = [s for s in ("train", "val", "test") if s in self.metrics]
        metric = str(self.meta.get("metric") or "accuracy")
        per_output = self.nnz_per_output.mean(axis=1)
        rows = []
        for i in shown:
            measured = [self.metrics[s][metric][i] if metric in self.metrics[s] else "" for s in splits]
            rows.append((f"{self.lam[i]:.4g}", int(self.nnz[i]), float(per_output[i]), *measured, self.status[i]))
        facts = {"points": len(self), "outputs": self.n_outputs, "features": self.n_features}
        columns = ("lambda", "weights", "features per output", *(f"{s} {metric}" for s in splits), "status")
        return html_table("RegularizationPath", facts, columns, rows)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """Yield (lam, weight, bias) of every point."""
        for i, lam in enumerate(self.lam):
            yield float(lam), self.weight(i), self.bias(i)
