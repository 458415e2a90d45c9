"""Compiled block coordinate descent for a quadratic model per output under a penalty per feature.

Minimize over V (K, s), with R the gradient of the smooth part at the start V0 and B_k its Hessian for output k:

    sum_k [R_k (V_k - V0_k) + (V_k - V0_k) B_k (V_k - V0_k) / 2] + sum_j t_j ||V_j|| + q_j ||V_j||^2 / 2

(V_j: column j, all outputs of one feature).  The Hessian within a column is diagonal, so that its exact minimizer
is one root of a secular equation in the norm alone.

Features that tell nearly the same make sweeps slow: what one gives up another has to take over, a little in every
sweep.  Against that, after each sweep: the best point in the span of the last movements, whose Hessian the gradients
tell (locally optimal, as in Knyazev 2001).  And every few sweeps: a Newton step in the lengths of all features
together, their directions held.  Along its direction a norm does not bend, so that this is where the model is
flattest; across, the norms hold every feature by t / ||v||, and sweeps are fast (a coarse correction: Xu 1992).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

#: Newton steps on the secular equation; it is concave and nearly straight, three or four are usual.
ROOT_STEPS = 30
#: Every how many sweeps features at zero are visited too.
RUN = 6
#: Movements that the next one is combined with.
MEMORY = 4
#: Lengths are moved together where the matrix of the features used has at most so many rows per sweep and output since
#: the last time (its Cholesky factor then costs no more than the sweeps); no feature is cut to less than this share.
ROWS_PER_SWEEP, SHORTEST = 30, 0.1

Array: TypeAlias = NDArray[Any]


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
def group_gap(R, V, t, q, floor, ridged):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Sum over features of ``|t||v|| + q ||v||^2 / 2 + <v, r> + (||r|| - t)_+^2 / (2 q)|``: the Fenchel gap.

    ``floor`` (s,) bounds q from below in the divisor: where a feature has less (no ridge, or unpenalized) the figure
    measures progress and is no certificate.  Without a ridge anywhere (not ``ridged``) the dual point has to shrink by
    the largest ``||r|| / t``, which costs that share of the penalty.
    """
    K, s = V.shape
    total, worst, penalty = 0.0, 0.0, 0.0
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
        penalty += t[j] * np.sqrt(vv)
        if t[j] > 0.0:
            worst = max(worst, excess / t[j])
    return total if ridged else total + worst * penalty


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
def _slope_and_hessian(R, V, t, q, D, P):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Of the model along the directions ``D`` (m, K, s), the norms by their second derivative at V: (m,), (m, m)."""
    K, s = V.shape
    m = D.shape[0]
    bent, inner = np.zeros(s), np.zeros((m, s))  # t / ||v||; <v, d>
    for j in range(s):
        size = 0.0
        for k in range(K):
            size += V[k, j] * V[k, j]
        if size > 0.0:
            bent[j] = t[j] / np.sqrt(size)
    slope, H = np.zeros(m), np.zeros((m, m))
    for a in range(m):
        for k in range(K):
            for j in range(s):
                inner[a, j] += V[k, j] * D[a, k, j]
                slope[a] += R[k, j] * D[a, k, j]
        for j in range(s):
            slope[a] += (bent[j] + q[j]) * inner[a, j]
        for b in range(a + 1):
            total = 0.0
            for k in range(K):
                for j in range(s):
                    total += D[a, k, j] * (P[b, k, j] + (bent[j] + q[j]) * D[b, k, j])
            for j in range(s):
                if bent[j] > 0.0:
                    total -= inner[a, j] * inner[b, j] * bent[j] ** 3 / t[j] ** 2
            H[a, b] = H[b, a] = total
    return slope, H


@njit(cache=True, nogil=True)
def _combine(B, scale, R, V, R0, V0, t, q, D, P, newest):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Go to the best point spanned by the directions ``D`` (m, K, s); whether that lowers the model.

    ``P`` holds the model's Hessian times each of them, so that it costs no product.  The movement is added to the
    direction ``newest``.  Features at zero stay there, and none goes through zero.
    """
    K, s = V.shape
    m = D.shape[0]
    slope, H = _slope_and_hessian(R, V, t, q, D, P)
    unit = np.sqrt(np.maximum(np.diag(H), 1e-300))
    H = H / unit / unit.reshape(-1, 1) + 1e-9 * np.eye(m)
    if not np.isfinite(H.sum() + slope.sum()):
        return False
    c = -np.linalg.solve(H, slope / unit) / unit
    new, grad = V.copy(), R.copy()
    for a in range(m):
        new += c[a] * D[a]
        grad += c[a] * P[a]
    for j in range(s):
        turned, moved = 0.0, False
        for k in range(K):
            turned += new[k, j] * V[k, j]
            moved |= new[k, j] != 0.0
        if t[j] > 0.0 and moved and turned <= 0.0:
            for k in range(K):
                _add_row(grad[k], B[k, j], scale * (V[k, j] - new[k, j]))
                new[k, j] = V[k, j]
    if _model_value(R0, V0, grad, new, t, q) >= _model_value(R0, V0, R, V, t, q):
        return False
    D[newest] += new - V
    P[newest] += grad - R
    V[:] = new
    R[:] = grad
    return True


@njit(cache=True, nogil=True)
def _sweep(B, scale, R, V, t, q, backward, all_features, z, a, new):  # type: ignore[no-untyped-def]  # pragma: no cover
    K, s = V.shape
    for i in range(s):
        j = s - 1 - i if backward else i
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
def _run(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    B, scale, R, V, R0, V0, t, q, floor, ridged, sweeps, tol, D, P, known
):
    """Sweep forth and back, combining after each; (sweeps taken, movements known, whether within ``tol``)."""
    z, a, new = np.empty(V.shape[0]), np.empty(V.shape[0]), np.empty(V.shape[0])
    for sweep in range(sweeps):
        slot = known % MEMORY
        D[slot], P[slot] = V, R
        _sweep(B, scale, R, V, t, q, sweep % 2 == 1, sweep == 0, z, a, new)
        if group_gap(R, V, t, q, floor, ridged) <= tol:
            return sweep + 1, known, True
        D[slot], P[slot] = V - D[slot], R - P[slot]
        known += 1
        m = min(known, MEMORY)
        if not _combine(B, scale, R, V, R0, V0, t, q, D[:m], P[:m], slot):
            known = 0
    return sweeps, known, False


@njit(cache=True, nogil=True)
def _hessian_of_lengths(B, scale, V, q, used):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Hessian (m, m), lower triangle, of the model in a where the m features used are at (1 + a_j) V_j."""
    m = len(used)
    H = np.zeros((m, m))
    for k in range(V.shape[0]):
        v = V[k][used]
        for i in range(m):
            row, factor = B[k, used[i]], scale * v[i]
            for j in range(i + 1):
                H[i, j] += factor * v[j] * row[used[j]]
    for i in range(m):
        H[i, i] += q[used[i]] * np.square(V[:, used[i]]).sum()
    return H


@njit(cache=True, nogil=True)
def _product(B, scale, D, P):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``P = scale * B D``."""
    P[:] = 0.0
    for k in range(D.shape[0]):
        for j in range(D.shape[1]):
            if D[k, j] != 0.0:
                _add_row(P[k], B[k, j], scale * D[k, j])


def _change_of_lengths(B: Array, scale: float, R: Array, V: Array, t: Array, q: Array, used: Array) -> Array | None:
    """Newton step (K, s) in the lengths of the features used, directions held; None where there is none."""
    norm = np.linalg.norm(V, axis=0)
    H = torch.from_numpy(_hessian_of_lengths(B, scale, V, q, used))
    H.diagonal().mul_(1 + 1e-8)
    root, failed = torch.linalg.cholesky_ex(H)
    if failed:
        return None
    slope = ((R * V).sum(axis=0) + t * norm + q * norm**2)[used]
    a = -torch.cholesky_solve(torch.from_numpy(slope)[:, None], root).numpy()[:, 0]
    D = np.zeros_like(V)
    D[:, used] = np.maximum(a, SHORTEST - 1) * V[:, used]
    return D


def solve_groups(
    B: Array, scale: float, R: Array, V: Array, t: Array, q: Array, floor: Array, ridged: bool, sweeps: int, tol: float
) -> int:
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
    ridged : bool
        See :func:`group_gap`.
    sweeps : int
        At most so many.
    tol : float
        Wanted gap.
    """
    R0, V0 = R.copy(), V.copy()
    D, P = np.empty((2, MEMORY + 1, *V.shape))  # past movements, and in the last place the change of lengths
    known = taken = since = 0
    while True:
        run = min(RUN, sweeps - taken)
        more, known, done = _run(B, scale, R, V, R0, V0, t, q, floor, ridged, run, tol, D, P, known)
        taken, since = taken + more, since + more
        if done or taken >= sweeps:
            return taken
        used = np.flatnonzero(V.any(axis=0) & (t > 0))
        if since * len(V) * ROWS_PER_SWEEP < len(used):
            continue
        since, m = 0, min(known, MEMORY)
        change = _change_of_lengths(B, scale, R, V, t, q, used)
        if change is not None:
            D[m] = change
            _product(B, scale, D[m], P[m])
            last = max(known - 1, 0)
            better = _combine(B, scale, R, V, R0, V0, t, q, D[: m + 1], P[: m + 1], last % MEMORY)
            known = last + 1 if better else 0
