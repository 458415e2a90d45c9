"""The networks that ``train-sparse`` kept, seen as the points of a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.provenance import read_provenance
from debugnet.errors import InputError

#: What a point's sparsity counts, by --penalize.
_UNITS = {"inputs": "inputs", "hidden": "hidden units", "both": "inputs and hidden units"}


@dataclass(frozen=True)
class NetworkPath:
    """What selection, analysis and report need to know of ``sparse/``.

    The network of a point is the relaxed one: trained on without penalty, on what the path kept.

    Attributes
    ----------
    folder : Path
    names : tuple of float
        Size of each point's subset, or its lambda of spred: what its files are called by.
    lam : ndarray (L,)
    nnz : ndarray (L,), int64
        Units (spred: weights) that are kept, ascending.
    status : tuple of str
        "trained": the problems are not convex, nothing says more.
    metrics : mapping
        ``{split: {name: ndarray (L,)}}``.
    meta : mapping
        task, family, class_names, method, unit, total, dense (metrics of the network that the path
        began with), status.
    found : mapping
        ``sparse.json``.
    """

    folder: Path
    names: tuple[float, ...]
    lam: np.ndarray
    nnz: np.ndarray
    status: Sequence[str]
    metrics: Mapping[str, Mapping[str, np.ndarray]]
    meta: Mapping[str, Any]
    found: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.lam)

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures that ``train-sparse`` drew: importance of the inputs, and scores along the path."""
        names = ("importance", "accuracy_against_units", "accuracy_against_density")
        return {name: self.folder / f"{name}.png" for name in names if (self.folder / f"{name}.png").exists()}


def load_network_path(folder: Path) -> NetworkPath:
    """Read ``sparse/``.

    Raises
    ------
    InputError
        It was made before its networks could be built again from what it says.
    """
    found, options = read_json(folder / "sparse.json"), read_provenance(folder).options
    if "network" not in found:
        raise InputError(f"{folder} was made by an earlier version: make it again (train-sparse --force)")
    units = options["method"] != "spred"
    # By size and not by lambda, which is nearly the same: a unit that came back leaves a second time, later.
    rows = sorted(found["rows"], key=lambda row: (row["size"] if units else row["nnz"], -row["lam"]))
    unit = "groups" if read_provenance(folder).inputs.get("groups") else _UNITS[options.get("penalize", "inputs")]
    meta = {
        "task": found["task"],
        "family": found["family"],
        "class_names": found["class_names"],
        "method": options["method"],
        "unit": unit if units else "weights",
        "total": found["summary"]["units" if units else "weights"],
        "dense": found["summary"]["dense"],
        "status": found["summary"].get("status", "complete"),
    }
    return NetworkPath(
        folder,
        tuple(row["size"] if units else row["lam"] for row in rows),
        np.array([row["lam"] for row in rows], dtype=float),
        np.array([row["size"] if units else row["nnz"] for row in rows]),
        ("trained",) * len(rows),
        {
            split: {name: _values([row["relaxed"][split][name] for row in rows]) for name in metrics}
            for split, metrics in rows[0]["relaxed"].items()
        },
        meta,
        found,
    )


def _values(numbers: Sequence[float | None]) -> np.ndarray:
    """Null is how JSON has NaN."""
    return np.array([np.nan if number is None else number for number in numbers], dtype=float)
