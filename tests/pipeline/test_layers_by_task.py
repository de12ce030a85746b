"""Which tasks read which layers of one stream: what is sent, what a prefix serves, and what is said of others."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from serving_process import ServerProcess

from semcodec.bench import matrix
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_header, read_packets
from semcodec.container.truncation import cut_stream
from semcodec.data.notes import DataNote
from semcodec.errors import SpecError, TooFewLayers, UsageError
from semcodec.evaluation.evaluate import run_sweep
from semcodec.pipeline.device import Device
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.serving.link import Connecting, Link

SPEC = "layered:serves=detection.1-classification.3+rans+cls-nano@d3+det-nano@d3+embed-nano@d3"
OFFLINE = WeightsRequest(offline=True)
SAYS = "1 layer serves detection and retrieval, and classification needs 3"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(compose_spec(SPEC), OFFLINE)


@pytest.fixture(scope="module")
def stream(pipeline) -> bytes:
    """Two packets of all layers."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    return pipeline.stream(pipeline.encode_batch(pixels, [0, 1], sizes=[(96, 96), (96, 96)]))


def prefix(stream: bytes, layers: int) -> BytesIO:
    target = BytesIO()
    cut_stream(BytesIO(stream), target, layers)
    target.seek(0)
    return target


# -- the spec ----------------------------------------------------------------------------------------------------------


def test_a_spec_says_how_many_layers_each_task_needs():
    written = compose_spec("det-nano@d3+layered:serves=classification.3-detection.1+cls-nano@d3+embed-nano@d3")
    assert written.spec == SPEC  # in the order of the layers
    assert written.needs == {"cls-nano": 3, "det-nano": 1, "embed-nano": 1}
    assert written.layered_tasks == {"classification": 3, "detection": 1, "retrieval": 1}
    assert [written.served(layers) for layers in (1, 2, 3)] == [
        ["detection", "retrieval"], ["detection", "retrieval"], ["classification", "detection", "retrieval"]
    ]  # fmt: skip
    assert written.alone("classification").lacks_layers(1) == SAYS
    assert written.alone("classification").lacks_layers() is None  # all layers are sent
    plain = compose_spec("layered+cls-nano@d3+det-nano@d3+embed-nano@d3")
    assert plain.layered_tasks == {} and plain.alone("classification").lacks_layers(1) is None
    assert written.weights_key("encoder") == plain.weights_key("encoder")
    assert written.decoding_signature() == plain.decoding_signature()


@pytest.mark.parametrize(
    ("serves", "says"),
    [
        ("detection", "serves is a row of TASK.LAYERS, as in detection.1-classification.2"),
        ("detection.0", "serves is a row of TASK.LAYERS"),
        ("detection.65", "serves is a row of TASK.LAYERS"),
        ("video.1", "serves names the task video, and this stream is for classification, detection"),
        ("detection.1-detection.2", "serves names detection twice"),
        ("detection.5", "names layer 5, and there are 4"),
    ],
)
def test_what_it_cannot_say(serves, says):
    with pytest.raises(SpecError, match=says):
        compose_spec(f"layered:serves={serves}+cls-nano@d3+det-nano@d3")


def test_what_is_sent_follows_from_the_tasks():
    composition = compose_spec(SPEC)
    one = composition.for_tasks(["detection"])
    assert (one.call["layers"], one.task) == (1, "detection")
    assert composition.for_tasks(["retrieval", "classification"]).call["layers"] == 3
    assert composition.for_tasks([]) is composition
    named = compose_spec(SPEC.replace(":", ":layers=2,", 1))
    assert named.for_tasks(["detection"]).call["layers"] == 2  # what a spec names stays
    with pytest.raises(
        UsageError, match="layers=2: 2 layers serve detection and retrieval, and classification needs 3"
    ):
        named.for_tasks(["classification"])
    with pytest.raises(UsageError, match="has no task 'video'"):
        composition.for_tasks(["video"])


# -- the server --------------------------------------------------------------------------------------------------------


def test_a_server_answers_what_a_prefix_serves_and_says_what_it_does_not(stream):
    file = prefix(stream, 1)
    header = read_header(file)
    packets = list(read_packets(file, header))
    server = Server.load(header, OFFLINE)
    found = server.decode_tasks(packets[0])
    assert list(found) == ["classification", "detection", "retrieval"]
    assert isinstance(found["classification"], TooFewLayers) and str(found["classification"]) == f"packet 0: {SAYS}"
    [alone] = server.alone("detection").decode_batch(packets[:1])
    assert torch.equal(found["detection"].boxes.xyxy, alone.boxes.xyxy)
    with pytest.raises(TooFewLayers, match=SAYS):
        server.alone("classification").decode_batch(packets)


def test_one_record_with_too_few_layers_costs_no_other_its_answer(stream):
    header = read_header(BytesIO(stream))
    server = Server.load(header, OFFLINE).alone("classification")
    cut, whole = prefix(stream, 2), BytesIO(stream)
    records = []
    for file in (cut, whole):
        read_header(file)
        records.append(list(read_packets(file, header)))
    short, full = server.decode_each([records[0][0], records[1][1]])
    assert isinstance(short, TooFewLayers) and "2 layers serve detection and retrieval" in str(short)
    assert full.layers == (4, 4)


# -- commands ----------------------------------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(main, [*arguments, *(["--offline"] if arguments[0] not in ("cut", "inspect") else [])])
    assert done.exit_code == code, done.output
    return done


def test_from_encode_to_decode(tmp_path):
    whole, boxes = tmp_path / "all.sem", tmp_path / "boxes.sem"
    run("encode", SPEC, "digits-scenes:0", "-o", str(whole))
    run("encode", SPEC, "digits-scenes:0", "-o", str(boxes), "--task", "detection")
    assert boxes.stat().st_size < whole.stat().st_size
    [sent] = json.loads(run("inspect", str(boxes), "--format", "json").stdout)["records"]
    assert (sent["layers_total"], sent["serves"]) == (1, ["detection", "retrieval"])
    cut = json.loads(run("cut", str(whole), "--layers", "3", "--format", "json").stdout)
    assert cut["serves"] == ["classification", "detection", "retrieval"]
    assert "detection, retrieval" in run("inspect", str(boxes)).stdout
    answer = json.loads(run("decode", str(boxes), "--task", "detection", "--format", "json").stdout)
    assert "boxes" in answer["prediction"]
    refused = run("decode", str(boxes), "--task", "classification", code=1)
    assert f"not answered: packet 0: {SAYS}" in refused.stderr
    assert "1 of 1 records have too few layers for classification" in refused.stderr
    both = json.loads(run("decode", str(boxes), "--format", "json").stdout)["answers"]
    assert both["detection"]["prediction"] == answer["prediction"]
    assert both["classification"] == {"prediction": None, "lacks": f"packet 0: {SAYS}"}
    assert f"classification  not answered: packet 0: {SAYS}" in run("decode", str(boxes)).stdout
    told = json.loads(run("compose", SPEC, "--dry-run", "--format", "json").stdout)
    assert told["layers"] == {"classification": 3, "detection": 1, "retrieval": 1}
    assert "3 or more serve classification, detection, retrieval" in run("compose", SPEC, "--dry-run").stdout
    few = run("encode", SPEC.replace(":", ":layers=1,", 1), "digits-scenes:0", "-o", "-", "--task", "classification",
              code=2)  # fmt: skip
    assert f"layers=1: {SAYS}" in few.stderr


def test_points_that_do_not_serve_a_task_are_not_measured():
    grid = {"layered.layers": [1, 3]}
    with pytest.warns(DataNote, match=f"is not measured for classification: {SAYS}"):
        found = list(run_sweep(compose_spec(SPEC), grid, OFFLINE, "digits-scenes", limit=2, tasks=["classification"]))
    assert [record["knobs"]["layers"] for record in found] == [3]
    plan = matrix.given([(SPEC, {})], grid)
    assert len(plan.cells) == 5
    [skip] = plan.skips
    assert skip.spec.endswith("--task classification") and skip.reason == SAYS


def test_a_device_sends_a_server_what_its_task_needs(tmp_path):
    with ServerProcess(tmp_path, SPEC) as server:
        sizes = {}
        for task in ("classification", "detection"):
            told = run("send", SPEC, "digits-scenes:0", "--to", server.url, "--task", task, "--format", "json").stdout
            answer = json.loads(told.splitlines()[0])
            assert answer["task"] == task
            sizes[task] = answer["bytes_total"]
        assert sizes["detection"] < sizes["classification"]
        device = Device.load(compose_spec(SPEC).alone("classification"), OFFLINE)
        pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
        with Connecting(Link(server.url, device)) as link:
            short, whole = link.send(pixels, layers=1), link.send(pixels)
        assert short.outcome == "failed" and SAYS in short.error
        assert whole.outcome == "answered"
