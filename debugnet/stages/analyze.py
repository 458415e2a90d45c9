"""``debugnet analyze``: head, path and features -> ``analysis/`` (numbers, plots, and one table to read)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.recipes.analyze import Analyze
from debugnet.stages.inputs import find_input, find_path, has_rows, network_head, usable_rows
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.heads import LinearHead
    from debugnet.regularization_path import RegularizationPath
    from debugnet.stages.network_path import NetworkPath

#: Classes shown in the figures with a panel or row per class, unless --classes names them.
SHOWN_CLASSES = 12
#: Features per class in the order of entry: a thousand classes would make a file of hundreds of MB otherwise.
LISTED_ENTRIES = 100


def run(options: Analyze, *, force: bool = False) -> Result:
    """Analyze ``options.head`` and write ``analysis.json`` and the figures.

    Raises
    ------
    StaleArtifact
        Head, path and features do not belong together.
    UsageError
        An unknown class or split, or a k below 1.
    """
    if options.top_k < 1:
        raise UsageError(f"--top-k {options.top_k}: at least 1")
    path_file = find_path(options.head, options.path)
    inputs = {"head": input_reference(options.head), "path": input_reference(path_file)}
    of_networks = inputs["path"]["kind"] == "sparse"  # each of its points has features of its own
    feature_file = find_input(options.head if of_networks else path_file, "features", options.features)
    inputs["features"] = input_reference(feature_file)
    if inputs["head"]["kind"] != "head":
        raise InputError(f"{options.head} is of kind {inputs['head']['kind']}, and a head is needed (select)")
    output = options.output or (options.head if options.head.name else options.head.absolute()).parent / "analysis"
    if check_output(output, "analysis", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        analysis = read_json(output / "analysis.json")
        return Result(output, summarize(analysis), True, describe(analysis))
    return _make(options, output, inputs)


def _make(options: Analyze, output: Path, inputs: dict[str, dict[str, str]]) -> Result:
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.artifacts.path_store import load_path
    from debugnet.stages.analysis_figures import draw_all
    from debugnet.stages.network_path import load_network_path

    started = time.monotonic()
    head, path_file = load_head(options.head), Path(inputs["path"]["path"])
    path = load_network_path(path_file) if inputs["path"]["kind"] == "sparse" else load_path(path_file)
    store = load_features(inputs["features"]["path"])
    shown = _shown_outputs(head, options.classes)
    analysis = analyze(head, path, store, options)
    provenance = collect("analysis", options, inputs, seed=None, device="cpu", seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "analysis.json", analysis)
        draw_all(folder, analysis, path, shown)
    return Result(output, summarize(analysis), False, describe(analysis))


def analyze(
    head: LinearHead, path: RegularizationPath | NetworkPath, store: FeatureStore, options: Analyze
) -> dict[str, Any]:
    """Compute everything that ``analysis.json`` holds; see docs/formats.md for its fields."""
    from debugnet.analysis import support, top_features
    from debugnet.analysis.accuracy import DEFAULT_METRIC, evaluate

    split = options.split or next(name for name in ("test", "val", "train") if has_rows(store, name))
    X, y = usable_rows(store.split(split))
    metric = head.meta.get("metric") or DEFAULT_METRIC[head.task]
    layers = {"sparse": head, "dense": _dense(path, head), "network_head": _network_head(store, head)}
    topk_rest = {
        name: top_features.all_topk_rest(layer, X, y, options.top_k, off=options.turn_off)
        for name, layer in layers.items()
        if layer is not None
    }
    nothing = top_features.keep_entries(head, head.support & False, off=options.turn_off)
    return {
        "task": head.task,
        "family": head.family,
        "metric": metric,
        "split": split,
        "top_k": options.top_k,
        "turn_off": options.turn_off,
        "chosen": {
            **{key: head.meta.get(key) for key in ("rule", "reference", "drop", "threshold", "index", "lam", "kept")},
            "metrics": {
                name: evaluate(head, *usable_rows(store.split(name))) if has_rows(store, name) else None
                for name in ("train", "val", "test")
            },
        },
        "topk_rest": topk_rest,
        "no_feature": evaluate(nothing, X, y),
        "counts": {name: support.count_summary(layer) for name, layer in layers.items() if layer is not None},
        "sharing": support.sharing(head),
        "top_features": top_features.top_feature_table(head, options.top_features),
        "entry_order": _entry_order(path, head),
        "path": _path_numbers(path),
    }


def _path_numbers(path: RegularizationPath | NetworkPath) -> dict[str, Any]:
    from debugnet.regularization_path import RegularizationPath

    numbers = {
        "lam": path.lam,
        "nnz": path.nnz,
        "status": list(path.status),
        "metrics": {name: dict(metrics) for name, metrics in path.metrics.items()},
    }
    if not isinstance(path, RegularizationPath):
        return numbers | {"kept": path.nnz, **{name: path.meta[name] for name in ("unit", "total", "dense")}}
    return numbers | {
        "features_per_class": path.nnz_per_output.mean(axis=1),
        "density": path.nnz / (path.n_outputs * path.n_features),
    }


def _entry_order(path: RegularizationPath | NetworkPath, head: LinearHead) -> dict[str, Any]:
    """Features of every output in the order in which they came in; none where each point has features of its own."""
    from debugnet.analysis.support import entry_order
    from debugnet.regularization_path import RegularizationPath

    if not isinstance(path, RegularizationPath):
        return {}
    return dict(zip(map(str, head.output_names), entry_order(path, LISTED_ENTRIES), strict=True))


def _network_head(store: FeatureStore, head: LinearHead) -> LinearHead | None:
    """The network's own head, unless that is the one that is analyzed."""
    return None if "network" in head.meta and not head.meta.get("edited") else network_head(store)


def _dense(path: RegularizationPath | NetworkPath, head: LinearHead) -> LinearHead | None:
    """The least regularized point of a path of layers."""
    from debugnet.heads import LinearHead
    from debugnet.regularization_path import RegularizationPath

    if not isinstance(path, RegularizationPath):
        return None
    last = len(path) - 1
    return LinearHead(*path.raw(last), path.standardizer, head.family, head.class_names, head.task)


def _shown_outputs(head: LinearHead, classes: tuple[str, ...] | None) -> list[int]:
    names = [str(name) for name in head.output_names]
    for name in classes or ():
        if name not in names:
            known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise UsageError(f"--classes: no class '{name}' in this head: it has {known}")
    return [names.index(name) for name in classes] if classes else list(range(min(len(names), SHOWN_CLASSES)))


def summarize(analysis: dict[str, Any]) -> dict[str, Any]:
    """Return what ``--json`` prints: the table, the counts and the figures' folder is the path."""
    keys = ("metric", "split", "top_k", "turn_off", "chosen", "no_feature")
    counts = {
        name: {key: value for key, value in summary.items() if not key.endswith("per_class")}
        for name, summary in analysis["counts"].items()
    }
    metric = analysis["metric"]
    table = {
        name: {part: metrics[metric] for part, metrics in parts.items()}
        for name, parts in analysis["topk_rest"].items()
    }
    return {key: analysis[key] for key in keys} | {"topk_rest": table, "counts": counts}


#: How the layers are called in tables and figures.
LAYER_NAMES = {"network_head": "network's own head", "dense": "dense (end of path)", "sparse": "sparse (chosen)"}


def describe(analysis: dict[str, Any]) -> str:
    """Write Table 37 for this head: accuracy with all, the top-k and the other features."""
    k, metric = analysis["top_k"], analysis["metric"]
    title = f"{analysis['split']} {metric.replace('_', ' ')}"
    lines = [f"{title:24}{'all':>9}{f'top-{k}':>9}{'rest':>9}{'features/class':>17}"]
    for key, name in LAYER_NAMES.items():
        if key in analysis["topk_rest"]:
            parts = analysis["topk_rest"][key]
            values = "".join(f"{_number(parts[part][metric]):>9}" for part in ("all", "top_k", "rest"))
            lines.append(f"{name:24}{values}{analysis['counts'][key]['mean']:17.2f}")
    lines.append(f"{'no feature':24}{_number(analysis['no_feature'][metric]):>9}")
    counts, sharing = analysis["counts"]["sparse"], analysis["sharing"]["histogram"]
    lines.append(
        f"{counts['features_used']} of {counts['features_available']} features in use, "
        f"{sum(sharing[2:])} of them by more than one class; "
        + (f"{counts['min']} to " if counts["min"] < counts["max"] else "")
        + f"{counts['max']} per class"
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
