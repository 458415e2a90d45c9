"""The plots that stages share: each is drawn once, from plain numbers, as PNG and as SVG.

Functions named ``plot_*`` draw into axes that the caller gives, so that one plot can stand alone
or be a panel of an overview.  Nothing goes through pyplot, so no global state is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

#: Okabe and Ito's colours, which stay apart under all common forms of colour blindness.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "debugnet",  # the same figure gives the same bytes
    "figure.facecolor": "white",
}
PIXELS_PER_INCH = 150


@contextlib.contextmanager
def drawing(folder: Path, name: str, width: float = 6.4, height: float = 4.0) -> Iterator[Figure]:
    """Yield an empty figure of ``width`` x ``height`` inches; save it as ``name.png`` and ``name.svg``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(folder / f"{name}.png", dpi=PIXELS_PER_INCH)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def label(text: object, length: int = 26) -> str:
    """Make a name from data safe to draw: one line, no math mode, not too long."""
    name = " ".join(str(text).split())
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("\\", "\\\\").replace("$", r"\$") if "$" in name else name


def plot_accuracy_against_features(
    axes: Axes,
    features: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    chosen: tuple[float, Mapping[str, float]] | None = None,
    references: Mapping[str, float] | None = None,
    metric: str = "accuracy",
    counted: str = "features per class (mean non-zeros",
) -> None:
    """Draw a metric along the path against the mean number of features per class (log axis).

    Parameters
    ----------
    axes : Axes
    features : ndarray (L,)
        Mean non-zeros per class of each point; points without any are left out.
    curves : mapping
        ``{split: ndarray (L,)}``, drawn in this order.
    chosen : (float, mapping), optional
        Features per class of the selected layer, and its metric per split.
    references : mapping, optional
        ``{name: value}``: horizontal lines, for example the network's own head.
    metric : str
        What the y axis shows.
    counted : str
        What the x axis shows, where it is something else; ", log scale)" follows.
    """
    shown = features > 0
    styles = {"train": (GREY, ":", ""), "val": (BLUE, "-", "o"), "test": (VERMILION, "--", "")}
    for split, values in curves.items():
        colour, line, marker = styles.get(split, (GREEN, "-.", ""))
        axes.plot(features[shown], values[shown], line, color=colour, marker=marker, markersize=3, label=split)
    for value in (references or {}).values():
        axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    place = 0.0
    if chosen is not None and chosen[0] > 0:
        place = _mark_chosen(axes, *chosen, styles, " per class" if counted.startswith("features per class") else "")
    axes.set_xscale("log")
    _plain_log_ticks(axes, "x")
    axes.set_xlabel(f"{counted}, log scale)")
    axes.set_ylabel(metric.replace("_", " "))
    if curves:
        # What was chosen is told at the foot of its line; on the left curves begin low.
        corner, least = ("lower left", 0.16) if place > 0.7 else ("lower right", 0.09)
        axes.legend(loc=corner, title="split", title_fontsize=9, fontsize=9, frameon=True, edgecolor="none")
        bottom, top = axes.get_ylim()  # room below flat curves for the legend and what was chosen
        axes.set_ylim(max(bottom - 0.25 * (top - bottom), min(bottom, -least * (top - bottom))), top)
    for name, value in (references or {}).items():
        _name_reference(axes, f"{name} {value:.3f}".replace(", ", ",\n"), value)


def _name_reference(axes: Axes, text: str, value: float) -> None:
    """Say what a horizontal line is: below it on the left, where curves are lowest; above a low one on the right."""
    bottom, top = axes.get_ylim()
    low = value < bottom + 0.4 * (top - bottom)
    axes.annotate(
        text, (float(low), value), xycoords=("axes fraction", "data"), xytext=(-4, 3) if low else (4, -3),
        textcoords="offset points", ha="right" if low else "left", va="bottom" if low else "top", fontsize=8.5,
        color=INK, zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )  # fmt: skip


def plot_curves(
    axes: Axes,
    sizes: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    bands: Mapping[str, np.ndarray] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw values against numbers of units (log axis), one line per method.

    Parameters
    ----------
    axes : Axes
    sizes : ndarray (m,)
        At least 1; NaN values are left out.
    curves : mapping of str to ndarray (m,)
    bands : mapping of str to ndarray (m,), optional
        Half widths of intervals.
    limits : (float, float)
        What the values can be; intervals are cut there.
    """
    markers = "osD^vPX"
    for (name, values), marker in zip(curves.items(), markers * len(curves), strict=False):
        known = np.isfinite(values)
        (line,) = axes.plot(sizes[known], values[known], marker=marker, markersize=4, label=label(name, 60))
        if bands is not None and name in bands:
            half = np.nan_to_num(bands[name][known])
            low, high = np.clip([values[known] - half, values[known] + half], *limits)
            axes.fill_between(sizes[known], low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    if len(sizes) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(list(map(float, sizes))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(FixedLocator([]))
    else:
        _plain_log_ticks(axes, "x")
    axes.legend(frameon=False, fontsize=9)


def _mark_chosen(
    axes: Axes, features: float, metrics: Mapping[str, float], styles: Mapping[str, Any], each: str
) -> float:
    """Mark the chosen point; returns where it stands on the x axis, between 0 and 1."""
    axes.axvline(features, color=GREEN, linewidth=1.2, zorder=1)
    for split, value in metrics.items():
        axes.plot(
            features, value, "o", markersize=9, markerfacecolor="white", markeredgewidth=2,
            markeredgecolor=styles.get(split, (GREEN,))[0], zorder=5,
        )  # fmt: skip
    text = "\n".join([f"chosen: {features:.3g}{each}", *(f"{s} {v:.3f}" for s, v in metrics.items())])
    low, high = np.log(axes.dataLim.intervalx[axes.dataLim.intervalx > 0][[0, -1]])
    place = float((np.log(features) - low) / (high - low)) if high > low else 0.0
    on_the_right = place > 0.45
    axes.annotate(
        text, (features, 0.04), xycoords=("data", "axes fraction"), xytext=(-6 if on_the_right else 6, 0),
        textcoords="offset points", ha="right" if on_the_right else "left", va="bottom", fontsize=9, color="#00694D",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}, zorder=4,
    )  # fmt: skip
    return place


def plot_count_histogram(axes: Axes, counts: np.ndarray, *, unit: str = "classes") -> None:
    """Draw how many classes use how many features; integer bins, at most about 30 of them."""
    low, high = int(counts.min()), int(counts.max())
    step = max(1, -(-(high - low + 1) // 30))
    edges = np.arange(low, high + step + 1, step) - 0.5
    axes.hist(counts, bins=edges.tolist(), color=BLUE, edgecolor="white", linewidth=0.8, rwidth=0.9)
    centre, half = (low + high) / 2, max(4.5, (high - low) / 2 + 1)  # few bars stay slim
    axes.set_xlim(max(-0.6, centre - half), centre + half)
    axes.axvline(counts.mean(), color=VERMILION, linewidth=1.6)
    axes.annotate(
        f"mean {counts.mean():.3g}", (counts.mean(), 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
        textcoords="offset points", color="#A34700", va="top", fontsize=9,
    )  # fmt: skip
    axes.set_xlabel("features of a class")
    axes.set_ylabel(f"number of {unit}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)


def plot_counts_by_class(axes: Axes, names: Sequence[str], positive: np.ndarray, negative: np.ndarray) -> None:
    """Draw one bar per class, most features on top, split by sign; for up to about 25 classes."""
    counts = positive + negative
    order = np.argsort(counts, kind="stable")
    axes.barh(range(len(order)), positive[order], color=BLUE, height=0.7, label="for the class")
    bars = axes.barh(
        range(len(order)), negative[order], left=positive[order], color=ORANGE, height=0.7, label="against it"
    )
    axes.bar_label(bars, [f"{n:d}" for n in counts[order]], padding=3, fontsize=9)
    axes.set_yticks(range(len(order)), [label(names[k]) for k in order])
    axes.set_xlabel("features of the class")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, max(1, counts.max()) * 1.1)
    bottom, top = min(-0.6, len(order) / 2 - 3.5), max(len(order) - 0.4, len(order) / 2 + 2.5)  # few bars stay slim
    if negative.any():
        bottom -= 0.1 * (top - bottom)  # the legend's own room: the lowest bar can be as long as the others
        axes.legend(loc="lower right", ncols=2, fontsize=9)
    axes.set_ylim(bottom, top)
    axes.grid(axis="y", visible=False)


def plot_topk_rest(
    axes: Axes,
    layers: Mapping[str, Mapping[str, float]],
    k: int,
    *,
    floor: float | None = None,
    metric: str = "accuracy",
) -> None:
    """Draw the accuracy with all, the top-k and the remaining features, a group of bars per layer.

    Parameters
    ----------
    axes : Axes
    layers : mapping
        ``{"sparse": {"all": .., "top_k": .., "rest": ..}, ...}``.
    k : int
    floor : float, optional
        What a layer without any feature reaches; drawn as a line.
    metric : str
    """
    parts = (("all", "all features", BLUE), ("top_k", f"top {k} per class", ORANGE), ("rest", "the rest", "#8C8C8C"))
    width = 0.27
    for position, (part, name, colour) in enumerate(parts):
        x = np.arange(len(layers)) + (position - 1) * width
        values = [layer[part] for layer in layers.values()]
        bars = axes.bar(x, values, width=width * 0.94, color=colour, label=name)
        axes.bar_label(bars, [f"{v:.3f}" for v in values], padding=2, fontsize=7.5)
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"no feature ({floor:.3f})", zorder=1)
    axes.set_xticks(range(len(layers)), ["\n".join(map(label, name.split("\n"))) for name in layers])
    axes.set_ylabel(metric.replace("_", " "))
    low = min(0.0, *(v for layer in layers.values() for v in layer.values()))
    axes.set_ylim(low, 1.25)  # room for the legend above the tallest bar
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 1.0])
    handles = [*axes.containers, *axes.lines]
    axes.legend(
        handles=handles, loc="upper left", ncols=2, fontsize=9, columnspacing=1.5, handlelength=1.2, borderaxespad=0
    )
    axes.grid(axis="x", visible=False)


def plot_sharing(axes: Axes, histogram: Sequence[int]) -> None:
    """Draw how many features are used by one, two, three ... classes (unused ones are left out)."""
    numbers = np.asarray(histogram[1:])
    bars = axes.bar(np.arange(1, len(numbers) + 1), numbers, color=BLUE, width=0.75)
    if len(numbers) <= 20:
        axes.bar_label(bars, [str(n) if n else "" for n in numbers], padding=2, fontsize=9)
    axes.set_xlabel("classes that use the feature")
    axes.set_ylabel("number of features")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.3, max(len(numbers), 6) + 0.7)
    axes.margins(y=0.1)
    axes.grid(axis="x", visible=False)


def plot_coefficient_path(
    axes: Axes,
    lam: np.ndarray,
    traces: np.ndarray,
    features: Sequence[int],
    *,
    chosen: float | None = None,
    named: int = 5,
) -> None:
    """Draw weights of one class along the path, the first ``named`` features in colour with their numbers.

    Parameters
    ----------
    axes : Axes
    lam : ndarray (L,)
        Descending and positive; drawn on a log axis from large (left) to small (right).
    traces : ndarray (L, m)
        Standardized weights of ``features``, in their order of entry.
    features : sequence of int, length m
    chosen : float, optional
        Lambda of the selected layer.
    named : int
    """
    for at in range(traces.shape[1] - 1, -1, -1):
        colour = CYCLE[at % len(CYCLE)] if at < named else PALE
        axes.plot(lam, traces[:, at], color=colour, linewidth=1.6 if at < named else 0.8, zorder=3 if at < named else 2)
    _name_line_ends(axes, traces[-1, :named], [str(j) for j in features[:named]])
    axes.axhline(0, color=GREY, linewidth=0.8)
    if chosen is not None and chosen > 0:
        axes.axvline(chosen, color=GREEN, linewidth=1.2, zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(lam[0], lam[-1])
    axes.grid(axis="x", visible=False)


def _name_line_ends(axes: Axes, values: np.ndarray, names: Sequence[str]) -> None:
    """Write names right of the axes at the lines' ends, pushed apart so that none covers another."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    order = np.argsort(values, kind="stable")
    heights = np.array(values, dtype=float)[order]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    heights -= max(0.0, heights[-1] - high) if len(heights) else 0.0
    for height, at in zip(heights, order, strict=True):
        axes.annotate(
            names[at], (1, height), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=CYCLE[at % len(CYCLE)],
        )  # fmt: skip


def plot_entry_order(
    axes: Axes, names: Sequence[str], orders: Sequence[Sequence[Mapping[str, Any]]], ranks: int
) -> None:
    """Draw a table: a row per class, the features in order of entry; colour says for or against the class."""
    for row, entries in enumerate(orders):
        for rank, entry in enumerate(entries[:ranks]):
            colour = "#CFE4F2" if entry["sign"] > 0 else "#F8D9C4"
            axes.add_patch(mpl.patches.Rectangle((rank - 0.48, row - 0.45), 0.96, 0.9, color=colour, linewidth=0))
            sign = "+" if entry["sign"] > 0 else "\N{MINUS SIGN}"
            axes.text(rank, row, f"{sign}{entry['feature']}", ha="center", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_xticks(range(ranks), [str(rank + 1) for rank in range(ranks)])
    axes.set_xlim(-0.6, ranks - 0.4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("order of entry into the path (blue, +: speaks for the class; orange, \N{MINUS SIGN}: against)")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _plain_log_ticks(axes: Axes, which: str) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    if not 0 < low <= high < np.inf:
        return
    subs = (1, 2, 5) if high / low < 3e3 else (1,)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    axis.set_major_locator(FixedLocator([s * 10.0**p for p in powers for s in subs]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
