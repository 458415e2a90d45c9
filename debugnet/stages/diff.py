"""``debugnet diff``: two heads of one feature store, side by side."""

from __future__ import annotations

from typing import Any

from debugnet.errors import UsageError
from debugnet.recipes.diff import Diff
from debugnet.stages.result import Result

_ROWS_SHOWN = 15


def run(options: Diff, *, force: bool = False) -> Result:
    """Compare the weights of two heads and their decisions on one split; writes nothing.

    Raises
    ------
    UsageError
        The heads have other features or outputs, or stand on other features.
    """
    from debugnet.analysis.edit import audit, diff
    from debugnet.artifacts.feature_store import load_features
    from debugnet.stages.evaluation import Evaluation
    from debugnet.stages.inputs import find_input

    features = find_input(options.first, "features", options.features)
    find_input(options.second, "features", features)  # refuses a head of another store
    split = options.split or ("test" if "test" in load_features(features).splits else "val")
    first, second = (Evaluation(path, split, features) for path in (options.first, options.second))
    if list(first.head.class_names) != list(second.head.class_names):
        raise UsageError(f"{options.first} and {options.second} have other classes: they cannot be compared")
    report = diff(first.head, second.head) | {
        "split": split,
        "effect": audit(
            first.head, second.head, first.X, first.y, ids=first.ids,
            groups=first.groups, group_names=first.store.group_names,
        ),
    }  # fmt: skip
    return Result(None, report, False, _describe(report))


def _describe(report: dict[str, Any]) -> str:
    counts, effect = report["counts"], report["effect"]
    lines = [
        f"weights: {report['nnz'][0]} -> {report['nnz'][1]} "
        f"({counts['added']} added, {counts['removed']} removed, {counts['changed']} changed)",
        f"accuracy on {report['split']}: {effect['before']['value']:.4f} -> {effect['after']['value']:.4f}; "
        f"fixed {len(effect['fixed'])}, broken {len(effect['broken'])} (McNemar p {effect['mcnemar_p']:.2g})",
    ]
    if "worst_group" in effect:
        before, after = (effect["worst_group"][when] for when in ("before", "after"))
        worst = " -> ".join(
            f"{row['name']} {row[when]['value']:.4f}" for when, row in (("before", before), ("after", after))
        )
        lines.append(f"worst group: {worst}")
    for row in report["weights"][:_ROWS_SHOWN]:
        lines.append(f"  {row['output']:>20} / {row['feature']:<6} {row['first']:+.4f} -> {row['second']:+.4f}")
    if len(report["weights"]) > _ROWS_SHOWN:
        lines.append(f"  and {len(report['weights']) - _ROWS_SHOWN} more (--json)")
    return "\n".join(lines)
