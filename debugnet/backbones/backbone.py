"""A network seen as a map from raw samples to deep features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from debugnet.backbones.layers import DenseHead, FeatureTap, check_head, dense_head, find_head, logits_of
from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import BackboneSpec
from debugnet.backbones.weights_files import fingerprint
from debugnet.errors import DeviceError, InputError, UsageError

_PROBE_SEED = 0
_PROBE_TEXTS = ("a short text", "and a second one, a few words longer than the first")


class Backbone(ABC):
    """A frozen network with the place its features are read from.

    Attributes
    ----------
    spec : BackboneSpec
        Builds the same backbone again (JSON and back).
    name, modality : str
    network : Module
        In eval mode; its parameters take no gradients.
    device : torch.device
    layer : str
        The module whose input (the decision layer's) or output (any other) is the feature.
    pooling : str or None
    feature_dim : int
    class_names : tuple of str or None
        In the order of the network's outputs.
    head : DenseHead or None
        The network's own decision layer, when ``W z + b`` gives its logits.
    fingerprint : str
        sha256 of the weights.
    """

    modality: str

    def __init__(self, spec: BackboneSpec, source: NetworkSource, device: torch.device) -> None:
        self.name, self.device = spec.name, device
        self.network = source.network.eval().requires_grad_(False).to(device)
        self.class_names = None if source.class_names is None else tuple(map(str, source.class_names))
        self.fingerprint = fingerprint(self.network)
        self.spec = spec

    def _tap(self, source: NetworkSource) -> None:
        """Find and try the feature layer; the last step of building, because it runs the network."""
        spec, batch = self.spec, self._probe()
        with (
            torch.no_grad(),
            self._failing_clearly(),
        ):  # not inference_mode: what the network caches must serve gradients later
            if spec.layer is None and not source.is_encoder:
                if spec.pooling is not None:
                    raise UsageError(f"--pool {spec.pooling} is for --layer: the decision layer's input needs none")
                self._feature_tap = find_head(self.network, lambda: self._forward(batch), self._mask(batch))
            else:
                layer = "" if spec.layer is None else _known_layer(self.network, spec.layer)
                self._feature_tap = FeatureTap(self.network, layer, "output", spec.pooling)
            features, output = self._feature_tap(lambda: self._forward(batch), self._mask(batch))
            if features.ndim != 2:
                raise InputError(f"layer '{spec.layer}' gives {tuple(features.shape)} after pooling, not (samples, d)")
            self.head = None if source.is_encoder else self._own_head(features, output)
        self.layer, self.pooling = self._feature_tap.layer, self._feature_tap.pooling
        self.feature_dim = features.shape[1]

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(f"out of memory on {self.device} with two samples: {error}") from error
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"--backbone {self.name}: the network fails on its own input ({type(error).__name__}: {reason}); check "
                "--image-size, --layer, or the factory"
            ) from error

    def _own_head(self, features: Tensor, output: Any) -> DenseHead | None:
        """Copy the decision layer, if it maps the features to the logits."""
        found = self.network.modules()
        if self._feature_tap.at == "input":
            found = iter([self.network.get_submodule(self._feature_tap.layer)])
        linears = [module for module in found if isinstance(module, nn.Linear)]
        try:
            logits = logits_of(output)
        except UsageError:  # with a layer of one's own choice, the network's output can be anything
            return None
        fits = [module for module in linears if check_head(module, features, logits) is None]
        return dense_head(fits[-1]) if fits else None

    def features(self, batch: Any, *, logits: bool = False) -> Any:
        """Run the network on a collated batch.

        Differentiable with respect to a float batch when gradients are on.

        Parameters
        ----------
        batch : object
            What :meth:`collate` returns (see the subclasses for what else they take).
        logits : bool
            Also return the network's logits.

        Returns
        -------
        features : Tensor (n, d), float32, on the device
        logits : Tensor (n, K), float32
            Only when asked for.
        """
        batch = self._to_device(batch)
        features, output = self._feature_tap(lambda: self._forward(batch), self._mask(batch))
        return (features.float(), logits_of(output).float()) if logits else features.float()

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """Make one batch of raw samples, on the CPU."""

    @abstractmethod
    def _probe(self) -> Any:
        """Return a batch of two plausible samples, on the device."""

    @abstractmethod
    def _to_device(self, batch: Any) -> Any: ...

    @abstractmethod
    def _forward(self, batch: Any) -> Any: ...

    def _mask(self, batch: Any) -> Tensor | None:
        return None


class ImageBackbone(Backbone):
    """A network on images.

    :meth:`features` takes uint8 pixels (n, H, W, 3) as :meth:`collate` makes them, or floats
    (n, 3, H, W) that :meth:`normalize` has already made the network's input.
    """

    modality = "image"

    def __init__(self, spec: BackboneSpec, source: NetworkSource, device: torch.device) -> None:
        super().__init__(spec, source, device)
        assert source.preprocessing is not None
        self.preprocessing = source.preprocessing
        # Pixels arrive channels-last, and convolutions are faster there on CPUs and tensor cores alike.
        self.network.to(memory_format=torch.channels_last)
        self._tap(source)

    def to_pixels(self, image: Any) -> Tensor:
        """Resize and crop a PIL image (or a uint8 array) to (H, W, 3) uint8, as the network sees it."""
        return self.preprocessing.to_pixels(image)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn pixels (n, 3, H, W), float in [0, 1], into the network's input; differentiable."""
        return self.preprocessing.normalize(pixels)

    def collate(self, samples: Sequence[Any]) -> Tensor:
        """Make uint8 pixels (n, H, W, 3) of PIL images, uint8 arrays or results of :meth:`to_pixels`."""
        return torch.stack([s if isinstance(s, Tensor) else self.to_pixels(s) for s in samples])

    def _probe(self) -> Tensor:
        size = self.preprocessing.crop_size
        generator = torch.Generator().manual_seed(_PROBE_SEED)
        return self._to_device(torch.randint(0, 256, (2, size, size, 3), generator=generator, dtype=torch.uint8))

    def _to_device(self, batch: Tensor) -> Tensor:
        batch = batch.to(self.device, non_blocking=True)
        if batch.dtype == torch.uint8:
            return self.normalize(batch.permute(0, 3, 1, 2).float().div_(255))
        return batch

    def _forward(self, batch: Tensor) -> Any:
        return self.network(batch)


class TextBackbone(Backbone):
    """A network on texts; :meth:`features` takes the dict of tensors that :meth:`encode` makes."""

    modality = "text"

    def __init__(self, spec: BackboneSpec, source: NetworkSource, device: torch.device) -> None:
        super().__init__(spec, source, device)
        assert source.tokenizer is not None and source.max_length is not None
        self.tokenizer, self.max_length = source.tokenizer, source.max_length
        self._tap(source)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[dict[str, list[int]]], np.ndarray]:
        """Tokenize without padding.

        Returns
        -------
        rows : list of dict
            Per text: input_ids, attention_mask, … as lists, at most ``max_length`` long.
        truncated : ndarray (n,), bool
            The texts that were longer.
        """
        options = {"truncation": True, "max_length": self.max_length}
        encoding = self.tokenizer(list(texts), return_attention_mask=True, **options)
        rows = [{key: values[i] for key, values in encoding.items()} for i in range(len(texts))]
        full = [i for i, row in enumerate(rows) if len(row["input_ids"]) >= self.max_length]
        truncated = np.zeros(len(texts), dtype=bool)
        if full:  # only these can have been cut: see how long they were
            whole = self.tokenizer([texts[i] for i in full], truncation=False, verbose=False)["input_ids"]
            truncated[full] = [len(ids) > self.max_length for ids in whole]
        return rows, truncated

    def pad(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Pad tokenized rows to the longest of them: {name: Tensor (n, T), int64}."""
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        on_left = self.tokenizer.padding_side == "left"
        batch = {}
        for name in rows[0]:
            padded = np.full((len(rows), longest), fill.get(name, 0), dtype=np.int64)
            for i, row in enumerate(rows):
                n = len(row[name])
                padded[i, longest - n if on_left else 0 : longest if on_left else n] = row[name]
            batch[name] = torch.from_numpy(padded)
        return batch

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenize, truncate at ``max_length`` and pad: {name: Tensor (n, T), int64}."""
        return self.pad(self.tokenize(texts)[0])

    def collate(self, samples: Sequence[str]) -> dict[str, Tensor]:
        """Same as :meth:`encode`."""
        return self.encode(samples)

    def _probe(self) -> dict[str, Tensor]:
        return self._to_device(self.encode(_PROBE_TEXTS))

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _forward(self, batch: dict[str, Tensor]) -> Any:
        return self.network(**batch)

    def _mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch.get("attention_mask")


class TensorBackbone(Backbone):
    """A network on plain number arrays; :meth:`features` takes float32 (n, ...) of the data's shape."""

    modality = "tensor"

    def __init__(self, spec: BackboneSpec, source: NetworkSource, device: torch.device) -> None:
        super().__init__(spec, source, device)
        self._tap(source)

    def collate(self, samples: Sequence[Any]) -> Tensor:
        """Stack arrays to float32 (n, ...)."""
        return torch.from_numpy(np.stack([np.asarray(sample, dtype=np.float32) for sample in samples]))

    def _probe(self) -> Tensor:
        if self.spec.input_shape is None:
            raise UsageError(f"--backbone {self.name}: a network on plain arrays needs the shape of a sample")
        generator = torch.Generator().manual_seed(_PROBE_SEED)
        return self._to_device(torch.randn(2, *self.spec.input_shape, generator=generator))

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, non_blocking=True)

    def _forward(self, batch: Tensor) -> Any:
        return self.network(batch)


def _known_layer(network: nn.Module, layer: str) -> str:
    import difflib

    names = [name for name, _ in network.named_modules() if name]
    if layer in names:
        return layer
    close = difflib.get_close_matches(layer, names, n=3) or [name for name in names if "." not in name]
    raise UsageError(f"--layer {layer}: the network has no such module; for example {', '.join(close[:8])}")
