"""``semcodec play`` in a browser, with nothing of the network but this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from serving_process import free_port

from semcodec.cli import main

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
SPEC = "layered+vit-nano-server@block2"


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """Of ``semcodec play`` in a process of its own, for which every proxy is a closed door."""
    if find_spec("gradio") is None:
        pytest.skip("needs gradio, of the extra play")
    folder, port = tmp_path_factory.mktemp("play"), free_port()
    door = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "all")} | {"no_proxy": "127.0.0.1"}
    environment = {**os.environ, **door, "OMP_NUM_THREADS": "1", "HOME": str(folder), "GRADIO_TEMP_DIR": str(folder)}
    command = [sys.executable, "-m", "semcodec", "play", SPEC, "--port", str(port)]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, env=environment)
    try:
        for _ in range(600):
            if "semcodec play: http" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def page(url):
    """The page in a browser, and every address that it asks for."""
    if CHROMIUM is None or find_spec("playwright") is None:
        pytest.skip("needs chromium and playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(url, wait_until="domcontentloaded", timeout=120_000)
        shown.wait_for_selector("#sc-bytes", timeout=120_000)
        shown.wait_for_selector("#sc-share h3", timeout=120_000)
        yield shown, asked
        browser.close()


def bytes_of(shown) -> int:
    return int(shown.inner_text("#sc-bytes").split()[0].replace(",", ""))


def changed(shown, before: int) -> float:
    """Seconds until the bytes are others."""
    began = time.monotonic()
    while bytes_of(shown) == before:
        assert time.monotonic() - began < 60, "the figures did not follow"
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_picture_is_dropped_a_slider_moved_and_nobody_else_asked(page, url, tmp_path):
    shown, asked = page
    before = bytes_of(shown)
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    shown.set_input_files("input[type=file] >> nth=0", str(tmp_path / "noise.png"))
    changed(shown, before)
    number = shown.locator("#sc-layered-level input[type=number]")
    seconds = []
    shared = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # by how many others, where it is busy
    for level in ("1", "2", "3", "4", "1", "2"):
        before = bytes_of(shown)
        number.fill(level)
        number.press("Enter")
        seconds.append(changed(shown, before))
    assert min(seconds) < shared, seconds
    slider = shown.locator("#sc-layered-level input[type=range]")
    before = bytes_of(shown)
    slider.focus()
    shown.keyboard.press("ArrowRight")
    changed(shown, before)
    assert shown.locator(".grid-wrap img, .thumbnail-item img").count() >= 3
    elsewhere = {one for one in asked if not one.startswith((url, "data:", "blob:"))}
    assert elsewhere == set()


def test_another_spec_brings_its_own_knobs(page):
    shown, _ = page
    box = shown.locator("#sc-spec input")
    box.fill("webp+vit-nano-server")
    box.press("Enter")
    shown.wait_for_selector("#sc-webp-quality", timeout=60_000)
    assert shown.locator("#sc-layered-level").count() == 0
    shown.wait_for_selector("#sc-webp-slow", timeout=60_000)  # knobs are drawn one after the other


def test_on_a_phone_nothing_is_cut_off(page):
    shown, _ = page
    shown.set_viewport_size({"width": 390, "height": 844})
    shown.wait_for_timeout(300)
    wide = shown.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390


def test_without_gradio_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(main, ["play"])
    assert done.exit_code == 1
    assert "pip install 'semcodec[play]'" in done.stderr
    assert CliRunner().invoke(main, ["play", "no-such+thing"]).exit_code == 2


def test_the_space_is_the_same_page():
    folder = Path(__file__).parents[2] / "examples" / "space"
    assert "semcodec[play" in (folder / "requirements.txt").read_text()
    code = (folder / "app.py").read_text()
    compile(code, "app.py", "exec")
    assert "semcodec.play.page" in code
