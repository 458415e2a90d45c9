"""A damaged, foreign or hostile file gets one line, never a crash: libhdf5 never sees it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from debugnet.artifacts.container import MAGIC, USER_BLOCK, _seal_block, read_header
from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.path_store import load_path
from debugnet.artifacts.provenance import read_provenance
from debugnet.errors import DebugnetError, InputError


def read_everything(path: Path, verify: bool = False) -> None:
    store = load_features(path, verify=verify)
    for split in store.splits.values():
        _ = np.nansum(split.X), split.y, list(split.ids), split.status, split.groups
    _ = store.standardizer, store.dense_head, store.feature_min


def outcomes_in_a_child(mutants: Callable[[], Any], path: Path, read: Callable[[Path], Any]) -> dict[str, int]:
    """Read each mutant in a child process with a time limit; counts of "ok" and "InputError"."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        counts = {"ok": 0, "InputError": 0}
        try:
            for content in mutants():
                path.write_bytes(content)
                try:
                    read(path)
                    counts["ok"] += 1
                except InputError as error:
                    assert "\n" not in str(error) and path.name in str(error)
                    counts["InputError"] += 1
            os.write(done, json.dumps(counts).encode())
            os._exit(0)
        finally:
            os._exit(9)
    os.close(done)
    answer = os.read(ready, 1000)
    os.close(ready)
    assert os.waitpid(child, 0)[1] == 0
    found: dict[str, int] = json.loads(answer)
    return found


def flips(content: bytes, n: int) -> Any:
    rng = np.random.default_rng(0)
    for _ in range(n):
        mutant = bytearray(content)
        mutant[rng.integers(len(mutant))] ^= 1 << rng.integers(8)
        yield bytes(mutant)


def test_verify_finds_every_single_flipped_bit(extraction: Any, tmp_path: Path) -> None:
    content = extraction.run(tmp_path / "f.h5").read_bytes()
    found = outcomes_in_a_child(
        lambda: flips(content, 1500), tmp_path / "m.h5", lambda path: read_everything(path, verify=True)
    )
    assert found == {"ok": 0, "InputError": 1500}


def test_unverified_reading_of_damaged_files_never_crashes(extraction: Any, tmp_path: Path) -> None:
    content = extraction.run(tmp_path / "f.h5").read_bytes()
    found = outcomes_in_a_child(lambda: flips(content, 500), tmp_path / "m.h5", read_everything)
    assert found["InputError"] > 400  # only features and ids are not checked as they are read


def test_truncated_extended_and_spliced_files_are_refused(extraction: Any, tmp_path: Path) -> None:
    content = extraction.run(tmp_path / "f.h5").read_bytes()
    rng = np.random.default_rng(1)

    def mutants() -> Any:
        for _ in range(200):
            cut, to = sorted(rng.integers(len(content), size=2))
            yield content[:cut]
            yield content[:cut] + content[to:]
            yield content[:to] + content[cut:]
        yield b""
        yield content + b"\0"

    found = outcomes_in_a_child(mutants, tmp_path / "m.h5", lambda path: read_everything(path, verify=True))
    assert found["ok"] <= 3  # where both cuts fell together nothing was changed


def test_a_foreign_file_is_named_as_such(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.zeros((3, 2))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" + bytes(9000))
    for name in ("foreign.h5", "picture.png"):
        for read in (load_features, load_path, read_provenance):
            with pytest.raises(InputError, match=f"{name} is not a debugnet file") as caught:
                read(tmp_path / name)
            assert caught.value.exit_code == 3


@pytest.mark.parametrize("trick", ["external storage", "external link", "soft link", "incomplete"])
def test_a_store_that_was_changed_with_another_tool_is_refused(extraction: Any, tmp_path: Path, trick: str) -> None:
    path = extraction.run(tmp_path / "f.h5")
    (tmp_path / "secret").write_bytes(bytes(1000))
    with h5py.File(path, "r+") as file:
        if trick == "incomplete":
            file.attrs["complete"] = np.uint8(0)
        else:
            del file["test/labels"]
        if trick == "external storage":
            external = [(str(tmp_path / "secret"), 0, 80)]
            file.create_dataset("test/labels", (10,), "<i8", external=external)
        elif trick == "external link":
            file["test/labels"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        elif trick == "soft link":
            file["test/labels"] = h5py.SoftLink("/train/labels")
    with pytest.raises(InputError, match="is damaged"):
        load_features(path)


def reseal(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Forge a file: change its facts and its header, with all checksums made good."""
    import hashlib

    content = bytearray(path.read_bytes())
    facts = json.loads(content[len(MAGIC) + 9 : USER_BLOCK].rstrip(b"\0"))
    start, length = facts["header"]
    header = json.loads(content[start : start + length])
    header["provenance"]["versions"] = {}  # room, so that what is forged fits in the old place
    change(facts, header)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    assert len(text) == length
    content[start : start + length] = text
    facts["header"] = facts.get("forged", facts["header"])
    facts["header_sha256"] = hashlib.sha256(text).hexdigest()
    content[:USER_BLOCK] = _seal_block(facts)
    path.write_bytes(content)


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "offset": lambda facts, header: header["arrays"]["train/features"].update(offset=10**9),
    "negative offset": lambda facts, header: header["arrays"]["train/features"].update(offset=-8),
    "huge shape": lambda facts, header: header["arrays"]["train/features"].update(shape=[10**15, 5]),
    "object dtype": lambda facts, header: header["arrays"]["train/features"].update(dtype="|O"),
    "overlap": lambda facts, header: header["arrays"]["train/features"].update(
        offset=header["arrays"]["test/features"]["offset"]
    ),
    "other width": lambda facts, header: header["arrays"]["train/features"].update(shape=[5, 37]),
    "other length": lambda facts, header: header["arrays"]["train/labels"].update(shape=[1]),
    "no arrays": lambda facts, header: header.update(arrays=[]),
    "no meta": lambda facts, header: header.update(meta=None),
    "no task": lambda facts, header: header["meta"].pop("task"),
    "no provenance": lambda facts, header: header["provenance"].pop("key"),
    "header outside": lambda facts, header: facts.update(forged=[10**12, 100]),
    "header huge": lambda facts, header: facts.update(forged=[0, 10**12]),
    "size": lambda facts, header: facts.update(size="big"),
    "no digest": lambda facts, header: facts.pop("digest"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_header_with_good_checksums_is_refused(extraction: Any, tmp_path: Path, forgery: str) -> None:
    path = extraction.run(tmp_path / "f.h5")
    reseal(path, lambda facts, header: None)
    read_everything(path, verify=True)  # the forger's tool works
    reseal(path, lambda facts, header: FORGERIES[forgery](facts, header))
    with pytest.raises(InputError, match="f.h5"):
        read_everything(path)


def test_a_features_file_is_no_path_file(extraction: Any, tmp_path: Path) -> None:
    with pytest.raises(DebugnetError, match="is a features file, and a path file is needed"):
        load_path(extraction.run(tmp_path / "f.h5"))
    assert read_header(tmp_path / "f.h5").kind == "features"
