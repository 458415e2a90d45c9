"""From a spec to a backbone, whatever kind of network it names."""

from __future__ import annotations

import dataclasses

import torch

from debugnet.backbones.backbone import Backbone, ImageBackbone, TensorBackbone, TextBackbone
from debugnet.backbones.devices import resolve_device
from debugnet.backbones.spec import BackboneSpec
from debugnet.errors import StaleArtifact
from debugnet.registry import BACKBONES

_CLASSES: dict[str, type[Backbone]] = {"image": ImageBackbone, "text": TextBackbone, "tensor": TensorBackbone}


def load_backbone(spec: BackboneSpec, device: str | torch.device = "auto", *, online: bool = False) -> Backbone:
    """Build a network, load its weights, and find the layer its features are read from.

    Parameters
    ----------
    spec : BackboneSpec
    device : str or torch.device
        "auto", "cpu", "cuda", "cuda:1", "mps".
    online : bool
        Whether missing weights may be downloaded.

    Returns
    -------
    Backbone
        Its ``spec`` has absolute paths and the fingerprint of the weights that were loaded.

    Raises
    ------
    InputError
        If the weights are missing, damaged or another architecture's, or the feature layer is not
        what it has to be.
    StaleArtifact
        If the weights have another fingerprint than ``spec`` asks for.
    DeviceError
        If there is no such device.
    """
    target = resolve_device(device)
    source = BACKBONES.load(spec.entry)(spec, online=online)
    backbone = _CLASSES[source.modality](spec, source, target)
    if spec.fingerprint not in (None, backbone.fingerprint):
        raise StaleArtifact(
            f"--backbone {spec.name}: its weights are not those the features were made with (sha256 "
            f"{backbone.fingerprint[:12]} instead of {spec.fingerprint[:12]}); run debugnet extract again"
        )
    backbone.spec = dataclasses.replace(spec.resolved(), modality=backbone.modality, fingerprint=backbone.fingerprint)
    return backbone
