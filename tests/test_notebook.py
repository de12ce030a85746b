"""Notebooks show what the command line prints and draws; text from elsewhere is escaped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import semcodec
from semcodec import _html
from semcodec.composition.composition import compose_spec
from semcodec.evaluation.notebook import Record
from semcodec.evaluation.thumbnails import data_url, folded
from semcodec.painting import paint
from semcodec.panels import MISSING, Panel
from semcodec.tasks.prediction import Prediction

ROOT = Path(__file__).parents[1]
EVIL = "<script>alert(1)</script>"


def words(markup: str) -> str:
    return re.sub(r"<[^>]+>", " ", markup)


@pytest.fixture(scope="module")
def pipeline():
    return semcodec.compose("cls-attn+rans+vit-nano-server", offline=True)


def test_a_composition_is_its_stages():
    text = words(compose_spec("stae:frames=4+rans+vit-nano")._repr_html_())
    for part in ("stae:frames=4+rans+vit-nano", "head", "device", "rans", "cnn-3d2d", "float32[16x3x64x64]"):
        assert part in text, part


def test_a_pipeline_also_says_where_its_weights_came_from(pipeline):
    assert "shipped: vit-nano-server.safetensors" in pipeline._repr_html_()


def test_a_packet_an_answer_and_a_sample(pipeline):
    shown = semcodec.show(pipeline, "digits-scenes:3")
    packet = pipeline.encode("digits-scenes:3")
    text = words(packet._repr_html_())
    assert f"bytes_total {packet.bytes_total:,}" in re.sub(r"\s+", " ", text)
    assert all(row.name in text for row in packet.rows)
    answer = pipeline.decode(shown.packet.data)
    assert answer.name in answer._repr_html_()
    markup = shown._repr_html_()
    assert markup.count("data:image/png;base64,") == len(shown.panels) == 3
    assert "received" in markup and shown.answer.name in markup


def test_a_record_is_a_dict_and_a_table(pipeline):
    record = pipeline.evaluate("digits-scenes", limit=2)
    assert isinstance(record, dict) and isinstance(record, Record)
    assert record["spec"] in words(record._repr_html_())


def test_text_from_elsewhere_is_escaped():
    answer = Prediction(0, EVIL, 0.5)
    assert EVIL not in answer._repr_html_()
    assert EVIL not in _html.table((EVIL,), [(EVIL, 1), (None, 2.5)])
    assert EVIL not in _html.fields([(EVIL, EVIL)])
    record = Record(
        spec=EVIL, task="classification", top1=0.5, top1_interval=[0.4, 0.6], bytes_total=3.0, stages_ms={}, data=EVIL,
        samples=2,
    )  # fmt: skip
    assert EVIL not in record._repr_html_()


def test_a_report_is_its_page_in_a_frame(tmp_path, pipeline):
    from semcodec._json import to_json

    path, record = tmp_path / "r.jsonl", pipeline.evaluate("digits-scenes", limit=2)
    path.write_text(to_json(dict(record) | {"name": EVIL}) + "\n")
    markup = semcodec.report(path)._repr_html_()
    assert markup.startswith("<iframe") and 'sandbox="allow-scripts"' in markup
    assert EVIL not in markup and "<script>" not in markup
    assert record["data"] in markup


def test_panels_are_painted_as_they_are_drawn():
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert (paint(Panel("p", image=picture)) == picture).all()
    heat = np.array([[0.0, 1.0], [np.nan, np.inf]])
    painted = paint(Panel("h", heat=heat))
    assert painted[0, 0].max() < 8 and painted[0, 1].min() > 150
    assert (painted[1, 0] == MISSING).all() and (painted[1, 1] == 255).all()
    over = paint(Panel("o", image=picture, heat=np.array([[np.nan]])))
    assert (over == int(0.6 * 100 + 0.4 * 255)).all()
    strip = np.arange(4 * 64 * 3, dtype=np.uint8).reshape(4, 64, 3)
    assert (folded(strip)[4:8] == strip[:, 16:32]).all() and folded(picture) is picture
    assert data_url(picture, 64).startswith("data:image/png;base64,")


def test_the_colours_are_matplotlibs_inferno():
    colormaps = pytest.importorskip("matplotlib").colormaps
    ours = paint(Panel("h", heat=np.linspace(0, 1, 64)[None]))[0].astype(int)
    theirs = (255 * colormaps["inferno"](np.linspace(0, 1, 64))[:, :3]).astype(int)
    assert np.abs(ours - theirs).mean() < 6


def test_the_notebook_runs():
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    book = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)  # kept without what a run leaves
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    shown = [
        output["data"]["text/html"]
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert len(shown) == 6
    assert "data:image/png" in shown[1] and "<iframe" in shown[-1]
