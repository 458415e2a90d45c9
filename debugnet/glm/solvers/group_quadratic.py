"""Compiled block coordinate descent for a quadratic model per output under a penalty per feature.

Minimize over V (K, s), with R the gradient of the smooth part at the start V0 and B_k its Hessian for output k:

    sum_k [R_k (V_k - V0_k) + (V_k - V0_k) B_k (V_k - V0_k) / 2] + sum_j t_j ||V_j|| + q_j ||V_j||^2 / 2

(V_j: column j, all outputs of one feature).  The Hessian within a column is diagonal, so that its exact minimizer
is one root of a secular equation in the norm alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Newton steps on the secular equation; it is concave and nearly straight, three or four are usual.
ROOT_STEPS = 30
#: Every how many sweeps features at zero are visited too, and the sweeps since extrapolated.
RUN = 6


@njit(cache=True, nogil=True)
def group_minimizer(z, a, t, norm, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``argmin_v sum_k a_k v_k^2 / 2 - z_k v_k + t ||v||`` into ``out``; ``norm`` is a guess of ``||v||``.

    With N = ||v||: v_k = z_k N / (a_k N + t), and N is the root of sum_k z_k^2 / (a_k N + t)^2 = 1 (1 / sqrt of the
    left side is concave in N: Newton from the left is monotone, More & Sorensen 1983).
    """
    K = z.shape[0]
    size, largest = 0.0, 0.0
    for k in range(K):
        size += z[k] * z[k]
        largest = max(largest, a[k])
    size = np.sqrt(size)
    if size <= t or largest <= 0.0:
        out[:] = 0.0
        return
    if t == 0.0:
        for k in range(K):
            out[k] = z[k] / a[k] if a[k] > 0.0 else 0.0
        return
    least = (size - t) / largest
    norm = max(norm, least)
    for _ in range(ROOT_STEPS):
        f, slope = 0.0, 0.0
        for k in range(K):
            d = a[k] * norm + t
            w = z[k] * z[k] / (d * d)
            f += w
            slope += w * a[k] / d
        if slope <= 0.0:
            break
        step = f * (np.sqrt(f) - 1.0) / slope
        norm = max(norm + step, least)
        if abs(step) <= 1e-12 * norm:
            break
    for k in range(K):
        out[k] = z[k] * norm / (a[k] * norm + t)


@njit(cache=True, nogil=True)
def group_gap(R, V, t, q, floor):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Sum over features of ``|t||v|| + q ||v||^2 / 2 + <v, r> + (||r|| - t)_+^2 / (2 q)|``: the Fenchel gap.

    ``floor`` (s,) bounds q from below in the divisor: where a feature has less (no ridge, or unpenalized) the figure
    measures progress and is no certificate.
    """
    K, s = V.shape
    total = 0.0
    for j in range(s):
        vv, rr, vr = 0.0, 0.0, 0.0
        for k in range(K):
            vv += V[k, j] * V[k, j]
            rr += R[k, j] * R[k, j]
            vr += V[k, j] * R[k, j]
        excess = max(np.sqrt(rr) - t[j], 0.0)
        term = t[j] * np.sqrt(vv) + 0.5 * q[j] * vv + vr
        ridge = q[j]
        if ridge < floor[j]:
            ridge = floor[j]
            if t[j] == 0.0:
                term = 0.0
        total += abs(term + excess * excess / (2.0 * ridge))
    return total


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _add_row(r, B, change):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for i in range(r.shape[0]):
        r[i] += change * B[i]


@njit(cache=True, nogil=True)
def _model_value(R0, V0, R, V, t, q):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    total = 0.0
    for j in range(V.shape[1]):
        square = 0.0
        for k in range(V.shape[0]):
            total += 0.5 * (R0[k, j] + R[k, j]) * (V[k, j] - V0[k, j])
            square += V[k, j] * V[k, j]
        total += t[j] * np.sqrt(square) + 0.5 * q[j] * square
    return total


@njit(cache=True, nogil=True)
def _extrapolate(Vs, Rs, V, R, V0, R0, t, q):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Anderson extrapolation of the last sweeps (Bertrand & Massias 2021), kept where it lowers the model."""
    m = Vs.shape[0] - 1
    K, s = V.shape
    gram = np.zeros((m, m))
    for a in range(m):
        for b in range(a + 1):
            total = 0.0
            for k in range(K):
                for j in range(s):
                    total += (Vs[a + 1, k, j] - Vs[a, k, j]) * (Vs[b + 1, k, j] - Vs[b, k, j])
            gram[a, b] = gram[b, a] = total
    trace = np.trace(gram)
    if trace == 0.0:
        return
    for a in range(m):
        gram[a, a] += 1e-12 * trace
    c = np.linalg.solve(gram, np.ones(m))
    total = c.sum()
    if total == 0.0 or not np.isfinite(total):
        return
    c /= total
    new, grad = np.zeros_like(V), np.zeros_like(R)
    for a in range(m):
        new += c[a] * Vs[a + 1]
        grad += c[a] * Rs[a + 1]
    for j in range(s):  # a feature that has just left or come stays where it is
        size, inner = 0.0, 0.0
        for k in range(K):
            size += V[k, j] * V[k, j]
            inner += new[k, j] * V[k, j]
        if t[j] > 0.0 and ((size > 0.0 and inner <= 0.0) or (size == 0.0 and np.abs(new[:, j]).max() > 0.0)):
            return
    if _model_value(R0, V0, grad, new, t, q) < _model_value(R0, V0, R, V, t, q):
        V[:] = new
        R[:] = grad


@njit(cache=True, nogil=True)
def _sweep(B, scale, R, V, t, q, all_features, z, a, new):  # type: ignore[no-untyped-def]  # pragma: no cover
    K, s = V.shape
    for j in range(s):
        norm = 0.0
        for k in range(K):
            norm += V[k, j] * V[k, j]
        if norm == 0.0 and t[j] > 0.0 and not all_features:
            continue
        for k in range(K):
            h = scale * B[k, j, j]
            z[k] = h * V[k, j] - R[k, j]
            a[k] = h + q[j]
        group_minimizer(z, a, t[j], np.sqrt(norm), new)
        for k in range(K):
            change = new[k] - V[k, j]
            if change != 0.0:
                V[k, j] = new[k]
                _add_row(R[k], B[k, j], scale * change)


@njit(cache=True, nogil=True)
def solve_groups(B, scale, R, V, t, q, floor, sweeps, tol):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sweep in place until :func:`group_gap` of the model is within ``tol``; returns the sweeps taken.

    Parameters
    ----------
    B : ndarray (K, at least s, at least s), float32 or float64
        Hessian of each output, in the upper left corner.
    scale : float
        The model's Hessians are ``scale * B``.
    R, V : ndarray (K, s), float64
        The model's gradient and the point; both are moved.
    t, q, floor : ndarray (s,), float64
        Weight of the norm and of the ridge; see :func:`group_gap`.
    sweeps : int
        At most so many.
    tol : float
        Wanted gap.
    """
    K, s = V.shape
    z, a, new = np.empty(K), np.empty(K), np.empty(K)
    Vs, Rs = np.empty((RUN, K, s)), np.empty((RUN, K, s))
    V0, R0 = V.copy(), R.copy()
    for sweep in range(sweeps):
        k = sweep % RUN
        _sweep(B, scale, R, V, t, q, k == 0, z, a, new)
        if group_gap(R, V, t, q, floor) <= tol:
            return sweep + 1
        Vs[k], Rs[k] = V, R
        if k == RUN - 1:
            _extrapolate(Vs, Rs, V, R, V0, R0, t, q)
    return sweeps
