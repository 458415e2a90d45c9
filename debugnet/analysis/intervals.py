"""Intervals and tests for counts: what an accuracy, a flip rate or an edit's effect is worth."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Parameters
    ----------
    successes, n : int
        Counts; n = 0 gives (0, 1): nothing is known.
    confidence : float
        Coverage, in (0, 1).

    Returns
    -------
    (low, high) : tuple of float
        Fractions.

    References
    ----------
    Wilson (1927); Brown, Cai & DasGupta (2001), eq. (4).
    """
    if n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(successes: int, n: int) -> dict[str, float | int | list[float] | None]:
    """Return a proportion as a JSON-able record: count, n, value (None at n = 0), 95% Wilson interval."""
    return {
        "count": int(successes),
        "n": int(n),
        "value": successes / n if n else None,
        "interval": list(wilson_interval(int(successes), int(n))),
    }


def sign_test(gains: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """One-sided exact sign test (McNemar) that gains outnumber losses by chance.

    Parameters
    ----------
    gains, losses : ndarray of int, any equal shape
        Discordant counts, e.g. samples an intervention fixed and broke.

    Returns
    -------
    ndarray of float64, same shape
        P(Binomial(gains + losses, 1/2) >= gains); 1 where there are no discordant samples.

    References
    ----------
    McNemar (1947), exact binomial form.
    """
    gains, losses = np.asarray(gains), np.asarray(losses)
    return np.asarray(stats.binom.sf(gains - 1, gains + losses, 0.5), dtype=np.float64)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: family-wise error over all p-values given.

    Parameters
    ----------
    p_values : ndarray (m,)

    Returns
    -------
    ndarray (m,)
        Adjusted p-values, in the input's order.

    References
    ----------
    Holm (1979).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    out = np.empty_like(adjusted)
    out[order] = adjusted
    return out
