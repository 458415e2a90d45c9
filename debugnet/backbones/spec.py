"""What identifies a network and the place its deep features are read from."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugnet.errors import InputError, UsageError
from debugnet.registry import BACKBONES

#: How one vector per sample is made of a layer that gives more than that.
POOLINGS = ("avg", "max", "flatten", "cls", "mean", "last", "pooler")

#: File names that are meant as weights files even where no such file exists.
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".npz", ".bin", ".ckpt")

#: The file that makes a folder a debugnet network (see ``python_factory.py``).
NETWORK_FILE = "debugnet_network.json"
#: The weights beside it.
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BackboneSpec:
    """A network, its weights and its feature layer: all that is needed to build it again.

    Attributes
    ----------
    name : str
        A torchvision classification model ("resnet50"), a CIFAR ResNet ("cifar_resnet56"),
        a Hugging Face folder or id ("bert-base-uncased", "id@revision"), a debugnet network
        folder, or ``python:package.module:factory``.
    weights : str, optional
        A weights file, or the name of a torchvision weights enum member ("IMAGENET1K_V2",
        "DEFAULT").  None means DEFAULT for torchvision and the module's own weights elsewhere.
    layer : str, optional
        The module whose output is the feature; None means the input of the last Linear layer.
    pooling : str, optional
        One of :data:`POOLINGS`.  avg, max and flatten are for maps; cls, mean (over the attention
        mask), last (last token that is no padding) and pooler are for token sequences.
    max_length : int, optional
        Longest text in tokens, special tokens included; None means the network's own limit.
    image_size : int, optional
        Side of the square image the network sees, in pixels; None means the weights' own.
    preprocessing : str, optional
        The torchvision weights enum member whose preprocessing a local weights file needs.
    modality : str, optional
        "image", "text" or "tensor"; only needed where the network does not say it (``python:``).
    input_shape : tuple of int, optional
        Shape of one sample; only for modality "tensor".
    fingerprint : str, optional
        sha256 the weights must have; loading anything else raises ``StaleArtifact``.
    """

    name: str
    weights: str | None = None
    layer: str | None = None
    pooling: str | None = None
    max_length: int | None = None
    image_size: int | None = None
    preprocessing: str | None = None
    modality: str | None = None
    input_shape: tuple[int, ...] | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise UsageError(f"unknown pooling '{self.pooling}': choose one of {', '.join(POOLINGS)}")
        for name in ("max_length", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', '-')} is {value}: it must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict without the fields that are None."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BackboneSpec:
        """Inverse of :meth:`to_json`.

        Raises
        ------
        InputError
            If a field is unknown: the file was written by a newer debugnet, or by hand.
        """
        unknown = set(data) - {f.name for f in dataclasses.fields(cls)}
        if unknown or "name" not in data:
            raise InputError(f"not a backbone description: {sorted(unknown) or 'no name'} in {dict(data)}")
        shape = data.get("input_shape")
        return cls(**{**data, "input_shape": None if shape is None else tuple(shape)})

    def resolved(self) -> BackboneSpec:
        """Return the spec with existing paths made absolute, so that it holds from any folder."""
        name = str(Path(self.name).resolve()) if self.local_folder else self.name
        weights = str(self.weights_file.resolve()) if self.weights_file else self.weights
        return dataclasses.replace(self, name=name, weights=weights)

    @property
    def entry(self) -> str:
        """The name in ``registry.BACKBONES`` whose loader builds this network."""
        if self.name in BACKBONES:
            return self.name
        if self.name.startswith("python:"):
            return "python"
        folder = self.local_folder
        return "network-folder" if folder is not None and (folder / NETWORK_FILE).exists() else "hugging-face"

    @property
    def local_folder(self) -> Path | None:
        """The folder ``name`` points to, or None where it is a name or an id.

        Raises
        ------
        InputError
            If ``name`` is written like a path and nothing is there, or a file is there.
        """
        if self.name in BACKBONES or self.name.startswith("python:"):
            return None
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        if path.is_file():
            raise InputError(
                f"--backbone {self.name} is a file: give the architecture's name there and the file as --weights"
            )
        if self.name.startswith((".", "~", "/")) or self.name.endswith("/") or self.name.count("/") > 1:
            raise InputError(f"--backbone {self.name}: no such folder (looked from {os.getcwd()})")
        return None

    @property
    def weights_file(self) -> Path | None:
        """The weights file, or None where ``weights`` is None or an enum member's name.

        Raises
        ------
        InputError
            If ``weights`` is written like a path and no such file exists.
        """
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            raise InputError(f"--weights {self.weights} is a folder: give the weights file in it")
        if path.suffix.lower() in WEIGHTS_SUFFIXES or "/" in self.weights:
            raise InputError(f"--weights {self.weights}: no such file (looked from {os.getcwd()})")
        return None


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let imports in the block find modules in the current folder, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
