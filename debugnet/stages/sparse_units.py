"""``train-sparse --method lassonet|group-lasso``: the path over units, its networks, and what they compare to."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from debugnet.artifacts.bundle import BundleWriter
from debugnet.errors import InputError, NotConverged, UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import FamilyLoss
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.penalties import (
    HiddenGroupPenalty,
    InputGroupPenalty,
    OutgoingGroupPenalty,
    UnitPenalty,
)
from debugnet.sparse_training.proximal_training import ProximalTrainer
from debugnet.sparse_training.readers import InputReader
from debugnet.sparse_training.retraining import relax
from debugnet.sparse_training.shrink import chain
from debugnet.sparse_training.subsets import PathOptions, Subset, UnitPath
from debugnet.sparse_training.unit_path import UnitPathFitter
from debugnet.stages.sparse_data import SparseData, measure, warn_if_untrained
from debugnet.stages.sparse_export import export_small, save_state
from debugnet.stages.sparse_figures import draw_importance, draw_sizes
from debugnet.stages.sparse_refits import refit_all
from debugnet.stages.unit_paths import follow

LADDER = (1, 2, 3, 5, 8)


class UnitProblem:
    """Makes trainers of one kind for one data set: how a network is wrapped, and what is penalized.

    Attributes
    ----------
    unit_of : ndarray (n_elements,), int64
        Input unit of every flattened input element.
    n_inputs, n_units : int
        Input units, and all units of the path.
    """

    def __init__(self, options: TrainSparse, data: SparseData, make_network: Callable[[int], nn.Module]) -> None:
        self.options, self.data, self._make_network = options, data, make_network
        self.groups = None if options.groups is None else _read_groups(options.groups)
        self._reader: InputReader
        trainer = self.trainer(options.seed)
        reader = self._reader
        self.n_units = trainer.n_units
        self.unit_of = np.zeros(int(np.prod(reader.shape)), dtype=np.int64)
        self.n_inputs = reader.n_units
        for unit in range(reader.n_units):
            members = reader.element_mask(torch.arange(reader.n_units, device=reader.unit_sizes.device) == unit)
            self.unit_of[members.cpu().numpy()] = unit

    def trainer(self, seed: int) -> ProximalTrainer:
        """Return a fresh trainer; its network's and skip's initial weights come from ``seed``."""
        options, train = self.options, self.data.batches["train"]
        network, example = self._make_network(seed), self.data.example.to(train.device)
        given: dict[str, Any] = {"groups": self.groups, "mode": options.input_units}
        if options.method == "lassonet":
            lassonet = LassoNet(network, example, **given)
            model: nn.Module = lassonet
            self._reader = lassonet.reader
            penalties: list[UnitPenalty] = [lassonet.penalty(options.hierarchy, options.unit_weights)]
        else:
            self._reader = InputReader(network, example, **given)
            model = self._reader.network
            penalties = self._group_penalties(model)
        return ProximalTrainer(
            model.to(train.device),
            penalties,
            FamilyLoss(self.data.family),
            optimizer=lambda parameters: make_optimizer(options.optimizer, parameters, options.lr),
            lr=options.lr,
            prox_every=options.prox_every,
            amp=options.amp,
        )

    def _group_penalties(self, model: nn.Module) -> list[UnitPenalty]:
        options = self.options
        given: dict[str, Any] = {"l1_share": options.l1_share, "unit_weights": options.unit_weights}
        penalties: list[UnitPenalty] = []
        if options.penalize != "hidden":
            penalties.append(InputGroupPenalty(self._reader, **given))
        if options.penalize != "inputs":
            found = _hidden_penalties(model, chained_only=options.penalize == "both", **given)
            if not found:
                raise UsageError(f"--penalize {options.penalize}: --network {options.network} has no hidden layer")
            penalties += found
        return penalties

    def sizes(self) -> tuple[int, ...]:
        """Return the sizes asked for, or the ladder 1, 2, 3, 5, 8, 10, 20, ... from --stop-at up to all units."""
        asked, last = self.options.sizes, self.options.stop_at
        if asked and max(asked) > self.n_units:
            raise UsageError(f"--sizes {max(asked)}: there are only {self.n_units} units")
        if last >= self.n_units:
            raise UsageError(f"--stop-at {last}: there are only {self.n_units} units, so there is no path")
        powers = (10**i for i in range(len(str(self.n_units))))
        ladder = {s * p for p in powers for s in LADDER if last <= s * p < self.n_units}
        return asked or tuple(sorted(ladder | ({last} if last else set())))


def _hidden_penalties(model: nn.Module, *, chained_only: bool, **given: Any) -> list[UnitPenalty]:
    """Outgoing weights of every hidden unit in a chain; else incoming weights of every layer but the last."""
    try:
        layers = [layer for layer in chain(model) if isinstance(layer, nn.Linear | nn.Conv2d)]
        return [
            OutgoingGroupPenalty(behind, len(layer.weight), **given)
            for layer, behind in zip(layers[:-1], layers[1:], strict=True)
        ]
    except UsageError:
        if chained_only:
            raise
    modules = list(model.modules())
    penalties: list[UnitPenalty] = []
    readers = [m for m in modules if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in readers[:-1]:
        behind = modules[modules.index(layer) + 1]
        norm = behind if isinstance(behind, nn.BatchNorm1d | nn.BatchNorm2d) else None
        penalties.append(HiddenGroupPenalty(layer, norm, **given))
    return penalties


def _read_groups(path: Path) -> Tensor:
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, dtype=np.int64)
        return torch.from_numpy(np.asarray(values).astype(np.int64, casting="same_kind").ravel())
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--groups {path}: one integer per input feature, .npy or text ({error})") from error


def prepare(
    options: TrainSparse, data: SparseData, make_network: Callable[[int], nn.Module]
) -> Callable[[BundleWriter], dict[str, Any]]:
    """Check that the network can be trained so; what is returned does it."""
    problem = UnitProblem(options, data, make_network)
    sizes = problem.sizes()
    return lambda writer: train_units(problem, sizes, writer)


def train_units(problem: UnitProblem, sizes: tuple[int, ...], writer: BundleWriter) -> dict[str, Any]:
    """Fit the path, keep what was asked for, and compare; returns what ``sparse.json`` holds."""
    options, data = problem.options, problem.data
    fitter, path = _fit(problem, sizes, writer)
    if options.lambda_start is not None and path.stages and not path.stages[0].n_units:
        raise UsageError(
            f"--lambda-start {options.lambda_start:g}: all units leave there at once, in no order that means anything; "
            "give a smaller one, or none (one is found)"
        )
    kept = [path.subsets[size] for size in sizes if size in path.subsets and path.subsets[size].state is not None]
    if not kept:
        asked = ",".join(map(str, sizes))
        raise NotConverged(
            f"the path ended ({path.status}) at {fitter.last_alive} units, before all --sizes {asked}: a smaller --lr"
        )
    masks = {f"size-{size}": np.packbits(subset.mask) for size, subset in sorted(path.subsets.items())}
    np.savez(writer.folder / "masks.npz", allow_pickle=False, n_units=np.array(problem.n_units), **masks)
    importance = _element_importance(path, problem)
    np.save(writer.folder / "importance.npy", path.importance)
    rows = [_row(fitter, subset, writer, problem) for subset in kept]
    fitter.trainer.model.load_state_dict(load_file(writer.folder / "networks" / "dense.safetensors"))
    dense = measure(fitter.trainer.model, data)
    warn_if_untrained(dense, data)
    refits = refit_all(problem, kept, writer) if options.refit or options.against else {}
    for row in rows:
        row["refits"] = refits.get(row["size"], {})
    measured = "lambda at which the {} leaves" if options.drop_share is None else "halvings before the {} leaves"
    draw_importance(writer.folder, importance, data.example.shape[1:], data.is_image, measured)
    draw_sizes(writer.folder, rows, "r2" if data.family == "gaussian" else "accuracy")
    for leftover in writer.folder.glob("path.safetensors"):
        leftover.unlink()
    return _result(options, data, problem, path, rows, dense)


def _fit(problem: UnitProblem, sizes: tuple[int, ...], writer: BundleWriter) -> tuple[UnitPathFitter, UnitPath]:
    options, data = problem.options, problem.data
    path_options = PathOptions(
        lambda_start=options.lambda_start, ratio=options.ratio, epochs_per_lambda=options.epochs_per_lambda,
        dense_epochs=options.epochs, stop_at=options.stop_at, drop_share=options.drop_share, sizes=sizes,
    )  # fmt: skip
    trainer = problem.trainer(options.seed)
    fitter = UnitPathFitter(trainer, data.batches["train"], data.batches.get("val"), data.family, path_options)

    def keep_dense(fitter: UnitPathFitter) -> None:
        save_state(fitter.trainer.model, writer.folder / "networks" / "dense.safetensors")

    return fitter, follow(fitter, writer.folder / "path.safetensors", options.method, "units", begun=keep_dense)


def _row(fitter: UnitPathFitter, subset: Subset, writer: BundleWriter, problem: UnitProblem) -> dict[str, Any]:
    """Metrics, certificate and files of one size's own network."""
    assert subset.state is not None
    model = fitter.trainer.model
    model.load_state_dict(subset.state)
    folder = writer.folder / "networks"

    def keep(name: str) -> dict[str, dict[str, float]]:
        save_state(model, folder / f"{name}-{subset.size}.safetensors")
        return measure(model, problem.data)

    nonzero = sum(int((p != 0).sum()) for p in model.parameters())
    row: dict[str, Any] = {
        "size": subset.size,
        "lam": subset.lam,
        "network_lam": subset.network_lam,
        "settled": subset.settled,
        "n_weights": nonzero,
        "max_violation": subset.max_violation,
        "violators": subset.violators,
        "polished_violation": subset.polished_violation,
        "metrics": keep("size"),
    }
    relax(fitter.trainer, subset, fitter.train, fitter.validation, fitter.family)
    row["relaxed"] = keep("relaxed")
    if problem.options.shrink:
        X = problem.data.batches["train"].X
        assert isinstance(X, Tensor)
        row["shrunk"] = export_small(model, X[:256], folder / f"small-{subset.size}")
    return row


def _element_importance(path: UnitPath, problem: UnitProblem) -> np.ndarray:
    """Lambda at which each input element left, (n_elements,); the largest one for those that never did."""
    units = path.importance[: problem.n_inputs]
    finite = units[np.isfinite(units)]
    top = float(finite.max()) if len(finite) else 1.0
    return np.where(np.isfinite(units), units, top)[problem.unit_of]


def _result(
    options: TrainSparse,
    data: SparseData,
    problem: UnitProblem,
    path: UnitPath,
    rows: list[dict[str, Any]],
    dense: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Assemble the JSON; the size is chosen on validation and its test score looked at once."""
    split = "val" if "val" in data.batches else "train"
    scores = {row["size"]: row["relaxed"][split]["accuracy"] for row in rows}
    if not any(map(math.isfinite, scores.values())):
        raise NotConverged("no network of the path gives a number for every sample: a smaller --lr")
    best = max(filter(math.isfinite, scores.values()))
    n = len(data.batches[split].y)
    error = math.sqrt(max(best * (1 - best), 0) / n) if data.family != "gaussian" else 0.01
    ascending = sorted(rows, key=lambda row: row["size"])
    chosen = next(row for row in ascending if scores[row["size"]] >= best - error)
    summary = {
        "method": options.method,
        "status": path.status,
        "units": problem.n_units,
        "sizes_on_the_path": sorted(path.subsets),
        "rule": f"smallest size within one standard error of the best {split} accuracy, relaxed",
        "chosen": chosen["size"],
        "chosen_metrics": chosen["relaxed"],
        "dense": dense,
    }
    return {
        "summary": summary,
        "text": _table(options, rows, summary),
        "rows": rows,
        "stages": [[s.lam, s.n_units, s.train_loss, s.validation.get("accuracy")] for s in path.stages],
        "subsets": {str(k): {"lam": s.lam, "settled": s.settled} for k, s in sorted(path.subsets.items())},
    }


def _table(options: TrainSparse, rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    split = "test" if "test" in rows[0]["metrics"] else "val" if "val" in rows[0]["metrics"] else "train"
    names = list(rows[0].get("refits") or {})
    head = f"{'units':>6} {'lambda':>9} {'KKT':>7} {f'path, {split}':>11} {'relaxed':>8}"
    lines = [head + "".join(f"{name + ' refit':>20}" for name in names)]
    for row in sorted(rows, key=lambda r: -r["size"]):
        own, relaxed = (row[key][split]["accuracy"] for key in ("metrics", "relaxed"))
        known = row["max_violation"] is not None and not math.isnan(row["max_violation"])
        residual = f"{row['max_violation']:+.2f}" if known else "-"  # of a size that the path only passes
        text = f"{row['size']:6d} {row['lam']:9.3g} {residual:>7} {own:11.4f} {relaxed:8.4f}"
        for name in names:
            score = row["refits"][name][split]
            half = "" if math.isnan(score["half_width"]) else f" ± {score['half_width']:.3f}"
            text += f"{score['mean']:.3f}{half}".rjust(20)
        lines.append(text)
    lines.append(
        f"chosen: {summary['chosen']} of {summary['units']} units ({summary['rule']}); {split} "
        f"{summary['chosen_metrics'][split]['accuracy']:.4f}; every size from {summary['sizes_on_the_path'][0]} to "
        f"{summary['sizes_on_the_path'][-1]}{_missing(summary)} was met"
    )
    return "\n".join(lines)


def _missing(summary: dict[str, Any]) -> str:
    met = summary["sizes_on_the_path"]
    count = met[-1] - met[0] + 1 - len(met)
    return f" but {count}" if count else ""
