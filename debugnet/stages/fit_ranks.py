"""``fit-path`` on several ranks, each with its share of the rows: started here (``--ranks``), or by torchrun.

Rank 0 alone reads the partial path, writes points and speaks; what the others must know of it (where to begin, when to
stop) it broadcasts.  Every rank walks the same lambdas on sums over all ranks (:mod:`debugnet.glm.distributed`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from debugnet import errors, interrupts, progress
from debugnet.artifacts.provenance import Provenance
from debugnet.errors import DebugnetError, DeviceError, UsageError
from debugnet.glm.distributed import RankCommunicator, communicator_from_environment, start_ranks
from debugnet.recipes.fit_path import FitPath
from debugnet.regularization_path import PathPoint


class Ranks:
    """The ranks of one fit, as the stage sees them; without a communicator there is one.

    Attributes
    ----------
    communicator : RankCommunicator or None
    size, rank : int
    leads : bool
        True on the one rank that reads, writes and speaks.
    """

    def __init__(self, communicator: RankCommunicator | None = None) -> None:
        self.communicator = communicator
        self.size, self.rank = (1, 0) if communicator is None else (communicator.size, communicator.rank)
        self.leads = self.rank == 0
        self._walking = False

    def share(self, value: Any = None) -> Any:
        """Return rank 0's value on every rank."""
        if self.communicator is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.communicator.group)
        return box[0]

    def together(self, points: Iterator[PathPoint]) -> Iterator[PathPoint]:
        """Yield points that all ranks fit; no rank goes on to the next one alone."""
        self._walking = True
        for point in points:
            yield point
            if self._agree_to_stop(False):
                break
        self._walking = False

    def stop(self) -> None:
        """Rank 0: end :meth:`together` on all ranks."""
        if self._walking:
            self._agree_to_stop(True)
            self._walking = False

    def _agree_to_stop(self, wish: bool) -> bool:
        if self.communicator is None:
            return wish
        flag = torch.tensor(float(wish), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        return bool(self.communicator.max_(flag))


#: A fit in one process.
ALONE = Ranks()


def join(device: str) -> Ranks:
    """Enter the process group that torchrun (or :func:`fit_on_ranks`) describes."""
    _check_devices(device, 0)
    return Ranks(communicator_from_environment(device))


def leave(ranks: Ranks) -> None:
    """Leave the process group, if there is one."""
    if ranks.communicator is not None and dist.is_initialized():
        dist.destroy_process_group()


def fit_on_ranks(options: FitPath, output: Path, provenance: Provenance, **more: Any) -> None:
    """Start ``options.ranks`` processes on this machine and wait for them; arguments as for ``fit_points.fit``.

    Raises
    ------
    DeviceError
        There are fewer GPUs than ranks, or a rank was killed.  What is stored stays and can be gone on with.
    DebugnetError
        Whatever a rank raised.
    """
    n_ranks = options.ranks or 1
    _check_devices(options.device, n_ranks)
    with tempfile.TemporaryDirectory(prefix="debugnet-ranks-") as folder:
        logger = logging.getLogger("torch.multiprocessing.spawn")  # tells of every rank that it ends with the lost one
        before = logger.level
        logger.setLevel(logging.ERROR)
        speaking = {"quiet": progress.is_quiet(), "log_json": progress.is_json()}
        processes = start_ranks(_work, n_ranks, folder, options, output, provenance, more, speaking)
        try:
            while not processes.join(timeout=0.5):
                pass
        except (ProcessExitedException, ProcessRaisedException) as lost:
            interrupts.check()
            exits = [process.exitcode for process in processes.processes]
            raise _what_happened(Path(folder), lost, exits) from None
        finally:
            for process in processes.processes:
                process.kill()
            logger.setLevel(before)


def _check_devices(device: str, n_ranks: int) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device} with several ranks: each takes the GPU of its local rank; use cuda or cpu")
    if device != "cpu" and torch.cuda.device_count() < n_ranks:
        raise DeviceError(
            f"--ranks {n_ranks}: one GPU each, and this machine has {torch.cuda.device_count()}; "
            f"--device cpu --ranks {n_ranks} shares the rows between processes on the CPU"
        )


def _what_happened(folder: Path, lost: Any, exits: list[int | None]) -> BaseException:
    """Return the error that a rank left behind, or one that says how it died."""
    told = [json.loads(file.read_text()) for file in sorted(folder.glob("error-*.json"))]
    own = [words for words in told if "another rank" not in words["message"]] or told
    kind = getattr(errors, own[0]["kind"], None) if own else None
    if isinstance(kind, type) and issubclass(kind, DebugnetError):
        return kind(own[0]["message"])
    # A rank that loses another may say so before the other's end is seen.
    killed = [(rank, -code) for rank, code in enumerate(exits) if code is not None and code < 0]
    if own and not killed:
        return RuntimeError(f"rank {own[0]['rank']} of {len(exits)}: {own[0]['message']}")
    rank, number = killed[0] if killed else (lost.error_index, 0)
    how = f"was killed by {signal.Signals(number).name}" if number else f"ended with exit code {lost.exit_code}"
    return DeviceError(
        f"rank {rank} of {len(exits)} {how} (out of memory?); the points fitted so far are kept, and the same "
        "command goes on after them"
    )


def _work(
    folder: str, options: FitPath, output: Path, provenance: Provenance, more: dict[str, Any], speaking: dict[str, bool]
) -> None:
    """One rank: fit, and leave a word behind on failure."""
    from debugnet.stages.fit_points import fit

    for number in (signal.SIGINT, signal.SIGTERM):  # points are durable: nothing has to be put in order
        signal.signal(number, lambda number, _: os._exit(128 + number))
    rank = int(os.environ["RANK"])
    progress.configure(**{**speaking, "quiet": speaking["quiet"] or rank > 0})
    if options.threads is None:  # else each would take all
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["WORLD_SIZE"])))
    try:
        fit(options, output, provenance, ranks=join(options.device), **more)
    except Exception as error:
        message = str(error) if isinstance(error, DebugnetError) else traceback.format_exc()
        words = {"kind": type(error).__name__, "message": message, "rank": rank}
        Path(folder, f"error-{rank}.json").write_text(json.dumps(words))
        os._exit(1)  # no second report, and no wait for the ranks that wait for this one
