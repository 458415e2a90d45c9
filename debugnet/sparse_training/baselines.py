"""Selections that any other must beat: random, ANOVA, and the convex group lasso on a linear layer."""

from __future__ import annotations

import numpy as np

from debugnet.glm import iter_path

#: Names of the baselines.
BASELINES = ("random", "anova", "linear")
#: Relative duality gap of the linear path's points (:func:`linear_order`).
TOL = 1e-5


def random_order(n_units: int, seed: int) -> np.ndarray:
    """Units in a random order, (n_units,) int64."""
    return np.random.default_rng(seed).permutation(n_units)


def anova_order(X: np.ndarray, y: np.ndarray, family: str, unit_of: np.ndarray) -> np.ndarray:
    """Units by falling F statistic (of their best feature; summed over labels or targets).

    Parameters
    ----------
    X : ndarray (n, d)
    y : ndarray (n,) or (n, K)
    family : str
    unit_of : ndarray (d,), int64
        Unit of every feature.
    """
    return _by_best(_f_statistic(X, y, family), unit_of)


def linear_order(
    X: np.ndarray, y: np.ndarray, family: str, unit_of: np.ndarray, *, enough: int | None = None, n_lambdas: int = 50
) -> np.ndarray:
    """Units in the order in which the group lasso lets them in (``debugnet.glm``, rows of a linear layer).

    Ties go by the size of their weights there; units that never enter, by their F statistic (:func:`anova_order`).
    The path ends at a thousandth of the largest lambda, or at a hundredth where features outnumber rows (as in glmnet:
    what enters later is noise, and takes most of the time), and before that as soon as ``enough`` units have entered.

    Its points are solved to :data:`TOL`: among strongly correlated inputs a loose solution holds other features.  Of
    the first 31 of CIFAR-10's pixels 16, 25 and 29 are those of a path at 1e-6 where the tolerance is 1e-2, 1e-3 and
    1e-4; at 1e-5 all 31 are, and all of the first 5, 100 and 307.

    Parameters
    ----------
    X : ndarray (n, d)
    y : ndarray (n,) or (n, K)
    family : str
    unit_of : ndarray (d,), int64
        Unit of every feature.
    enough : int, optional
        The largest selection that will be taken from the order.
    n_lambdas : int
        Of the whole path.
    """
    n, d = X.shape
    entry, size = np.zeros(d), np.zeros(d)
    options = {"family": family, "penalty": "group_lasso", "l1_ratio": 1.0, "tol": TOL, "n_lambdas": n_lambdas}
    for point in iter_path(X, y, lambda_min_ratio=1e-3 if n > d else 1e-2, **options):
        norms = np.linalg.norm(point.weight, axis=0)
        new = (entry == 0) & (norms > 0)
        entry[new], size[new] = point.lam, norms[new]
        if enough is not None and len(np.unique(unit_of[entry > 0])) >= enough:
            break
    statistic = _f_statistic(X, y, family)
    ties = 1e-9 * size / max(size.max(), 1e-300) + 1e-15 * statistic / max(statistic.max(), 1e-300)
    return _by_best(entry / max(entry.max(), 1e-300) + ties, unit_of)


def top_mask(order: np.ndarray, size: int) -> np.ndarray:
    """Mask of the first ``size`` units of an order."""
    mask = np.zeros(len(order), dtype=bool)
    mask[order[:size]] = True
    return mask


def _f_statistic(X: np.ndarray, y: np.ndarray, family: str) -> np.ndarray:
    from sklearn.feature_selection import f_classif, f_regression

    score = f_regression if family == "gaussian" else f_classif
    columns = y.reshape(len(y), -1).T if y.ndim == 2 else [y]
    with np.errstate(all="ignore"):
        return np.asarray(sum(np.nan_to_num(score(X, column)[0], posinf=1e30) for column in columns))


def _by_best(scores: np.ndarray, unit_of: np.ndarray) -> np.ndarray:
    best = np.full(int(unit_of.max()) + 1, -np.inf)
    np.maximum.at(best, unit_of, scores)
    return np.argsort(-best, kind="stable")
