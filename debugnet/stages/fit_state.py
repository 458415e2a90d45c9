"""The solver's state inside a long point of ``fit-path``, kept in the partial folder for whoever goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from debugnet import interrupts
from debugnet.artifacts.atomic import atomic_file
from debugnet.progress import log

#: Its name in the partial folder.
STATE_FILE = "state.safetensors"


def keep_state(path: Path, lam: float, arrays: dict[str, np.ndarray]) -> None:
    """Write the state inside a long point; a signal need not wait for its end."""
    from safetensors.numpy import save

    with atomic_file(path) as temporary:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        temporary.write_bytes(save(contiguous, metadata={"lam": repr(lam)}))
    interrupts.check()


def read_state(path: Path) -> tuple[float, dict[str, np.ndarray]] | None:
    """Return the state inside an interrupted point, or None; a damaged one is as good as none."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            return float(file.metadata()["lam"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        log(f"{path} is damaged: the point it belongs to starts again")
        return None
