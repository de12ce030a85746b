"""What the playground shows, without its page: specs that fit, knobs, figures, rivals, a stranger's plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semcodec.composition.composition import compose_spec
from semcodec.errors import DataError, UsageError
from semcodec.panels import Frame, Panel
from semcodec.play import choices, figures
from semcodec.play.pictures import picture
from semcodec.play.playground import Playground, kind_of
from semcodec.play.rivals import is_alike

ROOT = Path(__file__).parents[2]
LAYERED = "layered+rans+vit-nano-server@block2"


@pytest.fixture(scope="module")
def playground() -> Playground:
    return Playground()


def test_specs_that_fit_have_weights_and_take_that_kind(playground):
    images, videos = playground.specs("image"), playground.specs("video")
    assert {LAYERED, "jpeg+vit-nano-server", "layered+rans+det-nano@d3"} <= set(images)
    assert {"stae+rans+vit-nano", "h265+vit-nano"} <= set(videos)
    assert not set(images) & set(videos)
    assert not [spec for spec in (*images, *videos) if "deit" in spec or "vit-base" in spec]  # nothing here to run them
    for spec in (*images, *videos):
        assert compose_spec(spec).spec == spec


def test_every_call_parameter_is_a_knob_with_its_bounds():
    found = {control.key: control for control in choices.controls(compose_spec("cls-attn+min-entropy+vit-nano-server"))}
    assert found["cls-attn.quality"].kind == "slider"
    assert (found["cls-attn.quality"].low, found["cls-attn.quality"].high) == (1, 100)
    assert found["cls-attn.patches"].kind == "choice"
    assert found["cls-attn.patches"].values == ("raw", "jpeg", "webp", "avif")
    assert found["min-entropy.threshold"].kind == "slider"
    assert "cls-attn.scores" not in found  # of another codec's weights: a build parameter
    others = {control.key: control for control in choices.controls(compose_spec("avif+vit-nano-server"))}
    assert others["avif.slow"].kind == "switch"


def test_knobs_that_are_turned_are_in_the_spec():
    base = compose_spec("cls-attn+min-entropy+vit-nano-server")
    turned = choices.at(base, {"cls-attn.quality": 12.0, "min-entropy.threshold": 1, "cls-attn.keep": None})
    assert turned.call["quality"] == 12
    assert turned.gate is not None
    assert turned.gate.params["threshold"] == 1.0
    assert choices.at(base, {"cls-attn.quality": 40}).spec == base.spec
    with pytest.raises(UsageError, match="no knob"):
        choices.at(base, {"cls-attn.other": 1})


def test_parts_are_added_or_take_the_place_of_their_kind():
    assert choices.with_parts("cls-attn+rans+vit-nano-server", ["zstd"]) == "cls-attn+zstd+vit-nano-server"
    offered = choices.additions(compose_spec("cls-attn+rans+vit-nano-server"))
    assert {"zstd", "min-entropy", "smooth-fill"} <= set(offered)
    assert "rans" not in offered
    assert "cnn-3d2d" not in offered


def test_one_run_tells_bytes_times_pictures_and_rivals(playground):
    shown = playground.show("digits-scenes:3", LAYERED, (), {"layered.level": 2})
    pipeline = playground._pipeline(compose_spec(shown.spec))
    sample = playground._input("digits-scenes:3", pipeline)
    [encoded] = pipeline.encode_batch(sample.pixels, [0])
    assert shown.total == encoded.bytes_total == len(encoded.data)
    assert shown.bytes["payload"] == encoded.bytes_payload
    assert shown.answer[0].startswith("1 ")
    assert shown.answer[1] == "correct"
    assert len(shown.pictures) > 2
    assert all(pixels.dtype == np.uint8 and pixels.shape[2] == 3 for pixels, _ in shown.pictures)
    assert [one.name for one in shown.rivals] == ["jpeg", "avif"]
    more = playground.show("digits-scenes:3", LAYERED)
    assert more.total > shown.total
    share = playground.share("digits-scenes:3", LAYERED)
    assert share is not None
    assert share.device is not None
    assert 0.2 < share.device < 0.5  # two of the model's six blocks, and the codec's own work


def test_rivals_are_the_best_of_no_more_bytes_and_the_least_with_the_same_answer(playground):
    shown = playground.show("digits-scenes:3", "webp+vit-nano-server")
    for one in shown.rivals:
        assert one.fits
        assert one.same_bytes.bytes <= shown.total
        name, value = one.same_bytes.knob.split("=")
        assert (one.name, name) in (("jpeg", "quality"), ("avif", "quality"))
        better = compose_spec(f"{one.name}:{int(value) + 1}+vit-nano-server")
        [encoded] = playground._pipeline(better).encode_batch(
            playground._input("digits-scenes:3", playground._pipeline(better)).pixels, [0]
        )
        assert encoded.bytes_total > shown.total
        assert one.same_answer is not None
        assert one.same_answer.bytes <= one.same_bytes.bytes
        assert one.same_answer.prediction.name == "1"


def test_answers_count_as_the_same_by_their_task():
    from semcodec.boxes import Boxes
    from semcodec.tasks.prediction import Prediction

    def boxes(names, scores):
        found = Boxes(torch.zeros(len(names), 4), torch.zeros(len(names), dtype=torch.int64), torch.tensor(scores))
        return Prediction(0, "a", 0.5, boxes=found, names=names)

    assert is_alike(Prediction(1, "a", 0.9), Prediction(1, "a", 0.2))
    assert not is_alike(Prediction(1, "a", 0.9), Prediction(2, "b", 0.9))
    assert is_alike(boxes(("a", "b", "c"), [0.9, 0.8, 0.1]), boxes(("b", "a"), [0.7, 0.6]))
    assert not is_alike(boxes(("a", "a"), [0.9, 0.8]), boxes(("a",), [0.7]))
    mask, other = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    other[0, :5] = 1
    assert is_alike(Prediction(0, "a", 1, mask=mask), Prediction(0, "a", 1, mask=other))
    other[1] = 1
    assert not is_alike(Prediction(0, "a", 1, mask=mask), Prediction(0, "a", 1, mask=other))
    one, two = np.array([1, 0], np.float32), np.array([1, 1], np.float32)
    assert is_alike(Prediction(-1, "", 0, embedding=one), Prediction(-1, "", 0, embedding=3 * one))
    assert not is_alike(Prediction(-1, "", 0, embedding=one), Prediction(-1, "", 0, embedding=two))


def test_h265_stands_beside_codecs_of_clips(playground):
    shown = playground.show("digits-motion:0", "layered+rans+vit-nano@embed")
    assert [one.name for one in shown.rivals] == ["jpeg", "avif", "h265"]
    h265 = shown.rivals[-1]
    assert h265.same_bytes.knob == "crf=51"
    assert not h265.fits


def test_a_detectors_boxes_are_drawn(playground):
    shown = playground.show("digits-scenes:1", "jpeg+det-nano")
    assert any("found" in title for _, title in shown.pictures)


def test_figures_stand_alone_and_tell_what_was_measured(playground):
    shown = playground.show("digits-scenes:3", LAYERED)
    html = figures.page(shown) + figures.ends(playground.share("digits-scenes:3", LAYERED))
    for part in ("payload", "side", "header"):
        assert f"{shown.bytes[part]:,} {part}" in html
    assert "http" not in html
    assert "<script" not in html
    assert "url(" not in html
    assert "million multiply-accumulates" in html
    lines = dict(figures.curves(shown))
    assert lines["raw pixels"][0] > lines["this"][0]  # at 0.02 Mbit/s bytes are what counts
    assert all(np.diff(line).max() <= 0 for line in lines.values())
    assert "&lt;b&gt;" in figures.problem("<b>")


def test_a_file_is_taken_and_nothing_else_of_the_machine(playground, tmp_path):
    Image.fromarray(np.full((50, 80, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    shown = playground.show(str(tmp_path / "grey.png"), LAYERED)
    assert shown.total > 0
    (tmp_path / "broken.png").write_bytes(b"none")
    with pytest.raises(DataError, match="is no image"):
        playground.show(str(tmp_path / "broken.png"), LAYERED)
    with pytest.raises(UsageError, match="take a picture"):
        playground.show(f"{tmp_path}:0", LAYERED)
    assert kind_of("a.MP4") == "video"
    assert kind_of("digits-motion:3") == "video"
    assert kind_of("a.png") == "image"


def test_who_comes_from_elsewhere_chooses_among_what_is_listed(playground):
    with pytest.raises(UsageError, match="none of the specs that are offered"):
        playground.show("digits-scenes:0", "deadline:trace=/etc/hostname+jpeg+vit-nano-server")
    with pytest.raises(UsageError, match="none of the parts that are offered"):
        playground.show("digits-scenes:0", LAYERED, ["deadline:trace=/etc/hostname"])
    with pytest.raises(UsageError, match=r"deadline\.trace cannot be set"):
        playground.show("digits-motion:0", "stae+rans+vit-nano", ["deadline"], {"deadline.trace": "/etc/hostname"})
    assert "deadline.trace" not in {c.key for c in playground.controls("stae+rans+vit-nano", ["deadline"])}
    free = Playground(free=True)
    assert free.compose("jpeg:12+vit-nano-server").call["quality"] == 12


def test_what_is_missing_and_what_is_nothing_look_different():
    heat = np.array([[0.0, 1.0], [np.nan, np.inf]])
    alone = picture(Panel("map", heat=heat))
    quarters = [alone[0, 0], alone[0, -1], alone[-1, 0], alone[-1, -1]]
    assert len({tuple(colour) for colour in quarters}) == 4
    assert tuple(quarters[2]) == (205, 205, 205)
    assert tuple(quarters[3]) == (255, 255, 255)
    image = np.zeros((8, 8, 3), np.uint8)
    over = picture(Panel("over", image=image, heat=heat))
    assert tuple(over[-1, 0]) == tuple(over[-1, -1])  # the image shines through
    framed = picture(Panel("boxes", image=image, frames=(Frame((0.1, 0.1, 0.9, 0.9), "é 汉", 3),)))
    assert (framed != 0).any()


def test_a_third_partys_encoder_is_in_it_with_its_knobs(tmp_path):
    example = ROOT / "examples" / "semcodec-dct"
    there = tmp_path / "semcodec_dct-1.0.dist-info"
    there.mkdir()
    (there / "METADATA").write_text("Metadata-Version: 2.1\nName: semcodec-dct\nVersion: 1.0\n")
    (there / "entry_points.txt").write_text("[semcodec]\ndct = semcodec_dct\n")
    code = (
        "import json; from semcodec.play.playground import Playground; p = Playground()\n"
        "[spec] = [s for s in p.specs('image') if s.startswith('dct') and 'vit-nano-server' in s]\n"
        "print(json.dumps([spec, [c.key for c in p.controls(spec)], p.show('digits-scenes:0', spec).total]))"
    )
    paths = os.pathsep.join([str(tmp_path), str(example), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    _, keys, total = json.loads(done.stdout)
    assert keys
    assert all(key.startswith("dct.") for key in keys)
    assert total > 0
