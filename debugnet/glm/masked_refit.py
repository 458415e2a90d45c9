"""Fit a decision layer on a support that is given: which output may use which feature.

The path's penalties act per feature, while "k features per class" leaves every class its own
features.  With the support fixed there is nothing left to select, so this is a smooth problem in
the allowed entries only, and a quasi-Newton method on those solves it.
"""

from __future__ import annotations

import numpy as np
import torch

from debugnet.errors import InputError, NotConverged
from debugnet.glm.families import FAMILIES
from debugnet.standardization import Standardizer

#: Above this many entries the used columns are held in float32 (float64 needs 2 GB here).
LARGE = 2**28


def refit_on_support(
    X: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    *,
    standardizer: Standardizer,
    family: str,
    l2: float,
    sample_weight: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tol: float = 1e-7,
    max_iterations: int = 5000,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimize the mean loss plus ``l2 / 2 ||W||^2`` over the entries in ``mask``; bias unpenalized.

    The objective is the path's, ``(1/sum(w)) sum_i w_i l(y_i, W x_i + b) + l2/2 ||W||_F^2`` on
    standardized x, without the l1 part: what the l1 norm shrank is let go, and ``l2 > 0`` keeps
    the optimum finite where the classes are separable on the support.

    Parameters
    ----------
    X : ndarray (n, d)
        Raw features, memory-mapped or not; only the columns in use are read into memory.
    y : ndarray
        int64 (n,) classes, 0/1 (n, K), or float (n,) or (n, K); as for ``fit_path``.
    mask : ndarray (K, d), bool
        Entries that may differ from zero.
    standardizer : Standardizer
    family : str
        "multinomial", "binomial" or "gaussian".
    l2 : float
        Strength of the ridge, at least 0.
    sample_weight : ndarray (n,), optional
    start : ndarray (K, d), optional
        Weights to start from, standardized coordinates.
    tol : float
        Largest allowed |gradient|, relative to the largest at zero weights (at least 1e-3).
    max_iterations : int
        Of L-BFGS.

    Returns
    -------
    weight : ndarray (K, d), float64
        Standardized coordinates; zero outside ``mask``.
    bias : ndarray (K,), float64

    Raises
    ------
    NotConverged
        If the gradient does not get below the tolerance within ``max_iterations``.
    """
    from scipy.optimize import minimize

    mask = mask & standardizer.alive
    columns = np.flatnonzero(mask.any(axis=0))
    Z = _standardized_columns(X, columns, standardizer)
    target = _target(y, family, mask.shape[0])
    w = np.full(len(X), 1.0) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    row_weight = torch.from_numpy(w / w.sum())
    local = torch.from_numpy(mask[:, columns])
    n_free, likelihood = int(local.sum()), FAMILIES[family]

    def value_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(parameters)
        W = torch.zeros(local.shape, dtype=torch.float64)
        W[local] = free[:n_free]
        scores = (Z @ W.T.to(Z.dtype)).to(torch.float64) + free[n_free:]
        residual = likelihood.residual(scores, target) * row_weight[:, None]
        gradient = (residual.to(Z.dtype).T @ Z).to(torch.float64) + l2 * W
        value = float(row_weight @ likelihood.loss(scores, target)) + 0.5 * l2 * float((W**2).sum())
        return value, torch.cat([gradient[local], residual.sum(dim=0)]).numpy()

    first = np.zeros(n_free + mask.shape[0])
    scale = max(1e-3, float(np.abs(value_and_gradient(first)[1]).max()))
    if start is not None:
        first[:n_free] = start[:, columns][local.numpy()]
    options = {"maxiter": max_iterations, "maxfun": 4 * max_iterations, "maxcor": 30, "ftol": 0.0}
    options["gtol"] = 0.1 * tol * scale
    found = minimize(value_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    left = float(np.abs(found.jac).max()) / scale
    if not left <= max(tol, 1e-5 if Z.dtype == torch.float32 else 0.0):
        raise NotConverged(
            f"the refit on {n_free} weights stopped at a relative gradient of {left:.1e} (tolerance {tol:.0e}): "
            "a larger --refit-l2 makes the problem better conditioned"
        )
    weight = np.zeros(mask.shape)
    rows, inner = np.nonzero(mask[:, columns])
    weight[rows, columns[inner]] = found.x[:n_free]
    return weight, found.x[n_free:]


def _standardized_columns(X: np.ndarray, columns: np.ndarray, standardizer: Standardizer) -> torch.Tensor:
    dtype = np.float64 if len(X) * len(columns) <= LARGE else np.float32
    Z = (X[:, columns].astype(dtype) - standardizer.mean[columns]) * standardizer.inverse_scale[columns]
    if not np.isfinite(Z).all():
        raise InputError("features hold NaN or infinite values: leave out the rows whose status is not 0")
    return torch.from_numpy(Z.astype(dtype, copy=False))


def _target(y: np.ndarray, family: str, n_outputs: int) -> torch.Tensor:
    if family == "multinomial":
        return torch.from_numpy(np.asarray(y, dtype=np.int64))
    if family == "binomial" and y.ndim == 1:
        y = y[:, None] == (np.arange(n_outputs) if n_outputs > 1 else 1)
    return torch.from_numpy(np.asarray(y, dtype=np.float64).reshape(len(y), n_outputs))
