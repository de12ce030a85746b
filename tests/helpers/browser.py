"""Pages in headless Chromium, where it and playwright are installed; else their tests are skipped, with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@dataclass
class Opened:
    """A page that is shown. errors: what its scripts complained of. asked: addresses elsewhere that it asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        """No error, no request to anywhere else, and nothing wider than the window."""
        assert self.errors == []
        assert self.asked == []
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"{wide} pixels wide in a window of {window}"


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium itself. Skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def shown(chromium: Any, path: Path, size: str = "desktop", scheme: str = "light") -> Iterator[Opened]:
    """A file as a page, in a window of a size of ``SIZES``. With SEMCODEC_SCREENSHOTS a picture of it is left there."""
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    found = Opened(context.new_page())
    found.page.on("console", lambda said: said.type in ("error", "warning") and found.errors.append(said.text))
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda one: one.url.startswith(("file:", "data:")) or found.asked.append(one.url))
    try:
        found.page.goto(path.as_uri())
        yield found
        if folder := os.environ.get("SEMCODEC_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            found.page.screenshot(path=f"{folder}/{path.stem}-{size}-{scheme}.png", full_page=False)
    finally:
        context.close()
