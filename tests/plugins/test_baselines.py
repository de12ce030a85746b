"""The baselines beside every method: everything on the device, the whole input to the server, features at 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError, SpecError
from semcodec.planning.operating_points import _is_full, open_points

SAMPLES = 24


def evaluated(spec: str) -> dict:
    return semcodec.compose(spec).evaluate("digits-scenes", limit=SAMPLES)


def right(spec: str) -> list[bool]:
    """What the backbone alone gets right."""
    pipeline = semcodec.compose(spec)
    dataset = open_dataset("digits-scenes", "test", pipeline.request)
    pixels, labels = dataset.batch(range(SAMPLES))
    with torch.inference_mode():
        logits = pipeline.stages.backbone.tail(pipeline.features(pixels), "input")
    return (logits.argmax(1).numpy() == labels).tolist()


@pytest.fixture(scope="module")
def local():
    return evaluated("local+vit-nano-edge")


def test_local_sends_nothing_and_is_as_right_as_the_model(local):
    assert local["spec"] == "local+vit-nano-edge"
    assert (local["bytes_total"], local["sent_ratio"], local["ratio_float32"]) == (0, 0, None)
    assert [mark == "1" for mark in local["correct"]] == right("jpeg+vit-nano-edge")
    assert 0 < local["top1"] < 1
    assert local["stages_ms"]["analyse"] > 0


def test_local_may_be_another_model_than_the_servers(local):
    other = evaluated("local:model=vit-nano-edge+vit-nano-server")
    assert other["correct"] == local["correct"]


def test_a_gate_makes_a_cascade_of_it():
    pipeline = semcodec.compose("local:model=vit-nano-edge+margin:0.5+vit-nano-server")
    pixels, _ = open_dataset("digits-scenes", "test", pipeline.request).batch(range(SAMPLES))
    encoded = pipeline.encode_batch(pixels, range(SAMPLES))
    answers = pipeline.decode_batch(pipeline.records(encoded))
    sent = [record.bytes_total > 0 for record in encoded]
    assert 0 < sum(sent) < SAMPLES
    assert [answer.where == "server" for answer in answers] == sent


def test_full_offload_is_the_input_as_jpeg():
    record = evaluated("full-offload+vit-nano-edge")
    assert record["sent_ratio"] == 1
    assert 100 < record["bytes_total"] < record["raw_uint8_bytes"] / 2
    agrees = [mark == "1" for mark in record["correct"]]
    assert np.mean(np.array(agrees) == right("jpeg+vit-nano-edge")) > 0.9
    same = semcodec.compose("jpeg:95+vit-nano-edge")
    pixels, _ = open_dataset("digits-scenes", "test", same.request).batch([0])
    mine = semcodec.compose("full-offload+vit-nano-edge").encode(pixels[0])
    assert mine.bytes_payload == same.encode(pixels[0]).bytes_payload


def test_clips_go_whole():
    pipeline = semcodec.compose("full-offload+vit-nano:32", weights="random")
    clip = np.random.default_rng(0).integers(0, 256, pipeline.request.shape, dtype=np.uint8)
    assert pipeline.decode(pipeline.encode(clip)).logits is not None
    home = semcodec.compose("local+vit-nano:32", weights="random")
    answer = home.decode(home.encode(clip))
    assert answer.where == "device"
    with torch.inference_mode():
        features = home.stages.backbone.head(home.features(clip[None]), "input")
        assert answer.index == int(home.stages.backbone.tail(features, "input").argmax())


def test_plans_know_them(tmp_path, local):
    full = evaluated("full-offload+vit-nano-edge")
    (tmp_path / "plan.json").write_text('{"bench": 1}')
    lines = [semcodec_json(record, cell) for cell, record in (("a", local), ("b", full))]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    profile = open_points(str(tmp_path))
    assert profile.local is not None
    assert profile.full is not None
    assert profile.local.spec == local["spec"]
    assert (profile.local.bytes, profile.local.sent) == (0, 0)
    assert profile.full.spec == full["spec"]
    assert not _is_full("full-offload:50+vit-nano-edge")


def semcodec_json(record: dict, cell: str) -> str:
    import json

    return json.dumps(record | {"cell": cell})


def test_tensor8_stands_in_the_same_table():
    record = evaluated("tensor8+rans+vit-nano-edge")
    assert record["ratio_float32"] > 4
    assert record["sent_ratio"] == 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("local:model=vit-nano+vit-nano-server", "device's model takes"),
        ("local:model=nothing+vit-nano-server", "nothing"),
        ("local+resnet-nano@stem", "here is maps"),
        ("full-offload+resnet-nano@stem", "takes RGB pixels"),
        ("local+rans+vit-nano-server", "codes its bytes itself"),
        ("local+top-k:3+vit-nano-server", "nothing to select"),
    ],
)
def test_what_does_not_fit_is_refused(spec, says):
    with pytest.raises(SpecError, match=says) as caught:
        compose_spec(spec)
    assert "\n" not in caught.value.message


def test_a_picture_of_nan_is_refused():
    pipeline = semcodec.compose("local+vit-nano-edge")
    features = {"image": torch.full((1, 3, 96, 96), float("nan"))}
    analysis = pipeline.stages.encoder.analyse(features)
    with pytest.raises(SemcodecError, match="NaN"):
        pipeline.device.gate(analysis, [0])
    with pytest.raises(SemcodecError):
        pipeline.stages.encoder.encode(features, analysis, {}, dict(pipeline.composition.call))


def test_both_are_named_as_baselines():
    registry = get_registry()
    assert registry.find("full-offload").traits["baseline"] == "full-offload"
    assert registry.find("local").traits["selectors"] == ("never",)
