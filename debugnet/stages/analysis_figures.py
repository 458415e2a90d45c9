"""The figures of ``debugnet analyze``, drawn from its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from debugnet.analysis.support import coefficient_traces
from debugnet.regularization_path import RegularizationPath
from debugnet.report import figures
from debugnet.stages.network_path import NetworkPath

#: Up to this many classes have a bar of their own; more become a histogram.
BARS_UP_TO = 25
#: Coloured and numbered lines per class in the coefficient plots, and columns in the table of entry.
NAMED, RANKS = 5, 10


def draw_all(folder: Path, analysis: dict[str, Any], path: RegularizationPath | NetworkPath, shown: list[int]) -> None:
    """Draw every figure of an analysis into ``folder``, as PNG and SVG.

    Parameters
    ----------
    folder : Path
    analysis : dict
        As from :func:`debugnet.stages.analyze.analyze`.
    path : RegularizationPath or NetworkPath
        Points of a path of networks share no features: no coefficients are drawn along it.
    shown : list of int
        Outputs in the figures that have a panel or a row per class.
    """
    with figures.drawing(folder, "accuracy_against_features", 7.2, 4.6) as figure:
        _accuracy(figure.add_subplot(), analysis)
    with figures.drawing(folder, "features_per_class", 6.4, 4.0) as figure:
        figures.plot_count_histogram(figure.add_subplot(), _counts(analysis))
    with figures.drawing(folder, "topk_rest", 6.8, 4.2) as figure:
        _topk_rest(figure.add_subplot(), analysis)
    with figures.drawing(folder, "shared_features", 6.4, 4.0) as figure:
        figures.plot_sharing(figure.add_subplot(), analysis["sharing"]["histogram"])
    if isinstance(path, RegularizationPath):
        if path.meta.get("method") == "lassonet":
            with figures.drawing(folder, "cost_of_linearity", 6.8, 4.4) as figure:
                _cost_of_linearity(figure.add_subplot(), path)
        _coefficient_paths(folder, analysis, path, shown)
        _entry_order(folder, analysis, shown)
    _overview(folder, analysis)


def _accuracy(axes: Any, analysis: dict[str, Any]) -> None:
    metric, path = analysis["metric"], analysis["path"]
    curves = {
        s: np.asarray(path["metrics"][s][metric]) for s in ("val", "test") if metric in path["metrics"].get(s, {})
    }
    chosen = {s: (analysis["chosen"]["metrics"][s] or {}).get(metric) for s in curves}
    references = {}
    if "network_head" in analysis["topk_rest"]:
        name = f"network's own head, {analysis['split']}"
        references[name] = analysis["topk_rest"]["network_head"]["all"][metric]
    where, counted = analysis["counts"]["sparse"]["mean"], {}
    if "kept" in path:  # a path of networks
        where, counted = analysis["chosen"]["kept"], {"counted": f"{path['unit']} kept (of {path['total']:,}"}
        references = {
            f"the network it began with, {s}": path["dense"][s][metric] for s in ("test", "val") if s in path["dense"]
        }
    figures.plot_accuracy_against_features(
        axes,
        np.asarray(path["kept"] if "kept" in path else path["features_per_class"]),
        curves,
        chosen=(where, {s: v for s, v in chosen.items() if v is not None}),
        references=dict(list(references.items())[:1]),
        metric=metric,
        **counted,
    )


def _cost_of_linearity(axes: Any, path: RegularizationPath) -> None:
    """The linear layer beside theta'x + network on the same features."""
    split = next(name for name in ("test", "val", "train") if name in path.metrics)
    metrics = path.metrics[split]
    score = "r2" if "network_r2" in metrics else "accuracy"
    curves = {
        "linear layer": metrics[score],
        "theta'x + network, at its lambda": metrics[f"network_{score}"],
        "theta'x + network, trained on without penalty": metrics[f"network_relaxed_{score}"],
    }
    figures.plot_curves(axes, np.asarray(path.meta["lassonet"]["sizes"]), curves)
    axes.set_xlabel("features in use, all classes together (log scale)")
    axes.set_ylabel(f"{split} {score}")
    axes.set_title("The cost of linearity")


def _counts(analysis: dict[str, Any]) -> np.ndarray:
    return np.array(list(analysis["counts"]["sparse"]["per_class"].values()))


def _topk_rest(axes: Any, analysis: dict[str, Any]) -> None:
    from debugnet.stages.analyze import LAYER_NAMES

    metric = analysis["metric"]
    layers = {
        name.replace(" (", "\n(").replace("'s own", "'s\nown"): {
            part: metrics[metric] for part, metrics in analysis["topk_rest"][key].items()
        }
        for key, name in LAYER_NAMES.items()
        if key in analysis["topk_rest"]
    }
    floor = analysis["no_feature"][metric]
    figures.plot_topk_rest(axes, layers, analysis["top_k"], floor=floor, metric=f"{analysis['split']} {metric}")


def _coefficient_paths(folder: Path, analysis: dict[str, Any], path: RegularizationPath, shown: list[int]) -> None:
    """One small panel per class: how its weights grow as lambda falls."""
    names, orders = list(analysis["entry_order"]), list(analysis["entry_order"].values())
    keep = np.flatnonzero(path.lam > 0)  # lambda 0 has no place on a log axis
    # With --drop-share lambda stays, and the points differ in their features alone.
    held = len(keep) > 1 and path.lam[keep].max() <= 1.001 * path.lam[keep].min()
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with figures.drawing(folder, "coefficient_paths", 1.2 + 3.4 * columns, 0.9 + 2.3 * rows) as figure:
        panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, squeeze=False).ravel())
        for axes, k in zip(panels, shown, strict=False):
            features = [entry["feature"] for entry in orders[k]]
            traces = coefficient_traces(path, k, features)[keep]
            figures.plot_coefficient_path(
                axes, path.lam[keep], traces, features, chosen=analysis["chosen"]["lam"], named=NAMED
            )
            axes.set_title(figures.label(names[k]), fontsize=10)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(shown) - columns) : len(shown)]:  # the lowest visible one of each column
            axes.tick_params(which="both" if held else "major", labelbottom=not held)
        note = f"the first {NAMED} features to enter are numbered; green: the chosen layer"
        axis = "lambda (log scale, strong regularization on the left)"
        if held:
            axis = f"more and more features, all at lambda {path.lam[keep][0]:.3g}"
        figure.supxlabel(f"{axis}\n{note}", fontsize=10)
        figure.supylabel("standardized weight", fontsize=10)


def _entry_order(folder: Path, analysis: dict[str, Any], shown: list[int]) -> None:
    names, orders = list(analysis["entry_order"]), list(analysis["entry_order"].values())
    with figures.drawing(folder, "entry_order", 8.4, 1.0 + 0.36 * len(shown)) as figure:
        figures.plot_entry_order(figure.add_subplot(), [names[k] for k in shown], [orders[k] for k in shown], RANKS)


def _overview(folder: Path, analysis: dict[str, Any]) -> None:
    """The chain in one picture: the path and the choice, features per class, where the accuracy sits."""
    counts = analysis["counts"]["sparse"]["per_class"]
    with figures.drawing(folder, "overview", 14.0, 4.6) as figure:
        path, classes, bars = figure.subplots(1, 3, width_ratios=(1.2, 0.85, 1.3))
        _accuracy(path, analysis)
        path.set_title("Accuracy against sparsity")
        if len(counts) <= BARS_UP_TO:
            positive = np.array(list(analysis["counts"]["sparse"]["positive_per_class"].values()))
            figures.plot_counts_by_class(classes, list(counts), positive, _counts(analysis) - positive)
        else:
            figures.plot_count_histogram(classes, _counts(analysis))
        classes.set_title("Features of each class")
        _topk_rest(bars, analysis)
        bars.set_title("Where the accuracy sits")
