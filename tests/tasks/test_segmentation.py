"""Masks are counted as they should be, travel through packets, files and answers, and are told in one line."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from semcodec import class_masks as masks
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, DataError
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.serving.answers import to_message, to_prediction
from semcodec.tasks import mean_iou
from semcodec.tasks.mean_iou import Counts, count
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.segmentation import MOST_PIXELS, mask_png
from semcodec.tasks.table import compare, get_task, metric_of, task_of

SPEC = "jpeg+seg-nano"
TASK = get_task("segmentation")
CLASSES = ["one", "two", "three"]


@pytest.fixture(autouse=True)
def _one_thread(one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True))


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def table(images):
    return Counts.of([count(np.array(f), np.array(t, np.uint8), 3) for f, t in images], 3)


# -- counting ----------------------------------------------------------------------------------------------------------


def test_intersection_over_union_by_hand():
    counts = table([([[0, 0, 1, -1]], [[0, 1, 1, 0]]), ([[1, 1, 2, 2]], [[1, 1, masks.IGNORED, 1]])])
    assert counts.by_class()[0].tolist() == pytest.approx([1 / 3, 3 / 5, 0])  # what is found and not there is 0
    assert counts.mean()[0] == pytest.approx((1 / 3 + 3 / 5) / 3)
    assert counts.accuracy == 4 / 7 and counts.pixels == 7
    assert counts.mean(np.array([[2.0, 0.0]]))[0] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_it_is_scikit_learns_jaccard_score():
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(0)
    there, found = rng.integers(0, 3, (2, 4, 9, 7))
    counts = table(list(zip(found, there, strict=True)))
    expected = jaccard_score(there.ravel(), found.ravel(), average=None)
    assert counts.by_class()[0] == pytest.approx(expected)


def test_records_hold_counts_and_damage_is_one_line():
    counts = table([([[0, 0, 1, -1]], [[0, 1, 1, 0]]), ([[1, 1, 2, 2]], [[1, 1, 1, 1]])])
    again = Counts.read(counts.text())
    assert (again.rows == counts.rows).all() and again.images == 2
    for text in ("", "§", counts.text()[:-8], replace(counts, images=1).text(), replace(counts, classes=1).text()):
        with pytest.raises(DataError, match="counts of pixels cannot be read"):
            Counts.read(text)


def test_a_paired_difference_and_its_interval():
    rng = np.random.default_rng(0)
    there = rng.integers(0, 3, (40, 8, 8))
    good = np.where(rng.random(there.shape) < 0.1, 0, there)
    bad = np.where(rng.random(there.shape) < 0.3, 0, there)
    first, second = (table(list(zip(found, there, strict=True))) for found in (good, bad))
    found = mean_iou.paired(first, second)
    assert found["low"] < found["difference"] < found["high"] and found["low"] > 0 and found["p"] <= 0.001
    assert mean_iou.paired(first, first) == {"difference": 0, "low": 0, "high": 0, "p": 1.0}
    low, high = mean_iou.interval(first)
    assert low < first.mean()[0] < high
    with pytest.raises(ValueError, match="same images"):
        mean_iou.paired(first, table([([[0]], [[0]])]))


# -- answers -----------------------------------------------------------------------------------------------------------


def prediction(size=(30, 20)) -> Prediction:
    return Prediction(1, "two", 0.5, mask=np.tile(np.array([0, 1, 2], np.uint8), (4, 2)), source=size)


def test_an_answer_goes_over_the_network_whole():
    message = to_message(3, prediction(), (0, 0, 0, 0), logits=False, task="segmentation")
    found = to_prediction(message, CLASSES, "segmentation")
    assert (found.mask == prediction().mask).all() and found.source == (30, 20) and found.name == "two"
    with pytest.raises(CorruptStream, match="classification does not know"):
        to_prediction(message, CLASSES, "classification")


def test_damaged_answers_are_refused():
    data = TASK.to_bytes(prediction())
    plain = Prediction(1, "two", 0.5)
    large = b"\xff\xff\xff\x7f\xff\xff\xff\x7f" + data[2:]
    for wrong in (b"", data[:3], data[:-1], data + b"\0", b"\x07" + data[1:], b"\0" + data[1:], large):
        with pytest.raises(CorruptStream):
            TASK.from_bytes(plain, wrong, CLASSES)
    with pytest.raises(CorruptStream, match="of 2 classes"):
        TASK.from_bytes(plain, data, CLASSES[:2])


def test_a_mask_is_written_at_the_sources_size():
    image = Image.open(io.BytesIO(mask_png(prediction())))
    assert image.size == (30, 20) and image.mode == "P"
    assert (np.asarray(image)[:, :5] == 0).all() and (np.asarray(image)[:, 25:] == 2).all()
    with pytest.raises(CorruptStream, match="is not written"):
        mask_png(prediction((MOST_PIXELS, 2)))


def test_the_picture_is_taken_out_of_the_input():
    class Packet:
        sequence, layers_present, layers_total = 0, 1, 1

        class Chunk:
            @staticmethod
            def verify(name):
                return b"\x10\x08"  # 16 x 8

        chunks = (Chunk,)

    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 1, 2:6] = 1  # where a picture twice as wide as high lies
    [answer] = TASK.answers(logits, lambda _: io.BytesIO())
    found = TASK.predict(Packet, answer, CLASSES, open_request(), ())
    assert found.mask.shape == (4, 8) and (found.mask == 1).all()
    assert (found.name, found.probability, found.source) == ("two", 1.0, (16, 8))


def open_request():
    return compose_spec(SPEC).request


# -- the whole way -----------------------------------------------------------------------------------------------------


def test_what_ships_segments_scenes(pipeline):
    data = open_dataset("digits-scenes", "test", pipeline.request)
    record = evaluate(pipeline, data, limit=40)
    assert record["miou"] > 0.6 and record["pixel_accuracy"] > 0.95
    low, high = record["miou_interval"]
    assert low < record["miou"] < high and set(record["iou"]) <= set(data.classes)
    assert metric_of(record) == "miou" and task_of(record) is TASK and record["bpp"] > 0
    chosen = evaluate(pipeline, open_dataset("digits-scenes", "test", pipeline.request, ["3", "8"]), limit=40)
    assert chosen["classes"] == ["3", "8"] and set(chosen["iou"]) == {"3", "8"}
    assert chosen["iou"]["3"] == pytest.approx(record["iou"]["3"])
    worse = evaluate(pipeline.replace(composition=compose_spec("jpeg:5+seg-nano")), data, limit=40)
    assert compare(record, worse)["difference"] > 0


def test_the_first_stages_are_the_detectors_to_the_bit(pipeline):
    other = Pipeline.load(compose_spec("jpeg+det-nano"), WeightsRequest(offline=True))
    own, theirs = (p.stages.backbone.state_dict() for p in (pipeline, other))
    shared = [name for name in own if name.split(".")[1] in ("stem", "d2", "d3")]
    assert len(shared) > 20 and all(torch.equal(own[name], theirs[name]) for name in shared)


def test_a_stream_is_decoded_to_masks(tmp_path):
    file, folder = tmp_path / "scenes.sem", tmp_path / "found"
    written = json.loads(
        call("encode", SPEC, "digits-scenes:0", "digits-scenes:3", "-o", file, "--check", "--format", "json")
    )
    read = json.loads(call("decode", file, "--mask-dir", folder, "--format", "json"))
    assert [r["prediction"] for r in read["records"]] == [r["prediction"] for r in written["records"]]
    assert all(r["source"] == [96, 96] for r in read["records"])
    assert written["records"][0]["pixel_accuracy"] > 0.9
    assert Image.open(folder / "0.png").size == (96, 96) and "background" in (folder / "classes.yaml").read_text()
    first = json.loads(call("inspect", file, "--format", "json"))["records"][0]["chunks"][0]
    assert first["bytes"] == 2 and first["side"]
    assert "background" in call("decode", file)
    call("encode", "jpeg+det-nano", "digits-scenes:0", "-o", file)
    assert "is for a model that segments" in call("decode", file, "--mask-dir", folder, code=2)


def test_a_picture_of_any_shape_is_told_in_its_own_pixels(tmp_path, pipeline):
    pixels = np.full((50, 130, 3), 120, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = pipeline.decode_batch(pipeline.records([pipeline.encode(str(tmp_path / "wide.png"))]))[0]
    assert found.source == (130, 50) and found.mask.shape == (37, 96)
    told = call("compose", SPEC, "--input", tmp_path / "wide.png", "--save-plot", tmp_path / "plot.svg")
    assert "of 130 x 50 pixels" in told
    assert "classes" in (tmp_path / "plot.svg").read_text()


def test_eval_and_the_report_tell_it(tmp_path):
    out = tmp_path / "records.jsonl"
    shown = call("eval", SPEC, "--data", "digits-scenes", "--limit", 8, "-o", out)
    assert "mIoU %" in shown and "IoU %" in shown and "whose class is known" in shown
    assert "mean IoU" in call("report", out, "--format", "md")
