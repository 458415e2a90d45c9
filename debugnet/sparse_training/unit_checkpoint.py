"""A unit path on the disk: everything a killed run needs to go on to the same end.

One safetensors file: tensors of the model, the optimizers, the random generator and the kept
networks, and a JSON text in its metadata for the rest.  Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debugnet.errors import InputError
from debugnet.sparse_training.epoch_training import below, pack_optimizer, unpack_optimizer
from debugnet.sparse_training.subsets import Stage, Subset
from debugnet.sparse_training.unit_path import UnitPathFitter

_SUBSET_WORDS = (
    "size", "lam", "settled", "network_lam", "validation", "max_violation", "violators", "polished_violation",
)  # fmt: skip


def save_fitter(fitter: UnitPathFitter, path: Path) -> None:
    """Write the state of a fitter between two stages (``path`` is replaced only when complete)."""
    from safetensors.torch import save_file

    trainer = fitter.trainer
    tensors: dict[str, Tensor] = {}
    tensors |= {f"model/{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {"random": torch.get_rng_state(), "death": torch.from_numpy(fitter.path.death)}
    for i, stepper in enumerate(trainer.steppers):
        if stepper.first is not None and stepper.second is not None:
            tensors |= {f"stepper/{i}/first": stepper.first, f"stepper/{i}/second": stepper.second}
    words: dict[str, Any] = {
        "steppers": [[s.lr, s.count] for s in trainer.steppers],
        "trainer_count": trainer._count,
        "caps": trainer.caps,
        "epoch": fitter.train._epoch,
        "fitter": [fitter.lam, fitter.ratio, fitter.failures, fitter.done, fitter.last_alive],
        "dense": fitter.path.dense,
        "status": fitter.path.status,
        "stages": [dataclasses.asdict(stage) for stage in fitter.path.stages],
        "subsets": [{name: getattr(s, name) for name in _SUBSET_WORDS} for s in fitter.path.subsets.values()],
    }
    if trainer.optimizer is not None:
        more, words["optimizer"] = pack_optimizer(trainer.optimizer)
        tensors |= more
    for size, subset in fitter.path.subsets.items():
        tensors[f"mask/{size}"] = torch.from_numpy(subset.mask)
        tensors |= {f"subset/{size}/{name}": value for name, value in (subset.state or {}).items()}
    if trainer.keep is not None:
        tensors["keep"] = trainer.keep
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(contiguous, temporary, metadata={"state": json.dumps(words)})
    temporary.replace(path)


def load_fitter(fitter: UnitPathFitter, path: Path) -> bool:
    """Put a fitter (made from the same options and data) where :func:`save_fitter` left it; False: no such file.

    Raises
    ------
    InputError
        The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _restore(fitter, words, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error}): delete it, and the path starts again") from error
    return True


def _restore(fitter: UnitPathFitter, words: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    trainer, path = fitter.trainer, fitter.path
    trainer.model.load_state_dict(below(tensors, "model/"))
    device = next(trainer.model.parameters()).device
    for i, (stepper, (lr, count)) in enumerate(zip(trainer.steppers, words["steppers"], strict=True)):
        stepper.lr, stepper.count = lr, count
        moments = below(tensors, f"stepper/{i}/")
        if moments:
            stepper.first, stepper.second = moments["first"].to(device), moments["second"].to(device)
    if trainer.optimizer is not None:
        unpack_optimizer(trainer.optimizer, tensors, words["optimizer"])
    torch.set_rng_state(tensors["random"])
    trainer.caps, trainer.keep = words["caps"], tensors.get("keep")
    trainer._count, fitter.train._epoch = words["trainer_count"], words["epoch"]
    fitter.lam, fitter.ratio, fitter.failures, fitter.done, fitter.last_alive = words["fitter"]
    path.dense, path.status, path.death = words["dense"], words["status"], tensors["death"].numpy().astype(np.float64)
    path.stages = [Stage(**stage) for stage in words["stages"]]
    for values in words["subsets"]:
        size = values["size"]
        kept = below(tensors, f"subset/{size}/")
        path.subsets[size] = Subset(mask=tensors[f"mask/{size}"].numpy(), state=kept or None, **values)
