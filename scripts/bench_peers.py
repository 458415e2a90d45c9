"""Peers of the solver benchmark: each takes standardized float64 X (n, d), y, lambdas and gives (CPU s, points).

A point is (lambda index, W (K, d), b (K,)).  Peers that are not installed raise ImportError.  CPU seconds cover the
fit alone (no reading, no evaluation), in the process that does it.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Point = tuple[int, np.ndarray, np.ndarray]


class Run(NamedTuple):
    """One run of a peer: what it was, CPU seconds, its points (perhaps not all lambdas), its version."""

    setting: str
    seconds: float
    points: list[Point]
    version: str


def glmnet(X: np.ndarray, y: np.ndarray, K: int, lambdas: np.ndarray, l1_ratio: float, thresh: float, budget: float):
    """R's glmnet in its own process; two classes as binomial with the equivalent ridge."""
    n, d = X.shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.asfortranarray(X).T.tofile(folder / "X")
        y.astype(np.int32).tofile(folder / "y")
        family, mix, lam = "multinomial", l1_ratio, lambdas
        if K == 2:  # W = (-w/2, w/2): the ridge of w is half as strong
            family, strength = "binomial", lambdas * l1_ratio + lambdas * (1 - l1_ratio) / 2
            mix, lam = float(lambdas[0] * l1_ratio / strength[0]), strength
        lam.tofile(folder / "lam")
        (folder / "dims").write_text(f"{n} {d} {K} {len(lam)}")
        script = Path(__file__).with_name("bench_glmnet.R")
        done = subprocess.run(
            ["Rscript", str(script), str(folder), str(thresh), family, str(mix)],
            capture_output=True, text=True, timeout=budget, check=True,
        )  # fmt: skip
        seconds, count, version = done.stdout.split()
        coefficients, L = np.fromfile(folder / "coef"), int(count)
    if K == 2:
        B = coefficients.reshape(L, d + 1)
        points = [(i, np.stack([-B[i, 1:], B[i, 1:]]) / 2, np.array([-B[i, 0], B[i, 0]]) / 2) for i in range(L)]
    else:
        C = coefficients.reshape(K, L, d + 1)
        points = [(i, C[:, i, 1:].copy(), C[:, i, 0].copy()) for i in range(L)]
    return Run(f"thresh {thresh:.0e}", float(seconds), points, version)


def sklearn_saga(X: np.ndarray, y: np.ndarray, K: int, lambdas: np.ndarray, l1_ratio: float, budget: float) -> Run:
    """scikit-learn's saga (tol 1e-4), warm-started along the path until the budget is spent."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    warnings.filterwarnings("ignore")
    points: list[Point] = []
    start = time.process_time()
    model = LogisticRegression(penalty="elasticnet", solver="saga", l1_ratio=l1_ratio, tol=1e-4, max_iter=1000)
    model.warm_start = True
    for i, lam in enumerate(lambdas):
        model.C = 1 / (len(y) * lam)
        if K == 2:  # one output with half of the ridge: not this objective; as two outputs it is not offered
            break
        model.fit(X, y)
        points.append((i, model.coef_.copy(), model.intercept_.copy()))
        if time.process_time() - start > budget:
            break
    return Run("tol 1e-4", time.process_time() - start, points, sklearn.__version__)


def _saga_process(folder: str, settings: dict) -> None:
    import torch
    from glm_saga.elasticnet import IndexedTensorDataset, glm_saga

    torch.set_num_threads(1)
    torch.manual_seed(0)
    stored = np.load(Path(folder) / "data.npz")
    X, y = torch.from_numpy(stored["X"]), torch.from_numpy(stored["y"])
    loader = torch.utils.data.DataLoader(IndexedTensorDataset(X, y), batch_size=512, shuffle=True)
    linear = torch.nn.Linear(X.shape[1], int(y.max()) + 1)
    linear.weight.data.zero_()
    linear.bias.data.zero_()
    glm_saga(linear, loader, 0.1, 2000, settings["l1_ratio"], checkpoint=str(Path(folder) / "out"), k=settings["k"],
             epsilon=settings["epsilon"], tol=1e-4, n_classes=int(y.max()) + 1, verbose=None)  # fmt: skip


def glm_saga(X: np.ndarray, y: np.ndarray, K: int, lambdas: np.ndarray, l1_ratio: float, budget: float) -> Run:
    """The paper's solver and settings: step .1, batch 512, tol 1e-4 on the change of W per batch, 2000 epochs."""
    from importlib.metadata import version

    import torch

    number = version("glm_saga")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", X=X.astype(np.float32), y=y)
        settings = {"l1_ratio": l1_ratio, "k": len(lambdas), "epsilon": float(lambdas[-1] / lambdas[0])}
        process = multiprocessing.get_context("spawn").Process(target=_saga_process, args=(folder, settings))
        process.start()
        seconds = 0.0
        while process.is_alive() and seconds < budget:
            process.join(0.5)
            seconds = cpu_seconds(process.pid) or seconds
        process.terminate()
        process.join()
        points: list[Point] = []
        for i in range(len(lambdas)):
            file = Path(folder) / "out" / f"params{i}.pth"
            if not file.exists():
                break
            stored = torch.load(file, map_location="cpu", weights_only=False)
            points.append((i, stored["weight"].double().numpy(), stored["bias"].double().numpy()))
    return Run("lr .1, batch 512, tol 1e-4", seconds, points, number)


def say(line: str) -> None:
    """Print at once: a benchmark is watched."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def cpu_seconds(pid: int | None) -> float | None:
    """User and system time of a running process; None once it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


#: name -> runner(X, y, K, lambdas, l1_ratio, budget); glmnet is swept over thresholds by the benchmark itself.
PEERS: dict[str, Callable[..., Run]] = {"sklearn-saga": sklearn_saga, "glm-saga": glm_saga}
