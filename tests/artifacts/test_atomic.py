"""Files and folders appear whole or not at all, and locks keep writers apart."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from debugnet.artifacts import atomic
from debugnet.artifacts.atomic import atomic_directory, atomic_file, lock, storage_errors
from debugnet.errors import Locked, OutputExists, StorageError


def test_a_file_appears_with_its_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "deep" / "file") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "file").exists()
    assert (tmp_path / "deep" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "deep") == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_replaced_in_one_step_and_only_when_it_is_an_artefact(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("first", "second"):
        with atomic_directory(folder, replace=True) as temporary:
            (temporary / "manifest.json").write_text(content)
        assert (folder / "manifest.json").read_text() == content
    with pytest.raises(OutputExists), atomic_directory(folder):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("meow")
    with (
        pytest.raises(OutputExists, match="not a debugnet folder"),
        atomic_directory(tmp_path / "photos", replace=True),
    ):
        pass
    assert sorted(os.listdir(tmp_path)) == ["folder", "photos"]


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)
    test_a_folder_is_replaced_in_one_step_and_only_when_it_is_an_artefact(tmp_path)


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG])
def test_what_the_disk_causes_is_a_storage_error_of_one_line(code: int) -> None:
    with pytest.raises(StorageError, match="cannot write here") as caught, storage_errors("here"):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)


def test_other_os_errors_stay_what_they_are() -> None:
    with pytest.raises(BrokenPipeError), storage_errors("here"):
        raise BrokenPipeError(errno.EPIPE, "")


def test_a_file_as_parent_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), atomic_file(tmp_path / "file" / "inside" / "x"):
        pass


def _fork(work) -> int:  # type: ignore[no-untyped-def]
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def test_a_lock_excludes_another_process_and_goes_with_it(tmp_path: Path) -> None:
    ready, done = os.pipe()

    def hold() -> None:
        with lock(tmp_path / "x"):
            os.write(done, b"!")
            signal.pause()

    child = _fork(hold)
    os.read(ready, 1)
    with pytest.raises(Locked, match=f"pid {child}") as caught, lock(tmp_path / "x"):
        pass
    assert caught.value.exit_code == 75
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lock(tmp_path / "x"), lock(tmp_path / "x"):
        assert (tmp_path / "x.lock").exists()
    assert not (tmp_path / "x.lock").exists()


def test_a_worker_process_does_not_keep_its_dead_parents_lock(tmp_path: Path) -> None:
    ready, done = os.pipe()

    def hold() -> None:
        with lock(tmp_path / "x"):
            worker = os.fork()
            if worker == 0:
                signal.pause()
            os.write(done, b"%d\n" % worker)
            signal.pause()

    child = _fork(hold)
    worker = int(os.read(ready, 20))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        with lock(tmp_path / "x"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    descriptor = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    atomic.write_all(descriptor, b"0123456789", 2)
    os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == b"\0\x000123456789"


def test_space_is_asked_for_where_it_cannot_be_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    descriptor = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    atomic.allocate(descriptor, 1000)
    assert os.fstat(descriptor).st_size == 1000
    with pytest.raises(OSError) as caught:
        atomic.allocate(descriptor, 1 << 60)
    assert caught.value.errno == errno.ENOSPC
    os.close(descriptor)
