"""Kills, power cuts and full disks at every system call of a short extraction: it resumes to the same bytes."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debugnet.artifacts import partial_rows
from debugnet.artifacts.feature_store import load_features
from debugnet.errors import InputError, Locked, StorageError

CALLS = ("open", "pwrite", "fsync", "ftruncate", "posix_fallocate", "replace", "unlink")


@pytest.fixture(autouse=True)
def sync_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_rows, "_SYNC_BYTES", 0)
    # a kill spares the page cache, and thousands of real ones take minutes
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def expected(extraction: Any, tmp_path: Path) -> bytes:
    """The bytes of an extraction that nothing interrupts."""
    return extraction.run(tmp_path / "undisturbed" / "f.h5").read_bytes()


def count_calls(run: Callable[[], Any], intervene: Callable[[int, str, tuple[Any, ...]], None]) -> int:
    """Run with ``intervene(number, name, arguments)`` before each of CALLS; returns how many there were."""
    numbers = itertools.count()
    total = 0
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            real = getattr(os, name)

            def call(*arguments: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
                nonlocal total
                total += 1
                intervene(next(numbers), _name, arguments)
                return _real(*arguments, **options)

            patch.setattr(os, name, call)
        run()
    return total


def run_and_kill(work: Callable[[], Any]) -> int:
    """Run in a forked child; returns the signal it died of (0: it ended)."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_at(k: int, torn: bool) -> Callable[[int, str, tuple[Any, ...]], None]:
    def intervene(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if number == k:
            if torn and name == "pwrite":
                descriptor, data, offset = arguments
                os.lseek(descriptor, offset, os.SEEK_SET)
                os.write(descriptor, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    return intervene


@pytest.mark.parametrize("torn", [False, True])
def test_a_kill_at_any_system_call_costs_at_most_the_batch_in_flight(
    extraction: Any, expected: bytes, tmp_path: Path, torn: bool
) -> None:
    names: list[str] = []
    count_calls(lambda: extraction.run(tmp_path / "count" / "f.h5"), lambda _, name, __: names.append(name))
    assert names.count("pwrite") > 20
    for k in (k for k, name in enumerate(names) if not torn or name == "pwrite"):
        path = tmp_path / str(k) / "f.h5"
        acknowledged, report = os.pipe()
        work = dataclasses.replace(extraction, on_batch=lambda report=report: os.write(report, b"."))
        assert run_and_kill(lambda: count_calls(lambda: work.run(path), kill_at(k, torn))) == signal.SIGKILL  # noqa: B023
        os.close(report)
        n_kept = len(os.read(acknowledged, 1000))
        os.close(acknowledged)
        if path.exists():
            assert path.read_bytes() == expected  # the final name is there: so is all of it
        else:
            again: list[int] = []
            resumed = dataclasses.replace(extraction, on_batch=lambda: again.append(1))  # noqa: B023
            resumed.run(path)
            assert len(again) + n_kept <= 7 and path.read_bytes() == expected
        assert set(os.listdir(path.parent)) <= {"f.h5", "f.h5.lock", "f.h5.partial.journal"}


def test_kills_upon_kills_at_random_moments(extraction: Any, expected: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / str(i) / "f.h5"
        extraction.batch = int(rng.integers(1, 12))
        while not path.exists():
            k = int(rng.integers(5, 150))
            run_and_kill(lambda: count_calls(lambda: extraction.run(path), kill_at(k, True)))  # noqa: B023
        assert path.read_bytes() == expected


class Disk:
    """Remembers what was written and what was synced, and makes up what a power cut may leave."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str, Any]] = []  # name, path, (offset, bytes) or None

    def record(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("pwrite", "fsync", "ftruncate", "posix_fallocate"):
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
            what = (arguments[2], bytes(arguments[1])) if name == "pwrite" else arguments[-1]
            self.operations.append((name, path, what))

    def after_cut(self, stop: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
        """Yield (path, content): each write since the file's last sync may be lost, torn or kept."""
        for path in dict.fromkeys(path for _, path, _ in self.operations):
            content = bytearray()
            done = [(name, what) for name, p, what in self.operations[:stop] if p == path]
            synced = max((i for i, (name, _) in enumerate(done) if name == "fsync"), default=-1)
            for i, (name, what) in enumerate(done):
                if name in ("ftruncate", "posix_fallocate"):
                    content.extend(bytes(max(0, what - len(content))))
                if name != "pwrite" or (i > synced and rng.random() < 0.3):
                    continue
                offset, data = what
                if i > synced and rng.random() < 0.3:
                    data = data[: rng.integers(len(data))]
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
            yield path, bytes(content)


def test_a_power_cut_costs_at_most_what_was_not_synced(extraction: Any, expected: bytes, tmp_path: Path) -> None:
    disk, path = Disk(), tmp_path / "f.h5"
    synced_batches: list[int] = []
    extraction.on_batch = lambda: synced_batches.append(len(disk.operations))
    count_calls(lambda: extraction.run(path), disk.record)
    path.unlink()
    files = {str(path) + ".partial", str(path) + ".partial.journal"}
    rng = np.random.default_rng(0)
    for i in range(150):
        stop = int(rng.integers(4, len(disk.operations)))
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        (tmp_path / "cut").mkdir()
        for name, content in disk.after_cut(stop, rng):
            if name in files:
                (tmp_path / "cut" / Path(name).name).write_bytes(content)
        again: list[int] = []
        work = dataclasses.replace(extraction, on_batch=lambda again=again: again.append(1))
        assert work.run(tmp_path / "cut" / "f.h5").read_bytes() == expected, i
        safe = sum(position <= stop for position in synced_batches)
        assert len(again) <= len(synced_batches) - safe


def test_a_full_disk_is_a_storage_error_and_what_was_whole_stays(
    extraction: Any, expected: bytes, tmp_path: Path
) -> None:
    n_calls = count_calls(lambda: extraction.run(tmp_path / "count" / "f.h5"), lambda *_: None)
    for k in range(n_calls):
        path = tmp_path / f"{k}" / "f.h5"
        path.parent.mkdir()
        path.write_bytes(b"an earlier file")
        failed = []

        def fail(number: int, name: str, arguments: tuple[Any, ...]) -> None:
            makes = name != "open" or arguments[1] & os.O_CREAT
            if number == k and makes and name not in ("unlink", "ftruncate"):  # noqa: B023
                failed.append(name)  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        try:
            count_calls(lambda: extraction.run(path), fail)  # noqa: B023
        except StorageError as error:
            assert failed and error.exit_code == 6 and "\n" not in str(error)
            assert path.read_bytes() in (b"an earlier file", expected)
        else:
            assert not failed
        assert extraction.run(path).read_bytes() == expected


def test_a_file_size_limit_ends_in_a_storage_error_before_any_work(extraction: Any, tmp_path: Path) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            extraction.run(tmp_path / "f.h5")
        except StorageError:
            os._exit(0 if not (tmp_path / "f.h5.partial").exists() else 1)

    assert run_and_kill(work) == 0


def test_an_unwritable_folder_is_a_storage_error(extraction: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        extraction.run(tmp_path / "file" / "f.h5")


def test_two_writers_of_one_file_exclude_each_other(extraction: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"

    def intrude() -> None:
        with pytest.raises(Locked):
            extraction.run(path)

    work = dataclasses.replace(extraction, on_batch=lambda: run_and_kill(intrude))
    assert load_features(work.run(path), verify=True).split("train").ids[0] == "train/ä0"


def test_a_torn_or_garbled_journal_is_believed_up_to_there(extraction: Any, expected: bytes, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    batches = itertools.count(1)

    def stop() -> None:
        if next(batches) == 4:
            raise Stop

    path = tmp_path / "f.h5"
    with pytest.raises(Stop):
        dataclasses.replace(extraction, on_batch=stop).run(path)
    journal, partial = (tmp_path / f"f.h5.partial{end}" for end in (".journal", ""))
    lines, rows = journal.read_bytes().splitlines(keepends=True), partial.read_bytes()
    assert len(lines) == 5
    damages = {
        2: [*lines[:3], b"garbage\xff\n", *lines[4:]],
        1: [lines[0], lines[1], lines[3], lines[4]],  # a line is missing: rows do not follow on
        4: lines + [lines[4][:-3]],
        3: [*lines[:4], lines[4].replace(b"train", b"trein")],
        0: [b"\0" * 100],
    }
    for kept, damaged in damages.items():
        partial.write_bytes(rows)
        journal.write_bytes(b"".join(damaged))
        again: list[int] = []
        dataclasses.replace(extraction, on_batch=lambda again=again: again.append(1)).run(path)
        assert len(again) == 7 - kept
        assert path.read_bytes() == expected


def test_rows_that_the_disk_changed_are_noticed_before_the_file_is_published(extraction: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    last = iter([False] * 6 + [True])

    def corrupt() -> None:
        if next(last):
            with open(str(path) + ".partial", "r+b") as file:
                file.seek(file.read().index(extraction.features["train"][0].tobytes()))
                file.write(b"\xff")

    with pytest.raises(InputError, match="does not hold what was written to it"):
        dataclasses.replace(extraction, on_batch=corrupt).run(path)
    assert not path.exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_real_kills_by_the_kernel_at_real_writes(tmp_path: Path) -> None:
    script = (
        "import numpy as np, pathlib, sys\n"
        "from debugnet.artifacts.feature_store import create_feature_store\n"
        "from debugnet.artifacts.provenance import Provenance\n"
        "p = Provenance('features', 1, 'k', {}, {}, {}, 0, 'cpu', {}, [], '', 0.0, 0)\n"
        "X = np.arange(80, dtype='f4').reshape(40, 2)\n"
        "with create_feature_store(sys.argv[1], {'train': 40}, 2, provenance=p) as w:\n"
        "    while (i := w.next_row('train')) < 40: w.write('train', i, X[i:i+8])\n"
        "    w.finish(labels={'train': np.zeros(40, int)}, ids={'train': 'x' * 40}, task='single-label',\n"
        "             class_names=['a'], config={})\n"
    )
    plain = [sys.executable, "-c", script]
    subprocess.run([*plain, tmp_path / "undisturbed.h5"], check=True)
    for k in (3, 8, 15):
        path = tmp_path / f"{k}.h5"
        trace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]
        killed = subprocess.run([*trace, f"inject=pwrite64:signal=KILL:when={k}", *plain, path])
        if killed.returncode == 1:
            pytest.skip("strace may not trace here")
        assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) and not path.exists()
        subprocess.run([*plain, path], check=True)
        assert path.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()
