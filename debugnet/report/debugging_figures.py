"""The plots of the debugging commands; drawn like those of ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from debugnet.report.figures import BLUE, GREY, INK, ORANGE, VERMILION, label


def plot_suspects(axes: Axes, features: np.ndarray, fixed: np.ndarray, broken: np.ndarray, suspect: np.ndarray) -> None:
    """Draw decisions fixed against decisions broken by removing each feature; suspects are named.

    Above the diagonal the layer is better without the feature.

    Parameters
    ----------
    axes : Axes
    features, fixed, broken : ndarray (f,), int
    suspect : ndarray (f,), bool
    """
    top = max(int(fixed.max(initial=1)), int(broken.max(initial=1)), 1) * 1.15
    axes.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.scatter(broken[~suspect], fixed[~suspect], s=16, color=BLUE, alpha=0.6, linewidth=0, label="feature")
    axes.scatter(broken[suspect], fixed[suspect], s=44, color=VERMILION, marker="D", linewidth=0, label="suspect")
    for i in np.flatnonzero(suspect)[:12]:
        axes.annotate(
            f"{features[i]}", (broken[i], fixed[i]), xytext=(6, 2), textcoords="offset points", fontsize=9, color=INK
        )
    axes.annotate(
        "better without", (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=9, color="#A34700", style="italic"
    )
    axes.annotate("needed", (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=9, color=GREY, style="italic")
    axes.set_xlabel("right decisions its removal breaks")
    axes.set_ylabel("errors its removal fixes")
    axes.set_xlim(-0.02 * top, top)
    axes.set_ylim(-0.02 * top, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if suspect.any():
        axes.legend(loc="center right", fontsize=9)


def plot_error_causes(axes: Axes, features: Sequence[int], counts: Sequence[int], fixed: Sequence[int]) -> None:
    """Draw how many errors each feature dominates, and how many of those its removal mends."""
    rows = np.arange(len(features))[::-1]
    axes.barh(rows, counts, color="#BBD5E8", height=0.72, label="dominates")
    axes.barh(rows, fixed, color=BLUE, height=0.72, label="and its removal mends")
    for row, count, mended in zip(rows, counts, fixed, strict=True):
        axes.annotate(
            f"{mended} of {count}", (count, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(rows, [f"feature {f}" for f in features])
    axes.set_xlabel("errors in which it pushes most to the wrong class")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", fontsize=9)


def plot_confusion_against_overlap(
    axes: Axes, confusion: np.ndarray, overlap: np.ndarray, names: Sequence[str], caption: str, *, named: int = 6
) -> None:
    """Draw every pair of classes: how often it is confused against how much its supports overlap.

    Parameters
    ----------
    axes : Axes
    confusion, overlap : ndarray (K, K)
        Symmetric; confusion in shares of the true class, NaN where unknown.
    names : sequence of str
    caption : str
        The correlation, in words.
    named : int
        Number of most confused pairs that are named, where there is room.
    """
    i, j = np.triu_indices(len(confusion), k=1)
    known = np.isfinite(confusion[i, j])
    i, j = i[known], j[known]
    axes.scatter(confusion[i, j], overlap[i, j], s=14, color=BLUE, alpha=0.45, linewidth=0, rasterized=len(i) > 5000)
    widest, highest = np.nanmax(confusion, initial=0), overlap.max(initial=1e-9)
    taken: list[tuple[float, float]] = []
    for pair in np.argsort(-confusion[i, j], kind="stable")[:named]:
        a, b = i[pair], j[pair]
        if confusion[a, b] > 0:
            x, y = confusion[a, b] / widest, overlap[a, b] / highest
            if any(abs(x - u) < 0.35 and abs(y - v) < 0.06 for u, v in taken):
                continue  # its name would lie over another
            taken.append((x, y))
            right = x > 0.6
            axes.annotate(
                f"{label(names[a], 14)} / {label(names[b], 14)}", (confusion[a, b], overlap[a, b]),
                xytext=(-6 if right else 6, 3), ha="right" if right else "left", textcoords="offset points",
                fontsize=8.5,
            )  # fmt: skip
    if not overlap[i, j].any():
        axes.set_ylim(-0.05, 1)
    axes.set_title(caption)
    axes.set_xlabel("confusion: larger share of the two classes taken for the other")
    axes.set_ylabel("overlap of the features they use")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def plot_group_change(axes: Axes, names: Sequence[str], before: np.ndarray, after: np.ndarray) -> None:
    """Draw accuracy before and after an edit, one row per group or class, worst first at the top.

    Parameters
    ----------
    axes : Axes
    names : sequence of str
    before, after : ndarray (g, 3)
        Accuracy, lower and upper end of its interval, fractions.
    """
    order = np.argsort(-before[:, 0], kind="stable")
    for row, g in enumerate(order):
        axes.plot([before[g, 0], after[g, 0]], [row, row], color=GREY, linewidth=1.2, zorder=1)
        for values, colour, shift in ((before, ORANGE, 0.13), (after, BLUE, -0.13)):
            axes.plot(values[g, 1:], [row + shift] * 2, color=colour, linewidth=1, alpha=0.6)
    axes.scatter(before[order, 0], range(len(order)), s=36, color=ORANGE, zorder=3, label="before", marker="s")
    axes.scatter(after[order, 0], range(len(order)), s=36, color=BLUE, zorder=3, label="after")
    axes.set_yticks(range(len(order)), [label(names[g]) for g in order])
    axes.set_xlabel("accuracy (thin lines: 95% intervals)")
    axes.legend(loc="lower left", fontsize=9)
    axes.grid(axis="y", visible=False)


def plot_selection_shares(axes: Axes, shares: np.ndarray) -> None:
    """Draw in what share of resamples the head's own weights are selected, as a histogram."""
    axes.hist(shares, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, edgecolor="white", linewidth=0.8)
    axes.axvline(np.median(shares), color=VERMILION, linewidth=1.6)
    axes.annotate(
        f"median {np.median(shares):.0%}", (np.median(shares), 1), xycoords=("data", "axes fraction"), xytext=(-4, -2),
        textcoords="offset points", ha="right", va="top", fontsize=9, color="#A34700",
    )  # fmt: skip
    axes.set_xlabel("share of resamples that select the weight")
    axes.set_ylabel("weights of the head")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)


def plot_flip_rates(axes: Axes, rates: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw flip rates as points with their 95% intervals, one row per name, in the order given.

    Parameters
    ----------
    axes : Axes
    rates : mapping
        ``{name: {"value": fraction, "interval": (low, high), "n": int}}``; names with "control" are grey.
    """
    for row, (name, rate) in enumerate(reversed(list(rates.items()))):
        colour = GREY if "control" in name else BLUE
        axes.plot(rate["interval"], [row, row], color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="round")
        axes.scatter([rate["value"]], [row], s=46, color=colour, zorder=3)
        axes.annotate(
            f"{rate['value']:.1%} of {rate['n']}", (rate["interval"][1], row), xytext=(7, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(rates)), [label(name, 40) for name in reversed(list(rates))])
    axes.set_xlim(0, min(1.0, 1.35 * max(rate["interval"][1] for rate in rates.values()) + 0.02))
    axes.set_ylim(-0.6, len(rates) - 0.4)
    axes.set_xlabel("share of decisions that flip (bars: 95% intervals)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", visible=False)
