"""Whether an explanation deserves belief: its fit, its repeatability, and what deleting its parts does.

The deletion check asks the network itself: switch the strongest parts off together, and compare
the feature's measured change with what the linear model predicted, and with what switching off
as many random parts does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from debugnet.explain.surrogate import Surrogate

SIDES = ("positive", "negative")
MIN_R2 = 0.3
MIN_SPLIT_HALF = 0.8
MAX_RANDOM_AS_STRONG = 0.2


@dataclass(frozen=True)
class Trust:
    """The evidence for one explanation: one sample, one feature, one side.

    Attributes
    ----------
    r2, split_half : float
        See :class:`debugnet.explain.surrogate.Surrogate`.
    n_removed : int
        Parts switched off in the deletion check.
    predicted, measured : float
        Change of the feature when they are off: by the linear model, and by the network.
    random_mean : float
        Mean change over the random masks of the same size.
    random_as_strong : float
        Fraction of the random masks that move the feature at least as far in the predicted
        direction; the lower the better.
    flags : tuple of str
        Why not to believe it; empty for an explanation that passed everything.
    """

    r2: float
    split_half: float
    n_removed: int
    predicted: float
    measured: float
    random_mean: float
    random_as_strong: float
    flags: tuple[str, ...]


def strongest_parts(effect: np.ndarray, side: str, n: int) -> np.ndarray:
    """Indices of the ``n`` parts of ``effect`` (K,) that raise ("positive") or lower the feature most."""
    signed = np.nan_to_num(effect) if side == "positive" else -np.nan_to_num(effect)
    return np.argsort(-signed, kind="stable")[:n]


def deletion_masks(effect: np.ndarray, sides: list[str], *, n_removed: int, n_random: int, seed: int) -> np.ndarray:
    """Return the switches of the deletion checks of one sample.

    Parameters
    ----------
    effect : ndarray (K, F)
        Effects of the K parts on the features to check.
    sides : list of str
        One side per column.
    n_removed : int
        Parts to switch off, at most half of them.
    n_random : int
        Random masks of the same size, shared by all the columns.
    seed : int

    Returns
    -------
    ndarray (F + n_random, K), bool
        One row per column of ``effect``, then the random masks; True is kept.
    """
    K = len(effect)
    n_removed = max(1, min(n_removed, K // 2))
    random = np.random.RandomState(seed)
    switches = np.ones((effect.shape[1] + n_random, K), dtype=bool)
    for row, (column, side) in enumerate(zip(effect.T, sides, strict=True)):
        switches[row, strongest_parts(column, side, n_removed)] = False
    for row in switches[effect.shape[1] :]:
        row[random.choice(K, n_removed, replace=False)] = False
    return switches


def judge(
    sides: list[str],
    surrogate: Surrogate,
    switches: np.ndarray,
    change: np.ndarray,
) -> list[Trust]:
    """Read the answers to :func:`deletion_masks`.

    Parameters
    ----------
    sides : list of str
    surrogate : Surrogate
        Of the same columns; its effects are those given there.
    switches : ndarray (F + n_random, K)
        What :func:`deletion_masks` returned.
    change : ndarray (F + n_random, F)
        Feature minus its value on the whole sample, for every mask.

    Returns
    -------
    list of Trust
        One per column.
    """
    verdicts = []
    effect = surrogate.effect
    F = effect.shape[1]
    for j, side in enumerate(sides):
        off = ~switches[j]
        predicted, measured = -float(np.nan_to_num(effect[off, j]).sum()), float(change[j, j])
        others = np.array([i for i in range(F, len(switches)) if (switches[i] != switches[j]).any()], dtype=int)
        random = change[others, j]
        towards = -1.0 if side == "positive" else 1.0  # without what raises it the feature must fall
        as_strong = float((towards * random >= towards * measured).mean()) if len(random) else float("nan")
        mean = float(random.mean()) if len(random) else float("nan")
        r2, split_half = float(surrogate.r2[j]), float(surrogate.split_half[j])
        flags = _flags(float(surrogate.adjusted_r2[j]), split_half, as_strong, towards * measured)
        verdicts.append(Trust(r2, split_half, int(off.sum()), predicted, measured, mean, as_strong, flags))
    return verdicts


def fit_flags(adjusted_r2: float, split_half: float) -> tuple[str, ...]:
    """Return what speaks against an explanation without asking the network again."""
    if np.isnan(adjusted_r2):
        return ("the feature does not react to this sample's parts",)
    flags = []
    if adjusted_r2 < MIN_R2:
        flags.append(f"adjusted R2 {adjusted_r2:.2f} is below {MIN_R2}")
    if not split_half >= MIN_SPLIT_HALF:
        flags.append(f"two halves agree only {split_half:.2f}")
    return tuple(flags)


def _flags(adjusted_r2: float, split_half: float, as_strong: float, in_direction: float) -> tuple[str, ...]:
    flags = fit_flags(adjusted_r2, split_half)
    if np.isnan(adjusted_r2):
        return flags
    if in_direction <= 0:
        return (*flags, "deletion moves it the other way")
    if as_strong > MAX_RANDOM_AS_STRONG:
        return (*flags, f"{as_strong:.0%} of random deletions do as much")
    return flags
