"""The path objective of docs/architecture.md, written down plainly and solved by a conic solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np


def standardize(X, weight=None, *, center=True, scale=True):
    """Weighted mean and 1/n standard deviation; constant columns become 0."""
    X = np.asarray(X, dtype=np.float64)
    w = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    mean = w @ X
    std = np.sqrt(w @ (X - mean) ** 2)
    std[std < 1e-12] = 0
    out = X - mean if center else X
    return np.divide(out, std, out=np.zeros_like(out), where=std > 0) if scale else out


def solve(
    X,
    y,
    family,
    lam,
    *,
    penalty="elastic_net",
    l1_ratio=0.9,
    weight=None,
    factor=None,
    offset=None,
    nonnegative=False,
    intercept=True,
    group_weight=1.0,
):
    """Minimize over W (K, d) and b (K,) on standardized X; returns (W, b, objective)."""
    n, d = X.shape
    w = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    factor = np.ones(d) if factor is None else factor
    Y = y if y.ndim == 2 else (np.eye(y.max() + 1)[y] if family != "gaussian" else y[:, None])
    if family == "binomial" and y.ndim == 1 and y.max() == 1:
        Y = y[:, None].astype(float)
    K = Y.shape[1]
    W, b = cp.Variable((K, d)), cp.Variable(K)
    eta = X @ W.T + np.ones((n, 1)) @ cp.reshape(b, (1, K), order="C")
    if offset is not None:
        eta = eta + offset
    if family == "multinomial":
        loss = w @ (cp.log_sum_exp(eta, axis=1) - cp.sum(cp.multiply(Y, eta), axis=1))
    elif family == "binomial":
        loss = w @ cp.sum(cp.logistic(eta) - cp.multiply(Y, eta), axis=1)
    else:
        loss = w @ cp.sum(cp.square(eta - Y), axis=1) / 2
    used = np.isfinite(factor)
    l1 = (
        cp.norm(W[:, used], 2, axis=0) * group_weight
        if penalty == "group_lasso"
        else cp.sum(cp.abs(W[:, used]), axis=0)
    )
    ridge = cp.sum(cp.square(W[:, used]), axis=0)
    total = loss + lam * (factor[used] @ (l1_ratio * l1 + (1 - l1_ratio) / 2 * ridge))
    constraints = [W[:, ~used] == 0] if (~used).any() else []
    constraints += [W >= 0] if nonnegative else []
    constraints += [] if intercept else [b == 0]
    problem = cp.Problem(cp.Minimize(total), constraints)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return W.value, b.value, problem.value
