"""``debugnet diagnose``: a head and samples -> why it errs, and what it would be better without."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.recipes.diagnose import Diagnose
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.analysis.misclassification import ErrorCauses, Errors
    from debugnet.analysis.suspects import Samples
    from debugnet.stages.evaluation import Evaluation

#: The paper's share of errors that one feature fixes (robust ImageNet model, appendix G.1).
PUBLISHED_FIXABLE = 0.26
_ROWS_SHOWN = 20
_REFERENCE_ROWS = 20_000
_EDITS_HEADER = """\
# Proposed by debugnet diagnose; keep what you believe.
# debugnet edit HEAD --from edits.yaml --refit    fits the layer again without these features
# debugnet edit HEAD --from edits.yaml            only removes their weights
"""


def run(options: Diagnose, *, force: bool = False) -> Result:
    """Diagnose ``options.head`` and write ``diagnosis/``: diagnosis.json, errors.jsonl, edits.yaml, plots.

    Raises
    ------
    InputError, StaleArtifact, UsageError
    """
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
    }
    if options.stability is not None:
        inputs["stability"] = input_reference(options.stability)
    output = options.output or Path(options.head).parent / "diagnosis"
    if check_output(output, "diagnosis", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "diagnosis.json")
        return Result(output, report["summary"], True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.stages.evaluation import Evaluation

    started = time.monotonic()
    evaluation = Evaluation(options.head, options.split, Path(inputs["features"]["path"]))
    report, records = _diagnose(evaluation, options)
    provenance = collect("diagnosis", options, inputs, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "diagnosis.json", report)
        with open(folder / "errors.jsonl", "w", encoding="utf-8", errors="surrogateescape") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        (folder / "edits.yaml").write_text(_edits(report, evaluation), encoding="utf-8")
        _draw(folder, report)
    return Result(output, report["summary"], False, _describe(report))


def _diagnose(evaluation: Evaluation, options: Diagnose) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from debugnet.analysis.intervals import proportion
    from debugnet.analysis.misclassification import ablate_features, explain_errors, find_errors
    from debugnet.analysis.suspects import Samples, measure_reliance
    from debugnet.stages.decompositions import decompose_samples, find_samples
    from debugnet.stages.evidence import rank_suspects

    head, y = evaluation.head, evaluation.y
    chosen = find_samples(evaluation, options.sample)
    errors = find_errors(head, evaluation.predictions, y)
    causes = explain_errors(head, evaluation.X, errors, off=options.off, scores=evaluation.scores)
    second = "zero" if options.off == "mean" else "mean"
    other = explain_errors(head, evaluation.X, errors, off=second, scores=evaluation.scores)
    ablation = ablate_features(head, evaluation.X, y, off=options.off, scores=evaluation.scores)
    reliance = measure_reliance(head, Samples(evaluation.X, evaluation.scores, y), _reference(evaluation))
    suspects = rank_suspects(evaluation, reliance, ablation, causes, options.threshold, options.stability)
    _add_companions(suspects, evaluation, errors)
    n_decisions = y.size
    fixable = {
        options.off: proportion(int(causes.fixed.sum()), len(errors)),
        second: proportion(int(other.fixed.sum()), len(errors)),
    }
    accuracy = proportion(n_decisions - len(errors), n_decisions)
    report = {
        "split": str(evaluation.part),
        "off": options.off,
        "accuracy": accuracy,
        "errors": len(errors),
        "fixed_by_one_feature": fixable,
        "published_fixable": PUBLISHED_FIXABLE,
        "threshold": options.threshold,
        "suspects": suspects,
        "dominant_features": _dominant(errors, causes, evaluation),
        "never_predicted": _never_predicted(evaluation),
        "decompositions": decompose_samples(evaluation, chosen, options.off),
    }
    report["summary"] = {
        "split": report["split"],
        "accuracy": accuracy["value"],
        "errors": len(errors),
        "fixed_by_one_feature": fixable,
        "suspects": [row["feature"] for row in suspects if row["suspect"]],
    }
    return report, _records(evaluation, errors, causes, other, options.off)


def _reference(evaluation: Evaluation) -> Samples:
    """Rows like those of training, at most ``_REFERENCE_ROWS`` of them, spread evenly over the split."""
    import numpy as np

    from debugnet.analysis.suspects import Samples
    from debugnet.stages.inputs import usable_rows

    X, y = usable_rows(evaluation.store.split("train"))
    step = -(-len(X) // _REFERENCE_ROWS)
    X, y = np.asarray(X[::step]), np.asarray(y[::step])
    return Samples(X, evaluation.head.logits(X), y)


def _add_companions(suspects: list[dict[str, Any]], evaluation: Evaluation, errors: Errors) -> None:
    """Add to each suspect the features that stand out in the samples that it misleads."""
    from debugnet.analysis.suspects import find_companions
    from debugnet.stages.evaluation import output_label

    for row in suspects:
        if row["suspect"] and evaluation.head.task == "single-label":
            found = find_companions(evaluation.head, evaluation.X, evaluation.y, errors, row["feature"])
            row |= {
                "misled": found.misled,
                "towards": output_label(evaluation.head, found.output),
                "companions": [
                    {"feature": int(f), "effect": float(e)}
                    for f, e in zip(found.feature, found.effect, strict=True)
                    if f != row["feature"]
                ],
            }


def _dominant(errors: Errors, causes: ErrorCauses, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Errors grouped by the feature that pushes most to the wrong class, largest group first."""
    import numpy as np

    from debugnet.stages.evaluation import output_label

    groups = []
    features, counts = np.unique(causes.feature_wrong, return_counts=True)
    for feature, count in zip(features, counts, strict=True):
        members = causes.feature_wrong == feature
        pairs, sizes = np.unique(
            np.stack([errors.right[members], errors.wrong[members]], axis=1), axis=0, return_counts=True
        )
        groups.append(
            {
                "feature": int(feature),
                "errors": int(count),
                "fixed": int(causes.fixed[members].sum()),
                "mean_gamma": float(causes.gamma_wrong[members].mean()),
                "pairs": [
                    {
                        "true": output_label(evaluation.head, a),
                        "predicted": output_label(evaluation.head, b),
                        "errors": int(n),
                    }
                    for (a, b), n in sorted(zip(pairs.tolist(), sizes, strict=True), key=lambda row: -row[1])[:5]
                ],
            }
        )
    return sorted(groups, key=lambda group: -group["errors"])


def _never_predicted(evaluation: Evaluation) -> list[str]:
    import numpy as np

    names, predictions = list(evaluation.head.class_names), evaluation.predictions
    if predictions.ndim == 2:
        return [name for name, column in zip(names, predictions.T, strict=True) if not column.any()]
    counts = np.bincount(predictions, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if not count]


def _records(
    evaluation: Evaluation, errors: Errors, causes: ErrorCauses, other: ErrorCauses, off: str
) -> list[dict[str, Any]]:
    """One record per wrong decision, in the order of the samples."""
    from debugnet.stages.evaluation import output_label

    head, ids, scores = evaluation.head, evaluation.ids, evaluation.scores
    second = "zero" if off == "mean" else "mean"
    records = []
    for i, row in enumerate(errors.sample):
        wrong, right = int(errors.wrong[i]), int(errors.right[i])
        gap = (scores[row, wrong] if wrong >= 0 else 0.0) - (scores[row, right] if right >= 0 else 0.0)
        records.append(
            {
                "id": ids[row],
                "row": int(evaluation.rows[row]),
                "true": output_label(head, right),
                "predicted": output_label(head, wrong),
                "gap": float(gap),
                "feature_wrong": int(causes.feature_wrong[i]),
                "gamma_wrong": float(causes.gamma_wrong[i]),
                "feature_right": int(causes.feature_right[i]),
                "gamma_right": float(causes.gamma_right[i]),
                f"fixed_{off}": bool(causes.fixed[i]),
                f"fixed_{second}": bool(other.fixed[i]),
            }
        )
    return records


def _edits(report: dict[str, Any], evaluation: Evaluation) -> str:
    """Propose the removal of every suspect and its companions, as a file for ``debugnet edit --from``."""
    import yaml

    edits: dict[int, dict[str, Any]] = {}
    found = [row for row in report["suspects"] if row["suspect"]]
    for row in found:
        note = f"suspect on {report['split']}: z {row['z']:.1f}, p {row['p_value']:.2g}"
        edits[row["feature"]] = {"action": "remove", "feature": row["feature"], "note": note}
    for row in found:
        for other in row.get("companions", []):
            note = f"companion of {row['feature']}: {other['effect']:.1f} sd higher in the samples it misleads"
            edits.setdefault(other["feature"], {"action": "remove", "feature": other["feature"], "note": note})
    document = {"chosen_on": str(evaluation.part), "edits": list(edits.values())}
    return _EDITS_HEADER + str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _draw(folder: Path, report: dict[str, Any]) -> None:
    import numpy as np

    from debugnet.report.debugging_figures import plot_error_causes, plot_suspects
    from debugnet.report.figures import drawing

    rows = report["suspects"]
    with drawing(folder, "suspects", 5.6, 4.6) as figure:
        feature, fixed, broken = (np.array([row[k] for row in rows], dtype=int) for k in ("feature", "fixed", "broken"))
        axes = figure.subplots()
        plot_suspects(axes, feature, fixed, broken, np.array([row["suspect"] for row in rows], dtype=bool))
        axes.set_title("What removing each feature does")
    top = report["dominant_features"][:15]
    if top:
        with drawing(folder, "error_causes", 6.4, 1.2 + 0.32 * len(top)) as figure:
            axes = figure.subplots()
            plot_error_causes(axes, *([group[key] for group in top] for key in ("feature", "errors", "fixed")))
            axes.set_title("Features behind the errors")


def _describe(report: dict[str, Any]) -> str:
    from debugnet.stages.decompositions import describe_decomposition

    accuracy, found = report["accuracy"], [row for row in report["suspects"] if row["suspect"]]
    lines = [f"accuracy on {report['split']}: {accuracy['value']:.4f} ({report['errors']} errors)"]
    decompositions = [describe_decomposition(record) for record in report["decompositions"]]
    if not report["errors"]:
        return "\n".join([lines[0] + ": nothing to explain", *decompositions])
    for off, row in report["fixed_by_one_feature"].items():
        low, high = row["interval"]
        lines.append(
            f"fixed by turning one feature off ({off}): {row['value']:.1%} [{low:.1%}, {high:.1%}]"
            f" of the errors (paper: {PUBLISHED_FIXABLE:.0%})"
        )
    if report["never_predicted"]:
        lines.append(f"never predicted: {', '.join(report['never_predicted'][:10])}")
    lines.append(f"suspects (corrected p < {report['threshold']}): {len(found)}")
    if found:
        lines.append(f"  {'feature':>8}{'z':>7}{'p':>10}{'fixes':>8}{'breaks':>8}  misleads")
        for row in found[:_ROWS_SHOWN]:
            cells = f"  {row['feature']:>8}{row['z']:>7.1f}{row['p_value']:>10.2g}{row['fixed']:>8}{row['broken']:>8}"
            if "misled" in row:
                others = ", ".join(str(c["feature"]) for c in row["companions"][:12])
                cells += f"  {row['misled']} to '{row['towards']}'" + (f"; with it: {others}" if others else "")
            lines.append(cells)
            lines.extend(f"{'':12}{said}" for said in row["evidence"])
        lines.append("edits.yaml proposes to do without them: debugnet edit HEAD --from edits.yaml --refit")
    return "\n".join(lines + decompositions)
