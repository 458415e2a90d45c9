"""Fitting with the rows spread over processes, GPUs or machines (torch.distributed).

Every rank calls ``fit_path`` with the same arguments (memory-mapped features on a shared disk, or
the same arrays) and its own ``communicator``; each reads only its share of the rows.  What
crosses the wire per iteration is the gradient (K x d) and a few scalars, summed in float64; all
decisions are taken on sums that are equal on all ranks, so all ranks walk the same path and
return the same points.  A path broken by a lost rank goes on with ``iter_path(start=...)`` on any
number of ranks.

Minibatches would need a reduction each, which costs more than their work (so ``saga`` is
refused); full-gradient FISTA needs two products with X per reduction.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import SpawnContext, spawn


class RankCommunicator:
    """Sums over the ranks of an initialized process group.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        All ranks by default.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place."""
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=self.group)
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Maximum over all ranks, in place."""
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.group)
        return tensor

    def share(self, n: int) -> tuple[int, int]:
        """First and past-the-last of ``n`` rows that are this rank's."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size


def communicator_from_environment(device: str = "auto") -> RankCommunicator | None:
    """Join the process group that ``torchrun`` describes; None where there is one process only.

    NCCL with one GPU per local rank where there are GPUs (and ``device`` is not "cpu"), else gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    if not dist.is_initialized():
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    return RankCommunicator()


def run_on_ranks(function: Callable[..., None], n_ranks: int, *args: Any) -> None:
    """Run ``function(*args)`` in ``n_ranks`` processes of this machine, joined in one process group.

    The function (importable by name) gets its communicator from
    :func:`communicator_from_environment`.  When a rank dies the others are ended and
    ``torch.multiprocessing.ProcessExitedException`` or ``ProcessRaisedException`` is raised.
    """
    processes = start_ranks(function, n_ranks, *args)
    while not processes.join():
        pass


def start_ranks(function: Callable[..., None], n_ranks: int, *args: Any) -> SpawnContext:
    """Start the processes of :func:`run_on_ranks` and return at once; ``join`` what is returned until it is True."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = spawn(_rank, args=(n_ranks, port, function, args), nprocs=n_ranks, join=False)
    assert context is not None, "spawn gives the context where it does not join"
    return context


def _rank(rank: int, n_ranks: int, port: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(n_ranks),
    )
    try:
        function(*args)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
