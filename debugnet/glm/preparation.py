"""From a user's arrays and options to a problem, its null model and its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debugnet.errors import InputError, UsageError
from debugnet.glm import inputs
from debugnet.glm.design import Communicator, Design, SingleProcess, as_tensor, measure_standardizer
from debugnet.glm.families import FAMILIES, Family
from debugnet.glm.lambda_grid import NullModel, fit_null_model, make_grid
from debugnet.glm.metrics import evaluate
from debugnet.glm.options import FitOptions
from debugnet.glm.penalties import Penalty
from debugnet.glm.problem import GLMProblem
from debugnet.glm.solvers.auto import choose
from debugnet.glm.solvers.base import Solver
from debugnet.registry import PENALTIES, SOLVERS
from debugnet.regularization_path import PathPoint
from debugnet.standardization import Standardizer

#: Score of a class that has no rows (probability 1e-13), relative to the smallest other bias.
EMPTY_SCORE = -30.0


@dataclass(frozen=True)
class OutputMap:
    """Between the fitted outputs and all outputs of the decision layer.

    They differ only where ``allow_empty_class`` left constant outputs out of the fit.
    """

    n_outputs: int
    fitted: np.ndarray
    constant: np.ndarray

    def expand(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(K', d), (K',) -> (K, d), (K,): a constant output has weight 0 and a bias that decides it."""
        if len(self.fitted) == self.n_outputs:
            return weight, bias
        index = torch.as_tensor(self.fitted, device=weight.device)
        always = torch.as_tensor(self.constant == 1, device=weight.device)
        whole = weight.new_zeros((self.n_outputs, weight.shape[1]))
        whole[index] = weight
        low = min(0.0, float(bias.min())) + EMPTY_SCORE
        shift = torch.where(always, -EMPTY_SCORE, low).to(bias.dtype)
        shift[index] = bias
        return whole, shift

    def compress(self, point: PathPoint, problem: GLMProblem) -> tuple[Tensor, Tensor]:
        """A stored point's fitted outputs, as tensors."""
        if point.weight.shape != (self.n_outputs, problem.n_features):
            raise InputError(
                f"start has weights of shape {point.weight.shape}: this problem needs "
                f"({self.n_outputs}, {problem.n_features})"
            )
        weight = torch.as_tensor(point.weight[self.fitted], dtype=torch.float64, device=problem.device)
        return weight, torch.as_tensor(point.bias[self.fitted], dtype=torch.float64, device=problem.device)


@dataclass(frozen=True)
class EvaluationSet:
    """Rows on which every point is scored."""

    design: Design
    target: Tensor
    offset: Tensor | None
    total_rows: int
    family: Family
    task: str

    def metrics(self, weight: Tensor, bias: Tensor) -> dict[str, float]:
        """Score all outputs (K, d), (K,) on these rows, each with weight 1/n over all ranks."""
        scores = self.design.scores(weight, bias, torch.float64)
        if self.offset is not None:
            scores += self.offset
        mass = scores.new_full((len(scores),), 1 / self.total_rows)
        return evaluate(self.family, self.task, scores, self.target, mass, self.design.communicator)


@dataclass(frozen=True)
class Preparation:
    """A problem that is ready to be solved."""

    problem: GLMProblem
    null: NullModel
    lambdas: np.ndarray
    standardizer: Standardizer
    outputs: OutputMap
    task: str
    evaluation: dict[str, EvaluationSet]
    solver: type[Solver]
    meta: dict[str, Any]

    def make_solver(self) -> Solver:
        """Return a fresh solver for one path."""
        return self.solver(self.problem)


def prepare(X: np.ndarray | Tensor, y: Any, options: FitOptions) -> Preparation:
    """Check everything, standardize, fit the null model and lay out the grid."""
    device = inputs.check_device(options.device)
    communicator = options.communicator or SingleProcess()
    X = as_tensor(X)
    rows = inputs.check_rows(options.rows, len(X))
    used = slice(None) if rows is None else rows
    labels = inputs.to_numpy(y, "y")
    inputs.check_length(labels, len(X))
    weight = inputs.check_sample_weight(options.sample_weight, len(X))[used]
    family = inputs.resolve_family(options.family, labels[used])
    target = inputs.encode_target(
        labels[used],
        family,
        weight=weight,
        n_classes=options.n_classes,
        allow_empty_class=options.allow_empty_class,
    )
    offset = inputs.check_offset(options.offset, len(X), target)
    total_rows, first, last = len(weight), *communicator.share(len(weight))
    mine = slice(first, last)
    X, row_index = _own_rows(X, rows, mine)
    sample_weight = torch.as_tensor(weight[mine] / weight.sum(), device=device)
    standardizer = _standardizer(X, row_index, sample_weight, options, device, communicator, first)
    factor = inputs.check_penalty_factor(options.penalty_factor, X.shape[1])
    included = np.isfinite(factor)
    design = Design(
        X,
        standardizer.mean,
        np.where(included, standardizer.inverse_scale, 0.0),
        rows=row_index,
        device=device,
        communicator=communicator,
    )
    problem = GLMProblem(
        design=design,
        target=torch.from_numpy(target.values[mine]).to(device),
        family=FAMILIES[family],
        penalty=_penalty(options, np.where(included, factor, 1.0), len(target.fitted), device),
        sample_weight=sample_weight,
        n_outputs=len(target.fitted),
        offset=None if offset is None else torch.as_tensor(offset[used][mine], device=device),
        fit_intercept=options.fit_intercept,
        uniform=bool((weight == weight[0]).all()),
        total_rows=total_rows,
        seed=options.seed,
    )
    null = fit_null_model(problem)
    _check_lambda_max(null, problem, standardizer)
    name, reason = _choose_solver(options.solver, problem)
    return Preparation(
        problem=problem,
        null=null,
        lambdas=make_grid(
            null.lambda_max,
            n_lambdas=options.n_lambdas,
            lambda_min_ratio=options.lambda_min_ratio,
            lambdas=options.lambdas,
            lambda_zero=options.lambda_zero,
        ),
        standardizer=standardizer,
        outputs=OutputMap(target.n_outputs, target.fitted, target.constant),
        task=target.task,
        evaluation={
            split: _evaluation_set(split, data, target, problem, standardizer) for split, data in options.splits.items()
        },
        solver=SOLVERS.load(name),
        meta={
            "method": "glm",
            "family": family,
            "task": target.task,
            "penalty": options.penalty,
            "l1_ratio": options.l1_ratio,
            "group_weight": options.group_weight,
            "nonnegative": options.nonnegative,
            "fit_intercept": options.fit_intercept,
            "standardize": options.standardize,
            "solver": name,
            "solver_reason": reason,
            "tol": options.tol,
            "lambda_max": null.lambda_max,
            "null_objective": null.objective,
            "seed": options.seed,
            "device": str(device),
            "dead_features": int((standardizer.scale == 0).sum()),
            "excluded_features": int((~included).sum()),
        },
    )


def _own_rows(X: Tensor, rows: np.ndarray | None, mine: slice) -> tuple[Tensor, Tensor | None]:
    """Return the used rows of this rank: (a view of X, or X with an index)."""
    if rows is None:
        return X[mine], None
    return X, torch.from_numpy(rows[mine]).to(X.device)


def _standardizer(
    X: Tensor,
    rows: Tensor | None,
    sample_weight: Tensor,
    options: FitOptions,
    device: torch.device,
    communicator: Communicator,
    first_row: int,
) -> Standardizer:
    measured = options.standardizer
    if measured is None:
        return measure_standardizer(
            X,
            rows,
            sample_weight,
            center=options.fit_intercept,
            scale=options.standardize,
            device=device,
            communicator=communicator,
            first_row=first_row,
        )
    if len(measured.mean) != X.shape[1]:
        raise InputError(f"the standardizer has {len(measured.mean)} features, X has {X.shape[1]}")
    return measured


def _penalty(options: FitOptions, factor: np.ndarray, n_outputs: int, device: torch.device) -> Penalty:
    make = PENALTIES.load(options.penalty)
    given: dict[str, Any] = {
        "l1_ratio": options.l1_ratio,
        "factor": torch.as_tensor(factor, device=device),
        "nonnegative": options.nonnegative,
    }
    if options.penalty == "group_lasso":
        named: dict[str | float, float] = {"one": 1.0, "sqrt": math.sqrt(n_outputs)}
        given["group_weight"] = named[options.group_weight] if options.group_weight in named else options.group_weight
    return make(**given)


def _check_lambda_max(null: NullModel, problem: GLMProblem, standardizer: Standardizer) -> None:
    if null.lambda_max > 0 and math.isfinite(null.lambda_max):
        return
    dead = int((standardizer.scale == 0).sum())
    raise InputError(
        f"no penalized feature has anything to say about y (lambda_max = {null.lambda_max:g}): "
        f"{dead} of {problem.n_features} features are constant on these rows"
    )


def _choose_solver(name: str, problem: GLMProblem) -> tuple[str, str]:
    """(name, why), refusing a solver that cannot solve the problem and naming those that can."""
    reason = "named by the user"
    if name == "auto":
        name, reason = choose(problem)
    refusal = SOLVERS.load(name).refusal(problem)
    if refusal is not None:
        able = [other for other in SOLVERS if SOLVERS.load(other).refusal(problem) is None]
        raise UsageError(f"solver '{name}' cannot solve this: {refusal}; use {' or '.join(able)}, or auto")
    return name, reason


def _evaluation_set(
    split: str, data: Any, target: inputs.Target, problem: GLMProblem, standardizer: Standardizer
) -> EvaluationSet:
    """Encode (X, y[, rows[, offset]]) of another split."""
    X, y, rows, offset = (*data, None, None)[:4] if len(data) < 4 else data
    X = as_tensor(X)
    if X.shape[1] != problem.n_features:
        raise InputError(f"{split}: X has {X.shape[1]} features, the training X has {problem.n_features}")
    if (problem.offset is None) != (offset is None):
        raise InputError(f"{split}: offsets must be given for every split or for none")
    labels = inputs.encode_evaluation(y, target, split, len(X))
    index = inputs.check_rows(rows, len(X))
    used = np.arange(len(X))[slice(*problem.communicator.share(len(X)))]
    if index is not None:
        used = index[slice(*problem.communicator.share(len(index)))]
    design = Design(
        X,
        standardizer.mean,
        standardizer.inverse_scale,
        rows=None if len(used) == len(X) else torch.from_numpy(used).to(X.device),
        device=problem.device,
        communicator=problem.communicator,
    )
    if offset is not None:
        offset = inputs.to_numpy(offset, f"offset of {split}").astype(np.float64).reshape(len(X), -1)[used]
    return EvaluationSet(
        design=design,
        target=torch.from_numpy(labels[used]).to(problem.device),
        offset=None if offset is None else torch.as_tensor(offset, device=problem.device),
        total_rows=len(X) if index is None else len(index),
        family=problem.family,
        task=target.task,
    )
