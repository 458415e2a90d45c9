"""``debugnet inspect``: what an artefact says of itself."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from debugnet.errors import InputError, StaleArtifact
from debugnet.recipes.inspect import Inspect
from debugnet.stages.result import Result, plain_data

#: Longest value that is written out in the text; ``--json`` has everything.
_BRIEF = 100


def run(options: Inspect, *, force: bool = False) -> Result:
    """Describe an artefact from its header or manifest.

    Raises
    ------
    InputError
        If it is missing, unfinished, foreign or damaged.
    """
    from debugnet.artifacts.lineage import check_inputs

    path = options.file
    if path.is_dir():
        summary = _folder(path, options.verify)
    else:
        summary = _file(path, options.verify)
    made: dict[str, Any] = summary["provenance"]
    state = "verified" if options.verify else "complete"
    try:
        check_inputs(path)
        summary["stale"] = False
    except StaleArtifact as error:
        summary["stale"], state = True, f"{state}, but out of date: {error}"
    summary = {"kind": made["kind"], "state": state} | summary
    return Result(None, summary, text=_describe(path, summary))


def _file(path: Path, verify: bool) -> dict[str, Any]:
    from debugnet.artifacts.container import read_header, verify_arrays

    header = read_header(path)
    if verify:
        verify_arrays(path, header)
    arrays = {name: {"shape": a.shape, "dtype": a.dtype.lstrip("<|")} for name, a in header.arrays.items()}
    content = {"size": path.stat().st_size, "digest": header.digest, "arrays": arrays, "content": header.meta}
    return content | {"provenance": dict(header.provenance)}


def _folder(path: Path, verify: bool) -> dict[str, Any]:
    from debugnet.artifacts.provenance import read_manifest

    manifest = read_manifest(path)
    files = {}
    for name, expected in sorted(manifest["files"].items()):
        found = path / name
        if not found.is_file():
            raise InputError(f"{path} lacks {name}: make it again")
        if verify and hashlib.sha256(found.read_bytes()).hexdigest() != expected:
            raise InputError(f"{found} is not what the manifest of {path} says: make it again")
        files[name] = found.stat().st_size
    head = path / "decision_layer.json"
    content = json.loads(head.read_bytes()) if head.is_file() else {}
    described = {"size": sum(files.values()), "digest": manifest["digest"], "files": files, "content": content}
    return described | {"provenance": manifest["provenance"]}


def _describe(path: Path, summary: Mapping[str, Any]) -> str:
    made = summary["provenance"]
    memory = f", {made['peak_memory'] / 2**30:.2g} GiB" if made["peak_memory"] else ""
    origin = {
        "made": f"{made['created']} in {made['seconds']} s on {made['device']}{memory}",
        "by": shlex.join(made["argv"]),
        "digest": summary["digest"],
        **{role: f"{r['path']}  ({r['digest'][:12]})" for role, r in made["inputs"].items()},
    }
    blocks = {
        "origin": origin,
        "options": {name: value for name, value in made["options"].items() if value not in (None, [])},
        "content": _flat(summary["content"]),
        "arrays": {n: f"{a['dtype']} {' x '.join(map(str, a['shape']))}" for n, a in summary.get("arrays", {}).items()},
        "files": {name: _bytes(size) for name, size in summary.get("files", {}).items()},
        "versions": made["versions"],
    }
    width = max(len(name) for block in blocks.values() for name in block)
    lines = [f"{path}: {summary['kind']}, {_bytes(summary['size'])}, {summary['state']}"]
    for heading, block in blocks.items():
        if block:
            lines += [heading, *(f"  {name:<{width}}  {_brief(value)}" for name, value in block.items())]
    return "\n".join(lines)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Put the entries of a mapping inside the content on lines of their own: ``fit.solver``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and not prefix:
            flat |= _flat(value, f"{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(plain_data(value), ensure_ascii=False)
    size = f"{len(value)} entries" if isinstance(value, list | dict) else ""
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 20]}… {size}".rstrip()


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
