"""The page of a server: who may look, what is told, and that a browser shows it during a load run."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO

import numpy as np
import pytest
from browser import SIZES, Opened, browser
from PIL import Image
from serving_process import TOKEN, ServerProcess

import semcodec
from semcodec.data.datasets import open_dataset
from semcodec.panels import Frame, Panel
from semcodec.pipeline.device import Device
from semcodec.pipeline.server import Server
from semcodec.serving.app import make_app
from semcodec.serving.computing import read_one
from semcodec.serving.figures import Figures
from semcodec.serving.messages import Answer, Failed, Late
from semcodec.serving.pictures import as_data, draw, show
from semcodec.serving.service import Service

SPECS = ("jpeg+vit-nano-server", "layered+det-nano@d3")


def answer(sequence: int) -> Answer:
    return Answer(sequence, 1, "dog", 0.75, (1, 1), False, None, None, (1000, 2000, 0, 5000))


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_are_of_the_last_whole_seconds():
    figures = Figures(100.0)
    for tenth in range(300):  # 10 a second for 30 s, of which the last 10 whole seconds count
        now = 100.0 + tenth / 10
        figures.add_record(now, 50 if tenth < 150 else 100)
        figures.add_outcome(now, Late(tenth, 5) if tenth % 5 == 0 else answer(tenth))
    told = figures.summary(130.0)
    assert told["fps"] == pytest.approx(10)
    assert told["bits"] == 800
    assert told["bits_per_s"] == pytest.approx(8000)
    assert (told["late"], told["failed"]) == (pytest.approx(0.2), 0)
    assert told["ms"] == {"queue": 1, "decode": 2, "recover": 0, "tail": 5}
    assert figures.summary(200.0)["fps"] == 0
    assert len(figures._seconds) <= 11


def test_a_stream_without_a_record_tells_nothing_it_does_not_know():
    told = Figures(5.5).summary(5.6)
    assert told["fps"] == 0
    assert (told["bits"], told["late"], told["ms"]["tail"]) == (None, None, None)
    young = Figures(5.0)
    young.add_record(5.1, 10)
    young.add_outcome(5.2, Failed(0, "damaged"))
    assert young.summary(5.5)["fps"] == pytest.approx(2)
    assert young.summary(5.5)["failed"] == 1


# -- pictures ----------------------------------------------------------------------------------------------------------


def opened(data: dict) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data["src"].partition(",")[2])))


def test_panels_are_pictures_of_bounded_size():
    large = as_data(Panel("large", np.zeros((300, 4000, 3), np.uint8)))
    assert (large["width"], large["height"]) == opened(large).size == (960, 72)
    heat = as_data(Panel("map", heat=np.array([[0.0, 1.0], [np.nan, np.inf]])))
    assert np.asarray(opened(heat)).tolist() == [[[0, 0, 4], [252, 255, 164]], [[205] * 3, [255] * 3]]
    grey = np.asarray(draw(Panel("over", np.full((4, 4, 3), 100, np.uint8), np.full((2, 2), np.nan))))
    assert (grey == 162).all(), "where a map has nothing the picture shines through"
    framed = np.asarray(draw(Panel("boxes", np.zeros((20, 20, 3), np.uint8), frames=(Frame((0.1, 0.1, 1, 1), "", 0),))))
    assert framed[2, 2].tolist() == [0x1F, 0x77, 0xB4]
    assert not framed[5, 5].any()


@pytest.mark.parametrize(
    ("spec", "titles"),
    [
        ("png+vit-nano-server", ["received"]),
        ("patches:keep=10+mean-fill+vit-nano-server", ["received: 10 of 144 patches", "recovered"]),
        ("layered+det-nano@d3", ["d3, received"]),
    ],
)
def test_what_is_shown_is_what_was_received(spec, titles):
    device, server = Device.load(spec, offline=True), Server.load(spec)
    pixels, _ = open_dataset("digits-scenes", "test", device.request).batch([0])
    record = read_one(device.encode(pixels[0]).data, 0, server)
    panels = show(server, record, None)
    assert [panel["title"] for panel in panels][: len(titles)] == titles
    if spec.startswith("png"):
        assert (np.asarray(opened(panels[0]).convert("RGB")) == pixels[0]).all()


# -- who may look ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Server:
    return Server.load(SPECS[0])


def client(model: Server, token: str | None = None, page: bool = True, base_url: str = "http://127.0.0.1:8765"):
    from starlette.testclient import TestClient

    return TestClient(make_app(Service([model], token=token), page=page), base_url=base_url)


PATHS = ("/", "/v1/streams", "/v1/streams/01234567/panels")


@pytest.mark.parametrize("path", PATHS)
def test_the_page_is_behind_the_token(model, path):
    with client(model, TOKEN) as browser:
        refused = browser.get(path)
        assert refused.status_code == 401
        assert "Basic" in refused.headers["www-authenticate"]
        assert TOKEN not in refused.text
        for wrong in (("", "another"), (TOKEN, "")):
            assert browser.get(path, auth=wrong).status_code == 401
        for value in ("Basic !", "Basic /w==", "Bearer", "Digest x", ""):
            assert browser.get(path, headers={"Authorization": value}).status_code == 401
        found = 404 if path.endswith("panels") else 200
        assert browser.get(path, auth=("anyone", TOKEN)).status_code == found
        assert browser.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == found


@pytest.mark.parametrize("path", PATHS)
def test_there_is_none_where_it_is_not_wanted(model, path):
    with client(model, page=False) as browser:
        assert browser.get(path).status_code == 404


def test_another_sites_name_for_this_address_shows_nothing(model):
    """A page elsewhere may have its own name lead here; its script is not to read what a camera sees."""
    for name, status in (("evil.example", 421), ("localhost", 200), ("10.0.0.7", 200), ("[::1]", 200)):
        with client(model, base_url=f"http://{name}:8765") as browser:
            assert browser.get("/v1/streams").status_code == status, name
    with client(model, TOKEN, base_url="http://evil.example") as browser:
        assert browser.get("/", auth=("", TOKEN)).status_code == 200


def test_the_page_asks_for_nothing_elsewhere(model):
    with client(model) as browser:
        page = browser.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "{{" not in page.text
    for word in ("http://", "https://", "@import", "url("):
        assert word not in page.text.replace("http://www.w3.org/2000/svg", "")


# -- a load run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN)
    with ServerProcess(folder, *SPECS, "--token-file", str(folder / "token")) as process:
        yield process


@pytest.fixture
def load(server) -> Iterator[None]:
    """Three streams of two kinds, of which one has a deadline that cannot be kept."""
    ended = threading.Event()

    def run(link, fps, deadline_ms) -> None:
        pixels, _ = open_dataset("digits-scenes", "test", link.request).batch(range(16))

        def samples():
            while not ended.is_set():
                yield from pixels

        for _ in link.stream(samples(), fps=fps, deadline_ms=deadline_ms):
            if ended.is_set():
                break

    with ExitStack() as links:
        threads = []
        for spec, fps, deadline_ms in ((SPECS[0], 8, None), (SPECS[1], 4, None), (SPECS[0], 3, 0.0)):
            link = links.enter_context(semcodec.connect(server.url, spec, token=TOKEN, offline=True, least_score=0.25))
            threads.append(threading.Thread(target=run, args=(link, fps, deadline_ms), daemon=True))
            threads[-1].start()
        yield
        ended.set()
        for thread in threads:
            thread.join(60)


def told(server: ServerProcess, path: str = "/v1/streams") -> dict:
    status, text = server.get(path)
    assert status == 200, text
    return json.loads(text)


def wait_for(condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not come about")


def test_streams_are_told_with_their_pictures(server, load):
    def shown():
        """All three, where each has something to tell of its last seconds: on a busy machine they may pass without."""
        streams = told(server)["streams"]
        there = len(streams) == 3 and all(one["bits"] for one in streams)
        answered = [one for one in streams if one["shown"] is not None and one["ms"]["tail"]]
        return streams if there and len(answered) == 2 and any(one["late"] == 1 for one in streams) else None

    streams = wait_for(shown)
    late = next(one for one in streams if one["late"] == 1)
    assert (late["answered"], late["shown"]) == (0, None)
    assert late["late_total"] > 0
    for one in streams:
        assert len(one["name"]) == 8, "the whole name of a session would let anyone go on with it"
        assert one["bits"] > 100
        if one is late:
            continue
        assert one["fps"] > 0
        assert one["ms"]["tail"] > 0
        found = told(server, f"/v1/streams/{one['name']}/panels")
        assert found["sequence"] >= 0
        assert found["panels"][0]["src"].startswith("data:image/")
        assert found["answer"]["name"]


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_browser_shows_the_streams(server, load, size):
    origin = server.url.replace("ws", "http", 1)
    width, height = SIZES[size]
    with browser() as chromium:
        credentials = {"username": "", "password": TOKEN}
        found = Opened(chromium.new_page(viewport={"width": width, "height": height}, http_credentials=credentials))
        page = found.page
        page.set_default_timeout(120_000)
        page.on("console", lambda said: said.type in ("error", "warning") and found.errors.append(said.text))
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda one: one.url.startswith((origin, "data:")) or found.asked.append(one.url))
        page.goto(origin + "/")
        for what in (
            "document.querySelectorAll('.card').length === 3",
            "document.querySelectorAll('.panels img').length >= 2",
            "[...document.querySelectorAll('.panels img')].every(image => image.naturalWidth > 0)",
            "[...document.querySelectorAll('.numbers b.bad')].some(late => late.textContent === '100 %')",
        ):
            wait_for(lambda what=what: page.evaluate(what))
        lines = "[...document.querySelectorAll('.spark path')].map(path => path.getAttribute('d'))"
        first = page.evaluate(lines)
        wait_for(lambda: page.evaluate(lines) != first)
        found.check()
