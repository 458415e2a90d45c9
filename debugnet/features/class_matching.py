"""Which outputs of the network's own head belong to the classes of the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from debugnet.errors import InputError

_WORDNET_ID = re.compile(r"n\d{8}")


def match_classes(
    data_names: Sequence[str], network_names: Sequence[str] | None, n_outputs: int, class_map: Path | None = None
) -> np.ndarray | None:
    """Find the network's output for every class of the data.

    In this order: the user's map; WordNet ids, when the network has ImageNet's 1000 classes; equal
    names, whatever their case, spaces and underscores; the same number of classes, when the network's
    names are unknown or none of them is a name of the data (the usual order is then trusted).

    Parameters
    ----------
    data_names : sequence of str, length K
    network_names : sequence of str, length n_outputs, optional
    n_outputs : int
    class_map : Path, optional
        JSON object: name of the data's class -> index or name of the network's output.

    Returns
    -------
    ndarray (K,), int64, or None
        Output index of each class; None when no match is known.

    Raises
    ------
    InputError
        If the map lacks a class, or names an output that the network does not have.
    """
    if class_map is not None:
        return _from_map(class_map, data_names, network_names, n_outputs)
    by_synset = _by_synset(data_names, network_names, n_outputs)
    if by_synset is not None:
        return by_synset
    known = {} if network_names is None else {_folded(name): i for i, name in reversed([*enumerate(network_names)])}
    found = [known.get(_folded(name)) for name in data_names]
    indices = [i for i in found if i is not None]
    if indices and len(indices) == len(found):
        return np.array(indices, dtype=np.int64)
    if not indices and len(data_names) == n_outputs:
        return np.arange(n_outputs)
    return None


def readable_names(data_names: Sequence[str], network_names: Sequence[str] | None) -> list[str]:
    """Return the names by which people know the data's classes.

    Folders of ImageNet's classes are called by their WordNet ids (n03000684); the network's own name of
    such a class (chain saw) is used instead, followed by the id where two of its classes share a name.

    Parameters
    ----------
    data_names : sequence of str, length K
    network_names : sequence of str, optional

    Returns
    -------
    list of str, length K
        ``data_names`` themselves where they are no WordNet ids of the network's classes.
    """
    outputs = None if network_names is None else _by_synset(data_names, network_names, len(network_names))
    if network_names is None or outputs is None:
        return list(data_names)
    twice = {name for name, n in Counter(network_names).items() if n > 1}
    found = [network_names[i] for i in outputs]
    return [f"{name} ({synset})" if name in twice else name for name, synset in zip(found, data_names, strict=True)]


def imagenet_synsets() -> list[str]:
    """WordNet ids of ImageNet's 1000 classes, in the order of the networks' outputs."""
    return (resources.files("debugnet.backbones") / "imagenet_synsets.txt").read_text(encoding="ascii").split()


def _by_synset(data_names: Sequence[str], network_names: Sequence[str] | None, n_outputs: int) -> np.ndarray | None:
    is_imagenet = n_outputs == 1000 and (network_names is None or _folded(network_names[0]) == "tench")
    if not is_imagenet or not data_names or not all(_WORDNET_ID.fullmatch(name) for name in data_names):
        return None
    known = {synset: i for i, synset in enumerate(imagenet_synsets())}
    if any(name not in known for name in data_names):
        return None
    return np.array([known[name] for name in data_names], dtype=np.int64)


def _from_map(path: Path, data_names: Sequence[str], network_names: Sequence[str] | None, n_outputs: int) -> np.ndarray:
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--class-map {path}: not readable as JSON ({error})") from error
    if not isinstance(mapping, dict):
        raise InputError(f"--class-map {path}: must be a JSON object, class of the data -> output of the network")
    missing = [name for name in data_names if name not in mapping]
    if missing:
        raise InputError(f"--class-map {path}: has nothing for the class '{missing[0]}' ({len(missing)} missing)")
    known = {} if network_names is None else {name: i for i, name in enumerate(network_names)}
    indices = [known.get(mapping[name], mapping[name]) for name in data_names]
    for name, index in zip(data_names, indices, strict=True):
        if not isinstance(index, int) or not 0 <= index < n_outputs:
            raise InputError(f"--class-map {path}: '{name}' -> {index!r} is no output of the network's {n_outputs}")
    return np.array(indices, dtype=np.int64)


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
