"""Networks as maps from raw samples to deep features.

>>> from debugnet.backbones import BackboneSpec, load_backbone
>>> backbone = load_backbone(BackboneSpec("resnet50", weights="resnet50.pth"), device="cpu")  # doctest: +SKIP
>>> features = backbone.features(backbone.collate(images))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debugnet.backbones.spec import BackboneSpec

if TYPE_CHECKING:
    from debugnet.backbones.backbone import Backbone
    from debugnet.backbones.loading import load_backbone

__all__ = ["Backbone", "BackboneSpec", "load_backbone"]


def __getattr__(name: str) -> Any:  # what needs torch loads when it is asked for
    if name == "load_backbone":
        from debugnet.backbones.loading import load_backbone

        return load_backbone
    if name == "Backbone":
        from debugnet.backbones.backbone import Backbone

        return Backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
