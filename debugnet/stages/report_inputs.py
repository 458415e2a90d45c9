"""What a report is made from: found beside the head, checked to belong to it, and loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import Provenance, input_reference, read_provenance
from debugnet.errors import DebugnetError, InputError, StaleArtifact, UsageError
from debugnet.progress import log
from debugnet.recipes.report import Report
from debugnet.stages.inputs import find_input, find_path

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.report.material import Counterfactuals, Material, Notes, OtherHead

#: Kinds of which one artefact at most goes into a report; the option is called like the kind.
_SINGLE = ("analysis", "diagnosis", "pairs", "explanations", "stability", "bias")
_STEPS = 12  # folders back that a head may have been edited from


@dataclass
class Inputs:
    """Paths of what goes in, by kind."""

    head: Path
    features: Path
    single: dict[str, Path] = field(default_factory=dict)
    counterfactuals: list[Path] = field(default_factory=list)
    heads: list[Path] = field(default_factory=list)
    notes: Path | None = None

    @property
    def references(self) -> dict[str, Any]:
        """References for the provenance: what they contain decides whether a report is current."""
        found = {"head": input_reference(self.head), "features": input_reference(self.features)}
        found |= {kind: input_reference(path) for kind, path in self.single.items()}
        for kind, paths in (("counterfactuals", self.counterfactuals), ("head", self.heads)):
            found |= {f"{kind} {path.name}": input_reference(path) for path in paths}
        if self.notes is not None:
            digest = hashlib.sha256(_read_bytes(self.notes)).hexdigest()
            found["notes"] = {"kind": "notes", "path": str(self.notes), "digest": digest}
        return found


def find_inputs(options: Report) -> Inputs:
    """Find the artefacts of a report: those named, and for the others those beside the head that belong to it.

    Raises
    ------
    InputError, StaleArtifact
        Something named is of another kind, or was made from another head.
    """
    head = Path(options.head)
    reference = input_reference(head)
    if reference["kind"] != "head":
        raise InputError(f"{head} is of kind {reference['kind']}, and a head is needed (debugnet select)")
    inputs = Inputs(head, find_input(head, "features", options.features), notes=options.notes)
    for kind in _SINGLE:
        if (given := getattr(options, kind)) is not None:
            inputs.single[kind] = _belonging(Path(given), kind, reference["digest"])
    inputs.counterfactuals = [
        _belonging(Path(p), "counterfactuals", reference["digest"]) for p in options.counterfactuals
    ]
    features = input_reference(inputs.features)["digest"]
    inputs.heads = [_same_features(Path(p), features) for p in options.edited]
    _look_around(inputs, options, reference["digest"], features)
    return inputs


def _look_around(inputs: Inputs, options: Report, head: str, features: str) -> None:
    """Add the artefacts beside the head that were made from it, and the other heads on its features."""
    folder = inputs.head.absolute().parent
    for path in sorted(p for p in folder.iterdir() if (p / "manifest.json").exists()):
        if path == inputs.head.absolute() or path.name.endswith(".partial"):
            continue
        try:
            made = read_provenance(path)
        except DebugnetError as error:
            log(f"left out: {error}", level="warning")
            continue
        if made.kind == "head":
            if not options.edited and _made_from(path, features):
                inputs.heads.append(path)
        elif made.inputs.get("head", {}).get("digest") != head:
            if made.kind in (*_SINGLE, "counterfactuals"):
                log(f"left out: {path} was made from another head", level="warning")
        elif made.kind in _SINGLE:
            inputs.single.setdefault(made.kind, path)
        elif made.kind == "counterfactuals" and not options.counterfactuals:
            inputs.counterfactuals.append(path)


def _belonging(path: Path, kind: str, head: str) -> Path:
    made = read_provenance(path)
    if made.kind != kind:
        raise InputError(f"{path} is of kind {made.kind}, and {kind} is needed")
    if made.inputs.get("head", {}).get("digest") != head:
        raise StaleArtifact(f"{path} was made from another head; renew it (--force) with: {made.command}")
    return path


def _same_features(path: Path, features: str) -> Path:
    if read_provenance(path).kind != "head":
        raise InputError(f"{path} is no head, and --edited takes heads")
    if not _made_from(path, features):
        raise InputError(f"{path} stands on other features than the head: they cannot be compared")
    return path


def _made_from(path: Path, features: str, steps: int = _STEPS) -> bool:
    """Whether an artefact goes back to these features."""
    for reference in read_provenance(path).inputs.values():
        if reference["kind"] == "features":
            return bool(reference["digest"] == features)
        if steps and reference["kind"] in ("head", "path") and Path(reference["path"]).exists():
            if _made_from(Path(reference["path"]), features, steps - 1):
                return True
    return False


def load_material(options: Report, inputs: Inputs) -> Material:
    """Load everything."""
    from debugnet.artifacts.bundle import read_json
    from debugnet.artifacts.explanation_bundle import load_explanations
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.report.material import Material
    from debugnet.stages.report_samples import StoredSamples

    head, store = load_head(inputs.head), load_features(inputs.features)
    single = inputs.single
    found: dict[str, Any] = {
        kind: read_json(path / f"{kind}.json") for kind, path in single.items() if kind != "explanations"
    }
    for kind, lines in (("diagnosis", "errors"), ("pairs", "shared")):
        if kind in single:
            found[lines] = _read_lines(single[kind] / f"{lines}.jsonl")
    if "explanations" in single:
        found["explanations"] = load_explanations(single["explanations"])
        found["explained_split"] = read_provenance(single["explanations"]).options.get("split", "val")
    title = options.title or _title(inputs.head)
    split, rows = _choose_rows(options, store, found.get("diagnosis"))
    part = store.split(split.partition("/")[0])
    whole = len(rows) == len(part)
    return Material(
        title=title, head=head, head_path=str(options.head), split=split,
        X=part.X if whole else part.X[rows], y=part.y[rows], ids=[part.ids[i] for i in rows], rows=rows,
        groups=None if part.groups is None else part.groups[rows], group_names=store.group_names,
        samples=StoredSamples(store, options.device), modality=str(store.config.get("modality", "tensor")),
        counterfactuals=[_counterfactuals(path) for path in inputs.counterfactuals],
        others=[_other(path) for path in inputs.heads if _comparable(path, head)],
        made=_provenances(inputs), notes=_read_notes(options.notes), network_figures=_network_figures(inputs.head),
        **found,
    )  # fmt: skip


def _title(head: Path) -> str:
    head = head.absolute()
    return head.parent.name if head.name == "head" else f"{head.parent.name} / {head.name}"


def _choose_rows(options: Report, store: FeatureStore, diagnosis: Any) -> tuple[str, Any]:
    from debugnet.stages.evaluation import Part
    from debugnet.stages.inputs import has_rows

    text = options.split or (diagnosis or {}).get("split")
    text = text or next(name for name in ("test", "val", "train") if has_rows(store, name))
    part = Part.parse(text)
    if part.split not in store.splits:
        raise UsageError(f"--split {text}: the features have {', '.join(store.splits)}")
    split = store.split(part.split)
    rows = part.rows(split.ids, split.usable)
    if not len(rows):
        raise InputError(f"split '{text}' of {store.path} has no usable row; choose another (--split)")
    return text, rows


def _comparable(path: Path, head: Any) -> bool:
    from debugnet.artifacts.head_store import load_head

    other = load_head(path)
    same = other.weight.shape == head.weight.shape and list(other.output_names) == list(head.output_names)
    if not same:
        log(f"left out: {path} has other features or outputs than the head", level="warning")
    return same


def _other(path: Path) -> OtherHead:
    from debugnet.artifacts.bundle import read_json
    from debugnet.artifacts.head_store import load_head
    from debugnet.report.material import OtherHead

    audit = read_json(path / "audit.json") if (path / "audit.json").exists() else None
    return OtherHead(path.name, load_head(path), audit, read_provenance(path).command)


def _counterfactuals(path: Path) -> Counterfactuals:
    from debugnet.artifacts.bundle import read_json
    from debugnet.report.material import Counterfactuals

    pictures = {name: path / f"{name}.png" for name in ("examples",) if (path / f"{name}.png").exists()}
    search = _read_lines(path / "search.jsonl") if (path / "search.jsonl").exists() else []
    rows = _read_lines(path / "rows.jsonl")
    return Counterfactuals(
        path.name, read_json(path / "rates.json"), rows, search, pictures, read_provenance(path).command
    )


def _network_figures(head: Path) -> dict[str, Path]:
    from debugnet.stages.network_path import load_network_path

    try:
        path = find_path(head, None)
        return load_network_path(path).figures if read_provenance(path).kind == "sparse" else {}
    except DebugnetError:
        return {}  # what the head came from need not be there any more


def _provenances(inputs: Inputs) -> list[tuple[str, Provenance, str]]:
    paths = [inputs.features]
    try:
        paths.append(find_path(inputs.head, None))
    except DebugnetError:
        pass  # a head need not come from a path that is still there
    paths += [inputs.head, *inputs.single.values(), *inputs.counterfactuals, *inputs.heads]
    return [(path.name, read_provenance(path), input_reference(path)["digest"]) for path in paths]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): make {path.parent} again") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a YAML file with your notes") from None


def _read_notes(path: Path | None) -> Notes:
    """Read the user's remarks.

    Raises
    ------
    InputError
        Not YAML, or not of the form that the help describes.
    """
    import yaml

    from debugnet.report.material import Notes

    if path is None:
        return Notes()
    try:
        document = yaml.safe_load(_read_bytes(path)) or {}
        if not isinstance(document, dict) or set(document) - {"report", "features", "classes"}:
            raise ValueError("it may hold report:, features: and classes:")
        return Notes(
            str(document.get("report") or ""),
            {int(k): str(v) for k, v in (document.get("features") or {}).items()},
            {str(k): str(v) for k, v in (document.get("classes") or {}).items()},
        )
    except (yaml.YAMLError, ValueError, AttributeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} holds no notes ({reason}); write features: {{12: 'the snow'}}") from None
