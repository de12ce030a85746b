"""A device's file runs without torch: its packets decode on a server of torch, and answers are those of the device."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcodec.artifact.archive import Archive, opened
from semcodec.artifact.manifest import read_manifest
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.container.packets import read_packets
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError, UsageError
from semcodec.pipeline.device import Device
from semcodec.pipeline.export import export_device
from semcodec.pipeline.exported import DEVICE, describe_exported, is_exported
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest

SAMPLES = 12
UNTRAINED = {"": "random"}
EXACT = {
    "jpeg+vit-nano-server": {},
    "full-offload+vit-nano-server": {},
    "roi-jpeg+vit-nano-server": {},
    "patches+vit-nano-server": {},
    "mot+vit-nano-server": {},
    "isr+vit-nano-server": {},
    "h264+vit-nano": {},
    "stae+vit-nano": {},
    "stae:frames=16,pixels=1.0,coding=webp+vit-nano": {},
    "layered+det-nano@d3": {},
    "layered:layers=2,prior=factorized+det-nano@d3": UNTRAINED,
    "feature-hyperprior+det-nano@d3": {},
    "layered+vit-nano-server@block2": UNTRAINED,
    "aecnn+resnet-nano": {},
    "bottlenetpp+resnet-nano": {},
    "pca+resnet-nano@stem": {},
    "pca-adapt+resnet-nano@stem": {},
    "cls-attn+vit-nano-server": {},
    "cls-attn+top-k:20+vit-nano-server": {},
    "deepisc+vit-nano": {},
    "deepisc+vit-nano-server": UNTRAINED,
}
"""Specs whose packets are made of integers: of a dozen samples all but one have the very bytes of torch's device."""
FLOATS = {
    "tensor8+resnet-nano@layer1": {},
    "tensor8+vit-nano@block1": {},
    "tensor8+timm/test_vit@block2": UNTRAINED,
    "tensor8+timm/test_byobnet": UNTRAINED,
    "bottlenetpp:ratio=4,spatial=1+resnet-nano": UNTRAINED,
}
"""Specs whose packets hold floats, or integers of untrained networks: answers alone are compared."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


def exported(spec, folder, given=None):
    """The file of a spec, written once."""
    path = folder / f"{spec.replace('/', '_')}.semdev"
    if not path.exists():
        export_device(compose_spec(spec), path, WeightsRequest(given or {}, offline=True))
    return path


def load(spec, given, folder):
    """The pipeline of torch, and the device of a file that was exported of it."""
    pipeline = Pipeline.load(compose_spec(spec), WeightsRequest(given, offline=True))
    return pipeline, Device.load(exported(spec, folder, given))


def samples(end, count=SAMPLES):
    """Pixels of the first samples, and the sizes of their sources where these travel along."""
    name = "digits-scenes" if end.request.frames is None else "digits-motion"
    dataset = open_dataset(name, "test", end.request)
    pixels, _ = dataset.batch(range(count))
    return pixels, dataset.sizes(range(count)) if end.request.placed else None


def answers(pipeline, encoded):
    """What the server of torch says of records that were read from their bytes alone."""
    found = pipeline.decode_batch(list(read_packets(_stream(encoded), pipeline.header)))
    return [(p.name, p.logits if p.boxes is None else p.boxes) for p in found]


def _stream(encoded):
    from io import BytesIO

    return BytesIO(b"".join(one.data for one in encoded))


def agree(here, there):
    """The same class; of boxes the same classes and places."""
    if here[0] != there[0]:
        return False
    a, b = here[1], there[1]
    if hasattr(a, "xyxy"):
        a, b = a.above(0.25), b.above(0.25)
        return len(a) == len(b) and a.classes.tolist() == b.classes.tolist() and np.allclose(a.xyxy, b.xyxy, atol=1)
    return True


@pytest.mark.parametrize("spec", EXACT)
def test_integers_are_those_of_torch(spec, folder):
    pipeline, device = load(spec, EXACT[spec], folder)
    pixels, sizes = samples(pipeline)
    ours = device.encode_batch(pixels, range(SAMPLES), sizes=sizes)
    theirs = pipeline.encode_batch(pixels, range(SAMPLES), sizes=sizes)
    assert device.header == pipeline.header
    assert sum(a.data == b.data for a, b in zip(ours, theirs, strict=True)) >= SAMPLES - 1
    found = zip(answers(pipeline, ours), answers(pipeline, theirs), strict=True)
    assert all(agree(a, b) for a, b in found)


@pytest.mark.parametrize("spec", FLOATS)
def test_answers_are_those_of_torch(spec, folder):
    pipeline, device = load(spec, FLOATS[spec], folder)
    pixels, sizes = samples(pipeline)
    ours, theirs = (end.encode_batch(pixels, range(SAMPLES), sizes=sizes) for end in (device, pipeline))
    for (_, a), (_, b) in zip(answers(pipeline, ours), answers(pipeline, theirs), strict=True):
        assert np.abs(a - b).max() < 0.05 * np.ptp(b) + 1e-3


@pytest.mark.parametrize("spec", ["local+resnet-nano", "cls-attn:scores=rollout+min-entropy:0.3+vit-nano-server"])
def test_what_stays_on_the_device_is_the_same_answer(spec, folder):
    pipeline, device = load(spec, {}, folder)
    pixels, _ = samples(pipeline)
    ours, theirs = device.encode_batch(pixels, range(SAMPLES)), pipeline.encode_batch(pixels, range(SAMPLES))
    assert [one.bytes_local > 0 for one in ours] == [one.bytes_local > 0 for one in theirs]
    assert any(one.bytes_local for one in ours)
    assert [p.name for p in pipeline.decode_batch(pipeline.records(ours))] == [
        p.name for p in pipeline.decode_batch(pipeline.records(theirs))
    ]


def test_every_encoder_runs_there_or_says_why():
    for component in get_registry():
        if component.kind == "encoder":
            assert (DEVICE in component.traits) != ("needs_torch" in component.traits), component.name


@pytest.mark.parametrize("spec", ["sdt+vit-nano-server", "a-mot+vit-nano-server"])
def test_what_needs_torch_is_refused_with_the_reason(spec, folder):
    path = folder / "refused.semdev"
    with pytest.raises(UsageError, match="runs on a device with torch alone: it asks the server's model"):
        export_device(compose_spec(spec), path, WeightsRequest(offline=True))
    assert not path.exists()


def test_a_selector_of_torch_alone_is_refused_by_name(folder):
    from torch_only_selector import COMPONENT

    registry = Registry.of([*get_registry(), COMPONENT])
    composition = compose_spec("patches+of-torch+vit-nano-server", registry)
    with pytest.raises(UsageError, match="of-torch chooses by torch alone: its keep has no keep_array"):
        export_device(composition, folder / "refused.semdev", WeightsRequest(offline=True))


def test_a_network_that_is_no_graph_is_refused_by_name(folder):
    import torch

    from semcodec.device_half import Network
    from semcodec.pipeline.graphs import export_graph
    from semcodec.specs import TensorSpec

    def asks(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool((x > 0.5).any()) else x

    with pytest.raises(UsageError, match="the network asks cannot become a graph"):
        export_graph(Network(asks, {"x": TensorSpec((4,))}, ("y",)), "asks")


def test_a_file_is_the_same_every_time_and_says_what_it_is(folder):
    spec = compose_spec("aecnn+resnet-nano")
    for name in ("a.semdev", "b.semdev"):
        export_device(spec, folder / name, WeightsRequest(offline=True))
    assert (folder / "a.semdev").read_bytes() == (folder / "b.semdev").read_bytes()
    found = describe_exported(folder / "a.semdev")
    assert found["spec"] == spec.spec
    assert found["graphs"]["head"]["outputs"] == {"maps": "float32[16x24x24]"}
    assert found["licenses"] == dict.fromkeys(("aecnn", "fr", "rans", "resnet-nano"), "Apache-2.0")
    assert found["weights"]["encoder"]["digest"]


def test_a_licence_of_the_model_is_in_the_file(folder):
    pytest.importorskip("ultralytics")
    path = folder / "yolo.semdev"
    export_device(compose_spec("layered+yolov5n@5:side=64"), path, WeightsRequest(UNTRAINED, offline=True))
    assert describe_exported(path)["licenses"]["yolov5n"] == "AGPL-3.0"


@pytest.mark.parametrize(
    "beside", [{"weights": "some.safetensors"}, {"classes": ["a"]}, {"device": "cuda"}, {"half": True}], ids=str
)
def test_what_a_file_has_of_its_own_is_refused_beside_it(beside, folder):
    with pytest.raises(UsageError, match="own"):
        Device.load(exported("jpeg+vit-nano-server", folder), **beside)


def test_names_that_end_so_are_files():
    assert is_exported("a.semdev") and is_exported(Path("b.semdev"))
    assert not is_exported("stae+vit-nano") and not is_exported(compose_spec("jpeg+vit-nano-server"))


# -- without torch ---------------------------------------------------------------------------------------------------

ALONE = """
import sys
from importlib.abc import MetaPathFinder

HEAVY = {"torch", "torchvision", "timm", "scipy", "sklearn", "pycocotools", "onnx", "onnxscript", "av"}

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY | set(sys.argv[1].split(",")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Block())
from semcodec.cli import main
main(sys.argv[2:], prog_name="semcodec")
"""


def alone(*arguments, without=""):
    """A command in a process that has no torch, nor anything that comes with it."""
    command = [sys.executable, "-c", ALONE, without, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("spec", "sample"),
    [
        ("layered+det-nano@d3", "digits-scenes:3"),
        ("cls-attn+vit-nano-server", "digits-scenes:3"),
        ("stae+vit-nano", "digits-motion:3"),
        ("aecnn+resnet-nano", "digits-scenes:3"),
    ],
)
def test_encode_runs_without_torch(spec, sample, folder):
    pipeline, _ = load(spec, {}, folder)
    done = alone("encode", exported(spec, folder), sample, "-o", folder / "one.sem", "--format", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["spec"] == pipeline.spec and told["bytes_total"] > 0 and told["label"]
    with open(folder / "one.sem", "rb") as file:
        from semcodec.container.packets import read_header

        assert read_header(file) == pipeline.header
        [found] = pipeline.server.decode_stream(file)
    expected = pipeline.decode(pipeline.encode(sample))
    assert (found.name, found.names) == (expected.name, expected.names)


def test_without_constriction_other_stages_code_and_the_error_names_them(folder):
    arguments = ("digits-scenes:3", "-o", folder / "one.sem")
    done = alone("encode", exported("patches+huffman+vit-nano-server", folder), *arguments, without="constriction")
    assert done.returncode == 0, done.stderr
    done = alone("encode", exported("patches+vit-nano-server", folder), *arguments, without="constriction")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "rans needs constriction" in line and "Rust" in line and "huffman" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "stae+vit-nano", "digits-motion:0", "-o", "OUT"),
        ("compose", "stae+vit-nano", "--input", "digits-motion:0"),
        ("eval", "jpeg+vit-nano-server", "--data", "digits-scenes", "--limit", "1"),
        ("export", "jpeg+vit-nano-server", "-o", "OUT.semdev"),
        ("split", "stae+vit-nano", "-o", "OUT"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_torch_names_the_cure(arguments, tmp_path):
    done = alone(*(str(tmp_path / a) if a.startswith("OUT") else a for a in arguments))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "pip install 'semcodec[torch]'" in line
    assert not list(tmp_path.iterdir())


def test_without_the_runtime_the_error_names_the_cure(folder):
    arguments = ("encode", exported("aecnn+resnet-nano", folder), "digits-scenes:0", "-o", folder / "one.sem")
    done = alone(*arguments, without="onnxruntime")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "pip install 'semcodec[device]'" in line


def test_a_file_that_needs_no_network_needs_no_runtime(folder):
    done = alone(
        "encode",
        exported("jpeg+vit-nano-server", folder),
        "digits-scenes:0",
        "-o",
        folder / "one.sem",
        without="onnxruntime",
    )
    assert done.returncode == 0, done.stderr


def test_check_decodes_too_and_is_refused(folder):
    done = alone(
        "encode", exported("jpeg+vit-nano-server", folder), "digits-scenes:0", "-o", folder / "one.sem", "--check"
    )
    assert done.returncode == 2 and "--check decodes too" in done.stderr


@pytest.mark.parametrize("command", ["compose", "export"])
def test_where_a_spec_is_wanted_a_file_is_named_as_one(command, tmp_path):
    done = alone(command, "some.semdev", *(["-o", tmp_path / "a.semdev"] if command != "compose" else []))
    assert done.returncode == 2
    assert "some.semdev is a device's file" in done.stderr


def test_a_file_of_another_name_is_not_written(tmp_path):
    done = alone("export", "jpeg+vit-nano-server", "-o", tmp_path / "device.bin")
    assert done.returncode == 2 and "ends in .semdev" in done.stderr
    assert not list(tmp_path.iterdir())


def test_call_parameters_may_be_changed_there(folder):
    _, device = load("stae+vit-nano", {}, folder)
    pixels, _ = samples(device, 1)
    few = replace(device, composition=device.composition.with_call(frames=1))
    assert few.encode_batch(pixels, [0])[0].bytes_total < device.encode_batch(pixels, [0])[0].bytes_total


def manifest_of(path):
    with opened(path) as archive:
        assert isinstance(archive, Archive)
        return read_manifest(archive)


def test_late_shapes_travel_along(folder):
    _, device = load("tensor8+timm/test_byobnet", UNTRAINED, folder)
    assert isinstance(device.composition, Composition)
    assert manifest_of(exported("tensor8+timm/test_byobnet", folder)).known.keys() == {"timm/test_byobnet"}
    assert device.composition.source is not None


def test_pixels_of_another_size_are_refused_as_ever(folder):
    _, device = load("jpeg+vit-nano-server", {}, folder)
    with pytest.raises(SemcodecError, match="expects uint8 pixels of 96x96x3"):
        device.encode_batch(np.zeros((1, 32, 32, 3), np.uint8), [0])


# -- in eight bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "way"), [("cls-attn+vit-nano-server", "dynamic"), ("tensor8+resnet-nano@layer2", "static")]
)
def test_eight_bits_are_smaller_and_their_cost_is_in_the_file(spec, way, folder):
    from semcodec.evaluation.exported import export_eight_bits

    path = folder / "eight.semdev"
    request = WeightsRequest(offline=True)
    told = export_eight_bits(compose_spec(spec), path, request, "digits-scenes", 16).int8
    assert list(told["graphs"].values()) == [way]
    assert path.stat().st_size < 0.6 * exported(spec, folder).stat().st_size
    assert told["samples"] == 16 and abs(told["float32"]["top1"] - told["int8"]["top1"]) <= 2 / 16
    pipeline = Pipeline.load(compose_spec(spec), request)
    pixels, _ = samples(pipeline)
    answered = pipeline.decode_batch(pipeline.records(Device.load(path).encode_batch(pixels, range(SAMPLES))))
    expected = pipeline.decode_batch(pipeline.records(pipeline.encode_batch(pixels, range(SAMPLES))))
    assert sum(a.name == b.name for a, b in zip(answered, expected, strict=True)) >= SAMPLES - 1


def test_what_has_no_network_has_none_in_eight_bits(folder):
    from semcodec.evaluation.exported import export_eight_bits

    path = folder / "none.semdev"
    with pytest.raises(UsageError, match="no network on the device"):
        export_eight_bits(compose_spec("jpeg+vit-nano-server"), path, WeightsRequest(offline=True), "digits-scenes", 2)
    assert not path.exists()


@pytest.mark.parametrize("options", [["--int8"], ["--calibrate", "digits-scenes"], ["--samples", "4"]], ids=str)
def test_options_of_eight_bits_go_together(options, tmp_path):
    done = alone("export", "jpeg+vit-nano-server", "-o", tmp_path / "a.semdev", *options)
    assert done.returncode == 2
    assert "--int8 goes with --calibrate DATA" in done.stderr
