"""``debugnet bias``: the share of a word list in what the features hear."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.recipes.bias import Bias
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.analysis.bias import FeatureBias
    from debugnet.heads import LinearHead

_ROWS_SHOWN = 10


def run(options: Bias, *, force: bool = False) -> Result:
    """Write ``bias/bias.json``.

    Raises
    ------
    UsageError
        No word list.
    InputError
        The list or the clouds cannot be read.
    """
    from debugnet.stages.word_lists import read_words

    if options.words is None:
        raise UsageError("--words is needed: a text file with the words to look for, one a line")
    words = read_words(options.words)
    explanations = options.explanations or Path(options.head).parent / "explanations"
    inputs = {
        "head": input_reference(options.head),
        "explanations": input_reference(explanations),
        "words": {
            "kind": "words",
            "path": str(options.words),
            "digest": hashlib.sha256("\n".join(words).encode()).hexdigest(),
        },
    }
    output = options.output or Path(options.head).parent / "bias"
    if check_output(output, "bias", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "bias.json")
        return Result(output, report["summary"], True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json

    started = time.monotonic()
    report = _measure(options, explanations, words)
    provenance = collect("bias", options, inputs, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "bias.json", report)
    return Result(output, report["summary"], False, _describe(report))


def _measure(options: Bias, explanations: Path, words: list[str]) -> dict[str, Any]:
    from debugnet.analysis.bias import measure_bias, normalize_word
    from debugnet.artifacts.explanation_bundle import SIDES, load_explanations
    from debugnet.artifacts.head_store import load_head
    from debugnet.stages.layers import dense_layer

    bundle = load_explanations(explanations)
    clouds = {f: {side: bundle.words(f, side) for side in SIDES} for f in bundle.features}
    if not any(any(sides.values()) for sides in clouds.values()):
        raise InputError(f"{explanations} holds no word clouds: make them with debugnet explain --methods words")
    rows = measure_bias(clouds, words, top=options.top_words)
    heads = {"sparse": load_head(options.head)}
    if (dense := dense_layer(options.head)) is not None:
        heads["dense"] = dense
    heard = {normalize_word(word) for sides in clouds.values() for side in sides.values() for word in side}
    layers = {name: _pool(head, rows, options.top_features) for name, head in heads.items()}
    report: dict[str, Any] = {
        "words": words,
        "words_in_no_cloud": [word for word in words if normalize_word(word) not in heard],
        "layers": layers,
        "features": [
            {"feature": r.feature, "side": r.side, "share": r.share, "matched": list(r.matched), "n_words": r.n_words}
            for r in rows
        ],
    }
    report["summary"] = {
        name: {output: record["all"] for output, record in layer.items()} for name, layer in layers.items()
    }
    return report


def _pool(head: LinearHead, rows: list[FeatureBias], top: int) -> dict[str, Any]:
    """Pool the clouds of each class's top features, turned so that they say what speaks for the class."""
    import numpy as np

    from debugnet.analysis.bias import signed_for_output, summarize_bias

    weight = head.standardized_weight
    explained = {row.feature for row in rows}
    report = {}
    for name, row in zip(head.output_names, weight, strict=True):
        best = [int(f) for f in np.argsort(-np.abs(row), kind="stable")[:top] if row[f] != 0]
        directed = {"towards": [0, 0], "against": [0, 0]}
        for bias in rows:
            if bias.feature in best:
                counts = directed[signed_for_output(bias, row[bias.feature])]
                counts[0] += len(bias.matched)
                counts[1] += bias.n_words
        summary = summarize_bias(rows, best)
        summary["without_clouds"] = [f for f in best if f not in explained]
        for way, (matched, n) in directed.items():
            summary[way] = {"count": matched, "n": n, "value": matched / n if n else None}
        report[str(name)] = summary
    return report


def _describe(report: dict[str, Any]) -> str:
    lines = []
    if missing := report["words_in_no_cloud"]:
        shown = ", ".join(missing[:_ROWS_SHOWN]) + (", ..." if len(missing) > _ROWS_SHOWN else "")
        lines.append(f"{len(missing)} of {len(report['words'])} listed words are in no cloud: {shown}")
    for layer, outputs in report["layers"].items():
        for output, row in outputs.items():
            found = row["all"]
            share = (
                "n/a"
                if found["value"] is None
                else f"{found['value']:.1%} [{found['interval'][0]:.1%}, {found['interval'][1]:.1%}]"
            )
            ways = ", ".join(f"{way} it {row[way]['value'] or 0:.1%}" for way in ("towards", "against"))
            without = f"; {len(row['without_clouds'])} features without clouds" if row["without_clouds"] else ""
            lines.append(f"{layer}, {output}: {share} of {found['n']} words ({ways}){without}")
    top = [row for row in report["features"] if row["matched"]][:_ROWS_SHOWN]
    lines += [f"  feature {r['feature']} {r['side']}: {r['share']:.1%} ({', '.join(r['matched'][:8])})" for r in top]
    return "\n".join(lines)
