"""Epochs of an ordinary training loop that can be killed at any moment and end as if it had not been.

A file keeps network, optimizer, random state and epoch: one safetensors, with a JSON text in its
metadata.  Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from debugnet import interrupts
from debugnet.errors import InputError
from debugnet.sparse_training.losses import Diverged, Loss
from debugnet.sparse_training.proximal_training import Batches, snapshot

#: Seconds between two states on the disk; one more is written where the run is told to stop.
CHECKPOINT_SECONDS = 30.0
#: A diverging run is done again at half the step, so many times.
MAX_FAILURES = 3


class EpochTraining:
    """One phase of training at a step size that falls to zero by a cosine.

    Parameters
    ----------
    network : nn.Module
    optimizer : Optimizer or None
    train : Batches
        Begun at its first epoch, whatever it has been used for.
    loss : callable
    amp : bool
        Forward passes in bfloat16; weights, gradients and steps stay in float32.
    file : Path, optional
        Where the state is kept, and taken from if it is there; whoever made it deletes it.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        train: Batches,
        loss: Loss,
        *,
        amp: bool = False,
        file: Path | None = None,
    ) -> None:
        self.network, self.optimizer, self.train, self.loss = network, optimizer, train, loss
        self.amp, self.file = amp, file
        self.rates = [group["lr"] for group in optimizer.param_groups] if optimizer else []
        self.epoch, self.failures = 0, 0

    def run(self, epochs: int, after: Callable[[float], None] | None = None) -> None:
        """Train; ``after`` is called after every step with the share of the full step size.

        Raises
        ------
        Diverged
            At the first step and at a half, a quarter and an eighth of the step size.
        InputError
            The state on the disk is damaged.
        """
        start = snapshot(self.network)
        self._load()
        while True:
            try:
                self._epochs(epochs, after)
                return
            except Diverged:
                if self.failures == MAX_FAILURES:
                    raise
                self.failures, self.epoch = self.failures + 1, 0
                self.network.load_state_dict(start)
                if self.optimizer:
                    self.optimizer.state.clear()

    def _epochs(self, epochs: int, after: Callable[[float], None] | None) -> None:
        steps, saved = max(1, epochs * len(self.train)), time.monotonic()
        self.network.train()
        with interrupts.deferred():
            while self.epoch < epochs:
                self.train._epoch = self.epoch
                for i, (x, y) in enumerate(self.train):
                    share = (1 + math.cos(math.pi * (self.epoch * len(self.train) + i) / steps)) / 2**self.failures / 2
                    self._step(x, y, share)
                    if after is not None:
                        after(share)
                self.epoch += 1
                due = time.monotonic() - saved > CHECKPOINT_SECONDS or interrupts.received() is not None
                if self.file is not None and (due or self.epoch == epochs):
                    self._save(self.file)
                    saved = time.monotonic()
                interrupts.check()

    def _step(self, x: Tensor, y: Tensor, share: float) -> None:
        self.network.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.amp):
            outputs = self.network(x)
        value = self.loss(outputs.float() if self.amp else outputs, y)
        if not math.isfinite(float(value.detach())):
            raise Diverged(f"the loss became {float(value.detach())}")
        value.backward()
        if self.optimizer is None:
            return
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.optimizer.step()

    def _save(self, path: Path) -> None:
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors["random"] = torch.get_rng_state()
        words: dict[str, Any] = {"epoch": self.epoch, "failures": self.failures}
        if self.optimizer:
            more, words["optimizer"] = pack_optimizer(self.optimizer)
            tensors |= more
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(save(plain, metadata={"state": json.dumps(words)}))
        temporary.replace(path)

    def _load(self) -> None:
        if self.file is None or not self.file.exists():
            return
        try:
            with safe_open(self.file, framework="pt") as file:
                words = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.network.load_state_dict(below(tensors, "network/"))
            if self.optimizer:
                unpack_optimizer(self.optimizer, tensors, words["optimizer"])
            torch.set_rng_state(tensors["random"])
            self.epoch, self.failures = words["epoch"], words["failures"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.file} is damaged ({error}): delete it, and its phase starts again") from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and what JSON takes."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    words: dict[str, Any] = {}
    for i, values in state["state"].items():
        tensors |= {f"optimizer/{i}/{name}": v for name, v in values.items() if isinstance(v, Tensor)}
        words[str(i)] = {name: v for name, v in values.items() if not isinstance(v, Tensor)}
    return tensors, {"groups": state["param_groups"], "state": words}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], words: dict[str, Any]) -> None:
    """Put back what :func:`pack_optimizer` took."""
    state = {int(i): values | below(tensors, f"optimizer/{i}/") for i, values in words["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": words["groups"]})


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
