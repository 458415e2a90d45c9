"""Files and folders that are either there whole or not there at all.

Every artefact is written beside its final name and renamed once it is complete and on the disk, so a
reader never meets half a file and a failed run never costs a whole one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from debugnet.errors import Locked, OutputExists, StorageError

#: What the machine, not the program, is to blame for, and the way out.
_STORAGE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file is larger than this file system or ulimit -f allows",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.EACCES: "permission denied: choose another output",
    errno.EPERM: "not permitted: choose another output",
    errno.EIO: "the device reports an input/output error",
    errno.ENOTDIR: "a parent of it is a file, not a folder: choose another output",
    errno.EEXIST: "a parent of it is a file, not a folder: choose another output",
    errno.EISDIR: "it is a folder, and a file is to be written: choose another output",
    errno.ENAMETOOLONG: "the name is too long: choose another output",
}
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the OSErrors that a disk can cause into one clear line.

    Raises
    ------
    StorageError
        For a full or read-only disk, a quota, a size limit, or missing permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        raise StorageError(f"cannot write {os.fspath(path)}: {_STORAGE_ERRORS[error.errno]}") from error


def sync_file(path: str | os.PathLike[str]) -> None:
    """Force a file's bytes (or a folder's list of names) onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """``os.pwrite`` everything: the system may write less than asked."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def allocate(descriptor: int, size: int) -> None:
    """Reserve the disk space of a file's first ``size`` bytes, so that a full disk shows now."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        space = os.fstatvfs(descriptor)  # a system or file system that cannot reserve: the next best is to ask
        if space.f_bavail * space.f_frsize < size - os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)


def publish(source: Path, target: Path) -> None:
    """Rename ``source`` (a file, already on the disk) to ``target``, and make the name last."""
    os.replace(source, target)
    sync_file(target.parent)


def make_parent(path: Path) -> None:
    """Create the folder that ``path`` is to lie in."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that its final name only ever shows the whole of it.

    Parameters
    ----------
    path : path
        The final name; parents are made.  An existing file is replaced.

    Yields
    ------
    Path
        A name in the same folder to write to.  It is synced and renamed when the block
        ends, and removed when the block raises.

    Raises
    ------
    StorageError
        Disk full, read-only, permission or quota; what was there before stays.
    """
    path = Path(path)
    make_parent(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with storage_errors(path):
            yield temporary
            sync_file(temporary)
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Write a folder so that its final name only ever shows the whole of it.

    Parameters
    ----------
    path : path
        The final name; parents are made.
    replace : bool
        Whether an existing folder may be replaced.  Only an empty folder or one with a
        ``manifest.json`` (an artefact) ever is.

    Yields
    ------
    Path
        An empty folder beside it to write into.

    Raises
    ------
    OutputExists
        ``path`` exists, and ``replace`` is false or it is not an artefact.
    StorageError
        Disk full, read-only, permission or quota; what was there before stays.
    """
    path = Path(path)
    make_parent(path)
    _refuse_foreign(path, replace)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with storage_errors(path):
            temporary.mkdir()
            yield temporary
            publish_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_directory(source: Path, target: Path) -> None:
    """Sync the folder ``source`` and rename it to ``target``; a folder there before is removed.

    The two are exchanged in one step where the system can (Linux), so there is no moment
    without a whole folder under the final name.
    """
    for folder, _, names in os.walk(source):
        for name in names:
            sync_file(os.path.join(folder, name))
        sync_file(folder)
    if not target.exists():
        os.rename(source, target)
    elif _exchange(source, target):
        shutil.rmtree(source)
    else:
        old = source.with_suffix(".old")
        os.rename(target, old)
        os.rename(source, target)
        shutil.rmtree(old)
    sync_file(target.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one system call; False where that is not supported."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    return libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def _refuse_foreign(path: Path, replace: bool) -> None:
    if not path.exists():
        return
    if not replace:
        raise OutputExists(f"{path} exists: choose another output, or --force to replace it")
    if not path.is_dir() or (any(path.iterdir()) and not (path / "manifest.json").is_file()):
        raise OutputExists(f"{path} exists and is not a debugnet folder, so it is not replaced: choose another output")


_held: dict[tuple[int, str], int] = {}  # by process and name: a forked child holds nothing


@contextlib.contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the right to write the artefact ``path``, through ``path.lock`` beside it.

    The lock goes with the process: a killed writer leaves none, and its worker processes do
    not inherit it.  It is re-entrant, so a stage may hold it around a writer that takes it too.

    Raises
    ------
    Locked
        Another process holds it (exit 75).
    StorageError
        The folder cannot be written to.
    """
    path = Path(path)
    make_parent(path)
    name = os.fspath(path.resolve()) + ".lock"
    holder = os.getpid(), name
    if holder in _held:
        yield
        return
    descriptor = _acquire(name, path)
    _held[holder] = descriptor
    try:
        yield
    finally:
        del _held[holder]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # while it is still locked: nobody can hold the name that goes
        os.close(descriptor)


def _acquire(name: str, path: Path) -> int:
    while True:
        with storage_errors(path):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Locked(f"another process ({holder or 'unknown'}) is writing {path}: wait for it to end") from None
        except OSError as error:
            os.close(descriptor)
            raise StorageError(f"cannot lock {path}: its file system has no locks ({error.strerror})") from error
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # the last holder removed the name between our open and our lock
    with storage_errors(path):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor
