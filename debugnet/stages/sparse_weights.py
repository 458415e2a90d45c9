"""``train-sparse --method spred``: accuracy against density, beside magnitude pruning and plain L1."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from debugnet import interrupts
from debugnet.artifacts.bundle import BundleWriter
from debugnet.errors import NotConverged
from debugnet.progress import Progress, log
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training import weight_path
from debugnet.sparse_training.proximal_training import Diverged, evaluate, family_loss, snapshot
from debugnet.sparse_training.weight_path import WeightTraining, sparse_weights
from debugnet.stages.sparse_data import SparseData
from debugnet.stages.sparse_figures import draw_densities

METHODS = ("spred", "magnitude", "l1")


def prepare(
    options: TrainSparse, data: SparseData, make_network: Callable[[int], nn.Module]
) -> Callable[[BundleWriter], dict[str, Any]]:
    """Check that the patterns name something; what is returned trains."""
    network = make_network(options.seed)
    total = sum(p.numel() for p in sparse_weights(network, options.sparsify).values())
    return lambda writer: train_weights(options, data, network, total, writer)


def train_weights(
    options: TrainSparse, data: SparseData, network: nn.Module, total: int, writer: BundleWriter
) -> dict[str, Any]:
    """Train dense, then one sparse network per lambda, ascending and warm-started; returns ``sparse.json``."""
    how = WeightTraining(
        options.sparsify, options.structure, options.optimizer, options.lr, epochs=10 * options.epochs_per_lambda
    )
    job = _Job(options, data, how, writer)
    dense = job.dense(network)
    rows, previous = [], copy.deepcopy(network)
    with Progress(len(options.lambdas), "spred", "lambda") as progress:
        for lam in sorted(options.lambdas):
            row = job.at(lam, network, previous)
            if row is None:
                break
            rows.append(row)
            progress.postfix(lam=f"{lam:.3g}", density=f"{row['nnz'] / total:.3f}")
            progress.update()
            interrupts.check()
    if not rows:
        raise NotConverged(f"spred diverged at the first lambda {min(options.lambdas):g}: a smaller --lr")
    return _result(options, data, rows, dense, total, writer.folder)


class _Job:
    """One run: what is trained, and which files hold what is done."""

    def __init__(self, options: TrainSparse, data: SparseData, how: WeightTraining, writer: BundleWriter) -> None:
        self.options, self.data, self.how, self.writer = options, data, how, writer
        self.loss, self.train = family_loss(data.family), data.batches["train"]
        self.folder = writer.folder / "networks"
        self.folder.mkdir(exist_ok=True)

    def dense(self, network: nn.Module) -> dict[str, dict[str, float]]:
        """Train the dense network, in place, or read it."""
        file = self.folder / "dense.safetensors"
        if not self._read(network, file):
            try:
                weight_path.train_plain(network, self.how, self.train, self.loss, self.options.epochs)
            except Diverged as error:
                raise NotConverged(f"the dense network diverged ({error}): a smaller --lr") from error
            _save(network, file)
        return self._metrics(network)

    def at(self, lam: float, dense: nn.Module, previous: nn.Module) -> dict[str, Any] | None:
        """One lambda: spred from ``previous`` (in place), and the two others at the same number of weights."""
        key = f"lambda/{lam!r}"
        file = self.folder / f"lambda-{lam:g}.safetensors"
        if key in self.writer and self._read(previous, file):
            return dict(self.writer.records[key])
        began, state = time.monotonic(), snapshot(previous)
        self.train._epoch = 0  # the same batches whether the run was resumed or not
        torch.manual_seed(self.options.seed)
        try:
            told: dict[str, Any] = weight_path.spred_step(previous, self.how, self.train, self.loss, lam)
        except Diverged as error:
            log(f"spred diverged at lambda {lam:g} ({error}) at a tenth of the step too: the path ends before it")
            return None
        count = self._count(previous)
        row = {"lam": lam, "nnz": count, **told, "spred": self._metrics(previous)}
        row["magnitude"] = self._magnitude(copy.deepcopy(dense), count)
        plain = copy.deepcopy(previous)
        plain.load_state_dict(state)
        weight_path.l1_step(plain, self.how, self.train, self.loss, lam)
        weight_path.prune(plain, weight_path.magnitude_masks(plain, self.options.sparsify, count))
        row["l1"] = self._metrics(plain)
        row["seconds"] = time.monotonic() - began
        _save(previous, file)
        self.writer.add(key, row)
        return row

    def _magnitude(self, network: nn.Module, count: int) -> dict[str, dict[str, float]]:
        """The dense network pruned to ``count`` weights and trained on for as many epochs as spred had."""
        masks = weight_path.magnitude_masks(network, self.options.sparsify, count)
        weight_path.prune(network, masks)
        epochs = self.how.epochs + self.how.polish_epochs
        weight_path.train_plain(network, self.how, self.train, self.loss, epochs, masks)
        return self._metrics(network)

    def _count(self, network: nn.Module) -> int:
        return sum(int((p != 0).sum()) for p in sparse_weights(network, self.options.sparsify).values())

    def _metrics(self, network: nn.Module) -> dict[str, dict[str, float]]:
        family = self.data.family
        return {name: evaluate(network, b, self.loss, family) for name, b in self.data.batches.items()}

    def _read(self, network: nn.Module, file: Path) -> bool:
        if not file.exists():
            return False
        network.load_state_dict(load_file(file))
        return True


def _save(network: nn.Module, file: Path) -> None:
    tensors: dict[str, Tensor] = {name: value.contiguous() for name, value in snapshot(network).items()}
    temporary = file.with_name(f".{file.name}.tmp")
    save_file(tensors, temporary)
    temporary.replace(file)


def _result(
    options: TrainSparse,
    data: SparseData,
    rows: list[dict[str, Any]],
    dense: dict[str, dict[str, float]],
    total: int,
    folder: Path,
) -> dict[str, Any]:
    split = next(name for name in ("test", "val", "train") if name in data.batches)
    choose = "val" if "val" in data.batches else "train"
    best = max(row["spred"][choose]["accuracy"] for row in rows)
    within = [row for row in rows if row["spred"][choose]["accuracy"] >= best - 0.01]
    chosen = min(within, key=lambda row: row["nnz"])
    curves = {name: [row[name][split]["accuracy"] for row in rows] for name in METHODS}
    draw_densities(folder, rows, curves, f"{split} {'r2' if data.family == 'gaussian' else 'accuracy'}")
    lines = [f"{'lambda':>9} {'non-zero':>9} {'density':>8}" + "".join(f"{name:>11}" for name in METHODS)]
    for row in rows:
        scores = "".join(f"{row[name][split]['accuracy']:11.4f}" for name in METHODS)
        lines.append(f"{row['lam']:9.2g} {row['nnz']:9d} {row['nnz'] / total:8.4f}{scores}")
    lines.append(f"dense {split} {dense[split]['accuracy']:.4f}; chosen on {choose}: lambda {chosen['lam']:g}")
    summary = {
        "method": "spred",
        "weights": total,
        "rule": f"fewest weights within 0.01 of the best {choose} accuracy",
        "chosen": chosen["lam"],
        "chosen_metrics": chosen["spred"],
        "dense": dense,
    }
    return {"summary": summary, "text": "\n".join(lines), "rows": rows, "class_names": data.class_names}
