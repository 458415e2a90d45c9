"""fit-path on several ranks, through the command line: the same path as on one, and after a lost rank too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from debugnet.artifacts.path_store import load_path
from debugnet.cli.app import main
from debugnet.errors import DebugnetError, DeviceError, InputError, UsageError
from debugnet.recipes.fit_path import FitPath
from debugnet.stages import fit_path, fit_ranks

GRID = ["--n-lambdas", "24", "--lambda-min-ratio", "0.003"]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}


def ranks_of(process):
    """Ids of the ranks that a command has started."""
    found = []
    for line in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{line}/cmdline").read_bytes():
            found.append(int(line))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks through /proc")
def test_two_ranks_lose_one_and_four_go_on(planted_store, tmp_path):
    output, partial = tmp_path / "ranks.h5", tmp_path / "ranks.h5.partial"
    words = ["debugnet", "fit-path", str(planted_store), *GRID, "--device", "cpu", "-o", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "--ranks", "2"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and len(list(partial.glob("point-*.json"))) < 6:
        time.sleep(0.02)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == DeviceError.exit_code and out == ""
    assert "on 2 ranks" in err and len(err.splitlines()) == 2
    assert "rank 1 of 2 was killed by SIGKILL" in err and "the same command goes on" in err
    stored = len(list(partial.glob("point-*.json")))
    assert not output.exists() and 6 <= stored < 24

    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "-m"]
    done = subprocess.run([*launch, *words], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == f"{output}\n" and f"going on after {stored} points" in done.stderr
    assert done.stderr.count("on 4 ranks") == 1 and "error" not in done.stderr  # rank 0 alone speaks
    path = load_path(output)
    alone = load_path(
        fit_path.run(
            FitPath(planted_store, tmp_path / "alone.h5", solver="fista", n_lambdas=24, lambda_min_ratio=0.003)
        ).path
    )
    assert path.meta["ranks"] == 4 and set(path.status) == {"converged"}
    np.testing.assert_allclose(path.lam, alone.lam, rtol=1e-9)
    np.testing.assert_allclose(path.objective, alone.objective, rtol=2e-6)
    for split in ("train", "val", "test"):
        np.testing.assert_allclose(path.metrics[split]["accuracy"], alone.metrics[split]["accuracy"], atol=0.01)


def test_a_path_of_several_ranks_is_the_path_of_one(planted_store, tmp_path):
    """The number of ranks is no part of the key."""
    output = tmp_path / "path.h5"
    fit_path.run(FitPath(planted_store, output, n_lambdas=3))
    assert fit_path.run(FitPath(planted_store, output, n_lambdas=3, ranks=2, device="cpu")).reused


def test_ranks_without_gpus_are_refused(planted_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    words = ["fit-path", str(planted_store), "-o", str(tmp_path / "path.h5")]
    assert main([*words, "--gpus", "2"]) == DeviceError.exit_code
    assert "--ranks 2: one GPU each, and this machine has 1; --device cpu" in capsys.readouterr().err
    assert main([*words, "--ranks", "2", "--device", "cuda:1"]) == UsageError.exit_code
    assert main([*words, "--ranks", "0"]) == UsageError.exit_code
    assert main([*words, "--ranks", "2", "--method", "spred"]) == UsageError.exit_code
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main([*words, "--ranks", "2"]) == UsageError.exit_code
    capsys.readouterr()
    monkeypatch.setenv("RANK", "3")  # the first rank says it
    assert main([*words, "--ranks", "2"]) == UsageError.exit_code
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.glob("path*"))


def test_an_error_of_a_rank_is_the_error_of_the_command(tmp_path):
    lost = ProcessExitedException("lost", error_index=0, error_pid=1, exit_code=1)
    words = {"kind": "InputError", "message": "features are not finite in the rows of another rank", "rank": 0}
    (tmp_path / "error-0.json").write_text(json.dumps(words))
    (tmp_path / "error-1.json").write_text(json.dumps({**words, "message": "row 7 holds nan", "rank": 1}))
    error = fit_ranks._what_happened(tmp_path, lost, [1, 1])
    assert isinstance(error, InputError) and str(error) == "row 7 holds nan"
    (tmp_path / "error-1.json").write_text(json.dumps({"kind": "KeyError", "message": "a traceback", "rank": 1}))
    assert not isinstance(fit_ranks._what_happened(tmp_path, lost, [1, 143]), DebugnetError)  # a bug stays one
    (tmp_path / "error-1.json").unlink()
    words = {"kind": "RuntimeError", "message": "Connection closed by peer", "rank": 0}
    (tmp_path / "error-0.json").write_text(json.dumps(words))  # the other one's end is not a bug of this one
    error = fit_ranks._what_happened(tmp_path, lost, [1, -9])
    assert isinstance(error, DeviceError) and "rank 1 of 2 was killed by SIGKILL" in str(error)
