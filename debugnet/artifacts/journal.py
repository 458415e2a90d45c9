"""An append-only journal: one JSON value per line, each with the CRC-32 that vouches for it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debugnet.artifacts.atomic import write_all
from debugnet.artifacts.canonical import canonical_json


class Journal:
    """Lines that are whole are kept, whatever happened to the process after them.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._end = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def replay(self) -> Iterator[Any]:
        """Yield the values from the start up to the first line that is torn or damaged.

        Appending goes on after the last line that was taken from here; :meth:`cut` removes the rest.
        """
        size = os.fstat(self._descriptor).st_size
        content = os.pread(self._descriptor, size, 0)
        self._end = 0
        for line in content.splitlines(keepends=True):
            text, _, crc = line.rpartition(b" ")
            if crc != b"%08x\n" % zlib.crc32(text):
                return
            yield json.loads(text)
            self._end += len(line)

    def cut(self) -> None:
        """Remove everything after the last line that was taken as good."""
        os.ftruncate(self._descriptor, self._end)

    def append(self, value: Any) -> None:
        """Add a line."""
        text = canonical_json(value)
        line = text + b" %08x\n" % zlib.crc32(text)
        write_all(self._descriptor, line, self._end)
        self._end += len(line)

    def sync(self) -> None:
        """Force the lines onto the disk."""
        os.fsync(self._descriptor)
