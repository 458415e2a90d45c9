"""Folder artefacts: files and a ``manifest.json`` that says where they come from and what they are.

Two ways to make one: all at once inside `write_bundle`, or record by record with `BundleWriter`,
which goes on where an interrupted run stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debugnet.artifacts import atomic
from debugnet.artifacts.canonical import canonical_json, jsonable, parse_json
from debugnet.artifacts.provenance import Provenance, describe_difference, read_manifest
from debugnet.errors import InputError, OutputExists

if TYPE_CHECKING:
    from typing_extensions import Self

MANIFEST = "manifest.json"
#: Says inside a partial folder what it is to become.
PARTIAL = "partial.json"


def write_manifest(folder: Path, provenance: Provenance) -> str:
    """Write ``manifest.json`` for all files that are in ``folder`` now; returns the digest.

    The digest is the sha256 of the canonical JSON of ``{file name: sha256}``.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST, PARTIAL):
            files[name] = _sha256(path)
    digest = hashlib.sha256(canonical_json(files)).hexdigest()
    manifest = {"provenance": provenance.to_json(), "digest": digest, "files": files}
    text = json.dumps(jsonable(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
    return digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def write_bundle(path: str | os.PathLike[str], provenance: Provenance) -> Iterator[Path]:
    """Make a folder artefact in one go.

    Yields
    ------
    Path
        An empty folder to write into; with a manifest it takes the name ``path`` when the
        block ends, and an artefact that was there before is gone then, not earlier.
    """
    with atomic.lock(path), atomic.atomic_directory(path, replace=True) as folder:
        yield folder
        write_manifest(folder, provenance)


def verify_bundle(path: str | os.PathLike[str]) -> None:
    """Check every file of a folder artefact against its manifest.

    Raises
    ------
    InputError
        A file is missing, or was changed.
    """
    for name, digest in read_manifest(path)["files"].items():
        file = Path(path) / name
        if ".." in Path(name).parts or not file.is_file() or _sha256(file) != digest:
            raise InputError(f"{file} is missing or was changed since it was written: make {path} again")


def write_json(path: Path, content: Any) -> None:
    """Write strict, readable JSON: NaN becomes null."""
    text = json.dumps(jsonable(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")


def read_json(path: Path) -> Any:
    """Read a JSON file of an artefact.

    Raises
    ------
    InputError
        Missing or not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): make it again") from error


class PartialFolder:
    """A folder ``path.partial/`` that grows until its artefact is finished, and survives interruption.

    The lock of ``path`` is held until `close` (or the end of the ``with`` block).

    Parameters
    ----------
    path : path
    provenance : Provenance
        Its key decides whether a partial folder can be gone on with.
    force : bool
        Discard a partial folder that was made with other options.

    Raises
    ------
    OutputExists
        A partial folder made with other options is there.
    Locked
        Another process is writing it.
    """

    def __init__(self, path: str | os.PathLike[str], provenance: Provenance, *, force: bool = False) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(self.path.name + ".partial")
        self._provenance = provenance
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(atomic.lock(self.path))
        try:
            with atomic.storage_errors(self.path):
                _open_partial(self.folder, provenance, force)
                self._resume()
        except BaseException:
            self.close()
            raise

    def _resume(self) -> None:
        """Find out what the folder holds already."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def discard(self) -> None:
        """Remove what was added: it led nowhere, and would stand in the way of other options."""
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Let go of the lock; what was added stays and can be gone on with."""
        self._closing.close()


class BundleWriter(PartialFolder):
    """A folder artefact that grows record by record.

    Each record is one line of ``records.jsonl`` (``{"key": ..., "value": ...}``), added after the
    files that it names.  Parameters and errors are those of `PartialFolder`.
    """

    def _resume(self) -> None:
        """Read the whole lines and cut off a torn last one."""
        descriptor = os.open(self.folder / "records.jsonl", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._closing.callback(os.close, descriptor)
        self._descriptor, self._end = descriptor, 0
        self._records: dict[str, Any] = {}
        with open(self.folder / "records.jsonl", "rb") as file:
            for line in file:
                try:
                    record = parse_json(line)
                    self._records[record["key"]] = record["value"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    del self._records[record["key"]]
                    break
                self._end += len(line)
        os.ftruncate(descriptor, self._end)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    @property
    def records(self) -> Mapping[str, Any]:
        """What has been added so far, by key."""
        return self._records

    def add(self, key: str, value: Any, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Add a record, durably.

        Parameters
        ----------
        key : str
            Content key of the record; adding one that is there raises ValueError.
        value : JSON-able
            NaN becomes null.
        arrays : mapping of str to ndarray, optional
            Stored as ``arrays/<sha256 of the key, 16 digits>.npz``; see `load_arrays`.
        """
        if key in self._records:
            raise ValueError(f"record {key!r} is there already")
        with atomic.storage_errors(self.path):
            if arrays:
                with atomic.atomic_file(self.folder / array_file(key)) as temporary:
                    _write_npz(temporary, arrays)
            line = canonical_json({"key": key, "value": value}) + b"\n"
            atomic.write_all(self._descriptor, line, self._end)
            os.fsync(self._descriptor)
        self._end += len(line)
        self._records[key] = jsonable(value)

    def finish(self, provenance: Provenance | None = None) -> Path:
        """Write the manifest and give the folder its final name."""
        with atomic.storage_errors(self.path):
            for leftover in self.folder.rglob(".*.tmp"):  # of a kill in the middle of a small file
                leftover.unlink()
            write_manifest(self.folder, provenance or self._provenance)
            atomic.publish_directory(self.folder, self.path)
            (self.path / PARTIAL).unlink()  # last: until the name is final, it is what makes the folder resumable
        self.close()
        return self.path


def _open_partial(folder: Path, provenance: Provenance, force: bool = False) -> bool:
    """Make ``folder``, or find that it can be gone on with (True).

    Raises
    ------
    OutputExists
        It was begun with other options, and ``force`` is false.
    """
    note = folder / PARTIAL
    if note.exists():
        found = Provenance.from_json(read_json(note))
        difference = describe_difference(found, provenance)
        if not difference:
            return True
        if not force:
            raise OutputExists(f"{folder} is there, begun with {difference}; --force discards it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with atomic.atomic_file(note) as temporary:
        write_json(temporary, provenance.to_json())
    return False


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write as ``numpy.savez_compressed`` does, but without the time of day: equal arrays, equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def array_file(key: str) -> str:
    """Name of the file that holds a record's arrays, relative to the folder."""
    return f"arrays/{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def read_records(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the records of a finished folder, in the order in which they were added.

    Raises
    ------
    InputError
        Not an artefact, or damaged.
    """
    read_manifest(path)
    file = Path(path) / "records.jsonl"
    try:
        lines = [parse_json(line) for line in file.read_bytes().splitlines()]
        return {line["key"]: line["value"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error}): make {path} again") from error


def load_arrays(path: str | os.PathLike[str], key: str) -> dict[str, np.ndarray]:
    """Read the arrays of one record; pickled objects are refused.

    Raises
    ------
    InputError
        The record has no arrays, or they are damaged.
    """
    file = Path(path) / array_file(key)
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own on damaged bytes
        raise InputError(f"{file} cannot be read ({error}): make {path} again") from error
