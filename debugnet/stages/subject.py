"""The network and the samples behind a feature store, built again from what the store says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debugnet.errors import InputError

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.explain.subject import Subject


def load_subject(store: FeatureStore, split: str, *, device: str = "auto", batch_size: int | None = None) -> Subject:
    """Load the backbone and one split of the data that a feature store was made from.

    Raises
    ------
    InputError
        The store does not say them, or the data no longer has the split's rows.
    """
    from debugnet.backbones import BackboneSpec, load_backbone
    from debugnet.data import DataSpec, load_dataset
    from debugnet.explain.subject import Subject

    for name in ("backbone", "data"):
        if name not in store.config:
            raise InputError(f"{store.path} does not say which {name} it was made from, and both are needed here")
    backbone = load_backbone(BackboneSpec.from_json(store.config["backbone"]), device)
    splits = load_dataset(DataSpec.from_json(store.config["data"])).splits
    if split not in splits or len(splits[split]) != len(store.split(split)):
        raise InputError(f"the data no longer has the split '{split}' of {store.path}: run debugnet extract again")
    return Subject(backbone, splits[split], store.standardizer, store.class_names, batch_size)
