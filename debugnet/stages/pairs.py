"""``debugnet pairs``: which classes are confused, which share features, and whether the two go together."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import UsageError
from debugnet.recipes.pairs import Pairs
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.stages.evaluation import Evaluation

#: Correlations the paper reports for its standard and its robust ImageNet model (appendix G.3).
PUBLISHED_CORRELATION = {"standard": 0.51, "robust": 0.40}


def run(options: Pairs, *, force: bool = False) -> Result:
    """Compare the classes of ``options.head`` and write ``pairs/``: pairs.json, shared.jsonl, a scatter plot.

    Raises
    ------
    UsageError
        The head has one output, or its labels can hold at the same time (multi-label).
    """
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
    }
    output = options.output or Path(options.head).parent / "pairs"
    if check_output(output, "pairs", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "pairs.json")
        return Result(output, report["summary"], True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.stages.evaluation import Evaluation

    started = time.monotonic()
    evaluation = Evaluation(options.head, options.split, Path(inputs["features"]["path"]))
    if evaluation.head.task != "single-label" or len(evaluation.head.weight) < 2:
        raise UsageError(f"{options.head} has no pairs of classes: pairs need a single-label head with 2 rows or more")
    report, shared, plot = _compare(evaluation, options)
    provenance = collect("pairs", options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "pairs.json", report)
        with open(folder / "shared.jsonl", "w", encoding="utf-8", errors="surrogateescape") as file:
            for record in shared:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        _draw(folder, *plot, evaluation.head.class_names, report)
    return Result(output, report["summary"], False, _describe(report))


def _compare(evaluation: Evaluation, options: Pairs) -> tuple[dict[str, Any], list[dict[str, Any]], tuple[Any, Any]]:
    import dataclasses

    from debugnet.analysis import class_pairs

    head, names = evaluation.head, list(evaluation.head.class_names)
    confusion = class_pairs.confusion_matrix(evaluation.y, evaluation.predictions, len(names))
    rate, overlap = class_pairs.confusion_rate(confusion), class_pairs.support_overlap(head, options.overlap)
    correlation = dataclasses.asdict(
        class_pairs.correlate_pairs(
            rate, overlap, method=options.correlation, n_permutations=options.permutations, seed=options.seed
        )
    )
    shared = class_pairs.shared_features(
        head, threshold=options.share, relative_to=options.relative_to, limit=options.limit, seed=options.seed
    )
    report = {
        "split": str(evaluation.part),
        "overlap": options.overlap,
        "correlation": correlation,
        "published": PUBLISHED_CORRELATION,
        "confused_pairs": class_pairs.rank_confused_pairs(confusion, overlap, names),
        "n_shared": len(shared),
    }
    report["summary"] = {
        "split": report["split"],
        "r": correlation["r"],
        "p_value": correlation["p_value"],
        "pairs": correlation["n_pairs"],
        "shared": len(shared),
    }
    return report, _shared_records(evaluation, shared, options.samples), (rate, overlap)


def _shared_records(evaluation: Evaluation, shared: list[Any], samples: int) -> list[dict[str, Any]]:
    """Write each shared feature with the samples of both classes that activate it most."""
    import numpy as np

    from debugnet.analysis.class_pairs import top_samples

    members = {k: np.flatnonzero(evaluation.y == k) for k in {c for row in shared for c in row.classes}}
    columns = {row.feature: None for row in shared}
    values = {f: np.asarray(evaluation.X[:, f], dtype=np.float64) for f in columns}
    names, ids = evaluation.head.class_names, evaluation.ids
    records = []
    for row in shared:
        tops = [top_samples(values[row.feature], members[c], samples) for c in row.classes]
        records.append(
            {
                "classes": [names[c] for c in row.classes],
                "feature": row.feature,
                "weights": list(row.weights),
                "strength": row.strength,
                "samples": [[{"id": ids[i], "activation": float(values[row.feature][i])} for i in top] for top in tops],
            }
        )
    return records


def _draw(folder: Path, rate: Any, overlap: Any, names: Any, report: dict[str, Any]) -> None:
    from debugnet.report.debugging_figures import plot_confusion_against_overlap
    from debugnet.report.figures import drawing

    with drawing(folder, "confusion_against_overlap", 6.4, 4.4) as figure:
        plot_confusion_against_overlap(
            figure.subplots(), rate, overlap, names, _correlation_text(report["correlation"])
        )


def _correlation_text(correlation: dict[str, Any]) -> str:
    r, p = correlation["r"], correlation["p_value"]
    if r is None or r != r:
        return "no correlation: one of the two does not vary"
    return f"{correlation['method'].capitalize()} r = {r:.2f}, p = {p:.2g} ({correlation['n_pairs']} pairs)"


def _describe(report: dict[str, Any]) -> str:
    lines = [f"confusion against overlap on {report['split']}: {_correlation_text(report['correlation'])}"]
    lines.append(f"  (the paper: r = {PUBLISHED_CORRELATION['standard']} and {PUBLISHED_CORRELATION['robust']})")
    for row in report["confused_pairs"][:8]:
        lines.append(
            f"  {row['classes'][0]} / {row['classes'][1]}: {row['confusion']:.1%}, overlap {row['overlap']:.2f}"
        )
    lines.append(f"{report['n_shared']} shared features of class pairs, in shared.jsonl")
    return "\n".join(lines)
