"""Any torchvision classification model, with its own weights or with those of a file."""

from __future__ import annotations

import contextlib
import inspect
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from debugnet.backbones.preprocessing import ImagePreprocessing
from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import BackboneSpec
from debugnet.backbones.weights_files import StateDict, load_into, read_state_dict
from debugnet.errors import InputError, StorageError, UsageError


def load(spec: BackboneSpec, *, online: bool = False) -> NetworkSource:
    """Build a torchvision model.

    Parameters
    ----------
    spec : BackboneSpec
        ``weights`` is a file, a member of the model's weights enum, or None for DEFAULT.
    online : bool
        Whether missing weights may be downloaded.
    """
    from torchvision.models import get_model_weights

    enum = get_model_weights(spec.name)
    path = spec.weights_file
    if path is not None:
        return _from_file(spec, enum, read_state_dict(path))
    weights = _member(enum, spec.weights or "DEFAULT", spec.name)
    if spec.preprocessing is not None:
        raise UsageError(f"--preprocessing {spec.preprocessing}: {weights} brings its own; it is for a weights file")
    preprocessing = ImagePreprocessing.of_preset(weights.transforms())
    return NetworkSource(
        _pretrained(spec.name, weights, online),
        "image",
        class_names=tuple(weights.meta["categories"]),
        preprocessing=preprocessing.at_size(spec.image_size),
    )


def _member(enum: Any, name: str, model: str) -> Any:
    """Find an enum member by "IMAGENET1K_V2", "DEFAULT" or "ResNet50_Weights.IMAGENET1K_V2"."""
    short = name.removeprefix(f"{enum.__name__}.")
    if short not in enum.__members__:
        raise InputError(
            f"--weights {name}: no such file, and {model} has no such weights; it has "
            f"{', '.join(enum.__members__)} (or give a weights file)"
        )
    return enum[short]


def _pretrained(name: str, weights: Any, online: bool) -> nn.Module:
    from torchvision.models import get_model

    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not place.exists() and not online:
        raise InputError(
            f"weights {weights} are not on this machine: download {weights.url} to {place}, or add --online"
        )
    try:
        # torch announces the download on stdout, which belongs to our result.
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(sys.stderr):
            return get_model(name, weights=weights)
    except RuntimeError as error:  # torch.hub found another hash than the file's name promises
        raise InputError(f"{place}: damaged ({str(error).splitlines()[0]}); delete it and download it again") from error
    except URLError as error:
        raise InputError(f"cannot download {weights.url} ({error.reason}): bring it to {place} another way") from error
    except OSError as error:
        raise StorageError(f"cannot write {weights.url} to {place}: {error}") from error


def _from_file(spec: BackboneSpec, enum: Any, state: StateDict) -> NetworkSource:
    """Build the architecture for the number of classes in the file, and fill it from the file."""
    network = _build(spec.name)
    n_classes = _n_classes(network, state)
    if n_classes is not None and n_classes != 1000:
        network = _build(spec.name, num_classes=n_classes)
    load_into(network, state, spec.name)
    # A file does not say how its images were prepared: the architecture's first recipe, unless told.
    weights = _member(enum, spec.preprocessing, spec.name) if spec.preprocessing else next(iter(enum))
    preprocessing = ImagePreprocessing.of_preset(weights.transforms())
    if state.normalization is not None:
        preprocessing = ImagePreprocessing(preprocessing.resize_size, preprocessing.crop_size, *state.normalization)
    is_imagenet = n_classes in (None, 1000)
    return NetworkSource(
        network,
        "image",
        class_names=tuple(weights.meta["categories"]) if is_imagenet else None,
        preprocessing=preprocessing.at_size(spec.image_size),
    )


def _build(name: str, **options: Any) -> nn.Module:
    from torchvision.models import get_model, get_model_builder

    if "init_weights" in inspect.signature(get_model_builder(name)).parameters or name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
    if name in ("googlenet", "inception_v3"):
        options |= {"transform_input": True}  # how torchvision runs the published weights of these two
    with torch.random.fork_rng(devices=[]):  # the initial values are overwritten: leave the caller's stream alone
        return get_model(name, weights=None, **options)


def _n_classes(network: nn.Module, state: StateDict) -> int | None:
    """Number of classes of the file: the rows of what is the 1000-row last layer in the default network."""
    head = [name for name, tensor in network.state_dict().items() if name.endswith("weight") and len(tensor) == 1000]
    found = state.tensors.get(head[-1]) if head else None
    return len(found) if found is not None and found.ndim > 0 else None
