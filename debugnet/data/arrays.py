"""Images or vectors in ``.npz`` files, and arrays in memory.

Keys: ``x_train, y_train`` (and ``x_val, y_val, x_test, y_test``), or ``images, labels`` for train alone; optional
``classes``, ``groups_train`` ..., ``group_names``.  ``x``: (n, H, W), (n, H, W, 1 or 3) uint8 are images; float
(n, ...) are tensors.  Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from debugnet.data.dataset import Dataset, DatasetSplits
from debugnet.data.image_zip import MAX_RATIO
from debugnet.data.labels import EncodedLabels, encode_multi, encode_single
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError

KEYS = {
    "train": (("x_train", "y_train"), ("images", "labels"), ("X_train", "Y_train")),
    "val": (("x_val", "y_val"), ("X_val", "Y_val")),
    "test": (("x_test", "y_test"), ("X_test", "Y_test")),
}


class ArraySource:
    """Rows of one array: uint8 pictures become RGB images, anything else is handed out as float32.

    Parameters
    ----------
    values : ndarray (n, ...), optional
        The array itself, when it is made rather than read.
    path, key : Path and str, optional
        An ``.npz`` file and the name in it; each process reads it when it first needs it.
    digest : bytes
        Identifies the content.
    """

    def __init__(
        self, values: np.ndarray | None = None, path: Path | None = None, key: str = "", digest: bytes = b""
    ) -> None:
        self._values = values
        self.path = path
        self.key = key
        self.digest = hashlib.sha256(values.tobytes()).digest() if values is not None else digest

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_values": self._values if self.path is None else None}

    @property
    def values(self) -> np.ndarray:
        """The whole array."""
        if self._values is None:
            assert self.path is not None
            self._values = _member(self.path, self.key)
        return self._values

    def read(self, row: int) -> Image.Image | np.ndarray:
        """Return row ``row`` as an RGB image or a float32 array."""
        value: np.ndarray = self.values[row]
        if value.dtype != np.uint8:
            return value.astype(np.float32)
        return Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value).convert("RGB")

    def identity(self, rows: np.ndarray) -> bytes:
        """Digest of the array, and which rows of it."""
        return self.digest + np.asarray(rows, dtype=np.int64).tobytes()

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """Digest of each row's bytes."""
        return [hashlib.blake2b(self.values[i].tobytes(), digest_size=16).digest() for i in rows]


def _member(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            values: np.ndarray = archive[key]
            return values
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"'{path}': array '{key}' cannot be read: {error}") from None


def _directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Names of the arrays of an npz file with their directory entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is not a complete .npz file: {error}") from None
    total, packed = sum(m.file_size for m in members), path.stat().st_size
    if total > 1024 * packed or (total > MAX_RATIO * packed and total > 2**32):  # constant pictures do pack 1:1000
        raise InputError(f"'{path}' claims {total} bytes unpacked from {packed}: refused as a zip bomb")
    return {member.filename.removesuffix(".npy"): member for member in members}


def _shape(path: Path, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one array, from its header alone."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    return shape, dtype


def _check_values(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return the modality of an array, or refuse it."""
    if dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))):
        return "image"
    if dtype.kind == "f" and len(shape) >= 2:
        return "tensor"
    raise InputError(
        f"'{path}': '{key}' is {dtype} {shape}; images are uint8 (n, H, W) or (n, H, W, 1 or 3), "
        "tensors are float (n, ...)"
    )


def _strings(path: Path, key: str, directory: dict[str, zipfile.ZipInfo]) -> list[str]:
    return [str(name) for name in _member(path, key)] if key in directory else []


def _encode(
    labels: dict[str, np.ndarray], ids: dict[str, list[str]], spec: DataSpec, names: Sequence[str]
) -> EncodedLabels:
    """Encode label arrays: (n,) of numbers or strings, or (n, K) 0/1."""
    shapes = {values.shape[1:] for values in labels.values()}
    if len(shapes) > 1:
        raise InputError(f"'{spec.path}': the splits' labels differ in shape: {', '.join(map(str, sorted(shapes)))}")
    (shape,) = shapes
    if len(shape) == 1 and shape[0] > 1:
        if spec.task not in ("auto", "multi-label"):
            raise InputError(f"'{spec.path}': task {spec.task} takes one label per sample, not {shape[0]}")
        names = names or [str(k) for k in range(shape[0])]
        if len(names) != shape[0]:
            raise InputError(f"'{spec.path}': {len(names)} class names for {shape[0]} label columns")
        columns = {name: {s: v[:, k].tolist() for s, v in labels.items()} for k, name in enumerate(names)}
        return encode_multi(columns, ids)
    flat = {split: values.reshape(len(values)).tolist() for split, values in labels.items()}
    return encode_single(flat, ids, "y", spec.task, spec.class_names or names)


def load(spec: DataSpec) -> DatasetSplits:
    """Load the arrays of ``spec.path``, with ``spec.val`` and ``spec.test`` as files beside it."""
    files = {"train": spec.path, "val": spec.val, "test": spec.test}
    sources: dict[str, ArraySource] = {}
    labels: dict[str, np.ndarray] = {}
    groups: dict[str, np.ndarray] = {}
    ids: dict[str, list[str]] = {}
    modality, class_names, group_names = "image", [], []
    for split in files:
        path = Path(files[split] or spec.path).expanduser()
        directory = _directory(path)
        keys = KEYS["train"] + KEYS[split] if files[split] else KEYS[split]
        pair = next((pair for pair in keys if pair[0] in directory), None)
        if pair is None:
            if split == "train":
                known = ", ".join(directory) or "nothing"
                raise InputError(f"'{path}' has no x_train or images; it has {known}")
            continue
        shape, dtype = _shape(path, directory[pair[0]])
        modality = _check_values(path, pair[0], shape, dtype)
        member = directory[pair[0]]
        digest = b"%d:%d:%s" % (member.CRC, member.file_size, pair[0].encode())
        sources[split] = ArraySource(path=path, key=pair[0], digest=digest)
        ids[split] = [f"{path.name}:{pair[0]}:{row}" for row in range(shape[0])]
        if pair[1] not in directory and spec.labeled:
            raise InputError(f"'{path}' has '{pair[0]}' but no '{pair[1]}'; it has {', '.join(directory)}")
        labels[split] = _member(path, pair[1]) if pair[1] in directory else np.full(shape[0], -1)
        if len(labels[split]) != shape[0]:
            raise InputError(f"'{path}': {shape[0]} rows of '{pair[0]}' but {len(labels[split])} of '{pair[1]}'")
        if f"groups_{split}" in directory:
            groups[split] = _member(path, f"groups_{split}").astype(np.int64)
        if split == "train":
            class_names, group_names = _strings(path, "classes", directory), _strings(path, "group_names", directory)
    if not spec.labeled:
        bare = {s: Dataset(v, np.arange(len(ids[s])), ids[s], np.full(len(ids[s]), -1)) for s, v in sources.items()}
        return DatasetSplits(bare, class_names, "single-label", modality, spec)
    encoded = _encode(labels, ids, spec, class_names)
    datasets = {
        split: Dataset(
            source,
            np.arange(len(ids[split])),
            ids[split],
            encoded.values[split],
            np.where(encoded.missing[split], 5, 0).astype(np.uint8),
            groups.get(split),
        )
        for split, source in sources.items()
    }
    return DatasetSplits(datasets, encoded.class_names, encoded.task, modality, spec, group_names)
