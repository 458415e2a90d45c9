"""Folders that grow record by record go on where they were interrupted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import BundleWriter, load_arrays, read_records, verify_bundle, write_bundle, write_json
from debugnet.artifacts.provenance import collect, read_provenance
from debugnet.errors import InputError, OutputExists

PROVENANCE = collect("explanations", {"method": "lime"}, {})


def fill(path: Path, n: int = 5, stop_after: int | None = None) -> list[str]:
    """Add n records, kill the process after some; returns the keys that had to be made."""
    made = []
    with BundleWriter(path, PROVENANCE) as writer:
        for i in range(n):
            if (key := f"sample {i}") in writer:
                continue
            writer.add(key, {"score": float("nan"), "words": ["ä", i]}, {"mask": np.full((2, 2), i)})
            made.append(key)
            if len(made) == stop_after:
                os.kill(os.getpid(), signal.SIGKILL)
        writer.finish()
    return made


def content(path: Path) -> dict[str, bytes]:
    """Content of every file by name."""
    return {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_records_and_arrays_come_back(tmp_path: Path) -> None:
    assert len(fill(tmp_path / "e")) == 5
    records = read_records(tmp_path / "e")
    assert list(records) == [f"sample {i}" for i in range(5)]
    assert records["sample 3"] == {"score": None, "words": ["ä", 3]}
    np.testing.assert_array_equal(load_arrays(tmp_path / "e", "sample 3")["mask"], np.full((2, 2), 3))
    assert read_provenance(tmp_path / "e") == PROVENANCE
    verify_bundle(tmp_path / "e")
    assert sorted(os.listdir(tmp_path / "e")) == ["arrays", "manifest.json", "records.jsonl"]
    assert os.listdir(tmp_path) == ["e"]


def test_a_killed_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        fill(tmp_path / "e", stop_after=3)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with open(tmp_path / "e.partial" / "records.jsonl", "ab") as file:
        file.write(b'{"key":"sample 3","value":{"sco')
    assert fill(tmp_path / "e") == ["sample 3", "sample 4"]
    fill(tmp_path / "undisturbed")
    assert content(tmp_path / "e") == content(tmp_path / "undisturbed")


def test_a_kill_at_any_moment_of_finishing_loses_nothing(tmp_path: Path) -> None:
    for k in range(100):
        path = tmp_path / str(k) / "e"
        child = os.fork()
        if child == 0:
            calls = iter(range(1000))
            for name in ("fsync", "rename", "replace", "unlink", "open"):
                real = getattr(os, name)

                def call(*arguments, _real=real, **options):  # type: ignore[no-untyped-def]
                    if next(calls) == k:  # noqa: B023
                        os.kill(os.getpid(), signal.SIGKILL)
                    return _real(*arguments, **options)

                setattr(os, name, call)
            fill(path, n=2)
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if not path.exists():
            fill(path, n=2)
        assert len(read_records(path)) == 2
        verify_bundle(path)
        if finished:
            break
    assert finished and k > 20


def test_other_options_and_repeated_keys_are_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "e", PROVENANCE) as writer:
        writer.add("a", 1)
        assert dict(writer.records) == {"a": 1}
        with pytest.raises(ValueError, match="'a' is there already"):
            writer.add("a", 2)
    other = collect("explanations", {"method": "occlusion"}, {})
    with pytest.raises(OutputExists, match='begun with method "lime" instead of "occlusion"'):
        BundleWriter(tmp_path / "e", other)
    with BundleWriter(tmp_path / "e", other, force=True) as writer:
        assert "a" not in writer


def test_damaged_records_and_arrays_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "e")
    (tmp_path / "e" / "records.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(InputError, match="records.jsonl is damaged"):
        read_records(tmp_path / "e")
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(tmp_path / "e", "unknown")
    np.savez(tmp_path / "bad.npz", x=np.array([object()]), allow_pickle=True)
    (file,) = (p for p in (tmp_path / "e" / "arrays").iterdir() if np.load(p)["mask"][0, 0] == 2)
    file.write_bytes((tmp_path / "bad.npz").read_bytes())
    with pytest.raises(InputError, match="cannot be read .*allow_pickle"):
        load_arrays(tmp_path / "e", "sample 2")


def test_json_is_strict(tmp_path: Path) -> None:
    with write_bundle(tmp_path / "b", PROVENANCE) as folder:
        write_json(folder / "x.json", {"nan": float("nan"), "array": np.arange(2), "path": Path("p")})
    assert json.loads((tmp_path / "b" / "x.json").read_text()) == {"nan": None, "array": [0, 1], "path": "p"}
