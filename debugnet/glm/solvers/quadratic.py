"""Elastic net on a dense quadratic model: compiled coordinate descent, finished by Newton steps on the support.

Minimize over v (s,), with r the gradient of the smooth part at the start v0 and H its Hessian (s, s):

    r'(v - v0) + (v - v0)'H(v - v0)/2 + sum_i l1_i |v_i| + l2_i v_i^2 / 2.

Coordinate descent finds the support within a few sweeps and then crawls where features are correlated; a Newton
step on the support with the signs held fixed (feature-sign search, Lee et al. 2006) finishes what it crawls at.
Its linear system is solved by conjugate gradients, preconditioned by the last Cholesky factor of such a system:
the support changes by a few coefficients at a time, so that one factorization serves many steps.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

#: Every how many sweeps coefficients at 0 are visited too, and the sweeps since extrapolated.
FULL_SWEEP = 8
#: Largest number of rounds of (sweeps, Newton step on the support).
MAX_ROUNDS = 40
#: A support up to this size is factorized anew for each step.
SMALL = 160
#: Conjugate gradient steps after which the factor counts as outdated.
OUTDATED = 12


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _sweep(H, r, v, l1, l2, nonnegative, support_only):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One cycle of coordinate descent in place, r kept at the model's gradient."""
    s = v.shape[0]
    for i in range(s):
        if support_only and v[i] == 0.0:
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


@njit(cache=True, nogil=True)
def _model_value(r0, v0, r, v, l1, l2):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    total = 0.0
    for i in range(v.shape[0]):
        total += 0.5 * (r0[i] + r[i]) * (v[i] - v0[i]) + l1[i] * abs(v[i]) + 0.5 * l2[i] * v[i] * v[i]
    return total


@njit(cache=True, nogil=True)
def _extrapolate(V, R, v, r, r0, v0, l1, l2):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Anderson extrapolation of the last iterates (Bertrand & Massias 2021), kept where it lowers the model."""
    m = V.shape[0] - 1
    D = V[1:] - V[:-1]
    gram = D @ D.T
    trace = 0.0
    for i in range(m):
        trace += gram[i, i]
    if trace == 0.0:
        return False
    for i in range(m):
        gram[i, i] += 1e-12 * trace
    c = np.linalg.solve(gram, np.ones(m))
    total = c.sum()
    if total == 0.0 or not np.isfinite(total):
        return False
    c /= total
    new, grad = np.zeros_like(v), np.zeros_like(r)
    for i in range(m):
        new += c[i] * V[i + 1]
        grad += c[i] * R[i + 1]
    for i in range(v.shape[0]):
        if (l1[i] > 0.0 and new[i] * v[i] < 0.0) or (v[i] == 0.0 and new[i] != 0.0):
            return False
    if _model_value(r0, v0, grad, new, l1, l2) < _model_value(r0, v0, r, v, l1, l2):
        v[:] = new
        r[:] = grad
        return True
    return False


@njit(cache=True, nogil=True)
def penalized_gap(r, v, l1, l2, floor, nonnegative):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Fenchel gap of a linear model whose loss part is tight: sum of |l1|v| + l2 v^2/2 + v r + (|r|-l1)_+^2/(2 l2)|.

    ``floor`` (s,) bounds l2 from below in the divisor: where a coordinate has less (no ridge, or unpenalized) the
    figure measures progress and is no certificate.
    """
    total = 0.0
    for i in range(v.shape[0]):
        excess = max((-r[i] if nonnegative and l1[i] > 0.0 else abs(r[i])) - l1[i], 0.0)
        term = l1[i] * abs(v[i]) + 0.5 * l2[i] * v[i] * v[i] + v[i] * r[i]
        q = l2[i]
        if q < floor[i]:
            q = floor[i]
            if l1[i] == 0.0:
                term = 0.0
        total += abs(term + excess * excess / (2.0 * q))
    return total


@njit(cache=True, nogil=True)
def _sweeps(H, r, v, l1, l2, floor, nonnegative, n_sweeps, tol):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sweeps, extrapolated every :data:`FULL_SWEEP`; the first of each such run visits all, the others the support.

    Ends once the gap is within ``tol``; returns the gap.
    """
    s = v.shape[0]
    V, R = np.empty((FULL_SWEEP, s)), np.empty((FULL_SWEEP, s))
    r0, v0 = r.copy(), v.copy()
    gap = np.inf
    for sweep in range(n_sweeps):
        k = sweep % FULL_SWEEP
        _sweep(H, r, v, l1, l2, nonnegative, k != 0)
        gap = penalized_gap(r, v, l1, l2, floor, nonnegative)
        if gap <= tol:
            break
        V[k] = v
        R[k] = r
        if k == FULL_SWEEP - 1:
            _extrapolate(V, R, v, r, r0, v0, l1, l2)
    return gap


@njit(cache=True, nogil=True)
def _restrict(H, support, l2):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    s = support.shape[0]
    A = np.empty((s, s), dtype=H.dtype)
    for a in range(s):
        row = H[support[a]]
        for b in range(a + 1):
            A[a, b] = row[support[b]]
        A[a, a] += l2[support[a]] + 1e-6 * A[a, a] + 1e-30
    return A


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _multiply(H, support, x, y):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``y = H[:, support] x`` by the rows of the symmetric H."""
    y[:] = 0.0
    for a in range(support.shape[0]):
        row = H[support[a]]
        c = x[a]
        for j in range(y.shape[0]):
            y[j] += c * row[j]


class StaleFactor:
    """Cholesky factor of ``H + diag(l2)`` on some earlier support, as a preconditioner for later ones."""

    def __init__(self) -> None:
        self.support: np.ndarray | None = None
        self._factor = np.empty((0, 0))
        self._position = np.empty(0, dtype=np.int64)
        self.built = 0

    def clear(self) -> None:
        """Forget: the matrix has changed."""
        self.support = None

    def build(self, H: np.ndarray, support: np.ndarray, l2: np.ndarray) -> None:
        """Factorize on this support."""
        self.built += 1
        potrf = spotrf if H.dtype == np.float32 else dpotrf
        A = _restrict(H, support, l2)
        damping = 1e-6
        while True:
            # A's lower triangle in C order is the upper one in Fortran order.
            factor, info = potrf(A.T, lower=0, clean=0, overwrite_a=0)
            if info == 0:
                break
            damping *= 10
            A[np.diag_indices_from(A)] *= 1 + damping
        self._factor, self.support = factor, support
        self._potrs = spotrs if H.dtype == np.float32 else dpotrs

    def align(self, H: np.ndarray, support: np.ndarray, l2: np.ndarray) -> None:
        """Prepare :meth:`solve` for vectors on ``support``."""
        assert self.support is not None, "build comes first"
        self._exact = len(support) == len(self.support) and np.array_equal(support, self.support)
        if self._exact:
            return
        position = np.full(len(H), -1)
        position[self.support] = np.arange(len(self.support))
        where = position[support]
        self._inside = np.flatnonzero(where >= 0)
        self._target = where[self._inside]
        self._outside = np.flatnonzero(where < 0)
        index = support[self._outside]
        self._diagonal = H[index, index] + l2[index] + 1e-30

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """Approximate solution on the aligned support."""
        if self._exact:
            return self._potrs(self._factor, residual.astype(self._factor.dtype), lower=0)[0].astype(np.float64)
        padded = np.zeros(len(self._factor), dtype=self._factor.dtype)
        padded[self._target] = residual[self._inside]
        solved = self._potrs(self._factor, padded, lower=0, overwrite_b=1)[0]
        out = np.empty(len(residual))
        out[self._inside] = solved[self._target]
        out[self._outside] = residual[self._outside] / self._diagonal
        return out

    def step(
        self, H: np.ndarray, support: np.ndarray, l2: np.ndarray, rhs: np.ndarray, rtol: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solve ``(H + diag(l2))[support, support] x = rhs``; returns x and ``H[:, support] x``."""
        if self.support is None or len(support) <= SMALL or abs(len(support) - len(self.support)) > len(support) // 8:
            self.build(H, support, l2)
        self.align(H, support, l2)
        ridge = l2[support]
        x, Hx = np.zeros(len(support)), np.zeros(len(H))
        product = np.empty(len(H))
        residual = rhs.copy()
        z = self.solve(residual)
        direction, rz = z, residual @ z
        goal = rtol * rtol * rz
        for iteration in range(60):
            _multiply(H, support, direction, product)
            Ad = product[support] + ridge * direction
            curvature = direction @ Ad
            if curvature <= 0:
                break
            alpha = rz / curvature
            x += alpha * direction
            Hx += alpha * product
            residual -= alpha * Ad
            z = self.solve(residual)
            rz_new = residual @ z
            if rz_new <= goal:
                break
            if iteration == OUTDATED:
                self.build(H, support, l2)
                self.align(H, support, l2)
                z = self.solve(residual)
                rz_new = residual @ z
                direction = np.zeros_like(z)
            direction = z + (rz_new / rz) * direction
            rz = rz_new
        return x, Hx


def _newton_on_support(  # type: ignore[no-untyped-def]
    H, r, v, l1, l2, nonnegative, unpenalized, factor: StaleFactor, rtol: float
) -> None:
    """One feature-sign step in place; entries at 0 that violate their condition take part."""
    joining = (v == 0) & ((-r if nonnegative else np.abs(r)) > l1)
    support = np.flatnonzero((v != 0) | unpenalized | joining)
    if len(support) == 0:
        return
    old, free = v[support], unpenalized[support]
    sign = np.where(old != 0, np.sign(old), -np.sign(r[support]))
    sign[free] = 0
    t, q = l1[support], l2[support]
    rhs = -(r[support] + t * sign + q * old)
    step, change = factor.step(H, support, l2, rhs, rtol)
    new = old + step
    crossed = new * sign < 0
    if not crossed.any():
        v[support] = new
        r += change
        return
    # Some signs flip: of the projected points along the step, the best one (the model is piecewise quadratic).
    best, best_value = None, 0.0
    for fraction in (1.0, 0.5, 0.25, 0.1, 0.03):
        candidate = old + fraction * step
        flipped = candidate * sign < 0
        candidate[flipped] = 0.0
        delta = candidate - old
        moved = np.empty(len(v))
        if flipped.sum() < len(flipped) // 3:
            fix = np.flatnonzero(flipped)
            _multiply(H, support[fix], delta[fix] - fraction * step[fix], moved)
            moved += fraction * change
        else:
            _multiply(H, support, delta, moved)
        value = (
            delta @ r[support]
            + 0.5 * (moved[support] @ delta)
            + t @ (np.abs(candidate) - np.abs(old))
            + 0.5 * (q @ (candidate**2 - old**2))
        )
        if value < best_value:
            best, best_value = (candidate, moved), value
        elif best is not None:
            break
    if best is not None:
        v[support] = best[0]
        r += best[1]


def solve_quadratic(  # noqa: PLR0913
    H: np.ndarray,
    r: np.ndarray,
    v: np.ndarray,
    l1: np.ndarray,
    l2: np.ndarray,
    *,
    tol: float,
    floor: np.ndarray,
    factor: StaleFactor,
    nonnegative: bool = False,
    sweeps: int = 96,
) -> int:
    """Solve the model problem in place: on return v is the minimizer, r the model's gradient there.

    Parameters
    ----------
    H : ndarray (s, s), float32 or float64
        Symmetric, positive semi-definite.
    r : ndarray (s,), float64
        Gradient of the smooth part at v on entry.
    v, l1, l2 : ndarray (s,), float64
        Start; penalty of each coordinate, 0 and 0 for a bias.
    tol : float
        Wanted :func:`penalized_gap` of the model problem.
    floor : ndarray (s,)
        See :func:`penalized_gap`.
    factor : StaleFactor
        Kept by the caller as long as H stays the same (it may grow).
    nonnegative : bool
        Whether the penalized coordinates are kept at 0 or above.
    sweeps : int
        Most sweeps of coordinate descent in a round, before Newton on the support.

    Returns
    -------
    int
        Rounds taken.
    """
    unpenalized = l1 == 0
    for round_ in range(1, MAX_ROUNDS + 1):
        gap = _sweeps(H, r, v, l1, l2, floor, nonnegative, sweeps, tol)
        if gap <= tol:
            return round_
        rtol = min(0.1, max(1e-4, 0.3 * np.sqrt(tol / gap)))
        _newton_on_support(H, r, v, l1, l2, nonnegative, unpenalized, factor, rtol)
        if penalized_gap(r, v, l1, l2, floor, nonnegative) <= tol:
            return round_
    return MAX_ROUNDS
