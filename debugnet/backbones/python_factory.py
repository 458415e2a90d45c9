"""Networks made by a function: the user's own (``python:package.module:factory``) and debugnet's demos.

The network may carry what the samples need as attributes:

images
    ``image_size`` (pixels, default 224), ``image_mean`` and ``image_std`` (per channel, for pixels in
    [0, 1]; default ImageNet's).
text
    ``tokenizer`` (a Hugging Face tokenizer) and ``max_length`` (tokens).
all
    ``class_names`` (in the order of the outputs) and ``modality`` ("image", "text" or "tensor").
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from debugnet.backbones.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessing
from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import NETWORK_FILE, WEIGHTS_FILE, BackboneSpec, current_folder_importable
from debugnet.backbones.weights_files import load_into, read_state_dict
from debugnet.errors import InputError, UsageError


def load_python(spec: BackboneSpec, *, online: bool = False) -> NetworkSource:
    """Build the network of ``python:package.module:factory``, with the weights of a file where one is given."""
    target = spec.name.removeprefix("python:")
    with current_folder_importable():
        factory = _import(target, spec.name)
    try:
        network = factory()
    except Exception as error:
        raise InputError(f"--backbone {spec.name}: the factory failed ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--backbone {spec.name}: the factory returned a {type(network).__name__}, not a Module")
    path = spec.weights_file
    if path is not None:
        network = _wrapped(network, path.with_name(NETWORK_FILE), spec.name)
        load_into(network, read_state_dict(path), target)
    elif spec.weights is not None:
        raise InputError(f"--weights {spec.weights}: no such file")
    return _source(network, spec)


def _wrapped(network: nn.Module, description: Path, name: str) -> nn.Module:
    """Put the network into what a debugnet folder says of it, where the weights lie in one that train-sparse wrote."""
    if not description.exists():
        return network
    found = _read_description(description)
    arguments, factory = found.get("arguments", {}), found["factory"]
    if arguments.get("network") != name or not factory.startswith("debugnet."):
        return network
    wrapped: nn.Module = _import(factory, str(description))(**{**arguments, "network": network})
    return wrapped


def load_folder(spec: BackboneSpec, *, online: bool = False) -> NetworkSource:
    """Build a debugnet network folder: ``debugnet_network.json`` and ``model.safetensors``.

    Raises
    ------
    InputError
        If the folder is damaged, or names a factory outside the debugnet package: a folder that one
        was sent must not choose which code runs.
    """
    folder = spec.local_folder
    assert folder is not None
    if spec.weights is not None:
        raise UsageError(f"--weights {spec.weights}: {folder} brings its own weights; drop it")
    description = _read_description(folder / NETWORK_FILE)
    target = description["factory"]
    if not target.startswith("debugnet."):
        raise InputError(
            f"{folder / NETWORK_FILE}: factory '{target}' is outside the debugnet package and not run from a file; "
            f"give --backbone python:{target} instead"
        )
    network = _import(target, str(folder))(**description.get("arguments", {}))
    load_into(network, read_state_dict(folder / WEIGHTS_FILE), target)
    return _source(network, spec, description.get("class_names"))


def save_network(
    folder: Path, network: nn.Module, factory: str, arguments: Mapping[str, Any], class_names: list[str] | None = None
) -> None:
    """Write a debugnet network folder that :func:`load_folder` reads.

    Parameters
    ----------
    folder : Path
        Made when missing.
    network : Module
        What ``factory(**arguments)`` builds, trained.
    factory : str
        "debugnet.package.module:Factory".
    arguments : mapping
        JSON-able keyword arguments of the factory.
    class_names : list of str, optional
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    description = {"factory": factory, "arguments": dict(arguments), "class_names": class_names}
    (folder / NETWORK_FILE).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _source(network: nn.Module, spec: BackboneSpec, class_names: list[str] | None = None) -> NetworkSource:
    modality = getattr(network, "modality", None) or spec.modality
    if modality not in ("image", "text", "tensor"):
        raise UsageError(f"--backbone {spec.name}: modality {modality!r} is not image, text or tensor")
    tokenizer = getattr(network, "tokenizer", None)
    if modality == "text" and tokenizer is None:
        raise InputError(f"--backbone {spec.name}: a text network needs its tokenizer as the attribute `tokenizer`")
    size = int(spec.image_size or getattr(network, "image_size", 224))  # type: ignore[arg-type]
    mean, std = getattr(network, "image_mean", IMAGENET_MEAN), getattr(network, "image_std", IMAGENET_STD)
    return NetworkSource(
        network,
        modality,
        class_names=class_names or getattr(network, "class_names", None),
        preprocessing=ImagePreprocessing(size, size, tuple(mean), tuple(std)) if modality == "image" else None,
        tokenizer=tokenizer,
        max_length=spec.max_length or getattr(network, "max_length", 512),
    )


def _import(target: str, place: str) -> Any:
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise UsageError(f"'{place}': give python:package.module:factory")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise InputError(f"{place}: cannot import '{module}' ({error}); is it installed or in this folder?") from error
    except AttributeError as error:
        raise InputError(f"{place}: module '{module}' has no '{attribute}'") from error


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(description, dict) or not isinstance(description.get("factory"), str):
        raise InputError(f'{path}: needs a "factory" ("debugnet.package.module:Factory")')
    return description
