"""Minibatch steps of a small ReLU network under LassoNet's penalty, each compiled as a whole.

On tables a step is a handful of products of small matrices, and what calls them costs several times what they cost.
Here forward pass, backward pass, Adam, caps, :class:`UnitAdam` and HIER-PROX are one call: the mathematics of
:meth:`ProximalTrainer.step`, which stays the one for every other network, penalty, optimizer and device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import FAMILIES, Diverged, FamilyLoss
from debugnet.sparse_training.penalties import LassoNetPenalty
from debugnet.sparse_training.proximal import _prox_rows
from debugnet.sparse_training.unit_adam import _step_rows

if TYPE_CHECKING:
    from debugnet.sparse_training.proximal_training import ProximalTrainer

#: Samples times weights that read them up to which a compiled step is the faster one: its matrix products are loops.
LARGEST = 4_000_000
_MOMENTS = ("exp_avg", "exp_avg_sq")
compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})


def fits(trainer: ProximalTrainer, batch: int) -> bool:
    """Whether the trainer's network, penalty, loss, optimizer and device are those compiled here, and small enough."""
    model, optimizer = trainer.model, trainer.optimizer
    if not isinstance(model, LassoNet) or trainer.amp or type(optimizer) is not torch.optim.Adam:
        return False
    kinds = [type(module) for module in model.network.children()]
    depth = kinds.count(nn.Linear)
    if depth < 2 or kinds != [nn.Flatten, nn.Linear, *[nn.ReLU, nn.Linear] * (depth - 1)]:
        return False
    options, *more = optimizer.param_groups
    return (
        not more
        and not any(options[name] for name in ("weight_decay", "amsgrad", "maximize"))
        and isinstance(trainer.loss, FamilyLoss)
        and isinstance(trainer.penalties[0], LassoNetPenalty)
        and not model.reader.grouped
        and all(p.requires_grad and p.is_contiguous() for p in model.parameters())
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
        and all(layer.bias is not None for layer in model.network.children() if isinstance(layer, nn.Linear))
        and batch * sum(p.numel() for p in trainer.penalized) <= LARGEST
    )


class CompiledSteps:
    """Steps of one trainer, on the memory of its own weights and moments; only where it :func:`fits`.

    The weights under the penalty are held as rows: :meth:`close` writes them back into the network.
    """

    def __init__(self, trainer: ProximalTrainer) -> None:
        model, optimizer = trainer.model, trainer.optimizer
        assert isinstance(model, LassoNet) and isinstance(trainer.loss, FamilyLoss) and optimizer is not None
        [penalty], [stepper] = trainer.penalties, trainer.steppers
        assert isinstance(penalty, LassoNetPenalty)
        self.trainer, self.penalty, self.stepper = trainer, penalty, stepper
        self.family = FAMILIES.index(trainer.loss.family)
        layers = [layer for layer in model.network.children() if isinstance(layer, nn.Linear)]
        weights, biases = [layer.weight for layer in layers[1:]], [layer.bias for layer in layers]
        self.states = [_state(optimizer, p) for p in (*weights, *biases)]
        self.count = int(self.states[0]["step"])
        later = _arrays(weights, self.states[: len(weights)]) + _arrays(biases, self.states[len(weights) :])
        self.rows = penalty.current().numpy()
        keep = np.ones(len(self.rows), dtype=bool) if trainer.keep is None else trainer.keep.numpy()
        group = optimizer.param_groups[0]
        self.gradient = np.empty_like(self.rows)
        self.given = (
            self.rows, self.gradient, *(t.numpy() for t in stepper.moments(penalty.current())), *later,
            np.array(trainer.caps or [np.inf] * len(weights)),
            (float(group["lr"]), *group["betas"], float(group["eps"])),
            (stepper.lr, *stepper.betas, stepper.eps), penalty.unit_weight.numpy(), keep,
        )  # fmt: skip

    def step(self, x: Tensor, y: Tensor, lam: float) -> float:
        """See :meth:`ProximalTrainer.step`."""
        trainer, n, alive = self.trainer, len(x), np.empty(len(self.rows), dtype=bool)
        batch = x.reshape(n, -1).numpy(), y.reshape(n, -1).float().numpy()
        threshold = trainer.next_threshold(lam)
        loss: float = _step(
            *batch,
            self.family,
            *self.given,
            self.count + 1,
            self.stepper.count + 1,
            threshold,
            self.penalty.hierarchy,
            alive,
        )
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss}")
        self.count += 1
        self.stepper.count += 1
        trainer.slopes, trainer.living = [torch.from_numpy(self.gradient)], torch.from_numpy(alive)
        return loss

    def close(self) -> None:
        """Bring network and optimizer up to date."""
        self.penalty.assign(torch.from_numpy(self.rows))
        for state in self.states:
            state["step"].fill_(self.count)


def _state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What torch's Adam holds of a parameter, begun where it is not yet."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state |= {"step": torch.zeros(()), **{name: torch.zeros_like(parameter) for name in _MOMENTS}}
    return state


def _arrays(parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> tuple[tuple[np.ndarray, ...], ...]:
    """The parameters, and their first and second moments, on the same memory."""
    moments = [tuple(state[name].numpy() for state in states) for name in _MOMENTS]
    return tuple(p.detach().numpy() for p in parameters), *moments


@compiled
def _step(  # type: ignore[no-untyped-def]
    x, y, family, rows, gradient, first, second, weights, weights_1, weights_2, biases, biases_1, biases_2, caps,
    adam, unit_adam, unit_weight, keep, count, unit_count, threshold, M, alive,
):  # pragma: no cover - compiled  # fmt: skip
    """One step; returns the loss, and changes nothing where that is not finite."""
    depth, p = len(weights), rows.shape[1] - len(biases[0])
    reading = np.zeros((len(x), rows.shape[1]), rows.dtype)  # theta' x, and what the first layer gives
    _add_product(x, rows, reading)
    hidden = [_relu(reading, p, biases[0])]
    for i in range(depth - 1):
        hidden.append(_relu(_product_with_rows(hidden[i], weights[i]), 0, biases[i + 1]))
    slope = _product_with_rows(hidden[depth - 1], weights[depth - 1])
    loss = _loss(slope, biases[depth], reading, y, family)
    if not np.isfinite(loss):
        return loss
    for i in range(depth - 1, -1, -1):
        found, before = np.zeros_like(weights[i]), np.zeros_like(hidden[i])
        _add_product(slope.T, hidden[i], found)
        _add_product(slope, weights[i], before)
        _adam(biases[i + 1], _sums(slope), biases_1[i + 1], biases_2[i + 1], count, adam)
        _adam(weights[i].ravel(), found.ravel(), weights_1[i].ravel(), weights_2[i].ravel(), count, adam)
        _cap(weights[i].ravel(), caps[i])
        _stop(before.ravel(), hidden[i].ravel())
        slope = before
    _adam(biases[0], _sums(slope), biases_1[0], biases_2[0], count, adam)
    for s in range(len(x)):
        for i in range(slope.shape[1]):
            reading[s, p + i] = slope[s, i]
    for g in range(len(rows)):
        for i in range(rows.shape[1]):
            gradient[g, i] = 0
    _add_product(x.T, reading, gradient)
    _move(rows, gradient, first, second, p, unit_count, unit_adam, unit_weight, threshold, M, keep, alive)
    return loss


@compiled
def _move(  # type: ignore[no-untyped-def]
    rows, gradient, first, second, p, count, adam, unit_weight, threshold, M, keep, alive
):  # pragma: no cover - compiled
    """UnitAdam and HIER-PROX on the rows."""
    lr, first_decay, second_decay, eps = adam
    moved, step, l1, axes = (
        np.empty_like(rows),
        np.empty_like(second),
        np.zeros_like(second),
        np.zeros((1, p), rows.dtype),
    )
    first_bias, second_bias = 1 - first_decay**count, 1 - second_decay**count
    _step_rows(rows, gradient, first, second, moved, step, first_decay, second_decay, first_bias, second_bias, lr, eps)
    axes[0, 0] = 1
    for g in range(len(step)):
        step[g] *= threshold * unit_weight[g]
    if threshold > 0:
        _prox_rows(moved, step, l1, axes, rows, M)
    for g in range(len(rows)):
        alive[g] = False
        for i in range(rows.shape[1]):
            if not keep[g]:
                rows[g, i] = 0
            elif threshold <= 0:
                rows[g, i] = moved[g, i]
            alive[g] |= rows[g, i] != 0


@compiled
def _loss(slope, bias, reading, y, family):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """:class:`FamilyLoss` of outputs ``slope + bias + reading``, whose derivative takes the place of the outputs."""
    n, total = len(slope), 0.0
    for s in range(n):
        f, mass, top = slope[s], 0.0, -np.inf
        for k in range(len(f)):
            f[k] += bias[k] + reading[s, k]
            top = max(top, f[k])
        for k in range(len(f)):
            if family == 0:
                mass += np.exp(f[k] - top)
            elif family == 1:
                total += max(f[k], 0.0) - f[k] * y[s, k] + np.log1p(np.exp(-abs(f[k])))
                f[k] = 1 / (1 + np.exp(-f[k])) - y[s, k]
            else:
                f[k] -= y[s, k]
                total += 0.5 * f[k] * f[k]
        if family == 0:
            label = int(y[s, 0])
            total += np.log(mass) + top - f[label]
            for k in range(len(f)):
                f[k] = np.exp(f[k] - top) / mass
            f[label] -= 1
        for k in range(len(f)):
            f[k] /= n
            reading[s, k] = f[k]
    return total / n


@compiled
def _adam(weight, gradient, first, second, count, adam):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Adam as torch has it, in place, all arrays flat."""
    lr, first_decay, second_decay, eps = adam
    rate, bias = lr / (1 - first_decay**count), 1 - second_decay**count
    for i in range(len(weight)):
        first[i] = first_decay * first[i] + (1 - first_decay) * gradient[i]
        second[i] = second_decay * second[i] + (1 - second_decay) * gradient[i] * gradient[i]
        weight[i] -= rate * first[i] / (np.sqrt(second[i] / bias) + eps)


@compiled
def _cap(weight, cap):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Shrink a flat array to the norm ``cap`` where it is longer."""
    square = 0.0
    for i in range(len(weight)):
        square += weight[i] * weight[i]
    if square > cap * cap:
        for i in range(len(weight)):
            weight[i] *= cap / np.sqrt(square)


@compiled
def _relu(values, start, bias):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """ReLU of the columns from ``start`` on, plus the bias."""
    out = np.empty((len(values), len(bias)), values.dtype)
    for s in range(len(out)):
        row, given = out[s], values[s, start:]
        for i in range(len(bias)):
            row[i] = max(given[i] + bias[i], 0.0)
    return out


@compiled
def _stop(slope, hidden):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """What comes back through a ReLU, flat and in place."""
    for i in range(len(slope)):
        slope[i] = slope[i] if hidden[i] > 0 else 0.0


@compiled
def _sums(A):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Sums of the columns."""
    out = np.zeros(A.shape[1], A.dtype)
    for s in range(len(A)):
        for i in range(len(out)):
            out[i] += A[s, i]
    return out


@compiled
def _add_product(A, B, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``out += A @ B``, four rows of B at a time."""
    d = len(B)
    for s in range(len(out)):
        sums = out[s]
        for j in range(0, d - 3, 4):
            a0, a1, a2, a3 = A[s, j], A[s, j + 1], A[s, j + 2], A[s, j + 3]
            b0, b1, b2, b3 = B[j], B[j + 1], B[j + 2], B[j + 3]
            for i in range(len(sums)):
                sums[i] += a0 * b0[i] + a1 * b1[i] + a2 * b2[i] + a3 * b3[i]
        for j in range(d - d % 4, d):
            a0, b0 = A[s, j], B[j]
            for i in range(len(sums)):
                sums[i] += a0 * b0[i]


@compiled
def _product_with_rows(A, B):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``A @ B.T``."""
    out = np.empty((len(A), len(B)), A.dtype)
    for s in range(len(A)):
        a = A[s]
        for k in range(len(B)):
            b, total = B[k], np.float32(0)
            for i in range(len(a)):
                total += a[i] * b[i]
            out[s, k] = total
    return out
