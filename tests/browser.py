"""Chromium, and a watch over what a page says, asks for and violates."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


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
