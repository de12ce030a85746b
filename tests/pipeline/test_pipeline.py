"""Pixels become bytes on one side and the same answer on the other; whatever else arrives is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import semcodec
from semcodec.coding.pictures import encode_picture
from semcodec.component import Component, Param
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.container.packets import LocalRecord, Packet, read_packets, read_stream, write_header, write_local
from semcodec.container.sinks import PacketSink
from semcodec.container.summary import summarise
from semcodec.data.base import Dataset
from semcodec.data.datasets import open_dataset
from semcodec.errors import (
    CorruptStream,
    DataError,
    SpecError,
    StreamError,
    UsageError,
    VersionMismatch,
    WeightsMismatch,
)
from semcodec.evaluation.evaluate import evaluate, run_sweep
from semcodec.interfaces import Analysis, Encoder, Latent, Partial, Selector
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.priors import Counted
from semcodec.specs import EncoderSpec, TensorSpec
from semcodec.specs import InputRequest as Pixels
from semcodec.tasks.statistics import wilson
from semcodec.training.train import save

SIDE = 32
NET = f"vit-nano:{SIDE}"
SPEC = f"stae:coding=raw,frames=4,pixels=0.4+rans+{NET}"
RANDOM = WeightsRequest({"": "random"})


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray]:
    return open_dataset("digits-motion", "test", Pixels(16, SIDE, SIDE)).batch(range(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights as training leaves them, for SPEC: untrained, but with attentions and a recovery that differ."""
    pipeline = semcodec.compose(SPEC, weights="random")
    composition, modules = pipeline.composition, pipeline.stages.modules()
    torch.manual_seed(1)
    for slot in ("encoder", "recoverer"):
        for p in modules[slot].parameters():
            torch.nn.init.normal_(p, std=0.3)
    path = tmp_path_factory.mktemp("weights")
    keys = {slot: composition.weights_key(slot) for slot in modules}
    classes = open_dataset("digits-motion", "test").classes
    modules["backbone"].classifier.load_state_dict(torch.nn.Linear(128, len(classes)).state_dict())
    save(modules, {"keys": keys, "classes": classes}, path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder) -> Pipeline:
    return semcodec.compose(SPEC, weights=str(folder))


def logits(predictions) -> np.ndarray:
    return np.stack([p.logits for p in predictions])


def edited(folder, to, change):
    """A copy of the weights with some tensors changed."""
    path = to / "weights.safetensors"
    tensors = load_file(folder / "weights.safetensors")
    change(tensors)
    card = json.loads((folder / "card.json").read_text())
    del card["digests"], card["decoding"]  # as of a file from before cards named weights
    save_file(tensors, path, {"semcodec": json.dumps(card)})
    return WeightsRequest({"": str(path)})


# -- from one process to another --------------------------------------------------------------------------------------

DECODE = """
import sys
import numpy as np
from semcodec.container.packets import read_stream
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
with open(sys.argv[1], "rb") as file:
    header, records = read_stream(file)
    predictions = Server.load(header, WeightsRequest.parse([sys.argv[2]])).decode_batch(list(records))
np.save(sys.argv[3], np.stack([p.logits for p in predictions]))
print([p.name for p in predictions])
"""


def test_another_process_decodes_the_file_to_the_same_bits(folder, pipeline, clips, tmp_path):
    points = [f"stae:frames=4,pixels=0.4+{NET}", f"stae:coding=jpeg,frames=3,pixels=0.7+random@frames+huffman+{NET}"]
    for number, spec in enumerate(points):
        point = pipeline.replace(composition=compose_spec(spec))
        encoded = point.encode_batch(clips[0], range(5))
        sem, npy = tmp_path / f"{number}.sem", tmp_path / f"{number}.npy"
        sem.write_bytes(point.stream(encoded))
        here = point.decode_batch(point.records(encoded))
        command = [sys.executable, "-c", DECODE, sem, folder, npy]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert np.array_equal(np.load(npy), logits(here))
        assert ran.stdout.strip() == str([p.name for p in here])
        assert np.ptp(logits(here), 0).max() > 1e-3  # the clips differ


def test_a_stream_is_its_header_and_records(pipeline, clips):
    encoded = pipeline.encode_batch(clips[0], [7, 3, 300, 0, 1])
    data = pipeline.stream(encoded)
    header, records = read_stream(data)
    assert header == pipeline.header
    assert [r.sequence for r in records] == [7, 3, 300, 0, 1]
    rows = summarise(data)
    assert rows["file_bytes"] == len(data) == len(write_header(header)) + sum(e.bytes_total for e in encoded)
    assert [row["bytes_total"] for row in rows["records"]] == [e.bytes_total for e in encoded]
    for e in encoded:
        assert len(e.data) == e.bytes_payload + e.bytes_side + e.bytes_header
    alone = [pipeline.decode(e) for e in encoded]
    assert np.abs(logits(alone) - logits(pipeline.decode_batch(pipeline.records(encoded)))).max() < 1e-4
    assert pipeline.decode(encoded[0].data).name == alone[0].name


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        f"stae:frames=8,pixels=0.9+random@frames+random@pixels+zstd+{NET}",
        f"stae:coding=webp+deflate+{NET}",
        f"stae+attention-sum@frames:0.5+attention-threshold@pixels:0.5+{NET}",
        f"png+{NET}",
        f"jpeg:40+{NET}",
        f"tensor8+range+{NET}",
    ],
)
def test_a_batch_is_byte_for_byte_its_samples(folder, pipeline, clips, spec):
    composition = compose_spec(spec)
    point = (
        pipeline.replace(composition=composition)
        if spec.startswith("stae")
        else Pipeline.load(composition, WeightsRequest({"": folder}))
    )
    together = point.encode_batch(clips[0], range(10, 15))
    for i, clip in enumerate(clips[0]):
        assert point.encode(clip, 10 + i).data == together[i].data
    assert len({e.data for e in together}) == 5


def test_pixels_of_another_form_are_refused(pipeline, clips):
    for pixels in (
        clips[0][0, :8],
        clips[0][0, :, :16],
        clips[0][0].astype(np.float32) / 255,
        clips[0][0, ..., :1],
        clips[0],
    ):
        with pytest.raises(DataError, match=r"an array is one sample of uint8 \[16, 32, 32, 3\], not"):
            pipeline.encode(pixels)


# -- what decodes what ------------------------------------------------------------------------------------------------


def test_weights_that_decoding_uses_must_be_the_same(folder, pipeline, clips, tmp_path):
    data = pipeline.stream([pipeline.encode(clips[0][0])])
    header, _ = read_stream(data)
    assert set(header.weights) == {"recoverer"}

    def touch(slot):
        def change(tensors):
            name = next(n for n in sorted(tensors) if n.startswith(slot) and tensors[n].ndim > 1)
            tensors[name].flatten()[0] += 1

        return change

    with pytest.raises(WeightsMismatch, match=r"recoverer: the stream was made with .* \(--weights recoverer=PATH\)"):
        Server.load(header, edited(folder, tmp_path, touch("recoverer")))
    # Attention chooses on the device, and the stream says what was chosen; the backbone is the server's own.
    for slot in ("encoder", "backbone"):
        other = Server.load(header, edited(folder, tmp_path, touch(slot)))
        assert other.digests[slot] != pipeline.digests[slot]
        (record,) = read_stream(data)[1]
        same = np.array_equal(other.decode_batch([record])[0].logits, pipeline.decode_batch([record])[0].logits)
        assert same == (slot == "encoder")


def test_other_stream_versions_are_refused_by_name(pipeline):
    header = pipeline.header
    assert set(header.components) == {"encoder/stae", "recoverer/cnn-3d2d", "entropy/rans"}
    for key in header.components:
        later = msgspec.structs.replace(header, components={**header.components, key: 7})
        with pytest.raises(VersionMismatch, match=f"{key} wrote stream version 7, .* reads 1"):
            Server.load(later, RANDOM)
    fewer = msgspec.structs.replace(header, components={"encoder/stae": 1, "entropy/rans": 1})
    with pytest.raises(VersionMismatch, match="was not written with recoverer/cnn-3d2d"):
        Server.load(fewer, RANDOM)


def test_records_of_another_stream_are_refused(pipeline, clips):
    other = pipeline.replace(composition=compose_spec(f"stae:coding=raw,frames=2,pixels=0.4+{NET}"))
    with pytest.raises(CorruptStream, match="belongs to another stream"):
        pipeline.decode(other.encode(clips[0][0]))


def test_a_header_whose_spec_composes_no_more_is_refused(pipeline):
    for spec in ("stae+rans+vit-huge", "stae+", f"stae:frames=99+rans+{NET}"):
        with pytest.raises(SpecError):
            Server.load(msgspec.structs.replace(pipeline.header, spec=spec), RANDOM)


# -- forged packets ---------------------------------------------------------------------------------------------------


def forged(pipeline: Pipeline, clip: np.ndarray, change=None, more: bool = False, **params: object) -> bytes:
    """A packet with right checksums whose call parameters, or whose Latent, are not what was encoded."""
    point, encoder = pipeline, pipeline.stages.encoder
    with torch.inference_mode():
        features = point.stages.backbone.head(point.features(clip[None]), "input")
        analysis = encoder.analyse(features)
        masks = {"frames": torch.zeros(1, 16, dtype=torch.bool), "pixels": torch.zeros(1, 4, 1024, dtype=torch.bool)}
        masks["frames"][:, 2:6] = True
        masks["pixels"][..., :400] = True
        (latent,) = encoder.encode(features, analysis, masks, point.composition.call)
    if change:
        change(latent)
    sink = PacketSink(point.stages.entropy)
    encoder.write(latent, sink)
    if more:
        sink.blob("more", b"bytes")
    return sink.pack(point.header, 0, {**point.composition.call, **params}).data


def refused(pipeline: Pipeline, data: bytes) -> str:
    with pytest.raises(StreamError) as caught:
        pipeline.decode(data)
    assert str(caught.value).isprintable()
    return str(caught.value)


NUMBERS = [0, -1, 17, 2**62, -(2**63), 4.5, float("nan"), float("inf"), -0.0, True, None, "4", "four", "", "4+png"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("frames", value) for value in NUMBERS),
        *(("pixels", value) for value in [*(n for n in NUMBERS if n is not True), 1.0000001, "0.4", False]),
        *(("quality", value) for value in [0, 101, 75.5, None, "75", False, "x" * 1000]),
        *(("coding", value) for value in ["gif", "", "raw+png", "jpeg\n", "raw ", 3, None, "RAW", "'", "raw,x=1"]),
    ],
)
def test_call_parameters_that_no_spec_could_name_are_refused(pipeline, clips, name, value):
    assert "call parameters are not possible" in refused(pipeline, forged(pipeline, clips[0][0], **{name: value}))


def test_possible_call_parameters_change_no_more_than_how_bytes_are_read(pipeline, clips):
    genuine = pipeline.decode(forged(pipeline, clips[0][0]))
    for params in ({"frames": 9}, {"pixels": 0.9}, {"pixels": 1.0, "quality": 1}):
        assert np.array_equal(pipeline.decode(forged(pipeline, clips[0][0], **params)).logits, genuine.logits)
    for coding in ("jpeg", "webp"):
        refused(pipeline, forged(pipeline, clips[0][0], coding=coding))


def test_parameters_that_are_missing_or_too_many(pipeline, clips):
    encoded = pipeline.encode(clips[0][0])
    (packet,) = pipeline.records([encoded])
    fewer = {name: value for name, value in packet.params.items() if name != "quality"}
    (prediction,) = pipeline.decode_batch([replace(packet, params=fewer)])  # the spec's default holds
    assert np.array_equal(prediction.logits, pipeline.decode(encoded).logits)
    with pytest.raises(CorruptStream, match="no call parameter 'speed'"):
        pipeline.decode_batch([replace(packet, params={**packet.params, "speed": 3})])


def test_contents_that_contradict_themselves_are_refused(folder, pipeline, clips):
    clip = clips[0][0]

    def nothing(latent: Latent):
        latent.symbols["kept"][:] = False
        for name in ("mask", "frames"):
            latent.symbols[name] = latent.symbols[name][:0]

    def fewer(latent: Latent):
        latent.symbols["kept"][2] = False

    for change in (nothing, fewer):
        refused(pipeline, forged(pipeline, clip, change))
    assert "1 chunks" in refused(pipeline, forged(pipeline, clip, more=True))

    jpeg = pipeline.replace(composition=compose_spec(f"stae:coding=jpeg,frames=4,pixels=0.4,quality=75+{NET}"))
    jpeg.decode(forged(jpeg, clip))
    grey = np.full((4 * SIDE, SIDE, 3), 99, np.uint8)
    for picture in (
        b"",
        b"not a picture",
        encode_picture(grey[: 2 * SIDE], "jpeg", 75),
        encode_picture(grey.transpose(1, 0, 2), "jpeg", 75),
        encode_picture(grey, "webp", 75),
        encode_picture(np.tile(grey, (8, 8, 1)), "jpeg", 75),
        encode_picture(grey, "jpeg", 75)[:-200],
    ):
        refused(jpeg, forged(jpeg, clip, lambda latent, picture=picture: latent.side.update(picture=picture)))


# -- the gate ---------------------------------------------------------------------------------------------------------


def guess_spec(features, params):
    return EncoderSpec({"grey": TensorSpec((16,), "uint8")}, dict(features))


class Guess(Encoder):
    """Sends each frame's mean; its own answer is class 1 the brighter, class 0 the darker a clip is."""

    def __init__(self, features):
        self.shape = features["frames"].shape

    def analyse(self, features):
        bright = features["frames"].mean((1, 2, 3, 4))
        return Analysis(features, prediction=20 * torch.stack([0.5 - bright, bright - 0.5], 1))

    def encode(self, features, analysis, masks, params):
        assert len(features["frames"]) == len(analysis.prediction)
        means = (features["frames"].mean((2, 3, 4)) * 255).round().to(torch.uint8).numpy()
        return [Latent({"grey": row}) for row in means]

    def write(self, latent, sink):
        sink.symbols("grey", latent.symbols["grey"].astype(np.int32), Counted())

    def read(self, source):
        return Latent({"grey": source.symbols("grey", 16, Counted())})

    def restore(self, latent):
        grey = torch.from_numpy(latent.symbols["grey"]).float()[None, :, None, None, None] / 255
        return Partial({"frames": grey.expand(1, *self.shape).clone(), "index": torch.arange(16)[None]})


class Unsure(Selector):
    """Sends a sample where the device is surer than ``most`` of no class."""

    def __init__(self, most):
        self.most = most

    def gate(self, prediction):
        return prediction.softmax(1).amax(1) <= self.most


@pytest.fixture(scope="module")
def guessing() -> Pipeline:
    most = Param("most", float, 0.9, "surest answer that is asked for", when="build", low=0.0, high=1.0)
    toys = [
        Component("encoder", "guess", "test_pipeline:Guess", "a toy", spec="test_pipeline:guess_spec",
                  traits={"predicts": True}),
        Component("selector", "unsure", "test_pipeline:Unsure", "a toy", params=(most,), positional="most",
                  traits={"abilities": ("gate",)}),
    ]  # fmt: skip
    composition = compose_spec(f"guess+unsure:0.9+{NET}", Registry.of([*get_registry(), *toys]))
    return Pipeline.load(composition, RANDOM, classes=["dark", "bright"])


class Shades(Dataset):
    """Clips of one shade each: sure of class 0, unsure, sure of class 1, in turn."""

    name, kind, classes, split = "shades", "video", ["bright", "dark"], "test"

    def __len__(self):
        return 6

    def batch(self, indices):
        shade = np.array([20, 125, 240], np.uint8)[np.asarray(indices) % 3]
        labels = np.array([1, 1, 0])[np.asarray(indices) % 3]
        return np.broadcast_to(shade[:, None, None, None, None], (len(shade), 16, SIDE, SIDE, 3)).copy(), labels

    def ids(self, indices):
        return [str(i) for i in indices]


def test_a_sample_that_the_device_is_sure_of_sends_nothing(guessing):
    pixels, _ = Shades().batch(range(6))
    encoded = guessing.encode_batch(pixels, range(6))
    for i, e in enumerate(encoded):
        local = i % 3 != 1
        assert (e.bytes_total == 0) == local
        assert e.bytes_local == (len(e.data) if local else 0)
    records = guessing.records(encoded)
    assert [type(r) for r in records] == [LocalRecord, Packet, LocalRecord] * 2
    assert [r.sequence for r in records] == list(range(6))
    predictions = guessing.decode_batch(records)
    assert [p.where for p in predictions] == ["device", "server", "device"] * 2
    assert [p.name for p in predictions[::3]] == ["dark", "dark"]
    assert [p.name for p in predictions[2::3]] == ["bright", "bright"]
    assert all(p.logits is None and p.probability > 0.9 for p in predictions if p.where == "device")
    data = guessing.stream(encoded)
    assert len(summarise(data)["records"]) == 6
    alone = [guessing.encode(p, i) for i, p in enumerate(pixels)]
    assert [e.data for e in alone] == [e.data for e in encoded]
    # A batch that sends nothing at all, and one that sends everything.
    assert all(e.bytes_total == 0 for e in guessing.encode_batch(pixels[::3], [0, 3]))
    assert guessing.decode(guessing.encode(pixels[0])).where == "device"
    assert all(e.bytes_total for e in guessing.encode_batch(pixels[1::3], [1, 4]))


def test_a_local_record_of_no_class_is_refused(guessing):
    data = write_local(guessing.header, LocalRecord(0, 2, 0.5))
    (record,) = read_packets(BytesIO(data), guessing.header)
    with pytest.raises(CorruptStream, match="names class 2 of 2"):
        guessing.decode_batch([record])


# -- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_counts_what_was_sent(guessing):
    record = evaluate(guessing, Shades(), batch=4)
    encoded = guessing.encode_batch(Shades().batch(range(6))[0], range(6))
    for name in ("bytes_total", "bytes_payload", "bytes_side", "bytes_header", "bytes_local"):
        assert record[name] == sum(getattr(e, name) for e in encoded) / 6
    parts = record["bytes_payload"] + record["bytes_side"] + record["bytes_header"]
    assert record["bytes_total"] == pytest.approx(parts)
    assert record["sent_ratio"] == pytest.approx(2 / 6)
    assert record["raw_uint8_bytes"] == 16 * SIDE * SIDE * 3
    assert record["raw_float32_bytes"] == 4 * record["raw_uint8_bytes"]
    assert record["ratio_float32"] == record["raw_float32_bytes"] / record["bytes_total"]
    assert record["bytes_stream_header"] == len(write_header(guessing.header))
    # The data's classes are in another order than the model's: names count.
    assert [record["correct"][i] for i in (0, 2, 3, 5)] == ["1"] * 4
    right = record["correct"].count("1")
    assert record["top1"] == right / 6
    assert record["top1_interval"] == list(wilson(right, 6))
    assert json.loads(json.dumps(record)) == record


def test_evaluation_does_not_depend_on_the_batch(pipeline):
    one, three = (pipeline.evaluate("digits-motion", limit=4, batch=b) for b in (1, 3))
    same = set(one) - {"batch", "stages_ms"}
    assert {name: one[name] for name in same} == {name: three[name] for name in same}
    assert one["samples"] == 4
    assert list(one["stages_ms"]) == [
        "head", "analyse", "select_frames", "select_pixels", "encode", "write", "entropy_encode",
        "entropy_decode", "read", "restore", "recover", "tail",
    ]  # fmt: skip
    other = pipeline.evaluate("digits-motion", limit=3)
    assert other["data_digest"] != one["data_digest"]
    assert other["key"] != one["key"]


def test_data_that_the_model_does_not_know_is_refused(pipeline, guessing):
    with pytest.raises(DataError, match="does not know class 'bright' of shades"):
        evaluate(pipeline, Shades())
    with pytest.raises(DataError, match="no samples"):
        evaluate(guessing, Shades(), limit=0)


def test_a_sweep_gives_a_record_for_each_point(folder):
    composition, request = compose_spec(SPEC), WeightsRequest({"": str(folder)})
    grid = {"stae.frames": [1, 4], "stae.pixels": [0.4, 1.0]}
    options = {"limit": 2, "batch": 2}
    records = list(run_sweep(composition, grid, request, "digits-motion", **options))
    assert [(r["knobs"]["frames"], r["knobs"]["pixels"]) for r in records] == [(1, 0.4), (1, 1.0), (4, 0.4), (4, 1.0)]
    sizes = [r["bytes_total"] for r in records]
    assert sizes[0] < sizes[1] < sizes[3]
    assert sizes[0] < sizes[2] < sizes[3]
    assert len({r["key"] for r in records}) == 4
    # Each is what the point gives alone, and points that are there are left out.
    alone = Pipeline.load(compose_spec(records[2]["spec"]), request).evaluate("digits-motion", **options)
    assert alone["bytes_total"] == sizes[2]
    assert alone["key"] == records[2]["key"]
    done = {r["key"] for r in records[1:]}
    rest = list(run_sweep(composition, grid, request, "digits-motion", done=done, **options))
    assert [r["key"] for r in rest] == [records[0]["key"]]


def test_a_sweep_over_a_wrong_value_runs_nothing(folder):
    ran = []
    for grid in ({"stae.frames": [1, 99]}, {"stae.frame": [1]}, {"stea.frames": [1]}):
        sweep = run_sweep(compose_spec(SPEC), grid, RANDOM, "digits-motion", progress=lambda *a: ran.append(a))
        with pytest.raises(UsageError):
            next(sweep)
    assert not ran
