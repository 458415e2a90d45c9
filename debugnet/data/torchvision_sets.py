"""Data sets of torchvision by name: ``torchvision:CIFAR10`` under ``spec.root``.

Some of torchvision's own files are pickles; torchvision opens those only when their MD5 is the published one.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from debugnet.data.dataset import Dataset, DatasetSplits
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError

#: Values of a ``split`` argument, in the words of the different classes.
SPLIT_WORDS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


class TorchvisionSource:
    """Rows of one torchvision data set, opened again in each process that reads it."""

    def __init__(self, name: str, arguments: dict[str, Any], dataset: Any) -> None:
        self.name = name
        self.arguments = arguments
        self._dataset = dataset

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}

    def read(self, row: int) -> Image.Image:
        """Return the image of ``row`` as RGB."""
        if self._dataset is None:
            import torchvision

            self._dataset = getattr(torchvision.datasets, self.name)(**self.arguments)
        image: Image.Image = self._dataset[row][0]
        return image.convert("RGB")

    def identity(self, rows: np.ndarray) -> bytes:
        """Name and arguments; torchvision checks the files."""
        chosen = {key: value for key, value in sorted(self.arguments.items()) if key not in ("root", "download")}
        return f"{self.name} {chosen}".encode() + rows.tobytes()

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """None: it would mean reading every image."""
        return None


def _split_arguments(kind: Any) -> dict[str, list[dict[str, Any]]]:
    """For each split the constructor arguments to try, in order."""
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        return {"train": [{"train": True}], "test": [{"train": False}]}
    if "split" in parameters:
        return {split: [{"split": word} for word in words] for split, words in SPLIT_WORDS.items()}
    return {"train": [{}]}


def _targets(dataset: Any) -> list[int]:
    for name in ("targets", "labels", "_labels"):
        values = getattr(dataset, name, None)
        if values is not None and len(values) == len(dataset):
            return [int(value) for value in values]
    if isinstance(getattr(dataset, "_samples", None), list):
        return [int(sample[-1]) for sample in dataset._samples]
    return [int(dataset[i][1]) for i in range(len(dataset))]


def load(spec: DataSpec) -> DatasetSplits:
    """Load every split that the data set has under ``spec.root``."""
    import torchvision

    name = spec.path.partition(":")[2] or spec.path
    kind = getattr(torchvision.datasets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torchvision.datasets.VisionDataset)):
        raise InputError(f"torchvision has no data set '{name}' (case counts: CIFAR10, SVHN, Food101, ...)")
    root = Path(spec.root).expanduser()
    datasets: dict[str, Dataset] = {}
    class_names: list[str] = []
    for split, trials in _split_arguments(kind).items():
        for arguments in trials:
            arguments = {"root": str(root), **arguments}
            if "download" in inspect.signature(kind).parameters:
                arguments["download"] = spec.download
            opened = _open(kind, name, arguments, split, root)
            if opened is None:
                continue
            labels = np.array(_targets(opened), dtype=np.int64)
            ids = [f"{name}/{split}/{row}" for row in range(len(opened))]
            arguments.pop("download", None)
            datasets[split] = Dataset(TorchvisionSource(name, arguments, opened), np.arange(len(opened)), ids, labels)
            class_names = class_names or _class_names(opened, labels)
            break
    return DatasetSplits(datasets, spec.class_names or class_names, "single-label", "image", spec)


def _class_names(dataset: Any, labels: np.ndarray) -> list[str]:
    names = getattr(dataset, "classes", None) or range(int(labels.max(initial=-1)) + 1)
    return [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]


def _open(kind: Any, name: str, arguments: dict[str, Any], split: str, root: Path) -> Any:
    """The split, or None where the data set has no split of that word."""
    try:
        return kind(**arguments)
    except ValueError:  # "unknown value for argument split"
        return None
    except (RuntimeError, OSError) as error:
        if split != "train":
            return None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(
            f"torchvision data set '{name}' is not usable under '{root}': {reason} Put its files there, "
            "name their folder with --data-root, or allow --online"
        ) from None
