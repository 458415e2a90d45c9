"""What ``train-sparse`` trains on: a whole data set as tensors, and fresh networks that fit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.analysis.accuracy import evaluate_scores, row_losses
from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.backbones.cifar_resnet import load as load_cifar
from debugnet.backbones.devices import resolve_device
from debugnet.backbones.python_factory import load_folder, load_python
from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import BackboneSpec
from debugnet.data.dataset import BadSample, Dataset
from debugnet.data.loading import load_dataset
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError, UsageError
from debugnet.progress import log
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.sparse_training.networks import make_mlp, parse_mlp
from debugnet.sparse_training.proximal_training import Batches, predict

FAMILY = {"single-label": "multinomial", "multi-label": "binomial", "regression": "gaussian"}


@dataclass(frozen=True)
class SparseData:
    """Standardized samples and targets of every split.

    Attributes
    ----------
    batches : dict of str to Batches
    family, task : str
    class_names : list of str
    n_outputs : int
    mean, scale : ndarray
        What was subtracted and divided by: per channel for images, per feature otherwise.
    target_mean : ndarray (n_outputs,)
    target_scale : float
        What was subtracted from regression targets, and what they were divided by.
    is_image : bool
    """

    batches: dict[str, Batches]
    family: str
    task: str
    class_names: list[str]
    n_outputs: int
    mean: np.ndarray
    scale: np.ndarray
    target_mean: np.ndarray
    target_scale: float
    is_image: bool

    @property
    def standardization(self) -> dict[str, Any]:
        """What ``sparse.json`` tells of the coordinates that networks were trained in."""
        names = ("mean", "scale", "target_mean", "target_scale")
        return {name: getattr(self, name) for name in names}

    @property
    def example(self) -> Tensor:
        """Two train samples, on the CPU."""
        X = self.batches["train"].X
        assert isinstance(X, Tensor)
        return X[:2].cpu()

    def flat(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Samples (n, n_elements) and targets, as arrays."""
        batches = self.batches[split]
        assert isinstance(batches.X, Tensor)
        return batches.X.flatten(1).cpu().numpy(), batches.y.numpy()


def load_sparse_data(options: TrainSparse, spec: DataSpec) -> SparseData:
    """Read every usable sample, and standardize it: as the network says it wants it, or by the train split.

    Raises
    ------
    InputError
        Texts, samples of different shapes, or no train sample.
    """
    loaded = load_dataset(spec)
    if loaded.modality == "text":
        raise InputError(f"--data {options.data} holds texts: train-sparse takes images or numbers (see extract)")
    for line in loaded.warnings():
        log(line)
    arrays = {name: _arrays(split, name) for name, split in loaded.splits.items()}
    is_image = loaded.modality == "image"
    if (
        is_image
        and options.network.startswith("mlp:")
        and all((X[:, 1:] == X[:, :1]).all() for X, _ in arrays.values())
    ):
        arrays = {
            name: (X[:, :1], y) for name, (X, y) in arrays.items()
        }  # grey: three equal inputs would share one role
    mean, inverse = _standardization(options, arrays["train"][0], is_image)
    family, device = FAMILY[loaded.task], resolve_device(options.device)
    if options.amp:
        _check_amp(device)
    y = arrays["train"][1]
    shift, spread = (y.mean(axis=0), max(float(y.std()), 1e-12)) if family == "gaussian" else (0.0, 1.0)
    batches = {}
    for name, (values, target) in arrays.items():
        tensor = torch.from_numpy(((values - mean) * inverse).astype(np.float32)).to(device)
        labels = torch.from_numpy((target - shift) / spread if family == "gaussian" else target)
        batches[name] = Batches(tensor, labels, options.batch_size, options.seed, device=str(device))
    n_outputs = len(loaded.class_names) or (1 if y.ndim == 1 else y.shape[1])
    scale = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    target_mean = np.broadcast_to(np.asarray(shift, dtype=np.float64), (n_outputs,))
    return SparseData(
        batches, family, loaded.task, loaded.class_names, n_outputs, mean[0], scale[0], target_mean, spread, is_image
    )


def _check_amp(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(f"--amp: {torch.cuda.get_device_name(device)} has no bfloat16; leave it out")
    if device.type == "cpu":
        log("--amp is for GPUs: on a CPU bfloat16 gains nothing, and small networks lose by it")


def _arrays(split: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows, kept = [], []
    for i in range(len(split)):
        try:
            sample = split[i]
        except BadSample:
            continue
        rows.append(_numbers(sample))
        kept.append(i)
    if not rows:
        raise InputError(f"split {name} has no usable sample")
    if len({row.shape for row in rows}) > 1:
        raise InputError(f"samples of split {name} differ in shape ({rows[0].shape} and others): make them alike first")
    return np.stack(rows), split.labels[kept]


def _numbers(sample: Any) -> np.ndarray:
    """A sample as float32; images as (3, H, W) in [0, 1]."""
    if isinstance(sample, np.ndarray):
        return sample.astype(np.float32, copy=False)
    pixels = np.asarray(sample, dtype=np.float32) / 255
    return pixels.transpose(2, 0, 1)


def network_factory(options: TrainSparse, data: SparseData) -> Callable[[int], nn.Module]:
    """Return a function seed -> fresh network on the data's device; a folder's network has its own weights.

    Raises
    ------
    UsageError
        An unknown network, or one that does not fit the data.
    """
    name, shape = options.network, tuple(data.example.shape[1:])

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = _source(options, data.is_image, data.n_outputs, int(np.prod(shape))).network
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        return network.to(data.batches["train"].device)

    network = make(options.seed).cpu().eval()
    try:
        with torch.no_grad():
            outputs = network(data.example)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--network {name} does not take samples of shape {shape}: {reason}") from error
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != (len(data.example), data.n_outputs):
        got = tuple(outputs.shape[1:]) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"--network {name} gives {got} per sample, and the data has {data.n_outputs} outputs")
    return make


def measure(network: nn.Module, data: SparseData) -> dict[str, dict[str, float]]:
    """Score a network on every split: :mod:`debugnet.analysis.accuracy`; ``accuracy`` is R2 for regression.

    Losses and squared errors of regression are those of the standardized targets.
    """
    found = {}
    for name, batches in data.batches.items():
        scores = predict(network, batches).numpy().astype(np.float64)
        metrics = evaluate_scores(scores, batches.y.numpy(), data.family, data.task)
        found[name] = {key: value for key, value in metrics.items() if "[" not in key}
        found[name].setdefault("accuracy", metrics.get("r2", np.nan))
    return found


def warn_if_untrained(dense: dict[str, dict[str, float]], data: SparseData) -> None:
    """Say so where the network that a path begins with predicts no better than a constant (a step too large for it)."""
    split = "val" if "val" in data.batches else "train"
    y, train = data.batches[split].y.numpy(), data.batches["train"].y.numpy().astype(np.float64)
    if data.family == "multinomial":
        share = np.bincount(train.astype(np.int64), minlength=data.n_outputs) / len(train)
        constant = np.log(np.maximum(share, 1e-12))
    else:
        constant = np.reshape(train.mean(axis=0), -1)
        if data.family == "binomial":
            constant = np.log(np.clip(constant, 1e-12, 1)) - np.log(np.clip(1 - constant, 1e-12, 1))
    null = float(row_losses(np.tile(constant, (len(y), 1)), y, data.family).mean())
    if not dense[split]["loss"] < null:
        log(
            f"warning: the network that the path begins with is no better than a constant ({split} loss "
            f"{dense[split]['loss']:.3g}, constant {null:.3g}): a smaller --lr, or more --epochs",
            level="warning",
        )


def _standardization(options: TrainSparse, X: np.ndarray, is_image: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse scale of images per channel, (1, C, 1, 1), or of features, (1, *shape); 0 where constant."""
    stated = _source(options, is_image, 1).preprocessing if is_image else None
    if stated is not None and stated.mean and len(stated.mean) == X.shape[1]:
        mean, scale = (np.reshape(values, (1, -1, 1, 1)).astype(np.float32) for values in (stated.mean, stated.std))
    else:
        axes = (0, 2, 3) if is_image else (0,)
        mean, scale = X.mean(axis=axes, keepdims=True), X.std(axis=axes, keepdims=True)
    return mean, np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-12)


def _source(options: TrainSparse, is_image: bool, n_outputs: int, n_elements: int = 1) -> NetworkSource:
    """The network, with the normalization it wants where it says so."""
    name, modality = options.network, "image" if is_image else "tensor"
    if name.startswith("mlp:"):
        return NetworkSource(make_mlp(n_elements, n_outputs, parse_mlp(name)), modality)
    spec = BackboneSpec(name, weights=options.weights, modality=modality)
    if name.startswith("cifar_resnet") and name.removeprefix("cifar_resnet").isdecimal():
        if options.weights is not None:
            return load_cifar(spec)
        return NetworkSource(CifarResNet(int(name.removeprefix("cifar_resnet")), n_outputs), modality)
    if spec.entry == "network-folder":
        return load_folder(spec)
    if spec.entry != "python":
        raise UsageError(
            f"--network {name}: give mlp:WIDTHS, cifar_resnetNN, python:package.module:factory or a debugnet folder"
        )
    source = load_python(spec)
    states_it = options.weights is not None or hasattr(source.network, "image_mean")
    return source if states_it else dataclasses.replace(source, preprocessing=None)
