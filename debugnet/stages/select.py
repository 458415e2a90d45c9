"""``debugnet select``: a path, a rule -> ``head/``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.progress import log
from debugnet.recipes.select import Select
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.heads import LinearHead
    from debugnet.regularization_path import RegularizationPath
    from debugnet.selection import Selection
    from debugnet.stages.network_path import NetworkPath

DEFAULT_DROP = 0.05
_RULES = ("drop", "relative_drop", "one_standard_error", "features_per_class", "index", "lam")


def run(options: Select, *, force: bool = False) -> Result:
    """Choose a point of ``options.path`` and write it as a head.

    Raises
    ------
    UsageError
        Two rules at once, or a rule that the path cannot serve.
    NotConverged
        A point that the rule considers missed its tolerance.
    """
    rule = _rule(options)
    inputs = {"path": input_reference(options.path)}
    kind = inputs["path"]["kind"]
    if kind not in ("path", "sparse"):
        raise InputError(f"{options.path} is of kind {kind}, and a path is needed (fit-path, train-sparse)")
    output = options.output or Path(options.path).parent / "head"
    if kind == "sparse":
        return _select_network(options, rule, output, inputs, force)
    if rule == "features_per_class":
        inputs["features"] = input_reference(find_input(options.path, "features", options.features))
    if check_output(output, "head", options, inputs, force=force):
        return _found(output)
    started = time.monotonic()
    head = _choose(options, rule, Path(inputs["features"]["path"]) if "features" in inputs else None)
    return _save(options, output, inputs, head, started)


def _select_network(options: Select, rule: str, output: Path, inputs: dict[str, dict[str, str]], force: bool) -> Result:
    """Choose a network of ``sparse/``, extract its deep features, and write its own last layer as a head."""
    from debugnet.stages.network_path import load_network_path
    from debugnet.stages.select_network import known_features, make_features, own_layer

    if rule == "features_per_class" or options.features is not None:
        raise UsageError(
            f"--features-per-class and --features are for path files, and {options.path} is a path of networks: "
            "choose one by another rule, and fit-path on the features-POINT.h5 that comes with it"
        )
    if known := known_features(output, options.path):
        if check_output(output, "head", options, inputs | {"features": known}, force=force):
            return _found(output)
    started = time.monotonic()
    path = load_network_path(Path(options.path))
    chosen = _apply(path, options, rule)
    features = make_features(path, chosen.index, options, output.absolute().parent, force)
    inputs["features"] = input_reference(features)
    if check_output(output, "head", options, inputs, force=force):
        return _found(output)
    from debugnet.artifacts.feature_store import load_features

    head = own_layer(load_features(features), path, _describe_choice(path, chosen))
    return _save(options, output, inputs, head, started)


def _found(output: Path) -> Result:
    from debugnet.artifacts.head_store import load_head

    head = load_head(output)
    return Result(output, summarize(head), True, describe(head))


def _save(options: Select, output: Path, inputs: dict[str, dict[str, str]], head: LinearHead, started: float) -> Result:
    from debugnet.artifacts.head_store import save_head

    provenance = collect("head", options, inputs, seed=None, device="cpu", seconds=time.monotonic() - started)
    save_head(output, head, provenance)
    _warn(head)
    return Result(output, summarize(head), False, describe(head))


def _rule(options: Select) -> str:
    given = [n for n in _RULES if (value := getattr(options, n)) is not None and value is not False]  # 0 is given
    if len(given) > 1:
        flags = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{flags} are two rules: give one")
    return given[0] if given else "drop"


def _choose(options: Select, rule: str, features: Path | None) -> LinearHead:
    from debugnet.artifacts.path_store import load_path

    path = load_path(options.path)
    chosen = _apply(path, options, rule)
    meta = _describe_choice(path, chosen)
    if rule != "features_per_class":
        weight, bias = path.raw(chosen.index)
        return _head(path, weight, bias, meta)
    assert features is not None
    from debugnet.stages.refit import refit_features_per_class

    return refit_features_per_class(options, path, chosen, features, meta)


def _apply(path: RegularizationPath | NetworkPath, options: Select, rule: str) -> Selection:
    from debugnet import selection
    from debugnet.regularization_path import RegularizationPath

    allowed = options.allow_unconverged
    if rule == "index":
        assert options.index is not None
        return selection.select_index(path, options.index, allow_unconverged=allowed)
    if rule == "lam":
        assert options.lam is not None
        return selection.select_lam(path, options.lam, allow_unconverged=allowed)
    if rule == "features_per_class":
        assert options.features_per_class is not None and isinstance(path, RegularizationPath)
        return selection.select_features_per_class(path, options.features_per_class, allow_unconverged=allowed)
    reference, metric = options.reference, options.metric
    if rule == "one_standard_error":
        return selection.select_one_standard_error(path, reference=reference, metric=metric, allow_unconverged=allowed)
    drop = options.relative_drop if rule == "relative_drop" else options.drop
    return selection.select_by_drop(
        path,
        DEFAULT_DROP if drop is None else drop,
        relative=rule == "relative_drop",
        reference=reference,
        metric=metric,
        allow_unconverged=allowed,
    )


def _head(path: RegularizationPath, weight: Any, bias: Any, meta: dict[str, Any]) -> LinearHead:
    from debugnet.heads import LinearHead

    task = path.meta["task"]
    return LinearHead(weight, bias, path.standardizer, path.meta["family"], path.meta["class_names"], task, meta)


def _describe_choice(path: RegularizationPath | NetworkPath, chosen: Selection) -> dict[str, Any]:
    """Say how the point was chosen, what it is like, and what it stands beside: the head's ``meta``."""
    import dataclasses

    from debugnet.selection import validation_metric

    meta: dict[str, Any] = {**dataclasses.asdict(chosen), "metric": chosen.metric}
    meta |= _point(path, chosen.index)
    meta["l1_ratio"], meta["penalty"] = path.meta.get("l1_ratio"), path.meta.get("penalty")
    meta["baselines"] = {"dense": _point(path, len(path) - 1), "network_head": path.meta.get("network_head")}
    if "unit" in path.meta:
        meta["network"] = {name: path.meta[name] for name in ("method", "unit", "total")}
        meta["baselines"]["dense_network"] = {"kept": path.meta["total"], "metrics": path.meta["dense"]}
    if path.metrics.get("val"):
        name, values = validation_metric(path, chosen.metric)
        meta["metric"] = name
        meta["baselines"]["best"] = _point(path, int(values.argmax()))
    if chosen.drop is not None and chosen.rule in ("drop", "relative-drop"):
        meta["readings"] = _both_readings(path, chosen)
    return meta


def _point(path: RegularizationPath | NetworkPath, i: int) -> dict[str, Any]:
    """One point of the path in numbers; test metrics are reported, and None where there is no test split."""
    import numpy as np

    from debugnet.regularization_path import RegularizationPath

    metrics = {
        s: {k: float(v[i]) for k, v in path.metrics.get(s, {}).items()} or None for s in ("train", "val", "test")
    }
    point = {"index": i, "lam": float(path.lam[i]), "status": path.status[i], "metrics": metrics}
    if not isinstance(path, RegularizationPath):
        return point | {"kept": int(path.nnz[i])}
    counts = path.nnz_per_output[i]
    columns = path.indices[path.indptr[i * path.n_outputs] : path.indptr[(i + 1) * path.n_outputs]]
    return point | {
        "duality_gap": float(path.duality_gap[i]),
        "nnz": int(counts.sum()),
        "features_used": len(np.unique(columns)),
        "counts": counts.tolist(),
        "mean_features_per_class": float(counts.mean()),
    }


def _both_readings(path: RegularizationPath | NetworkPath, chosen: Selection) -> dict[str, Any]:
    """What the same number means in percentage points and as a share of the reference."""
    from debugnet.selection import select_by_drop

    assert chosen.drop is not None and chosen.reference is not None
    readings = {}
    for name, relative in (("absolute", False), ("relative", True)):
        other = select_by_drop(
            path,
            chosen.drop,
            relative=relative,
            reference=chosen.reference,
            metric=chosen.metric,
            allow_unconverged=True,
        )
        point = _point(path, other.index)
        wanted = ("index", "lam", "kept", "mean_features_per_class", "metrics")
        readings[name] = {key: point[key] for key in wanted if key in point}
        readings[name]["threshold"] = other.threshold
    return readings


def _warn(head: LinearHead) -> None:
    counts = head.support.sum(axis=1)
    empty = [str(name) for name, n in zip(head.output_names, counts, strict=True) if n == 0]
    if len(empty) == len(counts):
        log("warning: the chosen layer uses no feature at all: nothing on this path is worth the accuracy it costs")
    elif empty:
        log(f"warning: no feature for {len(empty)} of {len(counts)} classes: {', '.join(empty[:5])}")


def summarize(head: LinearHead) -> dict[str, Any]:
    """Return what ``--json`` prints: the head's meta without the long lists."""
    return {key: value for key, value in head.meta.items() if key != "counts"}


def describe(head: LinearHead) -> str:
    """Write the choice as a small table: what was chosen, and what it stands beside."""
    from debugnet.analysis.accuracy import DEFAULT_METRIC

    meta, metric = head.meta, head.meta.get("metric") or DEFAULT_METRIC[head.task]
    baselines, network = meta["baselines"], meta.get("network")
    rule = meta["rule"] if meta.get("drop") is None else f"{meta['rule']} {100 * meta['drop']:.3g}%"
    fewest, most = min(meta["counts"]), max(meta["counts"])
    each = f"{meta['mean_features_per_class']:.4g} features per class ({fewest} to {most})"
    if fewest == most:
        each = f"{most} feature{'s' * (most != 1)} in every class"
    layer = f"{each}, {meta['features_used']} in all"
    key, title, last = "mean_features_per_class", "features/class", "dense"
    if network:
        key, title, last = "kept", network["unit"].rpartition(" ")[2] + " kept", "end of the path"
        layer = f"{meta['kept']} of {network['total']} {network['unit']}\nits own last layer: {layer}"
        if network["direct_inputs"]:
            layer += f"; 0 to {network['hidden_units'] - 1} are hidden units, those after them inputs"
    rows = [("chosen", meta), ("best on the path", baselines.get("best")), (last, baselines["dense"])]
    rows += [("the network it began with", baselines.get("dense_network"))]
    rows += [(f"  {100 * meta['drop']:.3g}% read as {name}", r) for name, r in meta.get("readings", {}).items()]
    lines = [
        f"{rule}: point {meta['index']}, lambda {meta['lam']:.4g}, {layer}",
        f"{'':28}{title:>15}{'val':>9}{'test':>9}   ({metric})",
    ]
    for name, row in rows:
        if row is not None:
            lines.append(f"{name:28}{row[key]:15{'d' if network else '.2f'}}{_cells(row['metrics'], metric)}")
    if baselines["network_head"]:
        lines.append(f"{'the own head of the network':43}{_cells(baselines['network_head'], metric)}")
    return "\n".join(lines)


def _cells(metrics: Any, metric: str) -> str:
    values = [(metrics.get(split) or {}).get(metric) for split in ("val", "test")]
    return "".join(f"{'n/a' if v is None else f'{v:.4f}':>9}" for v in values)
