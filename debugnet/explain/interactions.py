"""What two words do only together, estimated and taken out before the linear model is fitted.

LIME's linear model of a text is noisy because the text is not linear in its words: what a pair of
words does beyond the two alone is, to the regression, noise of the draw.  But its expectation is
known.  The linear model of a product z_i z_j over all subsets has a closed form, so the rest,
``q_ij = z_i z_j - (its linear model)``, has no linear effect by construction, and subtracting any
multiple of it from the answers leaves what is estimated as it is: a control variate (Owen, "Monte
Carlo theory, methods and examples", chapter 8.9).  The multiples are fitted by ridge on one half
of the perturbations and subtracted on the other, so no answer meets coefficients made from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from debugnet.explain.surrogate import Moments
from debugnet.explain.word_subsets import Neighbourhood

_RIDGE = 1.0  # LIME's own
_NUDGE = 1e-9  # with fewer rows than words the linear part has no unique solution
_MOST_PAIRS = 500  # 32 words; above, their coefficients cost more than they save
_MOST_ROWS = 4000  # above, the plain regression is precise enough


def pure_interactions(switches: np.ndarray, size_weights: np.ndarray) -> np.ndarray:
    """Return ``q_ij`` (K (K - 1) / 2, n), float32, of some subsets (n, K), bool.

    Parameters
    ----------
    switches : ndarray (n, K), bool
    size_weights : ndarray (K + 1,)
        Weight of each number of words kept; within a size all subsets weigh alike.  Over all 2^K
        subsets the weighted regression of every ``q_ij`` on the switches is zero.
    """
    K = switches.shape[1]
    size, p = np.arange(K + 1.0), size_weights / size_weights.sum()
    one = float(p @ (size / K))
    two = float(p @ (size * (size - 1) / (K * (K - 1))))
    three = float(p @ (size * (size - 1) * (size - 2) / (K * (K - 1) * (K - 2))))
    # Cov(z) = a I + b 11'; Cov(z_k, z_i z_j) is `inside` for k in {i, j} and `outside` else.
    a, b = one - two, two - one**2
    inside, outside = two - one * two, three - one * two
    own = (inside - outside) / a
    common = (outside - 2 * b * own) / (a + K * b)
    Z = np.ascontiguousarray(switches.T, dtype=np.float32)  # a row per word: pairs are products of whole rows
    first, second = np.triu_indices(K, 1)
    mine, other = Z[first], Z[second]
    q = mine * other
    q -= np.float32(own) * (mine + other)
    q -= np.float32(common) * Z.sum(axis=0) + np.float32(two - common * K * one - 2 * own * one)
    return q


def control_interactions(
    moments: Moments, near: Neighbourhood, weights: np.ndarray, size_weights: np.ndarray, y: np.ndarray
) -> Moments:
    """Return the moments of the answers less their interactions; unchanged where there are too few or many pairs.

    Parameters
    ----------
    moments : Moments
        Of the neighbourhood, with all its answers.
    near : Neighbourhood
    weights : ndarray (n,)
        Kernel weights.
    size_weights : ndarray (K + 1,)
        See :func:`pure_interactions`.
    y : ndarray (n, d), float32
        Answers relative to the whole text's.
    """
    K = moments.shape[0]
    if near.enumerated or K < 4 or K * (K - 1) // 2 > _MOST_PAIRS or len(y) > _MOST_ROWS:
        return moments
    q = pure_interactions(near.switches, size_weights)
    halves = [_Half.of(h, moments, q, near.counts[h] * weights, near.switches, y) for h in range(2)]
    wy, wzy, wrr = moments.wy.copy(), moments.wzy.copy(), moments.wyy.copy()
    for h, (mine, other) in enumerate(zip(halves, reversed(halves), strict=True)):
        coefficients = other.coefficients
        change = np.einsum("pf,pf->f", coefficients, mine.with_pairs @ coefficients - 2.0 * mine.with_answers)
        helps = change < 0  # pairs that do not carry over to the other half would only add noise
        wy[h] -= helps * (mine.with_linear[:, 0] @ coefficients)
        wzy[h] -= helps * (mine.with_linear[:, 1:].T @ coefficients)
        wrr[h] += helps * change
    # R2 stays that of the answers themselves: their centred sum of squares must not change with wy.
    shift = (wy.sum(axis=0) ** 2 - moments.wy.sum(axis=0) ** 2) / moments.w.sum()
    return dataclasses.replace(moments, wy=wy, wzy=wzy, wyy=moments.wyy + shift / 2, wrr=wrr)


@dataclass(frozen=True)
class _Half:
    """Weighted sums of the interactions over one half, and their coefficients there."""

    with_linear: np.ndarray
    with_pairs: np.ndarray
    with_answers: np.ndarray
    coefficients: np.ndarray

    @classmethod
    def of(cls, h: int, moments: Moments, q: np.ndarray, v: np.ndarray, switches: np.ndarray, y: np.ndarray) -> _Half:
        rows = np.flatnonzero(v)
        mine = q[:, rows]
        weighted = mine * v[rows].astype(np.float32)
        one_and_z = np.concatenate([np.ones((len(rows), 1), np.float32), switches[rows]], axis=1, dtype=np.float32)
        with_linear, with_pairs = (np.float64(weighted @ other) for other in (one_and_z, mine.T))
        with_answers = np.float64(weighted @ y[rows])
        # Ridge of the answers on 1, z and q, the first two eliminated.
        linear = np.block([[moments.w[h], moments.wz[h][None]], [moments.wz[h][:, None], moments.wzz[h]]])
        linear += _NUDGE * moments.w[h] * np.eye(len(linear))
        answers = np.concatenate([moments.wy[h][None], moments.wzy[h]])
        eliminated = np.linalg.solve(linear, with_linear.T)
        system = with_pairs - with_linear @ eliminated + _RIDGE * np.eye(len(with_pairs))
        coefficients = scipy.linalg.cho_solve(scipy.linalg.cho_factor(system), with_answers - eliminated.T @ answers)
        return cls(with_linear, with_pairs, with_answers, coefficients)
