"""Progress and log lines, all on stderr.

On a terminal a progress bar moves; elsewhere one line per 30 seconds says how far the work is,
how fast it goes and how long it will still take.  Work that takes less than that says nothing.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds between two lines when stderr is no terminal.
LINE_INTERVAL = 30.0

_quiet = False
_as_json = False

# Terminal control from a file name or a text must not reach the terminal; tab and newline may.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def configure(*, quiet: bool = False, log_json: bool = False) -> None:
    """Choose what reaches stderr: nothing but errors, or one JSON object per line."""
    global _quiet, _as_json
    _quiet, _as_json = quiet, log_json


def is_quiet() -> bool:
    """Whether nothing but errors reaches stderr."""
    return _quiet


def is_json() -> bool:
    """Whether messages are JSON."""
    return _as_json


def plain(text: str) -> str:
    """Return ``text`` without control and direction-changing characters (ESC becomes U+FFFD)."""
    return _CONTROL.sub("\ufffd", text)


def log(message: str, *, level: str = "info") -> None:
    """Write one message to stderr, above a moving bar if there is one."""
    if _quiet:
        return
    if _as_json:
        _write(json.dumps({"time": round(time.time(), 3), "level": level, "message": message}))
    else:
        _write(plain(message))


def duration(seconds: float) -> str:
    """Write seconds the way people say them: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """A count that grows, shown on stderr; use it as a context manager.

    Parameters
    ----------
    total : int, optional
        How many there are; without it no time left is shown.
    label : str
        What is going on, in two or three words.
    unit : str
        What is counted ("image", "lambda").
    initial : int
        How many were done before (a resumed run); they do not count into the rate.
    """

    def __init__(self, total: int | None = None, label: str = "", unit: str = "it", *, initial: int = 0) -> None:
        self.total, self.label, self.unit = total, plain(label), unit
        self.done = self._initial = initial
        self._notes = ""
        self._start = self._last = time.monotonic()
        self._bar = self._make_bar()

    def _make_bar(self) -> Any:
        if _quiet or _as_json or sys.stderr is None or not sys.stderr.isatty():
            return None
        from tqdm import tqdm

        return tqdm(
            total=self.total, desc=self.label or None, unit=self.unit, initial=self.done,
            file=sys.stderr, dynamic_ncols=True, leave=False, unit_scale=False,
        )  # fmt: skip

    def update(self, n: int = 1) -> None:
        """Count ``n`` more."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif not _quiet and time.monotonic() - self._last >= LINE_INTERVAL:
            self._last = time.monotonic()
            self._report()

    def postfix(self, **notes: object) -> None:
        """Show a few current values (``nnz=120, gap="1e-7"``) beside the count."""
        self._notes = ", ".join(f"{k}={plain(str(v))}" for k, v in notes.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self._notes, refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _report(self) -> None:
        rate = (self.done - self._initial) / (time.monotonic() - self._start)
        left = (self.total - self.done) / rate if self.total is not None and rate > 0 else None
        if _as_json:
            record = {"time": round(time.time(), 3), "level": "progress", "label": self.label, "unit": self.unit}
            record |= {"done": self.done, "total": self.total, "per_second": rate, "seconds_left": left}
            _write(json.dumps(record | {"notes": self._notes}))
            return
        share = f"{self.done}/{self.total} {self.unit} ({self.done / self.total:.0%})" if self.total else str(self.done)
        speed = f"{rate:.3g} {self.unit}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.3g} s/{self.unit}"
        remaining = f"{duration(left)} left" if left is not None else ""
        _write(", ".join(p for p in (f"{self.label}: {share}", speed, remaining, self._notes) if p))


def track(iterable: Iterable[T], total: int | None = None, label: str = "", unit: str = "it") -> Iterator[T]:
    """Yield from ``iterable`` and show how far it is; ``total`` defaults to its length."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(total, label, unit) as progress:
        for item in iterable:
            yield item
            progress.update()


def _write(line: str) -> None:
    """Write a line to stderr; a stderr that is gone or full must not stop the work."""
    if sys.stderr is None:
        return
    try:
        # tqdm is loaded only if a bar was drawn; its write() goes above that bar.
        bars = sys.modules.get("tqdm")
        if bars is not None and sys.stderr.isatty():
            bars.tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        pass
