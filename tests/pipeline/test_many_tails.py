"""One stream for several tasks: what a spec may say, that its packets do not depend on who looks, and who answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from serving_process import ServerProcess

import semcodec
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_header, read_stream
from semcodec.data.datasets import open_dataset
from semcodec.errors import SpecError, UsageError, WeightsError
from semcodec.evaluation.evaluate import evaluate, evaluate_views, run_sweep
from semcodec.pipeline import weights
from semcodec.pipeline.device import Device
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import save

SPEC = "layered+rans+cls-nano@d3+det-nano@d3"
UNTRAINED = WeightsRequest({"encoder": "random"}, offline=True)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(compose_spec(SPEC), UNTRAINED)


@pytest.fixture(scope="module")
def stream(pipeline) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    return pipeline.stream(pipeline.encode_batch(pixels, [0, 1], sizes=[(200, 100), (96, 96)]))


# -- composition -------------------------------------------------------------------------------------------------------


def test_backbones_stand_in_the_order_of_their_names():
    composition = compose_spec("det-nano@d3+layered+cls-nano@d3")
    assert composition.spec == SPEC
    assert composition.tasks == ("classification", "detection")
    assert composition.weights_key("encoder") == "layered+cls-nano@d3+det-nano@d3"
    assert composition.weights_key("det-nano") == "det-nano"
    assert composition.decoding_signature() == "layered+none+rans+cls-nano@d3+det-nano@d3"
    seen = composition.alone("detection")
    assert seen == composition.alone("det-nano") != composition
    assert (seen.spec, seen.task, seen.backbone.name) == (SPEC, "detection", "det-nano")
    assert seen.with_call(layers=2).task == "detection"
    assert seen.request.labels == "boxes" and composition.request.labels == "class"
    assert seen.request.placed and composition.request.placed  # packets have the source's size whoever looks


@pytest.mark.parametrize(
    ("text", "under", "says"),
    [
        ("layered+det-nano@d3+cls-nano@d2", "cls-nano@d2", "a stream has one cut, and these are d3 and d2"),
        ("layered+det-nano@d3+det-nano@d3", "det-nano@d3", "a model is named once"),
        ("jpeg+vit-nano-server+resnet-nano", "resnet-nano", "both do classification"),
        ("jpeg+det-nano+vit-nano-server", "vit-nano-server", "pictures are brought to their size in different ways"),
        ("jpeg+det-nano+yolov5s", "yolov5s", "both do detection"),
    ],
)
def test_backbones_that_share_nothing_are_refused_under_the_later(text, under, says):
    with pytest.raises(SpecError) as caught:
        compose_spec(text)
    start, end = caught.value.span
    assert says in str(caught.value)
    assert (text[start:end], start) == (under, text.rindex(under))


def test_a_task_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="it has classification, detection"):
        compose_spec(SPEC).alone("video")


# -- packets and answers -----------------------------------------------------------------------------------------------


def test_packets_are_the_same_whoever_looks(pipeline):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    views = [pipeline, *(pipeline.alone(task) for task in ("classification", "detection"))]
    sent = [view.encode_batch(pixels, [0], sizes=[(200, 100)])[0].data for view in views]
    assert sent[0] == sent[1] == sent[2]
    [packet] = read_stream(pipeline.stream(pipeline.encode_batch(pixels, [0], sizes=[(200, 100)])))[1]
    with pytest.raises(UsageError, match="name one of classification, detection"):
        pipeline.decode_batch([packet])
    assert views[1].decode(sent[0]).boxes is None
    assert views[2].decode(sent[0]).source == (200, 100)


def test_each_tail_answers_as_it_does_alone(pipeline):
    """The features that are restored go to the shipped models, whoever else reads them."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 96, 96, 3), np.uint8)
    view = pipeline.alone("detection")
    record = view.encode_batch(pixels, [0])[0]
    [packet] = view.records([record])
    [partial] = view.server.restore_batch([view.server.source(packet)])
    alone = semcodec.compose("layered+det-nano@d3", offline=True)
    expected = alone.stages.backbone.tail(view.server.recover([partial])[0], "d3")
    found = view.stages.backbone.tail(view.server.recover([partial])[0], "d3")
    assert torch.equal(found, expected)


def test_a_server_may_hold_some_of_the_tails(stream):
    from io import BytesIO

    header = read_header(BytesIO(stream))
    both = Server.load(header, UNTRAINED)
    assert both.tasks == {"classification": "cls-nano", "detection": "det-nano"}
    one = Server.load(header, UNTRAINED, tasks=["detection"])
    assert one.tasks == {"detection": "det-nano"} and "cls-nano" not in one.digests
    records = list(read_stream(stream)[1])
    found, expected = one.decode_batch(records), both.alone("detection").decode_batch(records)
    assert [p.source for p in found] == [(200, 100), (96, 96)]
    assert torch.equal(found[0].boxes.xyxy, expected[0].boxes.xyxy)
    with pytest.raises(UsageError, match="does not answer classification"):
        one.alone("classification")
    assert one.accept(header).decode_batch(records)[0].source == (200, 100)


def test_heads_of_other_weights_are_refused(pipeline, tmp_path):
    """Only one head runs: a tail behind another one would be given what it never saw."""
    other = {"backbone": pipeline.stages.tails["det-nano"]}
    state = {name: tensor.clone() for name, tensor in other["backbone"].state_dict().items()}
    try:
        other["backbone"].stages["d3"][0][0].weight.data[0] += 0.5
        save(other, {"keys": {"backbone": "det-nano"}, "classes": list("0123456789")}, tmp_path)
    finally:
        other["backbone"].load_state_dict(state)
    request = WeightsRequest({"encoder": "random", "det-nano": str(tmp_path)}, offline=True)
    with pytest.raises(WeightsError, match="cls-nano and det-nano have other weights before d3"):
        Pipeline.load(compose_spec(SPEC), request)
    with pytest.raises(WeightsError, match="cls-nano and det-nano have other weights before d3"):
        Server.load(SPEC, request)


def test_a_codec_for_more_tasks_serves_some_of_them():
    """Where none learned for these alone: the same packets, and the fewest tasks beside those that are asked for."""
    few, all_of_them = "layered+cls-nano@d3+seg-nano@d3", "layered+cls-nano@d3+det-nano@d3+embed-nano@d3+seg-nano@d3"
    offline = WeightsRequest({}, offline=True)
    found = {spec: weights.find(compose_spec(spec), "encoder", offline) for spec in (few, all_of_them)}
    assert found[few].path == found[all_of_them].path and found[few].shipped
    narrow = weights.find(compose_spec("layered+cls-nano@d3+det-nano@d3"), "encoder", offline)
    assert narrow.card["keys"]["encoder"].count("+") == 3
    assert "seg" not in weights.find(compose_spec("layered+det-nano@d3"), "encoder", offline).path.name
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    devices = [Device.load(spec, offline=True) for spec in (few, all_of_them)]
    sent = [[r.data for r in d.encode_batch(pixels, [0, 1], sizes=[(96, 96), (96, 96)])] for d in devices]
    for one, other in zip(*sent, strict=True):  # but for each layer's checksum, which counts the header in
        assert len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 16
    assert weights.find(compose_spec("layered+det-nano@d3+draw-nano@d3"), "encoder", offline) is None


def test_halves_serve_each_their_end(pipeline, tmp_path):
    from semcodec.pipeline.split import write_halves

    files = write_halves(pipeline, tmp_path)
    assert any(name.startswith("cls-nano.stages.") for name in load_file(files["device"]))
    assert not any(name.startswith("det-nano.") for name in load_file(files["device"]))
    server = Server.load(SPEC, str(files["server"]))
    device = semcodec.Device.load(SPEC, str(files["device"]), offline=True)
    pixels = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    sent = device.encode(pixels)
    for task in ("classification", "detection"):
        assert server.alone(task).decode(sent.data).index == pipeline.alone(task).decode(sent).index


# -- commands ----------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments, "--offline", "--weights", "encoder=random"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_file_is_decoded_for_the_task_that_is_named(tmp_path):
    file = str(tmp_path / "scene.sem")
    run("encode", SPEC, "digits-scenes:0", "-o", file)
    boxes = json.loads(run("decode", file, "--task", "detection", "--format", "json"))
    assert boxes["task"] == "detection" and "boxes" in boxes["prediction"] and list(boxes["weights"])[-1] == "det-nano"
    digit = json.loads(run("decode", file, "--task", "classification", "--format", "json"))
    assert digit["task"] == "classification" and digit["bytes_total"] == boxes["bytes_total"]
    done = CliRunner().invoke(main, ["decode", file, "--weights", "encoder=random", "--task", "video"])
    assert done.exit_code == 2 and "has no task 'video'" in done.output


def test_a_file_is_decoded_for_all_tasks_where_none_is_named(tmp_path):
    """Each as it is alone; what is not a task's own is told once."""
    file, several = str(tmp_path / "scene.sem"), str(tmp_path / "scenes.sem")
    run("encode", SPEC, "digits-scenes:0", "-o", file)
    run("encode", SPEC, "digits-scenes:0", "digits-scenes:1", "-o", several)
    told = json.loads(run("decode", file, "--format", "json"))
    assert list(told["answers"]) == ["classification", "detection"] and told["task"] is None
    for task, answer in told["answers"].items():
        alone = json.loads(run("decode", file, "--task", task, "--format", "json"))
        assert {name: alone[name] for name in answer} == answer and alone["bytes_total"] == told["bytes_total"]
    lines = run("decode", file).splitlines()
    assert [sum(line.startswith(name) for line in lines) for name in ("classification", "detection", "bytes")] == [
        1
    ] * 3
    head, first, second, *_ = run("decode", several).splitlines()
    assert head.split()[:3] == ["input", "classification", "detection"]
    assert first.startswith("record 0") and second.startswith("record 1")


def test_eval_gives_a_record_for_each_task_at_one_rate(tmp_path):
    file = tmp_path / "records.jsonl"
    command = ("eval", SPEC, "--data", "digits-scenes", "--limit", "6", "--sweep", "layered.layers=1,4")
    run(*command, "-o", str(file))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["task"], r["knobs"]["layers"]) for r in records] == [
        ("classification", 1), ("detection", 1), ("classification", 4), ("detection", 4)
    ]  # fmt: skip
    assert records[0]["bytes_total"] == records[1]["bytes_total"] < records[2]["bytes_total"]
    assert records[0]["top1"] is not None and records[1]["map50"] is not None
    assert len({r["key"] for r in records}) == 4
    assert "nothing to run" in run(*command, "-o", str(file))
    [one] = run_sweep(compose_spec(SPEC), {}, UNTRAINED, "digits-scenes", limit=2, tasks=["detection"])
    assert one["task"] == "detection"


def untimed(record: dict) -> dict:
    measured = "stages_ms", "memory_device", "memory_server"
    return {name: value for name, value in record.items() if name not in measured}


def test_a_sample_is_encoded_and_restored_once_for_all_tails(pipeline, monkeypatch):
    """Each record is what evaluating its tail alone gives, and has the times of all that its answer needs."""
    views = [pipeline.alone(task) for task in ("classification", "detection")]
    sets = [open_dataset("digits-scenes", "test", view.request) for view in views]
    expected = [untimed(evaluate(view, data, limit=5, batch=3)) for view, data in zip(views, sets, strict=True)]
    ran = []
    for kind, name in ((Device, "encode_batch"), (Server, "_restore_latents")):
        method = getattr(kind, name)

        def noted(self, samples, *rest, name=name, method=method):
            ran.append((name, len(samples)))
            return method(self, samples, *rest)

        monkeypatch.setattr(kind, name, noted)
    found = evaluate_views(views, sets, limit=5, batch=3)
    assert [untimed(record) for record in found] == expected
    assert sorted(call for call in ran if call[1] > 1) == [
        ("_restore_latents", 2), ("_restore_latents", 3), ("encode_batch", 2), ("encode_batch", 3)
    ]  # fmt: skip
    shared = [{n: ms for n, ms in record["stages_ms"].items() if n not in ("tail", "nms")} for record in found]
    assert shared[0] == shared[1] and {"head", "recover"} <= shared[0].keys()
    assert "nms" in found[1]["stages_ms"] and "nms" not in found[0]["stages_ms"]


def test_tails_that_are_measured_on_other_samples_share_nothing(pipeline):
    views = [pipeline.alone(task) for task in ("classification", "detection")]
    sets = [open_dataset("digits-scenes", split, v.request) for v, split in zip(views, ("test", "train"), strict=True)]
    expected = [untimed(evaluate(view, data, limit=3)) for view, data in zip(views, sets, strict=True)]
    assert [untimed(record) for record in evaluate_views(views, sets, limit=3)] == expected


def test_compose_shows_every_tail():
    rows = json.loads(run("compose", SPEC, "--format", "json"))["stages"]
    assert [row["component"] for row in rows if row["stage"] == "tail"] == ["cls-nano", "det-nano"]
    done = CliRunner().invoke(main, ["compose", SPEC, "--input", "digits-scenes:0", "--offline"])
    assert done.exit_code == 2 and "name one of classification, detection" in done.output
    shown = json.loads(run("compose", SPEC, "--input", "digits-scenes:0", "--task", "detection", "--format", "json"))
    assert shown["task"] == "detection" and "boxes" in shown["prediction"]


def test_a_server_answers_the_task_that_a_device_asks_for(tmp_path):
    """One server, two devices that send the same packets and ask for other answers."""
    with ServerProcess(tmp_path, SPEC, "--weights", "encoder=random") as server:
        found = {}
        for task in ("classification", "detection"):
            told = run("send", SPEC, "digits-scenes", "--limit", "3", "--to", server.url, "--task", task,
                       "--format", "json")  # fmt: skip
            *answers, summary = [json.loads(line) for line in told.splitlines()]
            assert len(answers) == 3 and all(answer["task"] == task for answer in answers)
            found[task] = summary["summary"]
        assert found["classification"]["bytes_total"] == found["detection"]["bytes_total"]
        assert {"top1"} <= found["classification"].keys() and {"map50"} <= found["detection"].keys()
        done = CliRunner().invoke(
            main, ["send", SPEC, "digits-scenes:0", "--to", server.url, "--weights", "encoder=random", "--offline"]
        )
        assert done.exit_code == 2 and "name one of classification, detection" in done.output
        described = json.loads(server.get("/v1/compositions")[1])["compositions"]
        assert described[0]["tasks"] == ["classification", "detection"]
