"""The figures of ``debugnet train-sparse``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.report import figures


def draw_importance(folder: Path, importance: np.ndarray, shape: Sequence[int], is_image: bool, measured: str) -> None:
    """Draw the importance of each input: a map per channel and their mean for images, bars otherwise.

    Parameters
    ----------
    folder : Path
    importance : ndarray (n_elements,)
    shape : sequence of int
        Of one sample; (channels, H, W) for images.
    is_image : bool
    measured : str
        What importance is, with {} for an input.
    """
    if not is_image:
        order = np.argsort(-importance)[:40]
        with figures.drawing(folder, "importance", 6.4, 0.8 + 0.2 * len(order)) as figure:
            axes = figure.add_subplot()
            axes.barh([str(i) for i in order[::-1]], importance[order[::-1]])
            axes.set_xlabel(measured.format("feature"))
            axes.set_ylabel("feature")
        return
    maps = importance.reshape(shape)
    distinct = len(maps) > 1 and not np.allclose(maps, maps[:1])
    panels = [maps.mean(axis=0), *(maps if distinct else ())]
    names = ["all channels", *("red", "green", "blue")] if len(panels) == 4 else ["all channels"] * len(panels)
    with figures.drawing(folder, "importance", 1.2 + 2.8 * len(panels), 3.2) as figure:
        axes_row = np.atleast_1d(figure.subplots(1, len(panels)))
        for axes, panel, name in zip(axes_row, panels, names, strict=True):
            shown = axes.imshow(panel, cmap="viridis", vmin=float(maps.min()), vmax=float(maps.max()))
            axes.set_title(name)
            axes.set_axis_off()
        figure.colorbar(shown, ax=list(axes_row), label=measured.format("pixel"), shrink=0.8)


def draw_sizes(folder: Path, rows: list[dict[str, Any]], score: str) -> None:
    """Draw the path's own networks and every refitted selection against the number of units, with intervals."""
    rows = sorted(rows, key=lambda row: row["size"])
    split = next(name for name in ("test", "val", "train") if name in rows[0]["metrics"])
    sizes = np.array([row["size"] for row in rows], dtype=float)
    curves = {
        "the path's own network": np.array([row["metrics"][split]["accuracy"] for row in rows]),
        "relaxed: trained on without penalty": np.array([row["relaxed"][split]["accuracy"] for row in rows]),
    }
    bands = {}
    for name in rows[0]["refits"]:
        curves[f"{name}, refitted"] = np.array([row["refits"][name][split]["mean"] for row in rows])
        bands[f"{name}, refitted"] = np.array([row["refits"][name][split]["half_width"] for row in rows], dtype=float)
    with figures.drawing(folder, "accuracy_against_units", 6.8, 4.4) as figure:
        axes = figure.add_subplot()
        figures.plot_curves(axes, sizes, curves, bands=bands, limits=(-np.inf, 1.0) if score == "r2" else (0.0, 1.0))
        axes.set_xlabel("units kept (log scale)")
        axes.set_ylabel(f"{split} {score}")


def draw_densities(
    folder: Path, rows: list[dict[str, Any]], total: int, curves: dict[str, list[float]], dense: float, ylabel: str
) -> None:
    """Draw scores against the share of the ``total`` weights that is left, with the dense network's as a line."""
    counts = np.array([row["nnz"] for row in rows], dtype=float)
    order = np.argsort(counts)
    with figures.drawing(folder, "accuracy_against_density", 6.8, 4.4) as figure:
        axes = figure.add_subplot()
        ordered = {name: np.array(values, dtype=float)[order] for name, values in curves.items()}
        shares = 100 * np.maximum(counts[order], 1) / total
        figures.plot_curves(axes, shares, ordered)
        axes.axhline(dense, color="0.45", linestyle="--", linewidth=1.2, label="dense")
        axes.legend()
        ticks = [t * 10.0**e for e in range(-4, 3) for t in (1, 2, 3, 5, 7)]
        ticks = [t for t in ticks if shares.min() * 0.8 <= t <= min(100.0, shares.max() * 1.25)]
        axes.set_xticks(ticks, [f"{t:g} %" for t in ticks])
        axes.set_xlabel("weights that are not zero, share of all (log scale)")
        axes.set_ylabel(ylabel)
