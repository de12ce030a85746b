"""A device and a server stand alone: each builds and reads its half, and a stranger's header builds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from real_data import DEIT, weights

import semcodec
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry
from semcodec.container.packets import write_header
from semcodec.data.inputs import open_input
from semcodec.errors import UsageError, VersionMismatch, WeightsError, WeightsMismatch
from semcodec.interfaces import Selector
from semcodec.pipeline import hub
from semcodec.pipeline.device import Device
from semcodec.pipeline.server import Server
from semcodec.pipeline.split import write_halves
from semcodec.pipeline.stages import Builder
from semcodec.pipeline.weights import read_card

KINDS = {
    "video": ("stae+vit-nano", "digits-motion:0"),
    "edge model": ("cls-attn+vit-nano-server", "digits-scenes:1"),
    "CNN cut": ("aecnn+resnet-nano", "digits-scenes:1"),
    "detector": ("layered+det-nano@d3", "digits-scenes:0"),
    "pictures": ("jpeg+vit-nano-server", "digits-scenes:2"),
    "second round": ("sdt+vit-nano-server", "digits-scenes:2"),
    "tensor": ("tensor8+resnet-nano@stem", "digits-scenes:2"),
    "tokens": ("layered+vit-nano-server@block2", "digits-scenes:2"),
}


def command(*words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code in (1, 2) and done.stderr.count("\n") <= 3, done.output
    return done.stderr


def answer(document: str) -> dict:
    found = json.loads(document)
    prediction = found["prediction"]
    return {"name": prediction["name"]} if "name" in prediction else {"boxes": [b["name"] for b in prediction["boxes"]]}


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """By kind, the folder with both files."""
    folder = tmp_path_factory.mktemp("halves")
    for kind, (spec, _) in KINDS.items():
        write_halves(semcodec.compose(spec), folder / kind)
    return folder


def shipped():
    """The specs of pipelines whose weights ship."""
    for component in get_registry():
        for resource in component.weights:
            package, _, inside = resource.partition(":")
            card = read_card(Path(str(files(package) / inside)))
            if "encoder" in card["keys"]:
                yield card["spec"]


@pytest.mark.parametrize("spec", sorted(set(shipped())))
def test_each_end_reads_what_ships(spec):
    """Of whatever types the tensors of files are: weights have the names that the cards give them."""
    composition = compose_spec(spec)
    elsewhere = not composition.backbone.component.weights  # on the hub, from where nothing comes in a test
    given = {"backbone": weights(DEIT)} if elsewhere else None
    device, server = Device.load(spec, weights=given), Server.load(spec, weights=given)
    assert device.header.weights == server.header.weights


@pytest.mark.parametrize("kind", KINDS)
def test_each_end_has_its_own_file_alone_and_answers_are_those_of_one_process(kind, halves, tmp_path):
    spec, sample = KINDS[kind]
    device, server = (str(halves / kind / f"{end}.safetensors") for end in ("device", "server"))
    whole = command("encode", spec, sample, "-o", tmp_path / "whole.sem", "--check", "--format", "json")
    command("encode", spec, sample, "-o", tmp_path / "half.sem", "--weights", device)
    assert (tmp_path / "half.sem").read_bytes() == (tmp_path / "whole.sem").read_bytes()
    decoded = command("decode", tmp_path / "half.sem", "--weights", server, "--format", "json")
    assert answer(decoded) == answer(whole)
    if kind not in ("pictures", "second round"):  # where a device uses nothing, or all
        said = refused("decode", tmp_path / "half.sem", "--weights", device)
        assert "has the device's half alone" in said


def test_two_processes_agree_with_one(halves, tmp_path):
    spec, sample = KINDS["detector"]
    run = [sys.executable, "-m", "semcodec"]
    device, server = (str(halves / "detector" / f"{end}.safetensors") for end in ("device", "server"))
    stream = str(tmp_path / "a.sem")
    for words in (["encode", spec, sample, "-o", stream, "--weights", device],
                  ["decode", stream, "--weights", server, "--format", "json"]):  # fmt: skip
        done = subprocess.run([*run, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pipeline = semcodec.compose(spec)
    found = json.loads(done.stdout)["prediction"]["boxes"]
    expected = pipeline.decode(pipeline.encode(sample)).boxes.above(0.25)
    np.testing.assert_allclose([box["xyxy"] for box in found], expected.xyxy, atol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_end_takes_memory_for_what_it_uses_and_no_more(kind):
    """What is on "meta" would raise an error when it is used."""
    spec, sample = KINDS[kind]
    pipeline, device, server = semcodec.compose(spec), semcodec.Device.load(spec), semcodec.Server.load(spec)
    assert device.header == server.header == pipeline.header
    assert device.digests.items() <= pipeline.digests.items() and server.digests.items() <= pipeline.digests.items()
    named = open_input(sample, pipeline.request)
    sizes = [named.size] if named.size else None
    [sent], [expected] = (end.encode_batch(named.pixels, [0], sizes=sizes) for end in (device, pipeline))
    assert sent.data == expected.data
    assert server.decode(sent.data).name == pipeline.decode(expected).name
    there = sum(p.numel() for m in pipeline.stages.modules().values() for p in m.parameters())
    if kind in ("CNN cut", "detector", "tensor"):
        halves = [(device.encoder, device.head.backbone), (server.encoder, *server.tails.values())]
        for half in halves:
            modules = [module for module in half if isinstance(module, torch.nn.Module)]
            assert 0 < sum(p.numel() for m in modules for p in m.parameters() if not p.is_meta) < there
    if kind in ("video", "pictures"):
        assert device.head.backbone is None


def test_a_card_that_names_other_weights_than_its_file_holds_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    [path] = [p for end, p in write_halves(semcodec.compose("stae+vit-nano"), tmp_path).items() if end == "server"]
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in tensors if name.startswith("recoverer."))
    tensors[name] = tensors[name] + 1
    save_file(tensors, path, metadata)
    with pytest.raises(WeightsError, match="is damaged: its card names the weights"):
        semcodec.Server.load("stae+vit-nano", {"recoverer": str(path)})


# -- a stranger's header ---------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_is_built(monkeypatch):
    monkeypatch.setattr(Builder, "make", lambda *_, **__: pytest.fail("something was built"))
    monkeypatch.setattr(hub, "download", lambda *_: pytest.fail("the network was asked"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("jpeg+timm/eva02_enormous_patch14_clip_224", "no weights for timm/eva02_enormous"),
        ("mot+mae:dim=100000000+rans+vit-nano-server", "dim"),
        ("jpeg+vit-base", "no weights for vit-base"),
    ],
)
def test_a_header_that_names_what_is_not_here_builds_nothing(spec, said, nothing_is_built, tmp_path):
    header = msgspec.structs.replace(semcodec_header(), spec=spec)
    (tmp_path / "a.sem").write_bytes(write_header(header))
    assert said in refused("decode", tmp_path / "a.sem")


def semcodec_header():
    from semcodec.container.packets import StreamHeader

    weights = {"components": {"encoder/jpeg": 1, "recoverer/none": 1}, "weights": {}, "params": {}}
    return StreamHeader(spec="jpeg+vit-nano-server", input={"image": ((3, 96, 96), "float32")}, **weights)


def test_other_weights_are_refused_before_anything_is_built(monkeypatch):
    made = semcodec.compose("stae+vit-nano")
    header = msgspec.structs.replace(made.header, weights={"recoverer": "0123456789abcdef"})
    monkeypatch.setattr(Builder, "make", lambda *_, **__: pytest.fail("something was built"))
    with pytest.raises(WeightsMismatch, match="recoverer: the stream was made with 0123456789abcdef"):
        semcodec.Server.load(header)


def test_a_server_takes_streams_that_differ_in_what_packets_tell_and_no_others():
    server = semcodec.Server.load("stae+vit-nano")
    for spec in ("stae:frames=2,pixels=0.2+vit-nano", "stae:frames=3+random@frames+vit-nano"):
        device = semcodec.Device.load(spec)
        there = server.accept(device.header)
        assert there.recoverer is server.recoverer
        assert there.decode(device.encode("digits-motion:3").data).where == "server"
    for spec in ("stae+huffman+vit-nano", "jpeg+vit-nano", "stae:coding=jpeg+none+vit-nano"):
        with pytest.raises(VersionMismatch, match="have to be the same"):
            server.accept(semcodec.Device.load(spec).header)


def test_allow_narrows_what_is_decoded(tmp_path):
    stream = tmp_path / "a.sem"
    command("encode", "jpeg:40+vit-nano-server", "digits-scenes:0", "-o", stream)
    assert "only png+vit-nano-server" in refused("decode", stream, "--allow", "png+vit-nano-server")
    command("decode", stream, "--allow", "png+vit-nano-server", "--allow", "jpeg+vit-nano-server")
    assert "leave out one" in refused("decode", stream, "--fetch", "--offline")


# -- one way to another pipeline ---------------------------------------------------------------------------------------


class Alternating(Selector):
    """Sets the number of bits by the sample's number."""

    def point(self, composition, sequence):
        return [{"bits": 8 if number % 2 else 4} for number in sequence]


def test_a_narrowed_head_is_made_once_whatever_a_selector_sets(monkeypatch):
    pipeline = semcodec.compose("aecnn+resnet-nano")
    made = []
    backbone = type(pipeline.stages.backbone)
    narrowed = backbone.narrowed
    monkeypatch.setattr(backbone, "narrowed", lambda self, *a: made.append(a) or narrowed(self, *a))
    name = next(iter(pipeline.composition.call), None)
    if name is None:
        pytest.skip("the encoder has no call parameter to set")
    pointed = pipeline.replace(selectors=replace(pipeline.stages.selectors, point=Alternating()))
    monkeypatch.setattr(Alternating, "point", lambda self, c, s: [{name: c.call[name]} for _ in s])
    pixels = np.zeros((2, *pipeline.request.shape), np.uint8)
    for start in (0, 2, 4):
        pointed.encode_batch(pixels, [start, start + 1])
    assert len(made) == 1


def test_nothing_writes_into_a_pipeline_that_exists():
    pipeline = semcodec.compose("jpeg+vit-nano-server")
    for end in (pipeline, pipeline.device, pipeline.server):
        with pytest.raises(AttributeError):
            end.composition = pipeline.composition
    other = pipeline.replace(composition=pipeline.composition.with_call(quality=20))
    assert (pipeline.composition.call["quality"], other.composition.call["quality"]) != (20, 20)
    assert other.stages.backbone is pipeline.stages.backbone
    with pytest.raises(UsageError):
        pipeline.composition.with_call(nonsense=1)
