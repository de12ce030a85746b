"""Pictures are scored as they should be, travel through packets and answers, and are told in decibels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset, tasks_of
from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.serving.answers import to_message, to_prediction
from semcodec.tasks.reconstruction import MOST, decibels
from semcodec.tasks.table import compare, get_task, metric_of, scores_of, task_of
from semcodec.training.distillation import answer_distance

SPEC = "png+draw-nano"
TASK = get_task("reconstruction")


@pytest.fixture(autouse=True)
def _one_thread(one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True))


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def test_decibels_by_hand():
    picture = np.full((4, 6, 3), 100, np.uint8)
    assert decibels(picture, picture + 5) == pytest.approx(20 * np.log10(255 / 5))
    other = picture.copy()
    other[0, 0, 0] += 12  # one of 72 values
    assert decibels(picture, other) == pytest.approx(10 * np.log10(255**2 * 72 / 144))
    assert decibels(picture, picture) == MOST
    with pytest.raises(DataError, match="of 6x4 pixels was answered where 4x4 are due"):
        decibels(picture, picture[:, :4])


def test_what_ships_draws_the_scene(pipeline):
    data = open_dataset("digits-scenes", "test", pipeline.request)
    record = evaluate(pipeline, data, limit=60)
    assert 19 < record["psnr"] < 30 and metric_of(record) == "psnr" and task_of(record) is TASK
    assert record["psnr_interval"][0] < record["psnr"] < record["psnr_interval"][1]
    once, first = np.ones((1, 60)), np.eye(60)[:1]
    assert scores_of(record, once)[0] == pytest.approx(record["psnr"], abs=1e-3)
    [prediction] = pipeline.decode_batch(pipeline.records([pipeline.encode("digits-scenes:0")]))
    alone = decibels(prediction.picture, data.batch([0])[0][0])
    assert scores_of(record, first)[0] == pytest.approx(alone, abs=1e-3)
    worse = evaluate(Pipeline.load(compose_spec("jpeg:5+draw-nano"), WeightsRequest(offline=True)), data, limit=60)
    found = compare(record, worse)
    assert 0 < found["low"] < found["difference"] == pytest.approx(record["psnr"] - worse["psnr"], abs=1e-3)
    with pytest.raises(DataError, match="cannot be read"):
        scores_of({**record, "decibels": "no"}, once)


def test_what_a_letterbox_adds_counts_for_nothing(pipeline):
    """The picture of a wide source is of its part of the input, and only that is compared."""
    scene = open_dataset("digits-scenes", "test", pipeline.request).batch([0])[0][0]
    wide = Image.fromarray(scene[:48])
    [prediction] = pipeline.decode_batch(pipeline.records([pipeline.encode(wide)]))
    assert prediction.picture.shape == (48, 96, 3) and prediction.source == (96, 48)
    label = TASK.label(np.pad(scene[:48], ((24, 24), (0, 0), (0, 0))), [], (96, 48), pipeline.request)
    assert (label == scene[:48]).all()
    score = TASK.score(None, [], pipeline.request, 0)
    score.add([prediction], [np.pad(scene[:48], ((24, 24), (0, 0), (0, 0)))], [(96, 48)])
    assert score.accuracy()["psnr"] == decibels(prediction.picture, scene[:48])


def test_every_data_set_of_pictures_serves_it(tmp_path):
    request = compose_spec(SPEC).request
    for name in ("cat/a", "dog/b"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir()
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    for name in (str(tmp_path), "digits-scenes"):
        assert "reconstruction" in tasks_of(name)
        data = open_dataset(name, "test", request)
        pixels, labels = data.batch([0])
        assert (labels[0] == pixels[0]).all() and "reconstruction" in data.tasks and len(data.sizes([0])) == 1
    assert "reconstruction" not in tasks_of("digits-motion")


def test_a_stream_is_decoded_to_pictures(tmp_path):
    file, folder = tmp_path / "scenes.sem", tmp_path / "pictures"
    written = json.loads(call("encode", SPEC, "digits-scenes:0", "-o", file, "--check", "--format", "json"))
    read = json.loads(call("decode", file, "--picture-dir", folder, "--format", "json"))
    assert read["prediction"] == written["prediction"] == {"picture": [96, 96], "where": "server"}
    scene = open_dataset("digits-scenes", "test", compose_spec(SPEC).request).batch([0])[0][0]
    assert decibels(np.asarray(Image.open(folder / "0.png")), scene) == pytest.approx(written["psnr"])
    assert f"96 x 96 pixels, {written['psnr']:.1f} dB" in call("compose", SPEC, "--input", "digits-scenes:0")
    call("encode", "jpeg+vit-nano-server", "digits-scenes:0", "-o", file)
    refused = call("decode", file, "--picture-dir", folder, code=2)
    assert "for a model that reconstructs pictures, and this stream is for classification" in refused


def test_an_answer_goes_over_the_network_whole(pipeline):
    [prediction] = pipeline.decode_batch(pipeline.records([pipeline.encode("digits-scenes:0")]))
    message = to_message(3, prediction, (0, 0, 0, 0), logits=False, task="reconstruction")
    found = to_prediction(message, pipeline.classes, "reconstruction")
    assert (found.picture == prediction.picture).all() and found.source == (96, 96)
    whole = TASK.to_bytes(prediction)
    for wrong in (b"", b"\x01\x01\x01\x01", whole[:-9], whole + b"more", b"\xff\xff\xff\xff\x0f" * 4 + whole):
        with pytest.raises(CorruptStream):
            TASK.from_bytes(prediction, wrong, pipeline.classes)


def test_decibels_are_shown_and_neither_weighed_nor_planned_for(tmp_path):
    folder = tmp_path / "results"
    shown = call("bench", "jpeg+draw-nano", "--sweep", "jpeg.quality=5,50", "--data", "digits-scenes", "--limit", 6,
                 "--out", folder, "--offline")  # fmt: skip
    assert "PSNR dB" in shown
    eval_shown = call("eval", "jpeg:50+draw-nano", "--data", "digits-scenes", "--limit", 6, "--offline")
    record = json.loads((folder / "records.jsonl").read_text().splitlines()[-1])
    assert "PSNR dB" in eval_shown and f"{record['psnr']:.2f}" in eval_shown
    report = call("report", folder, "--format", "md")
    assert "PSNR, dB" in report and f"{record['psnr']:.1f}" in report
    page = tmp_path / "page.html"
    call("report", folder, "-o", page)
    assert '"unit":"dB"' in page.read_text().replace('": "', '":"')
    says = "reconstruction is measured by PSNR in dB"
    link = ("--rate-mbps", 1, "--deadline-ms", 100)
    for more in ((), ("--task", "reconstruction")):
        assert says in call("plan", "--results", folder, *link, *more, code=2)
    assert says in call("report", folder, "--task", "reconstruction=1", code=2)


def test_distillation_measures_pictures_beside_their_spread():
    torch.manual_seed(0)
    wanted = torch.rand(2, 3, 8, 8)
    given = wanted + 0.1
    found = answer_distance(given, wanted, "reconstruction")
    assert found.shape == () and found.item() == pytest.approx(0.01 / wanted.var().item(), rel=1e-4)


def test_a_mean_of_scores_in_several_units_is_refused():
    from semcodec.tasks.weighted import Asked, chosen

    rows = [{"psnr": 20.0, "spec": "jpeg+draw-nano", "task": "reconstruction"}]
    with pytest.raises(UsageError, match="in dB: it has no weight beside scores in %"):
        chosen(rows, Asked.parse(["reconstruction=2"]), "here")
