"""Detection through the whole core: boxes in source pixels from real bytes, and average precision with an interval."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch
import toy_detector
from click.testing import CliRunner
from torchvision.ops import batched_nms, box_iou

import semcodec.composition.composition
import semcodec.composition.registry
from semcodec.bench.cells import cell_of
from semcodec.bench.worker import Settings, Worker
from semcodec.boxes import Boxes, Letterbox, centred, corners
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.container.packets import Part, write_packet
from semcodec.container.sinks import PacketSink
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, DataError, SemcodecError
from semcodec.evaluation.evaluate import evaluate, run_sweep
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest as Weights
from semcodec.specs import InputRequest
from semcodec.tasks import average_precision
from semcodec.tasks.average_precision import Matches, interval, paired, score
from semcodec.tasks.detection import nms
from semcodec.tasks.statistics import RESAMPLES, Bootstrap, resampled
from semcodec.tasks.table import compare

SPEC = "two-nibbles+rans+cells"
INPUT = InputRequest(None, 64, 64, fit="letterbox", labels="boxes")


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path, one_thread):
    registry = Registry.of([*get_registry(), *toy_detector.COMPONENTS])
    for module in (semcodec.composition.composition, semcodec.composition.registry):
        monkeypatch.setattr(module, "get_registry", lambda: registry)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


def pipeline(spec: str = SPEC) -> Pipeline:
    return Pipeline.load(compose_spec(spec), Weights(offline=True))


def boxes(*rows: tuple[float, ...]) -> Boxes:
    """left, top, right, bottom, class and perhaps a score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1)
    scores = table[:, 5] if table.shape[1] == 6 else None
    return Boxes(table[:, :4], table[:, 4].long(), scores)


def random_output(seed: int, count: int = 600, classes: int = 5) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    place, size = 300 * torch.rand(count, 2, generator=draw), 80 * torch.rand(count, 2, generator=draw) + 5
    scores = (torch.randperm(count * classes, generator=draw) + 1).float() / (count * classes)  # no two are equal
    return torch.cat([place, size, scores.reshape(count, classes)], 1)


# -- boxes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("confidence", "iou", "limit"), [(0.001, 0.6, 300), (0.3, 0.2, 300), (0.001, 0.95, 100_000)])
def test_suppression_is_torchvisions(seed, confidence, iou, limit):
    output = random_output(seed)
    rows, classes = (output[:, 4:] >= confidence).nonzero(as_tuple=True)
    scores = output[rows, 4 + classes]
    expected = batched_nms(corners(output[rows, :4]), scores, classes, iou)[:limit]
    found = nms(output, confidence, iou, limit)
    assert torch.equal(found.scores, scores[expected])
    assert torch.equal(found.classes, classes[expected])
    assert torch.equal(found.xyxy, corners(output[rows, :4])[expected])


def test_a_box_that_is_itself_suppressed_suppresses_none():
    row = [[10.0, 10.0, 10.0, 10.0, 0.9], [14.0, 10.0, 10.0, 10.0, 0.8], [18.0, 10.0, 10.0, 10.0, 0.7]]
    found = nms(torch.tensor(row), iou=0.4)
    assert found.xyxy[:, 0].tolist() == [5.0, 13.0]
    # A chain that is longer than a block.
    many = torch.tensor([[10.0 + 4 * i, 10, 10, 10, 0.9 - 1e-4 * i] for i in range(1300)])
    assert torch.equal(nms(many, iou=0.4, limit=1000).xyxy[:, 0], 5.0 + 8 * torch.arange(650.0))


def test_what_is_not_finite_or_below_the_confidence_is_no_box():
    nan, inf = float("nan"), float("inf")
    output = torch.tensor([[nan, 1, 1, 1, 0.9], [1, 1, 1, 1, nan], [5, 5, inf, 1, 0.9], [9, 9, 2, 2, 0.5]])
    assert nms(output).xyxy.tolist() == [[8, 8, 10, 10]]
    assert len(nms(output[:3])) == 0 and nms(output[:3]).scores.shape == (0,)
    assert len(nms(output, confidence=0.6)) == 0


def test_corners_and_centres_are_inverse():
    table = torch.tensor([[2.0, 4.0, 10.0, 20.0]])
    assert corners(centred(table)).tolist() == table.tolist()
    others = torch.tensor([[2.0, 4.0, 6.0, 20.0], [50, 50, 60, 60], [3, 3, 3, 3]])
    assert box_iou(table, others).tolist() == [[0.5, 0, 0]]


@pytest.mark.parametrize("size", [(640, 426), (426, 640), (1, 1), (5000, 3), (3, 5000), (1, 4000), (64, 64)])
def test_a_letterbox_there_and_back(size):
    place = Letterbox.of(*size, 64, 48)
    across, down = place.inside
    assert 1 <= across <= 64 and 1 <= down <= 48 and (across == 64 or down == 48)
    assert place.left + across <= 64 and place.top + down <= 48
    whole = boxes((0, 0, *size, 0))
    there = place.to_input(whole)
    assert there.xyxy[0, 2] - there.xyxy[0, 0] == pytest.approx(size[0] * place.scale, abs=1e-4)
    assert torch.allclose(place.to_source(there).xyxy, whole.xyxy, rtol=1e-4, atol=1e-3)
    outside = place.to_source(boxes((-1000, -1000, 1000, 1000, 0))).xyxy
    assert outside.tolist() == [[0, 0, *size]]


def test_boxes_of_unequal_length_are_refused():
    with pytest.raises(DataError, match=r"boxes are \(n, 4\)"):
        Boxes(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    assert len(Boxes.none()) == 0 and Boxes.none(scored=True).scores is not None


# -- packets -----------------------------------------------------------------------------------------------------------


def test_boxes_are_told_in_pixels_of_the_source_from_the_bytes_alone():
    made = pipeline()
    pixels = np.full((1, 64, 64, 3), 90, np.uint8)
    pixels[0, 24:32, 8:16] = 255, 0, 0
    [encoded] = made.encode_batch(pixels, [7], sizes=[(640, 320)])
    server = Server.load(made.header, Weights(offline=True))
    prediction = server.decode(encoded.data)
    assert prediction.boxes.xyxy.tolist() == [[80, 80, 160, 160]]
    assert prediction.names == ("red",) and prediction.boxes.scores.tolist() == [1.0]
    assert (prediction.name, prediction.index, prediction.probability, prediction.source) == ("red", 0, 1.0, (640, 320))
    [elsewhere] = made.encode_batch(pixels, [7])
    assert server.decode(elsewhere.data).boxes.xyxy.tolist() == [[8, 24, 16, 32]]  # of the pixels that were given


def test_the_sources_size_is_counted_once_a_packet_as_side_information():
    made = pipeline()
    pixels = np.full((2, 64, 64, 3), 90, np.uint8)
    for encoded in made.encode_batch(pixels, [0, 1], sizes=[(640, 320), (100_000, 3)]):
        assert encoded.bytes_total == len(encoded.data)
        assert encoded.rows[0].name == "source" and encoded.bytes_side == encoded.rows[0].bytes == 4
        assert made.decode(encoded).boxes.xyxy.shape == (0, 4)
        assert (made.decode(encoded).name, made.decode(encoded).index) == ("nothing", -1)


@pytest.mark.parametrize("said", [b"", b"\x40", b"\0\0", b"\x40\x40\x01", b"\x40\x80"])
def test_a_packet_that_does_not_say_what_its_boxes_lie_in_is_corrupt(said):
    made = pipeline()
    latent = made.stages.encoder.encode({"map": torch.zeros(1, 2, 8, 8)}, None, {}, {})[0]
    sink = PacketSink(made.stages.entropy)
    made.device.write(latent, sink)
    parts = [Part("source", said, side=True), *sink._parts[1:]]
    with pytest.raises(CorruptStream, match=r"source's width and height|not in its shortest form"):
        made.decode(write_packet(made.header, 0, {}, parts))


def test_a_classifiers_packets_do_not_have_a_source():
    made = Pipeline.load(compose_spec("png+vit-nano-server"), Weights(offline=True))
    [encoded] = made.encode_batch(np.zeros((1, *made.request.shape), np.uint8), [0])
    assert [row.name for row in encoded.rows] == ["picture"]


# -- average precision -------------------------------------------------------------------------------------------------


def found_and_there(images: int = 30, classes: int = 5, seed: int = 0) -> tuple[list[Boxes], list[Boxes]]:
    draw = np.random.default_rng(seed)
    found, there = [], []
    for _ in range(images):
        objects = draw.integers(0, 7)
        low = draw.uniform(0, 300, (objects, 2))
        truth = np.hstack([low, low + draw.uniform(20, 90, (objects, 2)), draw.integers(0, classes, (objects, 1))])
        off = truth + np.hstack([draw.normal(0, 6, (objects, 4)), np.zeros((objects, 1))])
        noise = np.hstack([low := draw.uniform(0, 300, (15, 2)), low + 40, draw.integers(0, classes, (15, 1))])
        rows = np.vstack([off, noise])
        scores = np.concatenate([draw.uniform(0.2, 1, objects), draw.uniform(0, 0.7, 15)])
        order = np.argsort(-scores)
        found.append(boxes(*np.hstack([rows, scores[:, None]])[order].tolist()))
        there.append(boxes(*truth.tolist()) if objects else Boxes.none())
    return found, there


NAMES = ["a", "b", "c", "d", "e"]


def test_the_matches_give_what_pycocotools_gives_for_any_choice_of_images():
    found, there = found_and_there()
    whole = score(found, there, NAMES)
    every = [whole.matches.average_precision(overlap=i)[0] for i in range(average_precision.IOUS)]
    assert (every[0], np.mean(every)) == pytest.approx((whole.map50, whole.map50_95), abs=1e-9)
    assert 0.3 < whole.map50 < 0.95 and every == sorted(every, reverse=True)
    for weights in resampled(len(found))[:3]:
        chosen = np.repeat(np.arange(len(found)), weights.astype(int))
        again = score([found[i] for i in chosen], [there[i] for i in chosen], NAMES)
        assert whole.matches.average_precision(weights[None])[0] == pytest.approx(again.map50, abs=1e-9)


def test_matches_survive_being_written():
    matches = score(*found_and_there(), NAMES).matches
    again = Matches.read(json.loads(json.dumps(matches.text())))
    assert again.images == matches.images
    assert np.array_equal(again.objects, matches.objects) and np.array_equal(again.found, matches.found)
    assert len(matches.text()) < 5 * len(matches.found) + 500
    with pytest.raises(DataError, match="measure the record anew"):
        Matches.read("no matches")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b" " * (1 << 26), b"[3,[[0],[0]],[[0],[3],[1]]]", b"[3,[[0],[0,1]],[[],[],[]]]",
     b"[9999999999,[[],[]],[[],[],[]]]", b"[1,[[0],[-1]],[[],[],[]]]"],
)  # fmt: skip
def test_forged_matches_are_one_line_and_take_no_memory(content):
    """Nested, 64 MB in 64 kB, of images that are not there, of columns of two lengths, of too many images."""
    forged = base64.b85encode(zlib.compress(content, 9)).decode()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="measure the record anew"):
            Matches.read(forged)
        assert tracemalloc.get_traced_memory()[1] < 3 * (1 << 25)
    finally:
        tracemalloc.stop()


def test_the_interval_holds_the_value_and_narrows_with_more_images():
    few, many = (score(*found_and_there(images), NAMES) for images in (15, 120))
    assert few.matches.images == 15
    (low, high), (least, most) = interval(few.matches), interval(many.matches)
    assert low < few.map50 < high and least < many.map50 < most
    assert most - least < 0.6 * (high - low)
    assert interval(few.matches) == (low, high)


def test_an_interval_covers_what_it_should():
    """Of many small sets drawn from one population, about 95 % of the intervals hold the population's value."""
    found, there = found_and_there(400, classes=2)
    truth = score(found, there, NAMES[:2]).map50
    held = 0
    for start in range(0, 400, 20):
        low, high = interval(score(found[start : start + 20], there[start : start + 20], NAMES[:2]).matches)
        held += low <= truth <= high
    assert held >= 16  # of 20


def test_paired_detectors():
    found, there = found_and_there(60)
    best = score(found, there, NAMES).matches
    shifted = [Boxes(b.xyxy + (25.0 if i % 3 == 0 else 0.0), b.classes, b.scores) for i, b in enumerate(found)]
    worse = score(shifted, there, NAMES).matches
    told, turned = paired(best, worse), paired(worse, best)
    assert 0 < told["low"] < told["difference"] < told["high"] and told["p"] < 0.05
    assert turned["difference"] == -told["difference"]
    assert turned["low"] == pytest.approx(-told["high"], abs=1e-9)
    assert turned["p"] == pytest.approx(told["p"], rel=1e-6)
    same = paired(best, best)
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0) and same["p"] == pytest.approx(1)
    with pytest.raises(ValueError, match="same images and objects"):
        paired(best, score(*found_and_there(60, seed=1), NAMES).matches)
    assert resampled(60).shape == (RESAMPLES, 60) and (resampled(60).sum(1) == 60).all()


def test_a_set_without_any_object_has_no_average_precision():
    with pytest.raises(DataError, match="no object in these 2 images"):
        score([Boxes.none(scored=True)] * 2, [Boxes.none()] * 2, NAMES)
    nothing = score([Boxes.none(scored=True)], [boxes((0, 0, 5, 5, 1))], NAMES)
    assert nothing.map50 == 0 and interval(nothing.matches) == (0, 0)


def test_without_pycocotools_one_line_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(SemcodecError, match="pip install pycocotools"):
        average_precision.check()


# -- eval --------------------------------------------------------------------------------------------------------------


def test_eval_counts_what_is_found(tmp_path):
    """By hand: four red objects of which three are found first to last, one false one between; blue all right."""
    red = [("red", 0, 0), ("red", 2, 0), ("red", 4, 0), ("red", 6, 0)]
    folder = toy_detector.yolo_folder(
        tmp_path,
        [(red[:3], red), ([("blue", 1, 1)], [("blue", 1, 1)]), ([("red", 3, 3)], []), ([], None)],
    )
    record = pipeline().evaluate(folder)
    # All that is found scores 1, so the order is that of the images: three right, then the false one.
    reached = sum(r <= 3 / 4 for r in np.linspace(0, 1, 101)) / 101
    assert record["map50"] == pytest.approx((reached + 1) / 2) == record["map50_95"]
    assert record["task"] == "detection" and record["objects"] == 5 and record["samples"] == 4
    assert "top1" not in record and "correct" not in record
    assert record["raw_uint8_bytes"] == 128 * 64 * 3
    assert record["bpp"] == pytest.approx(8 * record["bytes_total"] / (128 * 64))
    assert record["bootstrap"] == {"resamples": 1000, "seed": 0}
    low, high = record["map50_interval"]
    assert 0 <= low <= record["map50"] <= high <= 1
    assert Matches.read(record["matches"]).average_precision()[0] == pytest.approx(record["map50"])
    assert list(record["stages_ms"])[-2:] == ["tail", "nms"]


def test_every_prefix_and_every_batch_size_says_the_same_of_these_pictures(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(12))
    records = [pipeline().evaluate(folder, batch=batch) for batch in (1, 5, 32)]
    kept = ("map50", "map50_interval", "matches", "data_digest", "bytes_total", "key")
    for first, second in pairwise(records):
        assert [first[name] for name in kept] == [second[name] for name in kept]
    assert 0.2 < records[0]["map50"] < 1


def test_chosen_classes_alone_count(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(12))
    made = pipeline()
    whole = made.evaluate(folder)
    red, blue = (evaluate(made, open_dataset(folder, "test", made.request, [name])) for name in toy_detector.CLASSES)
    assert (red["map50"] + blue["map50"]) / 2 == pytest.approx(whole["map50"])
    assert red["classes"] == ["red"] and "classes" not in whole
    assert red["objects"] + blue["objects"] == whole["objects"]
    assert len({record["key"] for record in (whole, red, blue)}) == 3


def test_models_of_other_classes_are_matched_by_name(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(6))
    before = pipeline().evaluate(folder)
    for path in (tmp_path / "labels" / "val").iterdir():
        path.write_text("".join(f"{2 - int(text[0])}{text[1:]}\n" for text in path.read_text().splitlines()))
    (tmp_path / "data.yaml").write_text("names: {0: green, 1: blue, 2: red}\n")
    with pytest.raises(DataError, match="does not know class 'green'"):
        pipeline().evaluate(folder)
    made = pipeline()
    after = evaluate(made, open_dataset(folder, "test", made.request, ["red", "blue"]))
    assert after["map50"] == pytest.approx(before["map50"])


def test_records_compare_by_what_they_hold(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(20))
    record = pipeline().evaluate(folder)
    worse = dict(record)
    matches = Matches.read(record["matches"])
    worse["matches"] = Matches(matches.images, matches.objects, matches.found[:0]).text()
    assert compare(record, worse)["difference"] == pytest.approx(record["map50"])
    with pytest.raises(ValueError, match="same samples"):
        compare(record, {**record, "data_digest": "other"})
    classes = {"top1": 0.5, "data_digest": "x", "correct": "0110"}
    assert compare(classes, {**classes, "correct": "0100"})["difference"] == 0.25


def test_a_bench_shares_and_gives_the_same_records(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(7))
    worker = Worker(Settings(folder, batch=3, offline=True))
    for spec in (SPEC, "two-nibbles+zstd+cells", "two-nibbles+huffman+cells", "png+cells"):
        found = worker.measure(cell_of(compose_spec(spec), folder, "test", None, 0))
        assert "failed" not in found, found
        alone = pipeline(spec).evaluate(folder, batch=3)
        for name in ("stages_ms", "cell", "seed"):
            found.pop(name, None)
            alone.pop(name, None)
        assert found == alone


def test_the_matrix_pairs_data_and_models_by_task(tmp_path):
    from semcodec.bench.matrix import Choice, enumerate_all

    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(2))
    anything = Weights({"": "random"}, offline=True)
    registry = semcodec.composition.composition.get_registry()
    choice = Choice(encoder=("png",), backbone=("cells", "vit-nano-server"))
    found = enumerate_all(folder, "test", choice, {}, anything, registry)
    assert "png+cells" in found.cells
    assert all(cell.task == "detection" for cell in found.cells.values())
    skipped = {skip.spec: skip.reason for skip in found.skips}
    assert "is measured for detection" in skipped["vit-nano-server"]
    choice = Choice(task=("classification",), encoder=("png",), backbone=("cells", "vit-nano-server"))
    scenes = enumerate_all("digits-scenes", "test", choice, {}, anything, registry)
    assert "png+cells" not in scenes.cells and "png+vit-nano-server" in scenes.cells


# -- the command line --------------------------------------------------------------------------------------------------


def call(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_eval_prints_and_keeps_records(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path / "data", toy_detector.scenes(8))
    out = tmp_path / "records.jsonl"
    table = call("eval", SPEC, "--data", folder, "-o", out)
    assert table.exit_code == 0, table.output
    assert "mAP50 %" in table.stdout and "mAP50-95 %" in table.stdout and "bpp" in table.stdout
    assert call("eval", SPEC, "--data", folder, "-o", out).stderr.startswith("nothing to run")
    line = call("eval", SPEC, "--data", folder, "-o", out, "--classes", "red", "--format", "json")
    assert json.loads(line.stdout)["classes"] == ["red"]
    assert len(out.read_text().splitlines()) == 2
    page = call("report", out, "--format", "md")
    assert "mAP at IoU 0.5, %" in page.stdout, page.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--classes", "rad"), "did you mean red?"),
        (("--classes", "red,,blue"), "no class between two commas"),
    ],
)
def test_a_wrong_class_is_one_line(tmp_path, arguments, reason):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(2))
    result = call("eval", SPEC, "--data", folder, *arguments)
    assert result.exit_code == 2 and reason in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("spec", "data", "reason"),
    [
        ("png+vit-nano-server", "folder", "holds boxes for detectors, and the model takes images of one class each"),
        (SPEC, "digits-motion", "holds clips"),
        ("png+vit-nano-server", "digits-scenes", "the model finds none; leave out --classes"),
    ],
)
def test_data_of_another_task_is_one_line(tmp_path, spec, data, reason):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(2)) if data == "folder" else data
    chosen = ("--classes", "1") if data == "digits-scenes" else ()
    result = call("eval", spec, "--data", folder, "--limit", 1, *chosen)
    assert result.exit_code in (1, 2) and reason in result.stderr and "Traceback" not in result.stderr


def test_class_folders_are_no_data_for_a_detector(tmp_path):
    from PIL import Image

    (tmp_path / "one").mkdir()
    Image.fromarray(toy_detector.picture([])).save(tmp_path / "one" / "a.png")
    result = call("eval", SPEC, "--data", tmp_path, "--split", "all")
    assert result.exit_code == 1 and "has no boxes, which the model finds" in result.stderr


def test_compose_tells_and_draws_what_is_found(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path / "data", [([("red", 1, 1), ("blue", 5, 2)], [("red", 1, 1)])])
    found = json.loads(call("compose", SPEC, "--input", f"{folder}:0", "--format", "json").stdout)
    assert found["prediction"]["boxes"] == [
        {"name": "red", "score": 1.0, "xyxy": [16, 16, 32, 32]},
        {"name": "blue", "score": 1.0, "xyxy": [80, 32, 96, 48]},
    ]
    assert found["label"] == [{"name": "red", "xyxy": [16, 16, 32, 32]}] and found["source"] == [128, 64]
    assert found["raw_uint8_bytes"] == 128 * 64 * 3
    image = tmp_path / "data" / "images" / "val" / "000.png"
    plot = tmp_path / "plot.svg"
    table = call("compose", SPEC, "--input", image, "--save-plot", plot)
    assert table.exit_code == 0, table.output
    assert "red 1, blue 1, in 128 x 64 pixels" in table.stdout
    drawn = plot.read_text()
    assert "1 of 2 layers" in drawn and "2 of 2 layers" in drawn


def test_encode_then_decode_from_the_file_alone(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path / "data", toy_detector.scenes(3))
    stream = tmp_path / "a.sem"
    encoded = call("encode", SPEC, *(f"{folder}:{i}" for i in range(3)), "-o", stream, "--check", "--format", "json")
    decoded = call("decode", stream, "--format", "json")
    first, second = (json.loads(result.stdout)["records"] for result in (encoded, decoded))
    assert [r["prediction"] for r in first] == [r["prediction"] for r in second]
    assert [r["source"] for r in second] == [[128, 64]] * 3


def test_a_sweep_of_detectors(tmp_path):
    folder = toy_detector.yolo_folder(tmp_path, toy_detector.scenes(4))
    grid = {"jpeg.quality": [10, 90]}
    found = list(run_sweep(compose_spec("jpeg+cells"), grid, Weights(offline=True), folder))
    assert found[0]["bpp"] < found[1]["bpp"]
    assert found[0]["data_digest"] == found[1]["data_digest"]


def test_training_is_given_boxes_in_pixels_of_the_input(tmp_path):
    from semcodec.training.loop import Step, batches

    folder = toy_detector.yolo_folder(tmp_path, [([("red", 2, 1)], [("red", 2, 1)])] * 4, split="train")
    dataset = open_dataset(folder, "train", INPUT)
    step = Step("see", (), lambda batch: (torch.zeros(()), {}), samples=4, lr=0.0, batch=2)
    for batch in batches(dataset, step, 0, 0, 0):
        assert isinstance(batch.labels, list) and len(batch.labels) == len(batch.pixels) == 2
        for pixels, inside in zip(batch.pixels, batch.labels, strict=True):
            assert inside.xyxy.tolist() == [[16, 24, 24, 32]] and inside.classes.tolist() == [0]
            assert pixels[0, 24:32, 16:24].min() > 0.8


def test_no_chance_is_left_where_every_resample_is_on_one_side():
    """However far the resamples as a whole are from what they were drawn from."""
    drawn = Bootstrap(0.2, np.linspace(0.3, 0.35, 1000))
    assert drawn.chance(0.0) == 1 / 1000
    assert drawn.interval()[0] > 0
