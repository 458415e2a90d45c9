"""LIME's local linear model, solved once for every deep feature of a sample.

LIME explains one output by a weighted ridge regression of the network's answers on the on/off
switches of the sample's parts.  The regression's left-hand side does not depend on the output,
so one Cholesky factor serves all d features; and the regression needs only sums over the
perturbations, so nothing of size n_samples x d is ever kept.  The sums are worth storing: a
feature asked for later is solved from them without another forward pass.

The kernel, the ridge strength and the R2 are those of the ``lime`` package 0.2.0.1
(``lime_base.py``), whose fits this module reproduces.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.linalg

_BLOCK = 256  # rows whose float64 copy stays in the cache


def kernel_weights(switches: np.ndarray, width: float, distance_scale: float = 1.0) -> np.ndarray:
    """LIME's weight of each perturbation: ``sqrt(exp(-(s * d)**2 / width**2))``, d its cosine distance.

    Parameters
    ----------
    switches : ndarray (n, K), bool
        True where the part was kept; the sample itself is all True.
    width : float
        Kernel width (lime: 0.25 for images, 25 for text).
    distance_scale : float
        s above (lime: 1 for images, 100 for text).

    Returns
    -------
    ndarray (n,), float64
        In (0, 1]; with everything removed the cosine distance is 1, as in scikit-learn.
    """
    kept = switches.mean(axis=1)
    distance = distance_scale * (1.0 - np.sqrt(kept))
    return np.sqrt(np.exp(-((distance / width) ** 2)))


@dataclass
class Moments:
    """Sufficient statistics of a neighbourhood, for the even and the odd draws apart.

    All arrays are float64 (or float32 once stored) and start with the axis of the two halves.
    ``y`` is the feature minus its value on the unperturbed sample, which keeps the sums free of
    cancellation.

    Attributes
    ----------
    n : (2,)
        Draws, repeated ones counted every time.
    distinct : (1,)
        Distinct perturbations among them.
    w, wz, wzz : (2,), (2, K), (2, K, K)
        Sums of w, w z and w z z'.
    w2, w2z, w2zz : same shapes
        The same with w squared (for the standard errors).
    wy, wyy, wzy : (2, d), (2, d), (2, K, d)
        Sums of w y, w y^2 and w z y'.
    wrr : (2, d), optional
        Sums of w r^2 where wy and wzy are those of r, that is y less what has no linear effect
        (:mod:`debugnet.explain.interactions`); absent where r is y.
    """

    n: np.ndarray
    distinct: np.ndarray
    w: np.ndarray
    wz: np.ndarray
    wzz: np.ndarray
    w2: np.ndarray
    w2z: np.ndarray
    w2zz: np.ndarray
    wy: np.ndarray
    wyy: np.ndarray
    wzy: np.ndarray
    wrr: np.ndarray | None = None

    @classmethod
    def of_switches(
        cls,
        switches: np.ndarray,
        weights: np.ndarray,
        counts: np.ndarray,
        n_features: int,
        noise: np.ndarray | None = None,
    ) -> Moments:
        """Return the sums that need no forward pass, and zeros for the others.

        Parameters
        ----------
        switches : ndarray (n, K), bool
        weights : ndarray (n,)
            Kernel weights.
        counts : ndarray (2, n)
            How often each (distinct) row was drawn in each half.
        n_features : int
            Width d of what :meth:`add` will get.
        noise : ndarray (2, n), optional
            Variance of ``counts`` as a row's draw adds it; independent draws add the counts themselves.
        """
        Z = switches.astype(np.float64)
        K = Z.shape[1]

        def sums(row_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            weighted = [Z * half[:, None] for half in row_weights]
            return (
                row_weights.sum(axis=1),
                np.stack([h.sum(axis=0) for h in weighted]),
                np.stack([Z.T @ h for h in weighted]),
            )

        first, second = sums(counts * weights), sums((counts if noise is None else noise) * weights**2)
        zeros = np.zeros((2, n_features))
        return cls(
            counts.sum(axis=1).astype(np.float64),
            np.array([float(len(switches))]),
            *first,
            *second,
            zeros,
            zeros.copy(),
            np.zeros((2, K, n_features)),
        )

    def add(
        self,
        switches: np.ndarray,
        weights: np.ndarray,
        counts: np.ndarray,
        y: np.ndarray,
        origin: np.ndarray | float = 0.0,
    ) -> None:
        """Accumulate the answers ``y - origin`` (n, d) to some of the rows given to :meth:`of_switches`."""
        rows = np.concatenate([switches, np.ones((len(switches), 1), dtype=bool)], axis=1)
        v = counts * weights
        for start in range(0, len(y), _BLOCK):
            block = slice(start, start + _BLOCK)
            some = np.subtract(y[block], origin, dtype=np.float64)
            square = np.square(some)
            for half in range(2):
                if v[half, block].any():  # rows that were drawn in the other half only weigh nothing here
                    sums = (v[half, block, None] * rows[block]).T @ some
                    self.wzy[half] += sums[:-1]
                    self.wy[half] += sums[-1]
                    self.wyy[half] += v[half, block] @ square

    @property
    def shape(self) -> tuple[int, int]:
        """(K parts, d features)."""
        return self.wzy.shape[1], self.wzy.shape[2]

    def arrays(self, dtype: type = np.float32) -> dict[str, np.ndarray]:
        """Everything, as named arrays to store."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return {name: np.ascontiguousarray(value, dtype=dtype) for name, value in known.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Moments:
        """Inverse of :meth:`arrays`."""
        return cls(**{n: np.asarray(arrays[n], np.float64) for n in cls.__dataclass_fields__ if n in arrays})


@dataclass(frozen=True)
class Surrogate:
    """The local linear model of F features of one sample.

    Attributes
    ----------
    effect : ndarray (K, F), float64
        What keeping each part adds to each feature: positive means that the part raises it.
    intercept : ndarray (F,), float64
        Value with every part removed, relative to the feature's value on the sample.
    r2 : ndarray (F,), float64
        Weighted R2 of the linear model on its neighbourhood; NaN where the feature never moved.
    adjusted_r2 : ndarray (F,), float64
        R2 less what K parts explain of pure noise on as many distinct perturbations:
        ``1 - (1 - R2) (m - 1) / (m - K - 1)``.  R2 itself where m < K + 2 (a text of one word, whose
        effect is measured rather than fitted).
    standard_error : ndarray (K, F), float64
        Of ``effect``, from the draw of the perturbations; 0 where all perturbations were enumerated.
    split_half : ndarray (F,), float64
        Pearson correlation of the effects fitted on the even and on the odd draws: 1 is a
        reproducible explanation, 0 is noise.  1 where all were enumerated; NaN where undefined.
    """

    effect: np.ndarray
    intercept: np.ndarray
    r2: np.ndarray
    adjusted_r2: np.ndarray
    standard_error: np.ndarray
    split_half: np.ndarray


@dataclass(frozen=True)
class _Centred:
    """One neighbourhood's weighted, centred sums: the normal equations of the ridge."""

    z_mean: np.ndarray
    y_mean: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    y_square: np.ndarray

    @classmethod
    def of(
        cls, w: float, wz: np.ndarray, wzz: np.ndarray, wy: np.ndarray, wyy: np.ndarray, wzy: np.ndarray
    ) -> _Centred:
        z_mean, y_mean = wz / w, wy / w
        return cls(
            z_mean,
            y_mean,
            wzz - np.outer(wz, z_mean),
            wzy - np.outer(wz, y_mean),
            np.maximum(wyy - wy * y_mean, 0.0),
        )

    def factor(self, ridge: float) -> tuple[np.ndarray, bool]:
        return scipy.linalg.cho_factor(self.gram + ridge * np.eye(len(self.gram)))

    def solve(self, ridge: float) -> np.ndarray:
        return scipy.linalg.cho_solve(self.factor(ridge), self.cross)

    def r2(self, effect: np.ndarray) -> np.ndarray:
        residual = self.residual(effect)
        moved = self.y_square > 0
        return np.where(moved, 1.0 - residual / np.where(moved, self.y_square, 1.0), np.nan)

    def residual(self, effect: np.ndarray) -> np.ndarray:
        fitted = np.einsum("kf,kf->f", effect, 2.0 * self.cross - self.gram @ effect)
        return np.maximum(self.y_square - fitted, 0.0)


def _centre(moments: Moments, features: np.ndarray, halves: slice) -> _Centred:
    return _Centred.of(
        float(moments.w[halves].sum()),
        moments.wz[halves].sum(axis=0),
        moments.wzz[halves].sum(axis=0),
        moments.wy[halves][:, features].sum(axis=0),
        moments.wyy[halves][:, features].sum(axis=0),
        moments.wzy[halves][:, :, features].sum(axis=0),
    )


def fit_surrogate(
    moments: Moments, features: np.ndarray | None = None, *, ridge: float = 1.0, enumerated: bool = False
) -> Surrogate:
    """Solve the weighted ridge of every requested feature at once.

    Minimizes, for each feature, ``sum_i w_i (y_i - a - z_i . b)^2 + ridge ||b||^2`` (lime's
    ``Ridge(alpha=1)`` with sample weights; the 1/n and 1/2 are absent there too).

    Parameters
    ----------
    moments : Moments
    features : ndarray (n_solved,), int64, optional
        Columns to solve for; all d by default.
    ridge : float
        Penalty; lime uses 1.
    enumerated : bool
        The neighbourhood holds every perturbation rather than a draw: there is no sampling
        error, and the two halves are the same.

    Returns
    -------
    Surrogate
    """
    features = np.arange(moments.shape[1]) if features is None else np.asarray(features, dtype=np.int64)
    whole = _centre(moments, features, slice(0, 2))
    effect = whole.solve(ridge)
    if enumerated:
        error, agreement = np.zeros_like(effect), np.where(whole.y_square > 0, 1.0, np.nan)
    else:
        error = _standard_errors(moments, features, whole, effect, ridge)
        agreement = _correlations(*(_centre(moments, features, slice(h, h + 1)).solve(ridge / 2) for h in range(2)))
    r2 = whole.r2(effect)
    intercept = whole.y_mean - whole.z_mean @ effect
    return Surrogate(effect, intercept, r2, _adjust(r2, moments), error, agreement)


def _adjust(r2: np.ndarray, moments: Moments) -> np.ndarray:
    freedom = float(moments.distinct[0]) - moments.shape[0] - 1
    return 1 - (1 - r2) * (float(moments.distinct[0]) - 1) / freedom if freedom > 0 else r2


def _standard_errors(
    moments: Moments, features: np.ndarray, whole: _Centred, effect: np.ndarray, ridge: float
) -> np.ndarray:
    """Sandwich with one residual variance per feature: s^2 A^-1 (Zc' W^2 Zc) A^-1, A the ridge system."""
    mean = whole.z_mean
    w2z = moments.w2z.sum(axis=0)
    meat = (
        moments.w2zz.sum(axis=0) - np.outer(mean, w2z) - np.outer(w2z, mean) + moments.w2.sum() * np.outer(mean, mean)
    )
    half = scipy.linalg.cho_solve(whole.factor(ridge), meat)
    spread = np.diag(scipy.linalg.cho_solve(whole.factor(ridge), half.T))
    n, K = moments.n.sum(), len(mean)
    freedom = max(n - K - 1.0, 1.0)
    if moments.wrr is not None:
        square = moments.wrr[:, features].sum(axis=0) - whole.y_mean**2 * moments.w.sum()
        whole = dataclasses.replace(whole, y_square=np.maximum(square, 0.0))
    variance = whole.residual(effect) / moments.w.sum() * n / freedom
    return np.sqrt(np.maximum(spread, 0.0)[:, None] * variance)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns of two (K, F) arrays; NaN where a column is constant."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(scale > 0, (a * b).sum(axis=0) / np.where(scale > 0, scale, 1.0), np.nan)


def fit_selected(moments: Moments, features: np.ndarray, n_parts: int, *, ridge: float = 1.0) -> Surrogate:
    """Do as lime does for text: keep each feature's ``n_parts`` strongest parts and refit on those alone.

    ``feature_selection="highest_weights"`` of lime: a first ridge of strength 0.01 ranks the
    parts by absolute weight.  Parts that were not selected get the effect NaN.  R2 is that of
    the refit; standard errors and split-half agreement are those of the full fit.
    """
    whole = _centre(moments, features, slice(0, 2))
    K = len(whole.z_mean)
    full = fit_surrogate(moments, features, ridge=ridge)
    if n_parts >= K:
        return full
    ranked = np.argsort(-np.abs(whole.solve(0.01)), axis=0, kind="stable")[:n_parts].T  # (F, n_parts)
    gram = whole.gram[ranked[:, :, None], ranked[:, None, :]]
    cross = np.take_along_axis(whole.cross.T, ranked, axis=1)
    refit = np.linalg.solve(gram + ridge * np.eye(n_parts), cross[:, :, None])[:, :, 0]
    effect = np.full((len(ranked), K), np.nan)
    np.put_along_axis(effect, ranked, refit, axis=1)
    effect = effect.T
    zero = np.nan_to_num(effect)
    error = np.where(np.isnan(effect), np.nan, full.standard_error)
    r2 = whole.r2(zero)
    return Surrogate(effect, whole.y_mean - whole.z_mean @ zero, r2, _adjust(r2, moments), error, full.split_half)
