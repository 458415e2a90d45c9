"""Elastic net on a dense quadratic model: compiled coordinate descent, finished by Newton steps on the support.

Minimize over v (s,), with r the gradient of the smooth part at the start and H its Hessian (s, s):

    r'(v - v0) + (v - v0)'H(v - v0)/2 + sum_i l1_i |v_i| + l2_i v_i^2 / 2.

Coordinate descent finds the support within a few sweeps and then crawls where features are correlated; a
Cholesky solve on the support with the signs held fixed (feature-sign search, Lee et al. 2006) finishes what it
crawls at.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.linalg.lapack import dposv

#: Largest number of rounds of (sweeps, Newton step on the support).
MAX_ROUNDS = 30


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _sweeps(H, r, v, l1, l2, nonnegative, n_sweeps, tol):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Cyclic coordinate descent in place, r kept at the model's gradient; one full sweep, then over the support.

    Ends early once the violations of a sweep, each squared and over twice ``tol[i]``, sum to less than tol[-1].
    """
    s = v.shape[0]
    for sweep in range(n_sweeps):
        total = 0.0
        for i in range(s):
            if sweep > 0 and v[i] == 0.0:
                continue
            h = H[i, i]
            a = h + l2[i]
            if a <= 0.0:
                continue
            z = h * v[i] - r[i]
            t = l1[i]
            if z > t:
                new = (z - t) / a
            elif z < -t and not (nonnegative and t > 0.0):
                new = (z + t) / a
            else:
                new = 0.0
            change = new - v[i]
            if change != 0.0:
                v[i] = new
                for j in range(s):
                    r[j] += change * H[i, j]
                total += (a * change) ** 2 / (2 * tol[i])
        if total < tol[s]:
            return sweep + 1
    return n_sweeps


@njit(cache=True, nogil=True)
def penalized_gap(r, v, l1, l2, floor, nonnegative):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Fenchel gap of a linear model whose loss part is tight: sum of |l1|v| + l2 v^2/2 + v r + (|r|-l1)_+^2/(2 l2)|.

    ``floor`` bounds l2 from below in the divisor: where a coordinate has less (no ridge, or unpenalized) the
    figure measures progress and is no certificate.
    """
    total = 0.0
    for i in range(v.shape[0]):
        excess = max((-r[i] if nonnegative and l1[i] > 0.0 else abs(r[i])) - l1[i], 0.0)
        term = l1[i] * abs(v[i]) + 0.5 * l2[i] * v[i] * v[i] + v[i] * r[i]
        q = l2[i]
        if q < floor:
            q = floor
            if l1[i] == 0.0:
                term = 0.0
        total += abs(term + excess * excess / (2.0 * q))
    return total


@njit(cache=True, nogil=True)
def _restrict(H, support, l2):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    s = support.shape[0]
    A = np.empty((s, s))
    for a in range(s):
        row = H[support[a]]
        for b in range(s):
            A[a, b] = row[support[b]]
        A[a, a] += l2[support[a]] + 1e-10 * A[a, a] + 1e-300
    return A


def _newton_on_support(H, r, v, l1, l2, nonnegative, sign_free):  # type: ignore[no-untyped-def]
    """One feature-sign step; changes v and r in place.  Returns True where no sign had to give way."""
    support = np.flatnonzero((v != 0) | sign_free)
    if len(support) == 0:
        return True
    old = v[support]
    sign = np.sign(old)
    free = sign_free[support]
    rhs = -(r[support] + l1[support] * np.where(free, 0.0, sign) + l2[support] * old)
    _, step, info = dposv(_restrict(H, support, l2), rhs, overwrite_a=1, overwrite_b=1)
    if info != 0:
        return False
    new = old + step
    crossed = (new * sign < 0) & ~free
    rows = H[support]
    if not crossed.any():
        v[support] = new
        r += step @ rows
        return True
    # Some signs flip: of the projected points along the step, the best one (the model is piecewise quadratic).
    best, best_value = None, 0.0
    for fraction in (1.0, 0.5, 0.25, 0.1, 0.03):
        candidate = old + fraction * step
        candidate[(candidate * sign < 0) & ~free] = 0.0
        delta = candidate - old
        slope = delta @ r[support]
        change = delta @ rows
        value = (
            slope
            + 0.5 * (change[support] @ delta)
            + l1[support] @ (np.abs(candidate) - np.abs(old))
            + 0.5 * (l2[support] @ (candidate**2 - old**2))
        )
        if value < best_value:
            best, best_value = (candidate, change), value
        elif best is not None:
            break
    if best is not None:
        v[support] = best[0]
        r += best[1]
    return False


def solve_quadratic(  # noqa: PLR0913
    H: np.ndarray,
    r: np.ndarray,
    v: np.ndarray,
    l1: np.ndarray,
    l2: np.ndarray,
    *,
    tol: float,
    floor: float,
    nonnegative: bool = False,
    sweeps: int = 8,
) -> int:
    """Solve the model problem in place: on return v is the minimizer, r the model's gradient there.

    Parameters
    ----------
    H : ndarray (s, s), float64
        Symmetric, positive semi-definite.
    r : ndarray (s,), float64
        Gradient of the smooth part at v on entry.
    v, l1, l2 : ndarray (s,), float64
        Start; penalty of each coordinate, 0 and 0 for a bias.
    tol : float
        Wanted :func:`penalized_gap` of the model problem.
    floor : float
        See :func:`penalized_gap`.

    Returns
    -------
    int
        Rounds taken.
    """
    s = len(v)
    scale = np.empty(s + 1)
    scale[:s] = np.maximum(l2, floor)
    scale[s] = 0.2 * tol
    unpenalized = l1 == 0
    for round_ in range(1, MAX_ROUNDS + 1):
        _sweeps(H, r, v, l1, l2, nonnegative, sweeps, scale)
        if penalized_gap(r, v, l1, l2, floor, nonnegative) <= tol:
            return round_
        _newton_on_support(H, r, v, l1, l2, nonnegative, unpenalized)
        if penalized_gap(r, v, l1, l2, floor, nonnegative) <= tol:
            return round_
    return MAX_ROUNDS
