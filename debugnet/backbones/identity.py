"""A digest of a network's files, computed without torch: a finished stage must answer at once."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

from debugnet.backbones.spec import NETWORK_FILE, WEIGHTS_FILE, BackboneSpec, current_folder_importable
from debugnet.errors import InputError

#: What of a model folder can change its output.
_MODEL_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".bin"}
#: Hashing less than this is faster than looking up what it was last time.
_REMEMBERED_BYTES = 64 << 20


def network_digest(spec: BackboneSpec, *, online: bool = False) -> str:
    """Digest of everything that decides what a network computes, except the options in ``spec``.

    Weights files and model folders count by content, wherever they lie.  A torchvision enum member
    counts by its name, a Hugging Face id by the commit it stands for, a ``python:`` factory by its
    name and its source file (what that imports is not seen).

    Parameters
    ----------
    spec : BackboneSpec
    online : bool
        Whether an id that is not on this machine yet may be looked up.

    Returns
    -------
    str
        sha256, 64 hexadecimal digits.

    Raises
    ------
    InputError
        If a file is missing.
    """
    parts = [spec.entry]
    folder = spec.local_folder
    if spec.entry == "python":
        parts += [spec.name, _source_digest(spec.name)]
    elif folder is not None:
        ours = (NETWORK_FILE, WEIGHTS_FILE) if spec.entry == "network-folder" else None
        files = [p for p in sorted(folder.iterdir()) if p.suffix in _MODEL_SUFFIXES and p.is_file()]
        files = [p for p in files if ours is None or p.name in ours]  # not what else an artefact tells of itself
        parts += [f"{path.name} {file_digest(path)}" for path in files]
    elif spec.entry == "hugging-face":
        parts += [spec.name, _commit(spec.name, online)]
    weights = spec.weights_file
    parts.append(str(spec.weights) if weights is None else file_digest(weights))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def network_path(spec: BackboneSpec) -> str:
    """What to name as the place of the network: its file, its folder, or its name."""
    place = spec.weights_file or spec.local_folder
    return spec.name if place is None else str(place.resolve())


def file_digest(path: Path) -> str:
    """sha256 of a file; that of a large one is remembered until its size or time of change differ."""
    try:
        state = path.stat()
        known = _memory(path) if state.st_size > _REMEMBERED_BYTES else None
        stamp = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino]
        if known is not None:
            with contextlib.suppress(OSError, ValueError):
                remembered = json.loads(known.read_text(encoding="utf-8"))
                if remembered[:-1] == stamp:
                    return str(remembered[-1])
        hasher = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    digest = hasher.hexdigest()
    if known is not None:
        with contextlib.suppress(OSError):  # a memory that cannot be kept costs time, nothing else
            _remember(known, [*stamp, digest])
    return digest


def _memory(path: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "debugnet" / "digests" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _remember(place: Path, content: list[object]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(file.name, place)


def _source_digest(name: str) -> str:
    module = name.removeprefix("python:").partition(":")[0]
    with current_folder_importable():
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise InputError(f"--backbone {name}: cannot import '{module}' ({error})") from error
    if found is None:
        raise InputError(f"--backbone {name}: no module '{module}'; is it installed or in this folder?")
    return file_digest(Path(found.origin)) if found.origin and Path(found.origin).is_file() else ""


def _commit(name: str, online: bool) -> str:
    """The commit that an id stands for ("" when it is not on this machine: loading will say so, and what to do)."""
    from huggingface_hub import hf_hub_download

    identifier, _, revision = name.partition("@")
    try:
        path = hf_hub_download(identifier, "config.json", revision=revision or None, local_files_only=not online)
    except (OSError, ValueError) as error:  # what huggingface_hub raises derives from these
        if online:
            reason = str(error).splitlines()[0]
            raise InputError(f"--backbone {name}: not found on the Hugging Face hub ({reason})") from error
        return ""
    return Path(path).parent.name
