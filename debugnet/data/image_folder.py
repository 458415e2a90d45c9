"""Folders (and, through :mod:`debugnet.data.image_zip`, archives) with one sub-folder per class.

Layouts: ``root/<class>/**`` is one split, train; ``root/{train,val,test}/<class>/**`` are the splits they are named
after (``valid``, ``validation`` and ``dev`` mean val).  A data set with train and val but no test, like ImageNet and
Imagenette, has no test split here: val stays val, since selection needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from debugnet.data.dataset import BadSample, Dataset, DatasetSplits, Source, Status
from debugnet.data.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, decode_image
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


class FolderSource:
    """Image files under ``root``; ``names`` are their paths relative to it, with forward slashes."""

    def __init__(self, root: Path, names: Sequence[str], sizes: np.ndarray) -> None:
        self.root = root
        self.names = list(names)
        self.sizes = sizes

    def read(self, row: int) -> Image.Image:
        """Decode the image of ``row``."""
        path = self.root / self.names[row]
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BadSample(Status.DECODE_ERROR, f"{error.strerror}") from None
        return decode_image(data)

    def identity(self, rows: np.ndarray) -> bytes:
        """File sizes; ids hold the names."""
        return bytes(self.sizes[rows].tobytes())

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """None: it would mean reading every image."""
        return None


def is_image_name(name: PurePosixPath) -> bool:
    """Tell whether a file is taken for an image: by suffix, unless hidden or a macOS resource fork."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return name.suffix.lower() in IMAGE_SUFFIXES and not hidden


def scan(root: Path) -> tuple[list[str], np.ndarray, int]:
    """List the images under ``root``: sorted relative names, sizes (n,) int64, count of other files."""
    found: list[tuple[str, int]] = []
    others = 0
    seen: set[str] = set()
    pending = [(str(root), "")]
    while pending:
        folder, prefix = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    pending.append((entry.path, name + "/"))
                elif is_image_name(PurePosixPath(name)):
                    found.append((name, entry.stat().st_size if entry.is_file() else -1))
                else:
                    others += 1
    found.sort()
    return [name for name, _ in found], np.array([size for _, size in found], dtype=np.int64), others


def assign(names: Iterable[str], where: str, labeled: bool) -> tuple[list[str], list[str]]:
    """Return the split and the class of each name, by the layouts of this module.

    A single folder around everything, as archives have it, is looked through.
    """
    paths = [PurePosixPath(name).parts for name in names]
    if not paths:
        raise InputError(f"'{where}' holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    tops = {parts[0] for parts in paths}
    if len(tops) == 1 and all(len(parts) > 2 for parts in paths) and not (tops <= set(SPLIT_FOLDERS)):
        inner = {parts[1] for parts in paths}
        if "train" in inner or all(len(parts) > 3 for parts in paths):
            paths = [parts[1:] for parts in paths]
            tops = {parts[0] for parts in paths}
    if "train" in tops or (tops <= set(SPLIT_FOLDERS) and all(len(parts) > 2 for parts in paths)):
        if strays := sorted(tops - set(SPLIT_FOLDERS)):
            expected = ", ".join(SPLIT_FOLDERS)
            raise InputError(f"'{where}' has train beside '{strays[0]}': expected only {expected} there")
        splits = [SPLIT_FOLDERS[parts[0]] for parts in paths]
        paths = [parts[1:] for parts in paths]
    else:
        splits = ["train"] * len(paths)
    bare = [parts for parts in paths if len(parts) < 2]
    if bare and labeled:
        raise InputError(
            f"'{where}': image '{'/'.join(bare[0])}' is in no class folder; "
            "expected <class>/<image> or train/<class>/<image>"
        )
    return splits, [parts[0] if len(parts) > 1 else "" for parts in paths]


def build(
    spec: DataSpec,
    source: Source,
    names: Sequence[str],
    splits: Sequence[str],
    classes: Sequence[str],
    notes: Sequence[str],
) -> DatasetSplits:
    """Make the splits of a class-per-folder source whose rows are ``names``."""
    first = "train" if "train" in splits else splits[0]
    known = sorted({name for name, split in zip(classes, splits, strict=True) if split == first and name})
    for name, split, image in zip(classes, splits, names, strict=True):
        if name and name not in known and spec.labeled:
            raise InputError(f"class '{name}' of {split} has no image in {first} ({image})")
    index = {name: k for k, name in enumerate(known)} | {"": -1}
    by_split = np.array(splits)
    datasets = {}
    for split in [s for s in ("train", "val", "test") if s in splits]:
        rows = np.flatnonzero(by_split == split).tolist()
        labels = np.array([index.get(classes[i], -1) for i in rows], dtype=np.int64)
        datasets[split] = Dataset(source, np.array(rows), [names[i] for i in rows], labels)
    return DatasetSplits(datasets, known, "single-label", "image", spec, notes=notes)


def load(spec: DataSpec) -> DatasetSplits:
    """Load ``spec.path`` (and the separate folders ``spec.val``, ``spec.test``)."""
    names: list[str] = []
    splits: list[str] = []
    classes: list[str] = []
    sizes: list[np.ndarray] = []
    others = 0
    base = Path(spec.path).expanduser()
    roots = {"": base} | {s: Path(p).expanduser() for s, p in (("val", spec.val), ("test", spec.test)) if p}
    for split, root in roots.items():
        if not root.is_dir():
            raise InputError(f"'{root}' is not a folder; a folder's {split} must be a folder too")
        found, found_sizes, found_others = scan(root)
        found_splits, found_classes = assign(found, str(root), spec.labeled)
        if split and split in splits:
            raise InputError(f"'{base}' has its own {split} folder; leave out --{split} or rename it")
        prefix = f"{os.path.relpath(root, base)}/".replace(os.sep, "/") if split else ""
        names += [prefix + name for name in found]
        splits += [split] * len(found) if split else found_splits
        classes += found_classes
        sizes.append(found_sizes)
        others += found_others
    notes = [f"{others} files that are no images were ignored"] if others else []
    return build(spec, FolderSource(base, names, np.concatenate(sizes)), names, splits, classes, notes)
