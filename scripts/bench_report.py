"""How large a report gets and how fast it opens: 20 classes, 500 features, 8 explained pictures each, none shared.

    python scripts/bench_report.py [--features 500] [--out /tmp/bench_report]

Pictures are made up (hills of colour with noise, 160 pixels), superpixels and effects too; the page is written by the
same code as ``debugnet report`` and opened from disk in headless Chromium.  Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from debugnet.report.content import build_content
from debugnet.report.html import report_page
from debugnet.report.material import Material
from tests.browser import FLAGS, find_chromium
from tests.report.conftest import smooth_picture
from tests.report.generated import Shown, make_head, write_bundle_of


def make_page(n_features: int, folder: Path, per_side: int) -> tuple[Path, float]:
    """Write a page; returns it and the seconds that took."""
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(20)]
    head = make_head(names, n_features, max(1, n_features // 20))
    words = [f"word{i}" for i in range(200)]
    bundle = write_bundle_of(folder / "explanations", head, words, per_side=per_side, pictures=True)
    n = 1000
    pictures: dict[tuple[str, int], np.ndarray] = {}

    def show(split: str, row: int) -> np.ndarray:
        if (split, row) not in pictures:
            pictures[split, row] = smooth_picture(rng, noise=10.0)
        return pictures[split, row]

    material = Material(
        title="bench", head=head, head_path="head", split="test", X=rng.normal(size=(n, n_features)).astype(np.float32),
        y=np.arange(n) % 20, ids=[f"s{i}" for i in range(n)], rows=np.arange(n), samples=Shown(show), modality="image",
        explanations=bundle, explained_split="val",
    )  # fmt: skip
    started = time.perf_counter()
    content, blocks = build_content(material, n_samples=120, n_prototypes=per_side)
    page = folder / "report.html"
    page.write_text(report_page(content, blocks, key="bench"), encoding="utf-8")
    return page, time.perf_counter() - started


def open_page(page: Path, times: int = 5) -> list[float]:
    """Milliseconds until the page says that it is ready, in fresh contexts."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for _ in range(times):
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-opened]", timeout=120000)
            found.append(float(tab.evaluate("document.documentElement.dataset.opened")))
            context.close()
        browser.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--per-side", type=int, default=4)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        page, seconds = make_page(given.features, folder, given.per_side)
        opened = open_page(page)
        row = {"features": given.features, "pictures_per_feature": 2 * given.per_side}
        row |= {"size_mb": round(page.stat().st_size / 1e6, 2)}
        print(json.dumps(row | {"written_s": round(seconds, 1), "opened_ms": sorted(opened)}))


if __name__ == "__main__":
    main()
