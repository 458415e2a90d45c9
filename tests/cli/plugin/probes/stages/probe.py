from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from debugnet import errors, interrupts, progress
from debugnet.stages.result import Result
from probes.recipes.probe import Probe


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which is recognized by its name."""


FAILURES = {
    "usage": lambda: errors.UsageError("a and b contradict"),
    "input": lambda: errors.InputError("x.h5 is truncated"),
    "stale": lambda: errors.StaleArtifact("x.h5 changed"),
    "exists": lambda: errors.OutputExists("x.h5 exists"),
    "bad-rows": lambda: errors.TooManyBadRows("5 of 10 rows"),
    "storage": lambda: errors.StorageError("disk full"),
    "device": lambda: errors.DeviceError("no cuda"),
    "unconverged": lambda: errors.NotConverged("point 3"),
    "locked": lambda: errors.Locked("x.h5 is locked"),
    "bug": lambda: KeyError("inner\nname"),
    "memory": lambda: MemoryError(),
    "cuda-memory": lambda: OutOfMemoryError("CUDA out of memory"),
    "enospc": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.h5"),
    "erofs": lambda: OSError(errno.EROFS, os.strerror(errno.EROFS), "x.h5"),
    "eacces": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x.h5"),
    "enoent": lambda: FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x.h5"),
    "escape": lambda: errors.InputError("class \x1b[31mred\x1b[0m\r is bad"),
}


def run(options: Probe, *, force: bool = False) -> Result:
    if options.behaviour in FAILURES:
        raise FAILURES[options.behaviour]()
    if options.behaviour == "loop":  # a long loop that stops between its batches only
        with interrupts.deferred():
            for i in range(10_000):
                time.sleep(0.01)
                if i == 10:
                    progress.log("looping")
                interrupts.check()
    if options.behaviour == "stuck":  # a loop that never looks
        with interrupts.deferred():
            progress.log("stuck")
            while True:
                time.sleep(0.05)
    if options.behaviour == "sleep":
        progress.log("sleeping")
        time.sleep(100)
    output = options.output or options.source.with_name("probe.txt")
    content = f"{options.size} {options.share} {options.mode} {options.source}\n"
    if output.exists() and not force:
        if output.read_text() == content:
            return Result(output, {"size": options.size}, reused=True)
        raise errors.OutputExists(f"{output} exists, made with other options; --force replaces it")
    progress.log("working")
    output.parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(content)
    return Result(output, {"size": options.size, "nan": float("nan"), "options": vars(options)}, text="a table")
