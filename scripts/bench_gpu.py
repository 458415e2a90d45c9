"""The path solver at the size of ImageNet's features: data drawn on the device, with a planted sparse truth.

    python scripts/bench_gpu.py --rows 1281167 --features 2048 --classes 1000 --output imagenet.json
    python scripts/bench_gpu.py --rows 50000 --features 2048 --classes 10
    python scripts/bench_gpu.py --device cpu --rows 2000 --features 64 --classes 5 --support 4 --n-lambdas 20   # a try

Every point of the path is certified.  Printed beside the seconds: the arithmetic and the memory traffic that its passes
need, as shares of what this device reaches in a plain product and a plain copy, and how much of the planted support
the path has found.  ``--saga-seconds`` runs glm-saga (PyPI), the paper's settings, on the same data in the device's
memory for as many epochs as fit; its epoch is compared, since a whole path would take days.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

#: Rows drawn at once.
BLOCK = 65_536
#: Mean of relu(z), z of variance 2, as the features are drawn.
MEAN = 0.5642


def say(line: str) -> None:
    """Print at once: a benchmark is watched."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def draw(n: int, d: int, K: int, support: int, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated ReLU features (n, d), labels (n,) from a softmax of sparse scores, and their support (K, d)."""
    generator = torch.Generator(device).manual_seed(seed)
    mixing = torch.randn((64, d), generator=generator, device=device) / 8
    planted = torch.zeros((K, d), dtype=torch.bool, device=device)
    weight = torch.zeros((K, d), device=device)
    for k in range(K):
        chosen = torch.randperm(d, generator=generator, device=device)[:support]
        planted[k, chosen] = True
        weight[k, chosen] = 1 + torch.rand(support, generator=generator, device=device)
    X = torch.empty((n, d), device=device)
    y = torch.empty(n, dtype=torch.int64, device=device)
    for start in range(0, n, BLOCK):
        rows = slice(start, min(n, start + BLOCK))
        size = rows.stop - rows.start
        latent = torch.randn((size, 64), generator=generator, device=device) @ mixing
        X[rows] = torch.relu_(latent + torch.randn((size, d), generator=generator, device=device))
        uniform = torch.rand((size, K), generator=generator, device=device).clamp_(1e-12, 1 - 1e-7)
        y[rows] = ((X[rows] - MEAN) @ weight.T - torch.log(-torch.log(uniform))).argmax(dim=1)
    y[:K] = torch.arange(K, device=device)  # each class has a row
    return X, y, planted


def timed(work: Callable[[], object], device: str, repeats: int = 5) -> float:
    """Seconds of one call, the best of a few."""
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def limits(device: str) -> tuple[float, float]:
    """FLOP/s of a float32 product and bytes/s of a copy on this device."""
    size = 8192 if device.startswith("cuda") else 2048
    A, out = torch.randn((size, size), device=device), torch.empty((size, size), device=device)
    flops = 2 * size**3 / timed(lambda: torch.mm(A, A, out=out), device)
    source = torch.empty((1 << 30) if device.startswith("cuda") else (1 << 26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return flops, 2 * source.numel() / timed(lambda: target.copy_(source), device)


def ours(X: Tensor, y: Tensor, planted: Tensor, options: argparse.Namespace) -> dict:
    """Fit the whole path and say what it took."""
    from debugnet.glm import iter_path

    n, d, K = *X.shape, len(planted)
    flops, bandwidth = limits(options.device)
    synchronize(options.device)
    start, rows = time.perf_counter(), []
    points = iter_path(
        X, y, family="multinomial", l1_ratio=options.l1_ratio, n_lambdas=options.n_lambdas,
        lambda_min_ratio=options.lambda_min_ratio, tol=options.tol, device=options.device, solver=options.solver,
    )  # fmt: skip
    truth = planted.cpu().numpy()
    for point in points:
        found = point.weight != 0
        hit = int((found & truth).sum())
        rows.append({
            "lam": point.lam, "seconds": point.seconds, "passes": point.n_epochs, "gap": point.duality_gap,
            "status": point.status, "nnz": int(found.sum()), "precision": hit / max(1, int(found.sum())),
            "recall": hit / int(truth.sum()),
        })  # fmt: skip
        if len(rows) % 10 == 1 or point.status != "converged":
            say(f"{len(rows)} of {options.n_lambdas}: {rows[-1]}")
    seconds, passes = time.perf_counter() - start, sum(row["passes"] for row in rows)
    return {
        "seconds": seconds,
        "passes": passes,
        "worst_gap": max(row["gap"] for row in rows),
        "statuses": sorted({row["status"] for row in rows}),
        "share_of_arithmetic": 4 * n * d * K * passes / seconds / flops,
        "share_of_memory": 2 * X.element_size() * n * d * passes / seconds / bandwidth,
        "flops": flops,
        "bandwidth": bandwidth,
        "peak_bytes": torch.cuda.max_memory_allocated() if options.device.startswith("cuda") else None,
        "points": rows,
    }


class _Batches:
    """What glm-saga wants of a loader, from memory on the device: shuffled (features, labels, row numbers)."""

    def __init__(self, X: Tensor, y: Tensor, size: int) -> None:
        self.X, self.y, self.size = X, y.cpu(), size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index in torch.randperm(len(self.X)).split(self.size):
            yield self.X[index.to(self.X.device)], self.y[index], index.to(self.X.device)


def saga(X: Tensor, y: Tensor, K: int, lam: float, options: argparse.Namespace) -> dict | None:
    """Seconds of an epoch of glm-saga at one lambda in the middle of the path; None where it is not installed."""
    try:
        from glm_saga.elasticnet import train_saga
    except ImportError:
        say("glm-saga is not installed: left out")
        return None
    mean, deviation = X.mean(dim=0), X.std(dim=0)
    X.sub_(mean).div_(deviation.clamp_(min=1e-6))  # in place: ours is done with it
    linear = torch.nn.Linear(X.shape[1], K).to(X.device)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    batches, state, spent = _Batches(X, y, 512), None, []
    while sum(spent) < options.saga_seconds:
        synchronize(options.device)
        start = time.perf_counter()
        state = train_saga(
            linear,
            batches,
            0.1,
            1,
            lam,
            options.l1_ratio,
            group=False,
            state=state,
            n_ex=len(X),
            n_classes=K,
            logger=lambda line: None,
        )
        synchronize(options.device)
        spent.append(time.perf_counter() - start)
    return {"epochs": len(spent), "seconds_per_epoch": min(spent), "lam": lam}


def main() -> None:
    """Parse options, run, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--support", type=int, default=20, help="planted features per class")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--l1-ratio", type=float, default=0.99)
    parser.add_argument("--n-lambdas", type=int, default=100)
    parser.add_argument("--lambda-min-ratio", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--saga-seconds", type=float, default=0.0, help="run glm-saga for so long, too")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu, with fewer rows")
    start = time.perf_counter()
    X, y, planted = draw(options.rows, options.features, options.classes, options.support, options.device, options.seed)
    synchronize(options.device)
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    say(f"{name}, torch {torch.__version__}: drawn in {time.perf_counter() - start:.1f} s")
    result = {"device": name, "shape": [options.rows, options.features, options.classes]}
    result |= {"debugnet": ours(X, y, planted, options)}
    row = result["debugnet"]
    best = max(row["points"], key=lambda p: p["precision"] * p["recall"])
    say(
        f"{row['seconds']:.1f} s, {row['passes']:.0f} passes, worst gap {row['worst_gap']:.1e}, "
        f"{', '.join(row['statuses'])}; {row['share_of_arithmetic']:.0%} of this device's float32 products, "
        f"{row['share_of_memory']:.0%} of its memory rate; planted support at best: precision {best['precision']:.2f}, "
        f"recall {best['recall']:.2f} with {best['nnz']} weights"
    )
    if options.saga_seconds > 0:
        result["glm_saga"] = saga(X, y, options.classes, row["points"][len(row["points"]) // 2]["lam"], options)
        if result["glm_saga"]:
            each = result["glm_saga"]["seconds_per_epoch"]
            say(f"glm-saga: {each:.2f} s per epoch; our whole path takes {row['seconds'] / each:.0f} of its epochs")
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
