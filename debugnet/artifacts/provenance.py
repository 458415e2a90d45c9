"""Where an artefact comes from: its key, its inputs, and whether it is still current.

An artefact is current when it is complete and was made with the same options from the same
inputs; an option that did not exist when it was made counts as one at its default.  What it
contains is condensed into its *digest*, which is how it counts as the input of another artefact.
Options and inputs are condensed into its *key*.  Both are sha256, in hexadecimal.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from debugnet.artifacts.canonical import canonical_json, jsonable, parse_json
from debugnet.errors import InputError, OutputExists

#: Version of the layouts in docs/formats.md; part of every key.
SCHEMA = 1

#: How a reference to an input looks: {"kind": ..., "path": ..., "digest": ...}.
Reference = Mapping[str, str]

_PACKAGES = (
    "debugnet", "numpy", "scipy", "torch", "torchvision", "transformers", "numba", "h5py", "safetensors",
    "scikit-learn", "scikit-image", "lime", "wordcloud", "pillow",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How an artefact was made.

    Attributes
    ----------
    kind : str
        "features", "path", "head", "analysis", ...
    schema : int
        Version of the layout.
    key : str
        :func:`artifact_key` of the kind, the options and the inputs.
    options : mapping
        The options that can change the result.
    settings : mapping
        The others (device, workers, output, input paths): recorded, but a change of them
        does not make the artefact out of date.
    inputs : mapping of str to reference
        By role ("features", "path", ...): ``{"kind", "path", "digest"}``.
    seed : int or None
    device : str
        For example "cpu" or "cuda:0 (NVIDIA H200)".
    versions : mapping of str to str
        Python and the packages that are installed.
    argv : list of str
        The command that made it; run again, it renews it.
    created : str
        ISO 8601, UTC.
    seconds : float
        Wall-clock time of the work.
    peak_memory : int
        Bytes: largest resident size of the process, so far.
    defaults : sequence of str
        Which of the options stood at the default that their recipe declared.
    """

    kind: str
    schema: int
    key: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Reference]
    seed: int | None
    device: str
    versions: Mapping[str, str]
    argv: list[str]
    created: str
    seconds: float
    peak_memory: int
    defaults: Sequence[str] = ()

    @property
    def command(self) -> str:
        """The command that made the artefact, quoted for a shell."""
        return shlex.join(self.argv)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return {f.name: jsonable(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Provenance:
        """Read what :meth:`to_json` gave; unknown fields are ignored.

        Raises
        ------
        ValueError
            A field is missing.
        """
        fields = dataclasses.fields(cls)
        missing = [f.name for f in fields if f.name not in values and f.default is dataclasses.MISSING]
        if missing:
            raise ValueError(f"provenance lacks {', '.join(missing)}")
        return cls(**{f.name: values[f.name] for f in fields if f.name in values})


def keyed_options(options: Any) -> dict[str, Any]:
    """The options that can change the result.

    Of a recipe dataclass, the fields with ``in_key=False`` and the positional ones (they name
    inputs, which count by their digests) are left out, and a ``revision`` above 1 is added (a class
    variable, raised when the same options come to mean something else); a mapping is taken whole.
    """
    if not _is_recipe(options):
        return dict(jsonable(options))
    revision = getattr(options, "revision", 1)
    return {f.name: jsonable(getattr(options, f.name)) for f in _keyed_fields(options)} | (
        {"revision": revision} if revision > 1 else {}
    )


def defaulted_options(options: Any) -> list[str]:
    """Names of the keyed options of a recipe dataclass that stand at their declared default; none of a mapping."""
    if not _is_recipe(options):
        return []
    return [f.name for f in _keyed_fields(options) if getattr(options, f.name) == f.default]


def _is_recipe(options: Any) -> bool:
    return dataclasses.is_dataclass(options) and not isinstance(options, type)


def _keyed_fields(options: Any) -> list[dataclasses.Field[Any]]:
    return [
        f
        for f in dataclasses.fields(options)
        if f.metadata.get("in_key", True) and not f.metadata.get("positional", False)
    ]


def artifact_key(kind: str, options: Any, inputs: Mapping[str, Reference]) -> str:
    """Key of the artefact that these options make of these inputs.

    Parameters
    ----------
    kind : str
    options : dataclass or mapping
        See :func:`keyed_options`; those at their default do not count, so that a key outlives the
        release that adds an option.
    inputs : mapping of str to reference
        Only kinds and digests count: an input may move.

    Returns
    -------
    str
        sha256, 64 hexadecimal digits.
    """
    defaulted = defaulted_options(options)
    content = {
        "schema": SCHEMA,
        "kind": kind,
        "options": {name: value for name, value in keyed_options(options).items() if name not in defaulted},
        "inputs": {role: [reference["kind"], reference["digest"]] for role, reference in inputs.items()},
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def collect(
    kind: str,
    options: Any,
    inputs: Mapping[str, Reference],
    *,
    seed: int | None = None,
    device: str = "cpu",
    seconds: float = 0.0,
) -> Provenance:
    """Gather the provenance of an artefact that this process makes or has just made."""
    import resource

    keyed = keyed_options(options)
    return Provenance(
        kind=kind,
        schema=SCHEMA,
        key=artifact_key(kind, options, inputs),
        options=keyed,
        settings={name: value for name, value in jsonable(options).items() if name not in keyed},
        inputs={role: dict(reference) for role, reference in inputs.items()},
        seed=seed,
        device=device,
        versions=_versions(),
        argv=_argv(),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        defaults=defaulted_options(options),
    )


def _argv() -> list[str]:
    """The command line, with the console script's folder taken off."""
    program, *words = sys.argv or [""]
    return ["debugnet" if Path(program).stem in ("debugnet", "__main__") else program, *words]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:  # from the metadata: importing torch for its version costs seconds
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a folder artefact's ``manifest.json``: ``{"provenance", "digest", "files"}``.

    Raises
    ------
    InputError
        The folder is missing, is not an artefact, or its manifest is damaged.
    """
    path = Path(folder) / "manifest.json"
    try:
        manifest = parse_json(path.read_bytes())
        Provenance.from_json(manifest["provenance"])
        if not isinstance(manifest["digest"], str) or not isinstance(manifest["files"], dict):
            raise ValueError("no digest or no files")
    except FileNotFoundError:
        raise InputError(f"{folder} is not a debugnet folder: it has no manifest.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): make the folder again") from error
    return manifest


def _head_of(path: str | os.PathLike[str]) -> tuple[Provenance, str]:
    """Provenance and digest of any artefact, from its header alone."""
    path = Path(path)
    if path.is_dir() and not path.name.endswith(".partial"):
        manifest = read_manifest(path)
        return Provenance.from_json(manifest["provenance"]), manifest["digest"]
    from debugnet.artifacts.container import read_header

    header = read_header(path)
    try:
        return Provenance.from_json(header.provenance), header.digest
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): make it again") from error


def read_provenance(path: str | os.PathLike[str]) -> Provenance:
    """Provenance of any artefact: an .h5 file, or a folder with ``manifest.json``.

    Raises
    ------
    InputError
        Missing, partial, foreign or damaged.
    """
    return _head_of(path)[0]


def input_reference(path: str | os.PathLike[str]) -> dict[str, str]:
    """Refer to an artefact as an input: its kind, absolute path and digest.

    Reads the header only, so it costs milliseconds whatever the size.

    Raises
    ------
    InputError
        Missing, partial, foreign or damaged.
    """
    provenance, digest = _head_of(path)
    return {"kind": provenance.kind, "path": os.path.abspath(path), "digest": digest}


def check_output(
    path: str | os.PathLike[str], kind: str, options: Any, inputs: Mapping[str, Reference], *, force: bool = False
) -> bool:
    """Decide what to do about an output that may exist already.

    Returns
    -------
    bool
        True: it is complete and current, use it.  False: make it (replacing what is there).

    Raises
    ------
    OutputExists
        It was made with other options or inputs (the message names the fields that differ),
        and ``force`` is false; or it is no debugnet artefact, which even ``force`` keeps.
    """
    if not os.path.lexists(path):
        return False
    try:
        found = read_provenance(path)
    except InputError as error:
        if force and _is_ours(Path(path)):
            return False
        way_out = "--force replaces it" if _is_ours(Path(path)) else "choose another output"
        raise OutputExists(f"{path} exists and cannot be read as an artefact ({error}); {way_out}") from error
    if force:
        return False
    if difference := describe_difference(found, collect(kind, options, inputs)):
        raise OutputExists(f"{path} exists, made with {difference}; --force replaces it")
    return True


def _is_ours(path: Path) -> bool:
    """Whether something unreadable is at least the damaged remains of an artefact (or empty)."""
    if path.is_dir():
        return (path / "manifest.json").exists() or not any(path.iterdir())
    from debugnet.artifacts.container import MAGIC

    with open(path, "rb") as file:
        return file.read(len(MAGIC)) in (MAGIC, b"")


def describe_difference(found: Provenance, wanted: Provenance) -> str:
    """Say in words what sets one making apart from another; "" where they make the same.

    Options are compared by their values, not by the keys: one that only one of the two knows (a
    release has added or removed it) is no difference while it stands at its default there.
    """
    if found.kind != wanted.kind:
        return f"kind {found.kind} instead of {wanted.kind}"
    if found.schema != wanted.schema:
        return f"schema {found.schema} instead of {wanted.schema}"
    differences = []
    for name in {**wanted.options, **found.options}:
        if name in found.options and name in wanted.options:
            same = found.options[name] == wanted.options[name]
        else:
            same = name in {*found.defaults, *wanted.defaults}
        if not same:
            before, now = (_brief(m.options[name]) if name in m.options else "unset" for m in (found, wanted))
            said = "another revision of the command" if name == "revision" else f"{name} {before} instead of {now}"
            differences.append(said)
    for role in sorted({*found.inputs, *wanted.inputs}):
        old, new = found.inputs.get(role), wanted.inputs.get(role)
        if old is None or new is None or (old["kind"], old["digest"]) != (new["kind"], new["digest"]):
            differences.append(f"another {role} ({(old or {}).get('path', 'none')})")
    return ", ".join(differences)


def _brief(value: Any) -> str:
    text = json.dumps(jsonable(value), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
