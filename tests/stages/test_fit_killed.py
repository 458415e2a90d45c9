"""SIGKILL in the middle of a fit: the same command goes on, and ends in the same path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from debugnet.artifacts.path_store import load_path
from debugnet.recipes.fit_path import FitPath
from debugnet.stages import fit_path

GRID = {"n_lambdas": 80, "lambda_min_ratio": 0.003}


def test_a_killed_fit_goes_on(planted_store, tmp_path):
    output = tmp_path / "killed.h5"
    words = [
        "--n-lambdas",
        "80",
        "--lambda-min-ratio",
        "0.003",
        "--threads",
        "1",
        "--solver",
        "fista",
        "-o",
        str(output),
    ]
    command = [sys.executable, "-m", "debugnet", "fit-path", str(planted_store), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    partial = tmp_path / "killed.h5.partial"
    while process.poll() is None and len(list(partial.glob("point-*.json"))) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the fit ended before it could be killed"
    stored = len(list(partial.glob("point-*.json")))
    assert not output.exists() and 5 <= stored < 80

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"going on after {stored} points" in done.stderr and done.stdout == f"{output}\n"
    assert not partial.exists()
    killed = load_path(output)
    whole = load_path(
        fit_path.run(FitPath(planted_store, tmp_path / "whole.h5", solver="fista", threads=1, **GRID)).path
    )
    np.testing.assert_array_equal(killed.lam, whole.lam)
    np.testing.assert_allclose(killed.objective, whole.objective, rtol=2e-6)
    assert (killed.duality_gap <= 1e-6).all() and set(killed.status) == {"converged"}
