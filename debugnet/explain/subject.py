"""The network and the samples under explanation, in the coordinates of the decision layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debugnet.backbones.backbone import Backbone, ImageBackbone, TextBackbone
from debugnet.data.dataset import BadSample, Dataset
from debugnet.errors import InputError
from debugnet.explain.forward import NotExplainable, Probe
from debugnet.standardization import Standardizer

_TOLERANCE = 0.2  # sd; float16 stores and other batch sizes stay far below, another network does not


class Subject:
    """A backbone and one split of its data, with standardized features.

    Parameters
    ----------
    backbone : Backbone
    dataset : Dataset
        Row i is row i of the feature store's split.
    standardizer : Standardizer
    class_names : sequence of str
    batch_size : int, optional
        64 images or 128 texts by default.

    Attributes
    ----------
    probe : Probe
        Pixels in [0, 1] or texts -> standardized features; a dead feature is 0 everywhere.
    truncated : set of str
        Ids of texts of which the network sees only the beginning.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        standardizer: Standardizer,
        class_names: Sequence[str],
        batch_size: int | None = None,
    ) -> None:
        self.backbone, self.dataset, self.class_names = backbone, dataset, [str(c) for c in class_names]
        self.modality = backbone.modality
        self.device = backbone.device
        self.mean = torch.from_numpy(standardizer.mean).float().to(self.device)
        self.inverse_scale = torch.from_numpy(standardizer.inverse_scale).float().to(self.device)
        self.probe = Probe(self.features, batch_size or (64 if self.modality == "image" else 128))
        self.truncated: set[str] = set()

    def features(self, batch: Any) -> Tensor:
        """Standardized features (n, d) of pixels (n, 3, H, W) in [0, 1] or of a list of texts."""
        if isinstance(self.backbone, ImageBackbone):
            ready: Any = self.backbone.normalize(batch)
        else:
            ready = self.backbone.collate(batch)
        return (self.backbone.features(ready) - self.mean) * self.inverse_scale

    @property
    def side(self) -> int:
        """Side of the images that the network sees, pixels."""
        assert isinstance(self.backbone, ImageBackbone)
        return self.backbone.preprocessing.crop_size

    def image(self, row: int) -> np.ndarray:
        """Pixels (H, W, 3), uint8, as the network sees them.

        Raises
        ------
        NotExplainable
            The row cannot be read.
        """
        assert isinstance(self.backbone, ImageBackbone)
        return self.backbone.to_pixels(self._read(row)).cpu().numpy()

    def text(self, row: int) -> str:
        """The text of a row, cut where the network stops reading.

        Raises
        ------
        NotExplainable
            The row cannot be read.
        """
        assert isinstance(self.backbone, TextBackbone)
        text = str(self._read(row))
        if not self.backbone.tokenize([text])[1][0]:
            return text
        self.truncated.add(self.dataset.ids[row])
        tokenizer = self.backbone.tokenizer
        if not tokenizer.is_fast:
            return text
        options = {"truncation": True, "max_length": self.backbone.max_length, "return_offsets_mapping": True}
        return text[: max(stop for _, stop in tokenizer(text, **options)["offset_mapping"])]

    def _read(self, row: int) -> Any:
        try:
            return self.dataset[row]
        except BadSample as bad:
            raise NotExplainable(bad.reason) from None

    def sample_id(self, row: int) -> str:
        """Stable id of a row."""
        return str(self.dataset.ids[row])

    def label(self, row: int) -> str:
        """The class, classes or value of a row, for people."""
        label = self.dataset.labels[row]
        if np.ndim(label) == 1:
            return ", ".join(n for n, on in zip(self.class_names, label, strict=True) if on) or "none"
        if np.issubdtype(np.asarray(label).dtype, np.floating):
            return f"{float(label):.3g}"
        return self.class_names[int(label)] if 0 <= int(label) < len(self.class_names) else "unlabelled"

    def mask_token(self) -> str:
        """The tokenizer's mask token.

        Raises
        ------
        InputError
            The network has none.
        """
        assert isinstance(self.backbone, TextBackbone)
        token = self.backbone.tokenizer.mask_token
        if token is None:
            raise InputError(f"{self.backbone.name} has no mask token: use --mask delete")
        return str(token)

    def check(self, row: int, stored: np.ndarray) -> None:
        """Compare a row's features with those of the store (d,), standardized.

        Raises
        ------
        InputError
            They differ: the network, the data or the preprocessing is not what it was.
        """
        if self.modality == "image":
            batch: Any = torch.from_numpy(self.image(row)).permute(2, 0, 1)[None].to(self.device).float() / 255
        else:
            batch = [self.text(row)]
        found = self.probe.collect(lambda start, stop: batch, 1)[0]
        difference = float(np.abs(found - stored).max())
        if not difference <= _TOLERANCE:
            raise InputError(
                f"the network does not give the stored features of '{self.sample_id(row)}' again (off by "
                f"{difference:.2g} sd): the data or its preprocessing has changed; run debugnet extract again"
            )


def content_key(method: str, fingerprint: str, content: bytes, options: Mapping[str, Any]) -> str:
    """Key of what a method finds on one sample: by the weights, the sample's bytes and the options."""
    from debugnet.artifacts.canonical import canonical_json

    digest = hashlib.sha256(canonical_json({"network": fingerprint, "options": dict(options)}))
    digest.update(hashlib.sha256(content).digest())
    return f"{method}:{digest.hexdigest()}"
