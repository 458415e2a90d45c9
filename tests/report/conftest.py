"""Whole small runs on planted networks, and a browser that watches what a page does."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.explain.conftest import one_thread, picture_head, text_head, world  # noqa: F401

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


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


class Watch:
    """A page, with everything it says, asks for and violates."""

    def __init__(self, browser, **context) -> None:
        self.context = browser.new_context(viewport={"width": 1100, "height": 800}, accept_downloads=True, **context)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    @property
    def left(self) -> list[str]:
        """Addresses asked for that lie outside this machine's disk."""
        return [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))]

    def open(self, path: Path, route: str = "") -> None:
        self.page.goto(path.as_uri() + route)
        self.settle()

    def go(self, route: str) -> str:
        """Follow a route of the report; returns the heading."""
        self.page.evaluate("route => { location.hash = route; }", route)
        # The click or hash change is handled in a task of its own: let it begin before waiting for its end.
        self.page.evaluate("() => new Promise((done) => setTimeout(done, 0))")
        self.settle()
        return self.page.locator("h1").inner_text()

    def settle(self) -> None:
        self.page.wait_for_selector("html[data-ready=true]", timeout=20000)


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium; where there is none the test is skipped, and under CI it fails."""
    path = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if path is None or sync_playwright is None:
        reason = "no chromium (Debian package chromium)" if path is None else "no playwright (pip install playwright)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def watch(browser) -> Iterator[Watch]:
    watched = Watch(browser)
    yield watched
    watched.context.close()


def smooth_picture(rng: np.random.Generator, side: int = 160) -> np.ndarray:
    """A picture of coloured hills: it compresses like a photograph, not like noise."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    return (np.asarray(coarse, dtype=float) + rng.normal(0, 6, (side, side, 3))).clip(0, 255).astype(np.uint8)
