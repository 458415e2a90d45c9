"""The regularization path on disk: one file per point while it grows, one ``path.h5`` in the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts import atomic
from debugnet.artifacts.bundle import PartialFolder, write_json
from debugnet.artifacts.canonical import parse_json
from debugnet.artifacts.container import Header, read_array, read_header, write_container
from debugnet.artifacts.provenance import Provenance
from debugnet.errors import InputError
from debugnet.regularization_path import STATUSES, PathPoint, RegularizationPath
from debugnet.standardization import Standardizer

_SCALARS = ("objective", "duality_gap", "kkt_residual", "n_epochs", "seconds")


class PathWriter(PartialFolder):
    """Keeps every finished point, so that an interrupted fit goes on at the next lambda.

    Parameters
    ----------
    path, provenance, force
        As of `PartialFolder`.
    points : sequence of PathPoint
        Points known already, with which a new partial path begins: how a finished path is
        extended (``path_points(load_path(old))``).

    Raises
    ------
    OutputExists, Locked
        As there.
    StorageError
        Disk full, read-only, permission.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        provenance: Provenance,
        *,
        points: Sequence[PathPoint] = (),
        force: bool = False,
    ) -> None:
        self._known = points
        super().__init__(path, provenance, force=force)

    def _resume(self) -> None:
        self._n_points = 0
        while self._stem(self._n_points).with_suffix(".json").exists():
            self._n_points += 1
        for point in self._known[self._n_points :]:
            self.append(point)

    def append(self, point: PathPoint) -> None:
        """Add the next point, durably: its weights, then the JSON that vouches for them."""
        from safetensors.numpy import save

        rows, columns = np.nonzero(point.weight)
        tensors = {
            "indptr": np.cumsum([0, *np.bincount(rows, minlength=len(point.weight))]),
            "indices": columns.astype(np.int32),
            "data": np.asarray(point.weight[rows, columns], dtype=np.float64),
            "bias": np.asarray(point.bias, dtype=np.float64),
        }
        words = {
            "lam": point.lam,
            "status": point.status,
            "n_features": point.weight.shape[1],
            "metrics": point.metrics,
            **{name: getattr(point, name) for name in _SCALARS},
        }
        stem = self._stem(self._n_points)
        with atomic.atomic_file(stem.with_suffix(".safetensors")) as temporary:
            temporary.write_bytes(save(tensors))
        with atomic.atomic_file(stem.with_suffix(".json")) as temporary:
            write_json(temporary, words)
        self._n_points += 1

    def points(self) -> list[PathPoint]:
        """Read the points kept so far, in order, with dense weights.

        Raises
        ------
        InputError
            One of them is damaged.
        """
        return [_dense_point(*_read_point(self._stem(i))) for i in range(self._n_points)]

    def _stem(self, i: int) -> Path:
        return self.folder / f"point-{i:05d}"

    def finish(self, standardizer: Standardizer, meta: Mapping[str, Any], provenance: Provenance | None = None) -> Path:
        """Assemble ``path.h5`` from the points, publish it and remove the partial folder.

        Raises
        ------
        InputError
            There is no point, or one of them is damaged.
        """
        if not self._n_points:
            raise InputError(f"{self.path} would have no point: give at least one lambda")
        points = [_read_point(self._stem(i)) for i in range(self._n_points)]
        save_path(self.path, _stack(points, standardizer, meta), provenance or self._provenance)
        shutil.rmtree(self.folder)
        self.close()
        return self.path


#: The JSON and the tensors of one point.
_StoredPoint = tuple[dict[str, Any], dict[str, np.ndarray]]


def _read_point(stem: Path) -> _StoredPoint:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        words = parse_json(stem.with_suffix(".json").read_bytes())
        tensors = load(stem.with_suffix(".safetensors").read_bytes())
        words["metrics"] = {split: {k: _number(v) for k, v in m.items()} for split, m in words["metrics"].items()}
        words |= {name: _number(words[name]) for name in _SCALARS}
        if len(tensors["indptr"]) != len(tensors["bias"]) + 1 or tensors["indptr"][-1] != len(tensors["data"]):
            raise ValueError("its weights are cut short")
        return words, tensors
    except (OSError, KeyError, TypeError, AttributeError, ValueError, IndexError, SafetensorError) as error:
        raise InputError(f"{stem}.json is damaged ({error}): delete {stem.parent} and fit again") from error


def _dense_point(words: dict[str, Any], tensors: dict[str, np.ndarray]) -> PathPoint:
    bias, indptr = tensors["bias"], tensors["indptr"]
    weight = np.zeros((len(bias), words["n_features"]))
    weight[np.repeat(np.arange(len(bias)), np.diff(indptr)), tensors["indices"]] = tensors["data"]
    scalars = {name: words[name] for name in _SCALARS}
    return PathPoint(words["lam"], weight, bias, status=words["status"], metrics=words["metrics"], **scalars)


def _stack(points: Sequence[_StoredPoint], standardizer: Standardizer, meta: Mapping[str, Any]) -> RegularizationPath:
    """Do what `RegularizationPath.from_points` does, without ever holding a dense weight."""
    words, tensors = [w for w, _ in points], [t for _, t in points]
    counts = np.concatenate([np.diff(t["indptr"]) for t in tensors])
    return RegularizationPath(
        lam=np.array([w["lam"] for w in words]),
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=np.concatenate([t["indices"] for t in tensors]),
        data=np.concatenate([t["data"] for t in tensors]),
        biases=np.stack([t["bias"] for t in tensors]),
        status=[w["status"] for w in words],
        metrics={
            split: {name: np.array([w["metrics"][split][name] for w in words]) for name in metrics}
            for split, metrics in words[0]["metrics"].items()
        },
        standardizer=standardizer,
        meta=dict(meta),
        **{name: np.array([w[name] for w in words]) for name in _SCALARS},
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def path_points(path: RegularizationPath) -> list[PathPoint]:
    """Take a path apart into its points, as `PathWriter` and ``iter_path(start=...)`` want them."""
    return [
        PathPoint(
            lam=float(path.lam[i]),
            weight=path.weight(i),
            bias=path.bias(i),
            status=path.status[i],
            metrics={split: {name: float(v[i]) for name, v in m.items()} for split, m in path.metrics.items()},
            **{name: float(getattr(path, name)[i]) for name in _SCALARS},
        )
        for i in range(len(path))
    ]


def save_path(path: str | os.PathLike[str], fitted: RegularizationPath, provenance: Provenance) -> Path:
    """Write a whole path atomically, replacing one that is there.

    Raises
    ------
    StorageError
        Disk full, read-only, permission.
    """
    arrays = {
        "lam": fitted.lam,
        "weights/indptr": fitted.indptr.astype(np.int64),
        "weights/indices": fitted.indices.astype(np.int32),
        "weights/data": fitted.data.astype(np.float64),
        "biases": fitted.biases,
        "standardizer/mean": fitted.standardizer.mean,
        "standardizer/scale": fitted.standardizer.scale,
        **{name: getattr(fitted, name) for name in _SCALARS},
        "status": np.array([STATUSES.index(status) for status in fitted.status], dtype=np.uint8),
        **{f"metrics/{split}/{name}": v for split, m in fitted.metrics.items() for name, v in m.items()},
    }
    meta = {"statuses": STATUSES, "fit": fitted.meta}
    with atomic.lock(path):
        write_container(path, "path", arrays, meta, provenance)
    return Path(path)


def load_path(path: str | os.PathLike[str]) -> RegularizationPath:
    """Read a regularization path, every byte checked.

    Raises
    ------
    InputError
        Missing, still partial, truncated, foreign or damaged.
    """
    path = Path(path)
    header = read_header(path)
    if header.kind != "path":
        raise InputError(f"{path} is a {header.kind} file, and a path file is needed: make one with debugnet fit-path")
    try:
        fitted = _assemble(path, header)
        _check(fitted)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged ({error}): make it again with debugnet fit-path") from error
    return fitted


def _assemble(path: Path, header: Header) -> RegularizationPath:
    arrays = {name: read_array(path, array) for name, array in header.arrays.items()}
    metrics: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays:
        if key.startswith("metrics/"):
            _, split, name = key.split("/", 2)
            metrics.setdefault(split, {})[name] = arrays[key]
    return RegularizationPath(
        lam=arrays["lam"],
        indptr=arrays["weights/indptr"],
        indices=arrays["weights/indices"],
        data=arrays["weights/data"],
        biases=arrays["biases"],
        status=[header.meta["statuses"][i] for i in arrays["status"]],
        metrics=metrics,
        standardizer=Standardizer(arrays["standardizer/mean"], arrays["standardizer/scale"]),
        meta=header.meta["fit"],
        **{name: arrays[name] for name in _SCALARS},
    )


def _check(path: RegularizationPath) -> None:
    n_points, n_outputs = path.biases.shape
    per_point = [
        path.lam,
        path.status,
        *(getattr(path, n) for n in _SCALARS),
        *(v for m in path.metrics.values() for v in m.values()),
    ]
    if any(len(values) != n_points for values in per_point):
        raise ValueError("its arrays do not have one value per point")
    indptr = path.indptr
    if len(indptr) != n_points * n_outputs + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise ValueError("its sparse weights are not laid out by rows")
    if indptr[-1] != len(path.indices) or len(path.data) != len(path.indices):
        raise ValueError("its sparse weights are cut short")
    if len(path.indices) and not 0 <= path.indices.min() <= path.indices.max() < path.n_features:
        raise ValueError("its sparse weights name features that do not exist")
    if path.standardizer.scale.shape != path.standardizer.mean.shape:
        raise ValueError("its standardizer does not fit together")
