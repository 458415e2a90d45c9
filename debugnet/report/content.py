"""From artefacts to the one content of a report, plain enough for JSON."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from debugnet.analysis.intervals import proportion
from debugnet.report.blocks import Blocks, shorten
from debugnet.report.feature_content import feature_content
from debugnet.report.findings_content import (
    compare_content,
    counterfactual_content,
    edit_content,
    error_content,
    pair_content,
)
from debugnet.report.material import Material
from debugnet.report.samples_content import class_content, example_content

#: What a page without content says: the command that computes it, with the head's path and strongest feature put in.
COMMANDS = {
    "analysis": "debugnet analyze {head}",
    "explanations": "debugnet explain {head}",
    "errors": "debugnet diagnose {head}",
    "pairs": "debugnet pairs {head}",
    "counterfactuals": "debugnet counterfactual {counterfactual}",
    "edits": "debugnet edit {head} --remove {feature}",
    "stability": "debugnet stability {head}",
    "bias": "debugnet bias {head} --words words.txt",
}


#: What a head is judged against.
BASELINES = {
    "dense": "end of the path",
    "dense_network": "the network it began with",
    "network_head": "the network's own layer",
}


def build_content(material: Material, *, n_samples: int, n_prototypes: int) -> tuple[dict[str, Any], Blocks]:
    """Turn the material into what the page shows.

    Parameters
    ----------
    material : Material
    n_samples : int
        Samples that get a page of their own.
    n_prototypes : int
        Samples shown per tail of each feature.

    Returns
    -------
    content : dict
        JSON-able: what is needed as soon as the page opens.
    blocks : Blocks
        What is read when it is looked at: features, samples, pictures.
    """
    blocks = Blocks()
    examples, place = example_content(material, blocks, n_samples)
    findings = {
        "errors": error_content(material, place),
        "pairs": pair_content(material, blocks),
        "counterfactuals": counterfactual_content(material, blocks),
        "edits": edit_content(material, place),
        "compare": compare_content(material, place),
    }
    content = {
        "title": material.title,
        "head": material.head_path,
        "task": material.head.task,
        "family": material.head.family,
        "modality": material.modality,
        "mirrored": material.mirrored,
        "opposite": material.opposite,
        "split": material.split,
        "note": material.notes.report,
        "home": _home(material, blocks),
        "classes": class_content(material),
        "features": feature_content(material, blocks, n_prototypes),
        "examples": examples,
        **findings,
        "method": _method(material, n_samples, n_prototypes),
        "commands": _commands(material),
    }
    return content, blocks


def _commands(material: Material) -> dict[str, str]:
    weight = np.abs(material.head.standardized_weight).max(axis=0)
    words = {"head": shlex.quote(material.head_path), "feature": str(int(np.argmax(weight)))}
    kind = "text {head}" if material.modality == "text" else "image {head} --feature {feature}"
    words["counterfactual"] = kind.format(**words)
    return {name: command.format(**words) for name, command in COMMANDS.items()}


def _home(material: Material, blocks: Blocks) -> dict[str, Any]:
    head, meta = material.head, material.head.meta
    counts = head.support.sum(axis=1)
    content: dict[str, Any] = {
        "n": len(material.ids),
        "chosen": {k: meta.get(k) for k in ("rule", "reference", "drop", "metric", "threshold", "lam", "index")},
        "n_features": int(head.weight.shape[1]),
        "used": len(material.used),
        "nnz": int(head.support.sum()),
        "counts": counts.tolist(),
        "mean_count": float(counts.mean()),
        "shared": int((head.support.sum(axis=0) > 1).sum()),
        "layers": _layers(material),
        "edited": bool(meta.get("edited")),
    }
    if "network" in meta:
        figures = {name: blocks.figure(path) for name, path in material.network_figures.items()}
        content["network"] = {**meta["network"], "kept": meta["kept"], "figures": figures}
    if material.right is not None:
        content["accuracy"] = proportion(int(material.right.sum()), len(material.right))
    if material.analysis is not None:
        content["path"] = material.analysis["path"]
        content["topk_rest"] = {
            name: {part: metrics.get(material.analysis["metric"]) for part, metrics in parts.items()}
            for name, parts in material.analysis["topk_rest"].items()
        }
        content["top_k"], content["metric"] = material.analysis["top_k"], material.analysis["metric"]
        content["analysis_split"] = material.analysis["split"]
        content["no_feature"] = material.analysis["no_feature"].get(material.analysis["metric"])
    content["warnings"] = _warnings(material, content)
    return shorten(content)


def _layers(material: Material) -> list[dict[str, Any]]:
    """Accuracy and size of this head beside the dense layers it is judged against."""
    meta = material.head.meta
    metric = meta.get("metric") or "accuracy"
    baselines = meta.get("baselines") or {}
    size = "kept" if "network" in meta else "mean_features_per_class"
    rows: list[dict[str, Any]] = [
        {"name": "this head", "metrics": meta.get("metrics") or {}, "features": meta.get(size)}
    ]
    for key, name in BASELINES.items():
        found = baselines.get(key)
        if isinstance(found, dict):
            measured = found.get("metrics", found)
            rows.append({"name": name, "metrics": measured, "features": found.get(size)})
    return [
        {
            "name": row["name"],
            "features": row["features"],
            "metrics": {
                split: values.get(metric)
                for split, values in row["metrics"].items()
                if isinstance(values, dict) and values.get(metric) is not None
            },
        }
        for row in rows
    ]


def _warnings(material: Material, home: dict[str, Any]) -> list[str]:
    """What a reader should know before believing anything: one sentence each."""
    found = []
    meta, bundle = material.head.meta, material.explanations
    if meta.get("status") not in (None, "converged", "trained"):
        found.append(f"The layer's fit did not converge (status: {meta['status']}).")
    silent = [name for name, count in zip(material.head.output_names, home["counts"], strict=True) if not count]
    if silent:
        names = ", ".join(map(str, silent[:6]))
        found.append(f"No feature speaks about {len(silent)} of the outputs ({names}): they are decided by bias alone.")
    suspects = [row["feature"] for row in (material.diagnosis or {}).get("suspects", ()) if row["suspect"]]
    if suspects:
        names = ("feature " if len(suspects) == 1 else "features ") + ", ".join(map(str, suspects[:6]))
        where = material.diagnosis["split"]  # type: ignore[index]
        found.append(f"Under suspicion: the layer leans on {names} more than {where} bears out (see Errors).")
    never = (material.diagnosis or {}).get("never_predicted") or []
    if never:
        found.append(f"Never predicted on {material.diagnosis['split']}: {', '.join(map(str, never[:6]))}.")  # type: ignore[index]
    if home["mean_count"] < 2 and not material.mirrored:
        found.append(
            "Fewer than two features per class: such a layer reads easily but may leave out what decides hard cases. "
            "Compare it with one chosen with a smaller drop."
        )
    if bundle is not None:
        summary = bundle.index["summary"]
        if summary["explanations"] and summary["unstable"] > 0.3 * summary["explanations"]:
            found.append(
                f"{summary['unstable']} of {summary['explanations']} explanations failed a check of trust; "
                "they are marked where they are shown."
            )
        missing = len(set(map(int, material.used)) - set(bundle.features))
        if missing:
            found.append(f"{missing} of the {len(material.used)} features in use are not explained yet.")
    if material.stability is not None and material.stability["below_half"]:
        found.append(
            f"{material.stability['below_half']} weights are selected in fewer than half of the resamples: "
            "other data of the same kind would have given other features."
        )
    for other in material.others:
        if other.audit is not None and other.audit.get("same_samples"):
            found.append(f"{other.name} was audited on the samples that chose its edits, which flatters it.")
    if home["edited"]:
        found.append("This head has been edited by hand.")
    return found


def _method(material: Material, n_samples: int, n_prototypes: int) -> dict[str, Any]:
    artefacts = []
    for name, made, digest in material.made:
        artefacts.append(
            {
                "name": name,
                "kind": made.kind,
                "digest": digest,
                "key": made.key,
                "command": made.command,
                "options": made.options,
                "seed": made.seed,
                "device": made.device,
                "created": made.created,
                "seconds": made.seconds,
            }
        )
    versions: dict[str, str] = {}
    for _, made, _ in material.made:
        versions |= dict(made.versions)
    standardizer = material.head.standardizer
    return {
        "artefacts": artefacts,
        "versions": versions,
        "samples": n_samples,
        "prototypes": n_prototypes,
        "dead": int(np.count_nonzero(standardizer.inverse_scale == 0)),
    }
