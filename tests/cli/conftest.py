"""The command line with two stages of its own, in this process or in a real shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture
def environment() -> dict[str, str]:
    path = os.pathsep.join([str(PLUGIN), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "80", "PROBES": f"{sys.executable} -m probes"}


@pytest.fixture
def shell(environment, tmp_path):
    """Run a line of bash in which ``debugnet`` is the command line with the test stages."""

    def run(line: str, **kwargs: Any) -> subprocess.CompletedProcess:
        prelude = 'set -o pipefail; debugnet() { $PROBES "$@"; }; '
        return subprocess.run(
            ["bash", "-c", prelude + line], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60,
            **kwargs,
        )  # fmt: skip

    return run


@pytest.fixture
def started(environment, tmp_path):
    """Start the command line and wait until it has written a word to stderr."""
    running = []

    def start(*words: str, until: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "probes", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment, cwd=tmp_path,
        )  # fmt: skip
        running.append(process)
        for line in process.stderr:
            if until in line:
                return process
        raise AssertionError(f"it ended with {process.wait()} before it said '{until}'")

    yield start
    for process in running:
        process.kill()
        process.wait()
