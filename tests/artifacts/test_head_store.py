"""A head folder gives back the same decision layer, and damage to it is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import verify_bundle
from debugnet.artifacts.head_store import load_head, save_head
from debugnet.artifacts.provenance import collect, input_reference
from debugnet.errors import InputError
from debugnet.heads import LinearHead
from debugnet.standardization import Standardizer

PROVENANCE = collect("head", {"drop": 0.05}, {})
HEAD = LinearHead(
    weight=np.array([[0.0, 1 / 3, 0], [2, 0, 0]]),
    bias=np.array([0.1, -0.2]),
    standardizer=Standardizer(np.arange(3.0), np.array([1.0, 2, 0])),
    family="multinomial",
    class_names=["cat", "dög"],
    meta={"rule": "drop", "accuracy": float("nan")},
)


def test_a_head_comes_back_exactly(tmp_path: Path) -> None:
    found = load_head(save_head(tmp_path / "head", HEAD, PROVENANCE))
    for name in ("weight", "bias", "standardized_weight", "standardized_bias"):
        np.testing.assert_array_equal(getattr(found, name), getattr(HEAD, name))
    assert (found.family, found.task, list(found.class_names)) == ("multinomial", "single-label", ["cat", "dög"])
    assert found.meta == {"rule": "drop", "accuracy": None}
    verify_bundle(tmp_path / "head")


def test_saving_again_replaces_the_folder_and_its_digest_follows_the_content(tmp_path: Path) -> None:
    first = input_reference(save_head(tmp_path / "head", HEAD, PROVENANCE))
    assert input_reference(save_head(tmp_path / "head", HEAD, PROVENANCE)) == first
    other = LinearHead(HEAD.weight * 2, HEAD.bias, HEAD.standardizer, HEAD.family, HEAD.class_names)
    assert input_reference(save_head(tmp_path / "head", other, PROVENANCE))["digest"] != first["digest"]


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a head folder: make one with debugnet select"):
        load_head(tmp_path / "nothing")
    path = save_head(tmp_path / "head", HEAD, PROVENANCE)
    weights = (path / "decision_layer.safetensors").read_bytes()
    for damaged in (b"", weights[:-4], weights.replace(b"weight", b"height")):
        (path / "decision_layer.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match="head is damaged"):
            load_head(path)
        with pytest.raises(InputError, match="was changed since it was written"):
            verify_bundle(path)
    (path / "decision_layer.json").write_text("{")
    with pytest.raises(InputError, match="decision_layer.json is not JSON"):
        load_head(path)
    (path / "manifest.json").unlink()
    with pytest.raises(InputError, match="has no manifest.json"):
        load_head(path)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_head(tmp_path / "x", HEAD, collect("analysis", {}, {}))
    with pytest.raises(InputError, match="is a folder of kind analysis, and a head is needed"):
        load_head(tmp_path / "x")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bad = LinearHead(HEAD.weight * np.nan, HEAD.bias, HEAD.standardizer, HEAD.family, HEAD.class_names)
    with pytest.raises(InputError, match="not finite"):
        load_head(save_head(tmp_path / "head", bad, PROVENANCE))
