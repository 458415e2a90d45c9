"""Whole small runs on planted networks, and made-up pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Watch
from tests.explain.conftest import one_thread, picture_head, text_head, world  # noqa: F401


def _noisier(head: Path, folder: Path, column: int) -> Path:
    """A head that listens to noise, so that it errs."""
    from debugnet.artifacts.head_store import load_head, save_head
    from debugnet.artifacts.provenance import collect, input_reference

    loaded = load_head(head)
    weight = loaded.weight * 1.0
    weight[:, column] *= 30
    changed = dataclasses.replace(loaded, weight=weight, meta={"rule": "drop", "drop": 0.05, "reference": "best"})
    features = input_reference(head.parent / "features.h5")
    save_head(folder / "head", changed, collect("head", {"noisier": True}, {"features": features}))
    return folder / "head"


@pytest.fixture(scope="session")
def picture_run(picture_head, tmp_path_factory) -> Path:  # noqa: F811
    """A run folder with a head that errs, explained, diagnosed, edited, tried with a counterfactual."""
    from debugnet.recipes.counterfactual_image import CounterfactualImage
    from debugnet.recipes.diagnose import Diagnose
    from debugnet.recipes.edit import Edit
    from debugnet.recipes.explain import Explain
    from debugnet.recipes.pairs import Pairs
    from debugnet.stages import counterfactual_image, diagnose, edit, explain, pairs

    folder = tmp_path_factory.mktemp("picture_run")
    head = _noisier(picture_head, folder, 3)
    small = {"num_samples": 60, "segmentation": "grid", "samples_per_feature": 2, "preset": "draft"}
    explain.run(Explain(head, features=(0, 1, 3), methods=("prototypes", "lime"), split="train", device="cpu", **small))
    diagnose.run(Diagnose(head, split="test"))
    pairs.run(Pairs(head, split="test", permutations=10))
    edit.run(Edit(head, remove=("3",), audit="test", output=folder / "head_without_3"))
    counterfactual_image.run(CounterfactualImage(head, feature=0, split="train", limit=10, device="cpu"))
    return folder


@pytest.fixture(scope="session")
def text_run(text_head, tmp_path_factory) -> Path:  # noqa: F811
    """The same for texts, with word clouds."""
    from debugnet.recipes.counterfactual_text import CounterfactualText
    from debugnet.recipes.diagnose import Diagnose
    from debugnet.recipes.explain import Explain
    from debugnet.stages import counterfactual_text, diagnose, explain

    folder = tmp_path_factory.mktemp("text_run")
    head = _noisier(text_head, folder, 1)
    explain.run(Explain(head, split="val", limit=40, num_samples=80, samples_per_feature=2, device="cpu"))
    diagnose.run(Diagnose(head, split="val"))
    counterfactual_text.run(CounterfactualText(head, split="val", limit=30, device="cpu"))
    return folder


@pytest.fixture
def watch(browser) -> Iterator[Watch]:
    watched = Watch(browser)
    yield watched
    watched.context.close()


def smooth_picture(rng: np.random.Generator, side: int = 160, noise: float = 6.0) -> np.ndarray:
    """A picture of coloured hills: it compresses like a photograph, not like noise."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    return (np.asarray(coarse, dtype=float) + rng.normal(0, noise, (side, side, 3))).clip(0, 255).astype(np.uint8)
