"""An evaluator of penalized solutions that shares no code with any solver: numpy, float64."""

from __future__ import annotations

import numpy as np

#: Shrinkages of the residual that are tried as dual points.
SCALES = (1.0, 0.9999, 0.999, 0.99, 0.9)


def standardize(X: np.ndarray) -> np.ndarray:
    """(n, d) any float -> float64 with mean 0 and standard deviation (1/n) 1; constant columns become 0."""
    constant = np.ptp(X, axis=0) == 0
    X = X.astype(np.float64)
    X -= X.mean(axis=0)
    scale = np.sqrt(np.einsum("ij,ij->j", X, X) / len(X))
    X /= np.where(constant | (scale == 0), 1.0, scale)
    X[:, constant] = 0.0
    return X


def null_objective(y: np.ndarray, n_classes: int) -> float:
    """Mean loss of the model without features: the entropy of the class frequencies, nats."""
    p = np.bincount(y, minlength=n_classes) / len(y)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def lambda_grid(
    X: np.ndarray, y: np.ndarray, n_classes: int, l1_ratio: float, n: int, ratio: float, group: bool = False
) -> np.ndarray:
    """``n`` lambdas, log-spaced from lambda_max down to ``ratio`` times it; X standardized."""
    onehot = np.eye(n_classes)[y]
    slope = X.T @ (onehot - onehot.mean(axis=0))
    largest = (np.linalg.norm(slope, axis=1) if group else np.abs(slope)).max() / len(y) / l1_ratio
    return largest * ratio ** (np.arange(n) / (n - 1))


def relative_gap(
    X: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, lam: float, l1_ratio: float, group: bool = False
) -> tuple[float, float]:
    """Duality gap over the null objective, and KKT residual over lam, of (W (K, d), b (K,)).

    The dual point is the residual at the bias refitted for this W (so that its columns sum to 0), shrunk by the
    best of a few factors; its conjugate is an entropy.  ``group``: the norm of each feature's weights over all classes
    in place of the sum of their absolute values.
    """
    n, K = len(y), len(b)
    used = np.flatnonzero(np.abs(W).any(axis=0))
    scores = X[:, used] @ W[:, used].T
    rows, onehot = np.arange(n), np.eye(K)[y]

    def softmax(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = scores + bias
        top = z.max(axis=1, keepdims=True)
        e = np.exp(z - top)
        total = e.sum(axis=1, keepdims=True)
        return e / total, (top + np.log(total))[:, 0] - z[rows, y]

    def size(V: np.ndarray) -> np.ndarray:
        return np.linalg.norm(V, axis=0) if group else np.abs(V)

    penalty = lam * (l1_ratio * size(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum())
    primal = softmax(b)[1].mean() + penalty
    refitted = b.copy()
    for _ in range(50):
        p, _ = softmax(refitted)
        slope = (p - onehot).mean(axis=0)
        if np.abs(slope).max() < 1e-14:
            break
        hessian = np.diag(p.mean(axis=0)) - p.T @ p / n
        refitted = refitted - np.linalg.lstsq(hessian, slope, rcond=1e-13)[0]
    p, losses = softmax(refitted)
    primal = min(primal, losses.mean() + penalty)
    gradient = ((p - onehot) / n).T @ X
    dual = -np.inf
    for scale in SCALES:
        q = onehot - scale * (onehot - p)
        entropy = -(q * np.log(np.where(q > 0, q, 1.0))).sum() / n
        excess = np.maximum(scale * size(gradient) - lam * l1_ratio, 0)
        if l1_ratio < 1:
            dual = max(dual, entropy - (excess**2).sum() / (2 * lam * (1 - l1_ratio)))
    if l1_ratio == 1:
        scale = min(1.0, lam / size(gradient).max())
        q = onehot - scale * (onehot - p)
        dual = -(q * np.log(np.where(q > 0, q, 1.0))).sum() / n
    smooth = gradient + lam * (1 - l1_ratio) * W
    direction = W / np.maximum(np.linalg.norm(W, axis=0), 1e-300) if group else np.sign(W)
    inside = size(smooth + lam * l1_ratio * direction)
    kkt = np.where(size(W) != 0, inside, np.maximum(size(smooth) - lam * l1_ratio, 0))
    return float((primal - dual) / null_objective(y, K)), float(kkt.max() / lam)


def scalar_null(y: np.ndarray, family: str) -> float:
    """Objective of the model without features: one output, y in {0, 1} or any number."""
    if family == "gaussian":
        return float(((y - y.mean()) ** 2).mean() / 2)
    return null_objective(y.astype(np.int64), 2)


def scalar_gap(
    X: np.ndarray, y: np.ndarray, w: np.ndarray, b: float, lam: float, l1_ratio: float, family: str, intercept: bool
) -> float:
    """Relative duality gap of one output, logistic (y in {0, 1}) or gaussian, with or without an intercept."""
    n, scores = len(y), X @ w
    penalty = lam * (l1_ratio * np.abs(w).sum() + (1 - l1_ratio) / 2 * (w**2).sum())

    def loss_and_mean(shift: float) -> tuple[float, np.ndarray]:
        z = scores + shift
        if family == "gaussian":
            return float(((y - z) ** 2).mean() / 2), z
        return float((np.logaddexp(0, z) - y * z).mean()), 1 / (1 + np.exp(-z))

    primal, mean = loss_and_mean(b)
    for _ in range(50 if intercept else 0):
        slope = (mean - y).mean()
        if abs(slope) < 1e-14:
            break
        b -= slope / (1.0 if family == "gaussian" else (mean * (1 - mean)).mean())
        primal, mean = loss_and_mean(b)
    residual = mean - y
    gradient = X.T @ residual / n
    dual = -np.inf
    feasible = min(1.0, lam * l1_ratio / max(np.abs(gradient).max(), 1e-300))
    for scale in (*SCALES, feasible) if l1_ratio < 1 else (feasible,):
        u = scale * residual
        if family == "gaussian":
            bound = -(u**2 / 2 + u * y).mean()
        else:
            q = np.clip(u + y, 0, 1)
            bound = -sum((np.where(p > 0, p, 1) * np.log(np.where(p > 0, p, 1))).mean() for p in (q, 1 - q))
        if l1_ratio < 1:
            bound -= (np.maximum(scale * np.abs(gradient) - lam * l1_ratio, 0) ** 2).sum() / (2 * lam * (1 - l1_ratio))
        dual = max(dual, bound)
    return float((primal + penalty - dual) / scalar_null(y, family))
