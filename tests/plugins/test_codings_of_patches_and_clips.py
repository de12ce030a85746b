"""Codings of methods that send patches, clips and small pictures: without torch, and of the weights as they are."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch

from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry, import_target
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.container.v2 import bytes_behind
from semcodec.errors import SpecError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import TensorSpec
from semcodec_plugins.deepisc.encoder import DeepISC

RANDOM = WeightsRequest.parse(["random"])
CODINGS = {
    "stae": "stae:frames=2,pixels=0.5+rans+vit-nano:32",
    "deepisc": "deepisc:frames=2,entropy=all+rans+vit-nano:32",
    "isr": "isr+resnet-nano",
    "patches": "patches:keep=20+mean-fill+rans+vit-nano-server",
    "mot": "mot:keep=20+rans+vit-nano-server",
    "a-mot": "a-mot:first=20,keep=40,sure=0.0+rans+vit-nano-server",
    "sdt": "sdt:keep=20,sure=0.0+rans+vit-nano-server",
    "cls-attn": "cls-attn:keep=20+top-k+rans+vit-nano-server",
}
BLOCKED = """
import sys
sys.modules["torch"] = None
from importlib import import_module
for path in sys.argv[1:]:
    module, _, name = path.partition(":")
    getattr(import_module(module), name)
"""


def arrays(latent):
    sent = {**latent.symbols, **{name: v for name, v in latent.side.items() if isinstance(v, np.ndarray)}}
    return {name: (value.dtype, value.shape, value.tobytes()) for name, value in sent.items()}


def source_of(pipeline: Pipeline, data: bytes) -> PacketSource:
    [packet] = read_packets(BytesIO(data), pipeline.header)
    return PacketSource(packet, pipeline.stages.entropy)


def test_codings_and_the_core_of_coding_import_no_torch():
    paths = [get_registry().find(name, "encoder").coding for name in CODINGS]
    assert all(paths)
    core = ("masks", "patch_coding", "patch_encoder", "patch_params", "patches", "pictures", "pixels", "rounds")
    paths += [f"semcodec.coding.{name}:__name__" for name in core]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CODINGS)
def test_a_coding_made_of_record_features_and_state_reads_and_writes_what_its_encoder_does(name):
    composition = compose_spec(CODINGS[name])
    pipeline = Pipeline.load(composition, RANDOM, classes=["a", "b", "c"])
    bound, encoder = pipeline.composition.encoder, pipeline.stages.encoder
    made = import_target(bound.component.coding, name)
    assert type(encoder.coding) is made
    assert encoder.coding is encoder.coding
    state = getattr(encoder, "state_dict", dict)()
    needed = {n: t.numpy() for n, t in state.items() if n.startswith(made.state_names)}
    models = {n: b.spec for n, b in pipeline.stages.models.items()}
    models |= {n: pipeline.stages.backbone.spec for n in pipeline.composition.models if n not in models}
    coding = made(pipeline.composition.stages.features, needed, **{**bound.build, **models})

    pixels = np.random.default_rng(0).integers(0, 256, (1, *pipeline.request.shape), dtype=np.uint8)
    [encoded] = pipeline.encode_batch(pixels, [0])
    ours, theirs = coding.read(source_of(pipeline, encoded.data)), encoder.read(source_of(pipeline, encoded.data))
    assert arrays(ours) == arrays(theirs)
    assert ours.side.keys() == theirs.side.keys()
    sink = PacketSink(pipeline.stages.entropy)
    coding.write(ours, sink)
    assert sink.pack(pipeline.header, 0, dict(pipeline.composition.call)).data == encoded.data


STILL = {"image": TensorSpec((3, 16, 24))}


def test_deepisc_codes_by_the_counts_that_were_loaded_or_learned():
    first, second = DeepISC(STILL).eval(), DeepISC(STILL).eval()
    before = first.coding
    rng = np.random.default_rng(0)
    second.quantiser.see(torch.rand(1, 4, 2, 3))
    second.tables.see(rng.integers(0, 3, (1, 8, 12)).astype(np.uint8))
    untrained = second.coding
    second.settle()
    assert second.coding is not untrained
    assert not np.array_equal(second.coding.latent_counts, before.latent_counts)
    assert second.coding.segment_tables != before.segment_tables
    for other in (copy.deepcopy(first), pickle.loads(pickle.dumps(first)), first):
        assert np.array_equal(other.coding.latent_counts, before.latent_counts)
        other.load_state_dict(second.state_dict())
        assert np.array_equal(other.coding.latent_counts, second.coding.latent_counts)
        for ours, theirs in zip(other.coding.segment_tables, second.coding.segment_tables, strict=True):
            assert np.array_equal(ours.freqs, theirs.freqs)


@pytest.mark.parametrize("name", ["a-mot", "sdt"])
def test_the_servers_end_asks_for_what_the_second_round_brought_given_the_first_alone(name):
    pipeline = Pipeline.load(compose_spec(CODINGS[name]), RANDOM, classes=["a", "b", "c"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, *pipeline.request.shape), dtype=np.uint8)
    [encoded] = pipeline.encode_batch(pixels, [0])
    encoder = pipeline.stages.encoder
    both = encoder.read(source_of(pipeline, encoded.data))
    [packet] = pipeline.records([encoded])
    cut = encoded.data[: -bytes_behind(packet, 1)]
    first = encoder.read(source_of(pipeline, cut))
    with torch.inference_mode():
        look = encoder.second_round.look([first])
    doubt, sent = float(look.doubt[0]), both.symbols["second" if name == "a-mot" else "asked"]
    chosen = sent
    if look.scores is not None:
        chosen = pipeline.stages.selectors.keep["keep"].keep(look.scores, 20, [0])[0].numpy().reshape(sent.shape)
    assert chosen.any()
    assert np.array_equal(encoder.second_round.ask(chosen, doubt, 0.0), sent)
    assert np.array_equal(encoder.second_round.ask(chosen, doubt, doubt), sent)
    assert not encoder.second_round.ask(chosen, doubt, doubt + 0.01).any()


SERVER_STATES = {
    "stae": (),
    "deepisc": ("quantiser.", "tables.", "synthesiser."),
    "a-mot": (),
    "sdt": (),
    "cls-attn": (),
}
DEVICE_STATES = {"a-mot": ("server.",), "sdt": ("server.",), "cls-attn": ("edge.",)}


def spoil(module: torch.nn.Module, kept: tuple[str, ...] | None) -> None:
    """Fills every tensor of floats with NaN but those whose names begin as is said; None: all are kept."""
    for name, tensor in module.state_dict().items():
        if kept is not None and not name.startswith(tuple(kept)) and tensor.is_floating_point():
            tensor.fill_(float("nan"))


@pytest.mark.parametrize("name", SERVER_STATES)
def test_each_end_needs_no_other_weights_than_it_says(name):
    composition = compose_spec(CODINGS[name])
    whole, device, server = (Pipeline.load(composition, RANDOM, classes=["a", "b", "c"]) for _ in range(3))
    said = device.stages.encoder.device_state()
    assert said == DEVICE_STATES.get(name)
    assert server.stages.encoder.server_state() == SERVER_STATES[name]
    # The models of an Encoder may be the pipeline's Backbone, which the server's end has in any case.
    device.stages.encoder.requires_grad_(False)
    spoil(device.stages.encoder, said)
    if not whole.composition.models:
        spoil(device.stages.backbone, device.stages.backbone.head_state("input"))
        spoil(server.stages.encoder, server.stages.encoder.server_state())
    spoil(server.stages.backbone, server.stages.backbone.tail_state("input"))

    pixels = np.random.default_rng(0).integers(0, 256, (1, *whole.request.shape), dtype=np.uint8)
    [wanted], [sent] = whole.encode_batch(pixels, [0]), device.encode_batch(pixels, [0])
    assert sent.data == wanted.data
    expected, got = (pipeline.decode_batch(pipeline.records([sent]))[0] for pipeline in (whole, server))
    assert np.isfinite(got.logits).all()
    assert np.array_equal(got.logits, expected.logits)


@pytest.mark.parametrize("name", [*CODINGS, "mae"])
def test_integers_that_a_header_may_name_are_bounded(name):
    component = get_registry().find(name)
    for param in component.params:
        if param.when == "build" and param.type is int:
            assert param.high is not None or (param.values and not param.open), param.name


@pytest.mark.parametrize("text", ["mae:dim=1056", "mae:depth=25"])
def test_no_header_builds_an_autoencoder_beyond_the_size_of_mae_large(text):
    with pytest.raises(SpecError, match=text[4:7]):
        compose_spec(f"mot+{text}+vit-nano-server")
