"""``debugnet edit``: change chosen weights of a head, and audit the change on samples that did not choose it."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.progress import log
from debugnet.recipes.edit import Edit
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.analysis import edit as edits_of
    from debugnet.heads import LinearHead
    from debugnet.stages.evaluation import Part


def run(options: Edit, *, force: bool = False) -> Result:
    """Write the edited head with its edits.yaml and audit.json.

    Raises
    ------
    UsageError
        No change was asked for, it names what does not exist, or the audit would look at the
        samples that chose the edits.
    InputError, StaleArtifact
    """
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
    }
    if inputs["head"]["kind"] != "head":
        raise InputError(f"{options.head} is of kind {inputs['head']['kind']}, and a head folder is needed (select)")
    if options.from_ is not None:
        content = _read_bytes(options.from_)
        inputs["edits"] = {"kind": "edits", "path": str(options.from_), "digest": hashlib.sha256(content).hexdigest()}
    output = options.output or Path(options.head).parent / "head_edited"
    if check_output(output, "head", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "audit.json")
        return Result(output, _summary(report), True, describe_audit(report))
    started = time.monotonic()
    head, edits, report = _edit_and_audit(options, Path(inputs["features"]["path"]))
    provenance = collect("head", options, inputs, seconds=time.monotonic() - started)
    from debugnet.artifacts.bundle import write_json
    from debugnet.artifacts.head_store import save_head

    def add_files(folder: Path) -> None:
        (folder / "edits.yaml").write_text(_edits_file(edits, report["chosen_on"]), encoding="utf-8")
        write_json(folder / "audit.json", report)
        _draw(folder, report)

    save_head(output, head, provenance, add_files)
    return Result(output, _summary(report), False, describe_audit(report))


def _edit_and_audit(options: Edit, features: Path) -> tuple[LinearHead, list[Any], dict[str, Any]]:
    from debugnet.analysis.edit import apply_edits, audit
    from debugnet.stages.evaluation import Evaluation, Part

    edits, chosen_on = _collect_edits(options)
    if not edits:
        raise UsageError("nothing to edit: name features with --remove, --scale or --set, or a file with --from")
    part = _audit_part(options, features, chosen_on)
    evaluation = Evaluation(options.head, str(part), features)
    head = apply_edits(evaluation.head, edits)
    if options.refit:
        head = _refit(options, head, edits, evaluation.store)
    report = audit(
        evaluation.head, head, evaluation.X, evaluation.y, ids=evaluation.ids,
        groups=evaluation.groups, group_names=evaluation.store.group_names,
    )  # fmt: skip
    overlap = chosen_on is not None and Part.parse(chosen_on).overlaps(part)
    report |= {
        "audited_on": str(part),
        "chosen_on": chosen_on,
        "same_samples": overlap,
        "refit": options.refit,
        "edits": [dataclasses.asdict(edit) for edit in edits],
    }
    meta = {**evaluation.head.meta, "edited": report["edits"], "refit": options.refit}
    meta["counts"] = head.support.sum(axis=1).tolist()
    meta["nnz"] = int(head.support.sum())
    meta["features_used"] = len(head.used_features)
    meta["mean_features_per_class"] = float(head.support.sum(axis=1).mean())
    meta["metrics"] = _measure(head, evaluation.store)
    return dataclasses.replace(head, meta=meta), edits, report


def _measure(head: LinearHead, store: Any) -> dict[str, Any]:
    from debugnet.stages.refit import measure

    return measure(head, store)


def _collect_edits(options: Edit) -> tuple[list[edits_of.Edit], str | None]:
    """Edits of the file, then those of the command line; and what the file says they were chosen on."""
    from debugnet.analysis.edit import parse_edits

    records: list[Any] = []
    chosen_on = None
    if options.from_ is not None:
        document = _read_yaml(options.from_)
        chosen_on = document.get("chosen_on")
        if chosen_on is not None and not isinstance(chosen_on, str):
            raise InputError(f"{options.from_} has chosen_on: {chosen_on!r}; write the split, such as test/a")
        records += document.get("edits") or []
    records += [_record("remove", text, options.note) for text in options.remove]
    records += [_record(action, text, options.note) for action in ("scale", "set") for text in getattr(options, action)]
    return parse_edits(records), chosen_on


def _record(action: str, text: str, note: str) -> dict[str, Any]:
    """Read ``12``, ``cat/12``, ``cat/12=0.5``."""
    target, equals, value = text.partition("=")
    output, slash, feature = target.rpartition("/")
    try:
        record: dict[str, Any] = {"action": action, "feature": int(feature), "note": note}
        if slash:
            record["output"] = output
        if action != "remove":
            record["value"] = float(value)
        elif equals:
            raise ValueError
    except ValueError:
        wanted = "12 or cat/12" if action == "remove" else "12=0.5 or cat/12=0.5"
        raise UsageError(f"--{action} {text} cannot be read: write {wanted}") from None
    return record


def _read_bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file such as edits.yaml") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(_read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if (
        not isinstance(document, dict)
        or set(document) - {"chosen_on", "edits"}
        or not isinstance(document.get("edits") or [], list)
    ):
        raise InputError(f"{path} is no file of edits: it holds 'edits:' (a list) and may hold 'chosen_on:'")
    return document


def _audit_part(options: Edit, features: Path, chosen_on: str | None) -> Part:
    from debugnet.artifacts.feature_store import load_features
    from debugnet.stages.evaluation import Part

    chosen = None if chosen_on is None else Part.parse(chosen_on)
    splits = list(load_features(features).splits)
    if options.audit is not None:
        part = Part.parse(options.audit)
        if chosen is not None and part.overlaps(chosen) and not options.allow_same:
            raise UsageError(
                f"the edits were chosen on {chosen}, and an audit on {part} would flatter them: "
                f"use --audit {chosen.complement(splits)}, or --allow-same"
            )
        return part
    return (chosen or Part("train")).complement(splits)


def _refit(options: Edit, head: LinearHead, edits: Sequence[edits_of.Edit], store: Any) -> LinearHead:
    """Fit the head's point again without the removed features."""
    import numpy as np

    from debugnet import glm
    from debugnet.stages.inputs import usable_rows

    other = [edit for edit in edits if edit.action != "remove" or edit.output is not None]
    if other:
        raise UsageError("--refit fits without whole features: it takes no --scale, no --set and no single weights")
    missing = [key for key in ("lam", "l1_ratio", "penalty") if head.meta.get(key) is None]
    if missing:
        raise UsageError(
            f"{options.head} does not say its {', '.join(missing)}: it cannot be fitted again; edit without --refit"
        )
    factor = np.ones(head.weight.shape[1])
    factor[[edit.feature for edit in edits]] = np.inf
    X, y = usable_rows(store.split("train"))
    log(f"fitting again at lambda {head.meta['lam']:.4g} without {int(np.isinf(factor).sum())} features")
    path = glm.fit_path(
        X, y, family=head.family, penalty=head.meta["penalty"], l1_ratio=head.meta["l1_ratio"],
        lambdas=[head.meta["lam"]], penalty_factor=factor,
    )  # fmt: skip
    weight, bias = path.raw(0)
    return dataclasses.replace(head, weight=weight, bias=bias, standardizer=path.standardizer)


def _edits_file(edits: Sequence[edits_of.Edit], chosen_on: str | None) -> str:
    import yaml

    records = [{k: v for k, v in dataclasses.asdict(edit).items() if v not in (None, "")} for edit in edits]
    document = {"chosen_on": chosen_on, "edits": records} if chosen_on else {"edits": records}
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    keys = ("audited_on", "chosen_on", "same_samples", "n", "before", "after", "mcnemar_p", "worst_group", "refit")
    return {key: report[key] for key in keys if key in report} | {
        "fixed": len(report["fixed"]),
        "broken": len(report["broken"]),
    }


def describe_audit(report: dict[str, Any]) -> str:
    """Write the audit as a few lines."""

    def cell(row: dict[str, Any]) -> str:
        low, high = row["interval"]
        return f"{row['value']:.4f} [{low:.3f}, {high:.3f}]"

    lines = [
        f"audited on {report['audited_on']} ({report['n']} samples"
        + (", THE SAME that chose the edits)" if report["same_samples"] else ")"),
        f"  accuracy {cell(report['before'])} -> {cell(report['after'])}; fixed {len(report['fixed'])}, "
        f"broken {len(report['broken'])} (McNemar p {report['mcnemar_p']:.2g})",
    ]
    if "worst_group" in report:
        for when in ("before", "after"):
            row = report["worst_group"][when]
            lines.append(f"  worst group {when}: {row['name']} {cell(row[when])}")
    return "\n".join(lines)


def _draw(folder: Path, report: dict[str, Any]) -> None:
    import numpy as np

    from debugnet.report.debugging_figures import plot_group_change
    from debugnet.report.figures import drawing

    rows = report.get("groups") or report["classes"]
    rows = sorted(rows, key=lambda row: row["before"]["value"])[:25]
    values = [np.array([[r[when]["value"], *r[when]["interval"]] for r in rows]) for when in ("before", "after")]
    with drawing(folder, "audit", 6.4, 1.3 + 0.3 * len(rows)) as figure:
        axes = figure.subplots()
        plot_group_change(axes, [row["name"] for row in rows], *values)
        axes.set_title(f"What the edit did, on {report['audited_on']}")
