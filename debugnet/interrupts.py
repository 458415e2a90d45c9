"""What Ctrl-C and SIGTERM do while a command works.

By default the first signal raises KeyboardInterrupt wherever the code is.  A loop that wants
to finish its batch first says so::

    with interrupts.deferred():
        for batch in batches:
            write(compute(batch))
            interrupts.check()  # raises Interrupted here, between batches, and nowhere else

The second signal kills the process at once, inside compiled code too.  Only the command line
calls :func:`install`; in a notebook nothing is changed and ``check`` does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from debugnet.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received: int | None = None
_deferred = 0
_owner = 0


def received() -> int | None:
    """Return the number of the first signal that arrived, or None."""
    return _received


def check() -> None:
    """Stop here if a signal has arrived; call it where everything finished is on disk.

    Raises
    ------
    Interrupted
        With the exit code 130 (SIGINT) or 143 (SIGTERM).
    """
    if _received is not None:
        raise Interrupted(f"stopped by {signal.Signals(_received).name}", _received)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold the first signal back until :func:`check` is called, or until the block ends."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if not _deferred:
        check()


@contextmanager
def install() -> Iterator[None]:
    """Handle SIGINT and SIGTERM as described above while the block runs (main thread only)."""
    global _received, _owner
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received, _owner = None, os.getpid()
    # A job started with `&` by a script inherits an ignored SIGINT on purpose; leave it so.
    caught = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, _handle) for s in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if os.getpid() != _owner:  # a forked data worker: Ctrl-C is for the parent, SIGTERM is from it
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    _received = number
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    if not _deferred:
        raise KeyboardInterrupt
