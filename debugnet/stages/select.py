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
    if inputs["path"]["kind"] != "path":
        raise InputError(f"{options.path} is of kind {inputs['path']['kind']}, and a path file is needed (fit-path)")
    if rule == "features_per_class":
        inputs["features"] = input_reference(find_input(options.path, "features", options.features))
    output = options.output or Path(options.path).parent / "head"
    if check_output(output, "head", options, inputs, force=force):
        from debugnet.artifacts.head_store import load_head

        head = load_head(output)
        return Result(output, summarize(head), True, describe(head))
    started = time.monotonic()
    head = _choose(options, rule, Path(inputs["features"]["path"]) if "features" in inputs else None)
    provenance = collect("head", options, inputs, seed=None, device="cpu", seconds=time.monotonic() - started)
    from debugnet.artifacts.head_store import save_head

    save_head(output, head, provenance)
    _warn(head)
    return Result(output, summarize(head), False, describe(head))


def _rule(options: Select) -> str:
    given = [name for name in _RULES if getattr(options, name) not in (None, False)]
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


def _apply(path: RegularizationPath, options: Select, rule: str) -> Selection:
    from debugnet import selection

    allowed = options.allow_unconverged
    if rule == "index":
        assert options.index is not None
        return selection.select_index(path, options.index, allow_unconverged=allowed)
    if rule == "lam":
        assert options.lam is not None
        return selection.select_lam(path, options.lam, allow_unconverged=allowed)
    if rule == "features_per_class":
        assert options.features_per_class is not None
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


def _describe_choice(path: RegularizationPath, chosen: Selection) -> dict[str, Any]:
    """Say how the point was chosen, what it is like, and what it stands beside: the head's ``meta``."""
    import dataclasses

    from debugnet.selection import validation_metric

    meta: dict[str, Any] = {**dataclasses.asdict(chosen), "metric": chosen.metric}
    meta |= _point(path, chosen.index)
    meta["l1_ratio"], meta["penalty"] = path.meta.get("l1_ratio"), path.meta.get("penalty")
    meta["baselines"] = {"dense": _point(path, len(path) - 1), "network_head": path.meta.get("network_head")}
    if path.metrics.get("val"):
        name, values = validation_metric(path, chosen.metric)
        meta["metric"] = name
        meta["baselines"]["best"] = _point(path, int(values.argmax()))
    if chosen.drop is not None and chosen.rule in ("drop", "relative-drop"):
        meta["readings"] = _both_readings(path, chosen)
    return meta


def _point(path: RegularizationPath, i: int) -> dict[str, Any]:
    """One point of the path in numbers; test metrics are reported, and None where there is no test split."""
    import numpy as np

    counts = path.nnz_per_output[i]
    columns = path.indices[path.indptr[i * path.n_outputs] : path.indptr[(i + 1) * path.n_outputs]]
    metrics = {
        s: {k: float(v[i]) for k, v in path.metrics.get(s, {}).items()} or None for s in ("train", "val", "test")
    }
    return {
        "index": i,
        "lam": float(path.lam[i]),
        "status": path.status[i],
        "duality_gap": float(path.duality_gap[i]),
        "nnz": int(counts.sum()),
        "features_used": len(np.unique(columns)),
        "counts": counts.tolist(),
        "mean_features_per_class": float(counts.mean()),
        "metrics": metrics,
    }


def _both_readings(path: RegularizationPath, chosen: Selection) -> dict[str, Any]:
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
        readings[name] = {key: point[key] for key in ("index", "lam", "mean_features_per_class", "metrics")}
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
    rule = meta["rule"] if meta.get("drop") is None else f"{meta['rule']} {100 * meta['drop']:.3g}%"
    counts, mean = meta["counts"], meta["mean_features_per_class"]
    lines = [
        f"{rule}: point {meta['index']}, lambda {meta['lam']:.4g}, {mean:.4g} features per class "
        f"({min(counts)} to {max(counts)}), {meta['features_used']} in all",
        f"{'':28}{'features/class':>15}{'val':>9}{'test':>9}   ({metric})",
    ]
    rows = [
        ("chosen", meta),
        ("best on the path", meta["baselines"].get("best")),
        ("dense", meta["baselines"]["dense"]),
    ]
    rows += [(f"  {100 * meta['drop']:.3g}% read as {name}", r) for name, r in meta.get("readings", {}).items()]
    for name, row in rows:
        if row is not None:
            lines.append(f"{name:28}{row['mean_features_per_class']:15.2f}{_cells(row['metrics'], metric)}")
    if meta["baselines"]["network_head"]:
        lines.append(f"{'the own head of the network':43}{_cells(meta['baselines']['network_head'], metric)}")
    return "\n".join(lines)


def _cells(metrics: Any, metric: str) -> str:
    values = [(metrics.get(split) or {}).get(metric) for split in ("val", "test")]
    return "".join(f"{'n/a' if v is None else f'{v:.4f}':>9}" for v in values)
