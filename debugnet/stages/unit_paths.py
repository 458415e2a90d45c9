"""What ``train-sparse`` and ``fit-path --method lassonet`` do alike: follow a path over units that may be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from debugnet import interrupts
from debugnet.errors import NotConverged
from debugnet.progress import Progress, log
from debugnet.sparse_training.losses import Diverged
from debugnet.sparse_training.subsets import UnitPath
from debugnet.sparse_training.unit_checkpoint import load_fitter, save_fitter
from debugnet.sparse_training.unit_path import UnitPathFitter

#: Seconds between two checkpoints of the network's path.
CHECKPOINT_SECONDS = 30.0


def follow(
    fitter: UnitPathFitter,
    file: Path,
    label: str,
    units: str,
    begun: Callable[[UnitPathFitter], None] | None = None,
) -> UnitPath:
    """Run a path to its end, from where ``file`` left it, with a checkpoint now and then and where it is to stop.

    Parameters
    ----------
    fitter : UnitPathFitter
    file : Path
        Of the checkpoint.
    label, units : str
        What the progress bar calls the method, and the units.
    begun : callable, optional
        Called with the fitter when the dense network stands.

    Raises
    ------
    NotConverged
        The dense start diverged.
    """
    if load_fitter(fitter, file):
        log(f"going on at {fitter.last_alive} {units}, after {len(fitter.path.stages)} stages")
    last = time.monotonic()

    def checkpoint(state: UnitPathFitter) -> None:
        nonlocal last
        if begun and not state.path.stages:
            begun(state)
        due = time.monotonic() - last > CHECKPOINT_SECONDS or not state.path.stages
        if due or state.done or interrupts.received() is not None:
            save_fitter(state, file)
            last = time.monotonic()
        interrupts.check()

    fitter.checkpoint = checkpoint
    try:
        with Progress(None, label, "lambda") as progress, interrupts.deferred():
            for stage in fitter:
                progress.postfix(lam=f"{stage.lam:.3g}", loss=f"{stage.train_loss:.3f}", **{units: stage.n_units})
                progress.update()
    except Diverged as error:
        raise NotConverged(f"the dense start diverged ({error}): a smaller --lr") from error
    if fitter.path.status == "diverged":
        log(f"diverged {fitter.failures} times, each time with half the step: it ends at {fitter.last_alive} {units}")
    return fitter.finish()
