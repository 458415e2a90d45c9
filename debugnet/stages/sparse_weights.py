"""``train-sparse --method spred``: accuracy against density, beside magnitude pruning and plain L1."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from debugnet.artifacts.bundle import BundleWriter
from debugnet.errors import NotConverged
from debugnet.progress import Progress, log
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.losses import Diverged, FamilyLoss
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.shrink import shrink
from debugnet.sparse_training.spred import Spred
from debugnet.sparse_training.weight_path import (
    WeightTrainer,
    WeightTraining,
    magnitude_masks,
    support,
)
from debugnet.stages.sparse_data import SparseData, measure, warn_if_untrained
from debugnet.stages.sparse_export import export_small, save_state
from debugnet.stages.sparse_figures import draw_densities

#: What is compared, at equal numbers of weights and equal numbers of epochs so far.
METHODS = ("spred", "magnitude", "l1")
EPOCHS_PER_LAMBDA = 20


def prepare(
    options: TrainSparse, data: SparseData, make_network: Callable[[int], nn.Module]
) -> Callable[[BundleWriter], dict[str, Any]]:
    """Check that the patterns name something and that the optimizer will do; what is returned trains."""
    network = make_network(options.seed)
    spred = Spred(copy.deepcopy(network), options.sparsify, structure=options.structure)
    spred.check_optimizer(make_optimizer(options.optimizer, spred.parameter_groups(min(options.lambdas)), options.lr))
    if options.shrink:
        shrink(copy.deepcopy(network).cpu())
    return lambda writer: train_weights(options, data, network, writer)


def train_weights(options: TrainSparse, data: SparseData, network: nn.Module, writer: BundleWriter) -> dict[str, Any]:
    """Train dense, then one sparse network per lambda, ascending and warm-started; returns ``sparse.json``."""
    epochs = options.epochs_per_lambda or EPOCHS_PER_LAMBDA
    how = WeightTraining(
        options.sparsify, options.structure, options.optimizer, options.lr, epochs, max(1, epochs // 4), options.amp
    )
    job = _Job(options, data, how, writer)
    dense = job.dense(network)
    warn_if_untrained(dense, data)
    rows: list[dict[str, Any]] = []
    with Progress(len(options.lambdas), "spred", "lambda") as progress:
        for lam in sorted(options.lambdas):
            try:
                row = job.at(lam)
            except Diverged as error:
                log(f"diverged at lambda {lam:g} ({error}) at an eighth of the step too: the path ends before it")
                break
            if not row["nnz"]:
                log(f"no weight is left at lambda {lam:g}: the path ends before it")
                break
            rows.append(row)
            progress.postfix(lam=f"{lam:.3g}", density=f"{row['nnz'] / row['total']:.3f}")
            progress.update()
    if not rows:
        raise NotConverged(f"nothing is left of the first lambda {min(options.lambdas):g}: a smaller one, or --lr")
    for leftover in writer.folder.glob("training-*.safetensors"):
        leftover.unlink()
    return _result(data, rows, dense, writer.folder)


class _Job:
    """One run: the network of each method as it goes along the path, and the files that hold what is done."""

    def __init__(self, options: TrainSparse, data: SparseData, how: WeightTraining, writer: BundleWriter) -> None:
        self.options, self.data, self.how, self.writer = options, data, how, writer
        self.loss = FamilyLoss(data.family)
        self.trainer = WeightTrainer(how, data.batches["train"], self.loss, options.seed, writer.folder)
        self.folder = writer.folder / "networks"
        self.folder.mkdir(exist_ok=True)
        self.networks: dict[str, nn.Module] = {}

    def dense(self, network: nn.Module) -> dict[str, dict[str, float]]:
        """Train the dense network, in place, or read it; every method begins with it."""
        file = self.folder / "dense.safetensors"
        if file.exists():
            network.load_state_dict(load_file(file))
        else:
            try:
                self.trainer.plain(network, self.options.epochs, "dense")
            except Diverged as error:
                raise NotConverged(f"the dense network diverged ({error}): a smaller --lr") from error
            save_state(network, file)
        self.networks = {name: copy.deepcopy(network) for name in METHODS}
        return measure(network, self.data)

    def at(self, lam: float) -> dict[str, Any]:
        """One lambda: each method goes on from its own network, to as many weights as spred left."""
        row: dict[str, Any] = {"lam": lam}
        steps: dict[str, Callable[[nn.Module, float, int], dict[str, Any]]] = {
            "spred": self._spred, "magnitude": self._magnitude, "l1": self._l1,
        }  # fmt: skip
        for name in METHODS:
            key, file = f"{name}/{lam!r}", self.folder / f"{name}-{lam:g}.safetensors"
            network = self.networks[name]
            if key in self.writer and file.exists():
                network.load_state_dict(load_file(file))
            else:
                began = time.monotonic()
                told = steps[name](network, lam, row.get("nnz", 0))
                save_state(network, file)
                self.writer.add(key, told | {f"{name}_seconds": time.monotonic() - began})
                for leftover in self.writer.folder.glob("training-*.safetensors"):
                    leftover.unlink()
            row |= self.writer.records[key]
        return row

    def _spred(self, network: nn.Module, lam: float, _: int) -> dict[str, Any]:
        """The path goes on with the network at lambda; ``relaxed`` is trained on without penalty on its weights."""
        told: dict[str, Any] = self.trainer.spred(network, lam, f"spred-{lam:g}")
        masks = support(network, self.how.patterns)
        told |= {"nnz": sum(int(mask.sum()) for mask in masks.values()), "spred": measure(network, self.data)}
        relaxed = copy.deepcopy(network)
        self.trainer.plain(relaxed, self.how.polish_epochs, f"relaxed-{lam:g}", masks)
        save_state(relaxed, self.folder / f"relaxed-{lam:g}.safetensors")
        told["relaxed"] = measure(relaxed, self.data)
        if self.options.shrink:
            X = self.data.batches["train"].X
            assert isinstance(X, Tensor)
            told["shrunk"] = export_small(relaxed, X[:256], self.folder / f"small-{lam:g}")
        return told

    def _magnitude(self, network: nn.Module, lam: float, count: int) -> dict[str, Any]:
        """The smallest weights go, and the rest is trained for as many epochs as spred had."""
        masks = magnitude_masks(network, self.how.patterns, count, self.how.structure)
        self.trainer.plain(network, self.how.epochs + 2 * self.how.polish_epochs, f"magnitude-{lam:g}", masks)
        return {"magnitude": measure(network, self.data)}

    def _l1(self, network: nn.Module, lam: float, count: int) -> dict[str, Any]:
        """Train under the norm's subgradient; a copy is pruned and trained on as spred's is."""
        self.trainer.l1(network, lam, f"l1-{lam:g}")
        pruned = copy.deepcopy(network)
        masks = magnitude_masks(pruned, self.how.patterns, count, self.how.structure)
        self.trainer.plain(pruned, 2 * self.how.polish_epochs, f"l1-pruned-{lam:g}", masks)
        return {"l1": measure(pruned, self.data)}


def _result(
    data: SparseData, rows: list[dict[str, Any]], dense: dict[str, dict[str, float]], folder: Path
) -> dict[str, Any]:
    """Assemble the JSON; the lambda is chosen on validation and its test score looked at once."""
    split = next(name for name in ("test", "val", "train") if name in data.batches)
    choose = "val" if "val" in data.batches else "train"
    best, total = max(row["relaxed"][choose]["accuracy"] for row in rows), rows[0]["total"]
    within = [row for row in rows if row["relaxed"][choose]["accuracy"] >= best - 0.01]
    chosen = min(within, key=lambda row: row["nnz"])
    shown = {"spred": "spred", "relaxed": "spred, relaxed", "magnitude": "magnitude", "l1": "plain L1"}
    curves = {text: [row[name][split]["accuracy"] for row in rows] for name, text in shown.items()}
    score = "R2" if data.family == "gaussian" else "accuracy"
    draw_densities(folder, rows, total, curves, dense[split]["accuracy"], f"{split} {score}")
    lines = [f"{'lambda':>9} {'non-zero':>9} {'density':>8}" + "".join(f"{text:>15}" for text in shown.values())]
    for row in rows:
        scores = "".join(f"{row[name][split]['accuracy']:15.4f}" for name in shown)
        lines.append(f"{row['lam']:9.2g} {row['nnz']:9d} {row['nnz'] / total:8.4f}{scores}")
    lines.append(f"dense {split} {dense[split]['accuracy']:.4f}; chosen on {choose}: lambda {chosen['lam']:g}")
    summary = {
        "method": "spred",
        "weights": total,
        "rule": f"fewest weights within 0.01 of the best {choose} accuracy, relaxed",
        "chosen": chosen["lam"],
        "chosen_metrics": chosen["relaxed"],
        "dense": dense,
    }
    return {"summary": summary, "text": "\n".join(lines), "rows": rows}
