"""Learned codecs at a cut: exact priors, every prefix of every packet, nothing clipped, and training's view."""

from __future__ import annotations

import itertools
import json
from io import BytesIO

import numpy as np
import pytest
import torch
from two_layers import HEADER

import semcodec
from semcodec.coding.integer_conv import WEIGHT_BITS
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import Part, read_packets, write_packet
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.container.v2 import bytes_behind
from semcodec.data.notes import DataNote
from semcodec.errors import CorruptStream, SpecError, StreamError, UsageError, WeightsError
from semcodec.interfaces import Analysis, Latent
from semcodec.pipeline.weights import fill
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec.training.integer_layers import to_fixed
from semcodec_plugins.entropy.arithmetic import Rans
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.coding import REACH
from semcodec_plugins.layered.encoder import LOUDER, Codec, FeatureHyperprior, Layered
from semcodec_plugins.layered.transforms import FEATURE_BITS

ONE = {"a": TensorSpec((6, 12, 12))}
TWO = {"layer4": TensorSpec((8, 21, 13)), "layer6.0": TensorSpec((4, 6, 5))}
STACK = "1x4-2x4-4-6"


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def layered(features=TWO, channels=STACK, prior="hyper", low=0, width=0) -> Layered:
    torch.manual_seed(1)
    params = {"channels": channels, "lambda": 16.0, "prior": prior, "low": low, "width": width}
    return Layered(features, **params).eval()


def single(features=TWO, prior="hyper", stride=2) -> FeatureHyperprior:
    torch.manual_seed(1)
    return FeatureHyperprior(features, **{"channels": 5, "lambda": 16.0, "prior": prior, "stride": stride}).eval()


CODECS = {
    "layered": layered,
    "layered, factorized": lambda: layered(prior="factorized"),
    "layered, two decoders": lambda: layered(low=2),
    "single": single,
    "single, factorized, one feature": lambda: single(ONE, "factorized", 1),
    "single, stride 8": lambda: single(TWO, "hyper", 8),
}


def features(codec: Codec, count: int, size: float = 4.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {n: size * torch.randn(count, *s.shape, generator=generator) for n, s in codec.features.items()}


def encode(codec: Codec, x: dict[str, torch.Tensor], layers: int = 0) -> list[Latent]:
    with torch.inference_mode():
        return codec.encode(x, Analysis(x), {}, {"layers": layers})


def packed(codec: Codec, latent: Latent, layers: int = 0) -> bytes:
    sink = PacketSink(Rans())
    codec.write(latent, sink)
    return sink.pack(HEADER, 0, {"layers": layers}).data


def read(codec: Codec, data: bytes) -> Latent:
    [packet] = read_packets(BytesIO(data), HEADER)
    source = PacketSource(packet, Rans())
    latent = codec.read(source)
    source.finish()
    return latent


def same(a: Latent, b: Latent) -> bool:
    return a.symbols.keys() == b.symbols.keys() and all(np.array_equal(a.symbols[n], b.symbols[n]) for n in a.symbols)


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS.keys())
def test_packets_hold_all_integers_of_the_declared_shapes(make):
    codec = make()
    declared = spec._encoder(codec.features, codec.stack)
    for latent in encode(codec, features(codec, 2)):
        assert {n: (a.shape, a.dtype.name) for n, a in latent.symbols.items()} == {
            n: (s.shape, s.dtype) for n, s in declared.latent.items()
        }
        assert max(np.abs(a).max() for a in latent.symbols.values()) > 1
        again = read(codec, packed(codec, latent))
        assert same(latent, again)
        restored = codec.restore(again).features
        assert {n: tuple(t.shape) for n, t in restored.items()} == {
            n: (1, *s.shape) for n, s in declared.restored.items()
        }


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS.keys())
def test_equal_features_give_equal_bytes_and_priors_whatever_computes_them(make):
    codec = make()
    x = features(codec, 4)
    expected = [packed(codec, latent) for latent in encode(codec, x)]
    wanted = [read(codec, data) for data in expected]
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert [packed(codec, latent) for latent in encode(codec, x)] == expected
            one_by_one = [encode(codec, {n: t[i : i + 1] for n, t in x.items()})[0] for i in range(4)]
            assert [packed(codec, latent) for latent in one_by_one] == expected
            assert all(same(read(codec, data), latent) for data, latent in zip(expected, wanted, strict=True))
    finally:
        torch.set_num_threads(threads)
    strided = {n: t.contiguous(memory_format=torch.channels_last) for n, t in x.items()}
    assert [packed(codec, latent) for latent in encode(codec, strided)] == expected
    # A server that holds the model in another precision reads the same integers.
    for dtype in (torch.bfloat16, torch.float64):
        codec.to(dtype)
        assert [packed(codec, latent) for latent in encode(codec, x)] == expected
        assert all(same(read(codec, data), latent) for data, latent in zip(expected, wanted, strict=True))
    if torch.cuda.is_available():
        codec.float().cuda()
        assert [packed(codec, latent) for latent in encode(codec, {n: t.cuda() for n, t in x.items()})] == expected


@pytest.mark.parametrize("prior", ["hyper", "factorized"])
def test_values_beyond_the_tables_are_escaped_and_never_clipped(prior):
    codec = layered(prior=prior)
    for size in (1e3, 1e5, 1e6):
        [latent] = encode(codec, features(codec, 1, size))
        assert max(np.abs(a).max() for a in latent.symbols.values()) > max(REACH, size / 10)
        assert same(read(codec, packed(codec, latent)), latent)
    extremes = Latent({n: a.copy() for n, a in latent.symbols.items()})
    for a in extremes.symbols.values():
        a.flat[0], a.flat[-1] = -(1 << 31), (1 << 31) - 1
    assert same(read(codec, packed(codec, extremes)), extremes)
    assert all(t.isfinite().all() for t in codec.restore(extremes).features.values())


@pytest.mark.parametrize(
    ("bad", "message"), [(float("nan"), "NaN or infinity"), (float("inf"), "NaN or infinity"), (1e30, "too large")]
)
def test_what_cannot_be_coded_is_refused_in_one_line(bad, message):
    codec = layered()
    x = features(codec, 1)
    x["layer6.0"][0, 1, 2, 3] = bad
    with pytest.raises(UsageError, match=message) as caught:
        encode(codec, x)
    assert "\n" not in str(caught.value)


def test_a_hyperprior_costs_less_where_scales_differ():
    """The integers of a quiet half are nearly free once z says so."""
    codec = single(ONE)
    loud = encode(codec, features(codec, 1, 30.0))[0].symbols["y1.a"]
    prior = codec.units_of[0][0].prior
    z = np.zeros((prior.side, 2, 2), np.int32)
    coded = codec.coding.units[0]["a"]
    scales = coded.prior(z, loud.shape).index
    assert len(scales) == loud.size
    with torch.no_grad():
        prior.start(torch.full((5,), 0.2))
        low = coded.prior(z, loud.shape).index
        prior.start(torch.full((5,), 30.0))
        high = coded.prior(z, loud.shape).index
    assert low.mean() + 20 < high.mean()
    quiet = np.zeros_like(loud)
    assert len(Rans().encode(quiet.ravel(), _indexed(low))) < 0.1 * len(Rans().encode(loud.ravel(), _indexed(high)))


def _indexed(index):
    from semcodec.coding import gaussian_tables
    from semcodec.priors import Indexed

    return Indexed(gaussian_tables.tables(), index)


# -- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0, 2])
def test_every_prefix_decodes_to_what_that_many_layers_give(low):
    codec = layered(low=low)
    x = features(codec, 1)
    [whole] = encode(codec, x)
    data = packed(codec, whole)
    [packet] = read_packets(BytesIO(data), HEADER)
    assert packet.layers_total == packet.layers_present == 4
    at, ends = len(data) - sum(chunk.size + 4 for chunk in packet.chunks), []
    for chunk in packet.chunks:
        at += chunk.size + 4
        ends += [at] if chunk.ends_layer else []
    restored = []
    for count, end in enumerate(ends, 1):
        prefix = read(codec, data[:end])
        [sent] = encode(codec, x, count)
        assert same(prefix, sent)  # what the device computes for so many layers alone
        assert same(read(codec, packed(codec, sent, count)), sent)
        restored.append(codec.restore(prefix).features)
    for a, b in itertools.pairwise(restored):
        assert all(not torch.equal(a[n], b[n]) for n in a)
    for cut in set(range(ends[0], len(data))) - set(ends):
        with pytest.raises(StreamError):
            read(codec, data[:cut])


def test_a_device_computes_only_the_layers_that_it_sends():
    codec = layered()
    calls = []
    for i, units in enumerate(codec.units_of, 1):
        for unit in units:
            integers = unit.reduction.integers
            unit.reduction.integers = lambda x, i=i, integers=integers: calls.append(i) or integers(x)
    packed(codec, encode(codec, features(codec, 1), 2)[0], 2)
    assert calls == [1, 1, 2, 2]


def test_layers_that_are_missing_in_the_middle_are_refused():
    codec = layered()
    data = packed(codec, encode(codec, features(codec, 1))[0])
    [packet] = read_packets(BytesIO(data), HEADER)
    names = [f"{kind}y{i}.{n}" for i in range(1, 5) for n in TWO for kind in ("z.", "")]
    parts = [Part(n, c.verify(n), c.side, c.ends_layer) for n, c in zip(names, packet.chunks, strict=True)]
    assert same(read(codec, write_packet(HEADER, 0, {"layers": 0}, parts)), read(codec, data))
    for gone in range(3):
        kept = parts[: 4 * gone] + parts[4 * (gone + 1) :]
        with pytest.raises(CorruptStream):
            read(codec, write_packet(HEADER, 0, {"layers": 0}, kept))


def test_few_layers_go_through_the_low_rate_decoder():
    codec = layered(low=2)
    x = features(codec, 1)
    before = [codec.restore(encode(codec, x, n)[0]).features["layer4"] for n in (1, 2, 3, 4)]
    for p in codec.lower.parameters():
        p.data += 1
    after = [codec.restore(encode(codec, x, n)[0]).features["layer4"] for n in (1, 2, 3, 4)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, False, True, True]
    assert any(name.startswith("lower.") for name in codec.decoder_state())


def test_a_decoder_is_as_wide_as_is_said():
    """Half of each feature's channels where nothing is said; what the device sends does not depend on it."""
    usual, narrow = layered(), layered(width=3, low=1)
    widths = [[net.net[0].out_channels for net in codec.high.adaptations] for codec in (usual, narrow)]
    assert widths == [[8, 8], [3, 3]] and narrow.lower.adaptations[0].net[0].out_channels == 3
    assert compose_spec("layered:width=64+resnet50@layer3").spec.startswith("layered:width=64+")


def test_a_layer_is_put_on_top_of_a_codec_that_has_learned():
    """Its own layers send and decode what they did, those above send plenty at first; other layers are refused."""
    learned, higher = layered(low=2), layered(channels=f"{STACK}-3x1", low=2)
    with torch.no_grad():
        for parameter in learned.high.parameters():
            parameter.add_(0.01)
        for units in learned.by_layer:
            units[0].reduction.whole_weight.mul_(3)
    of_last = ("units_of.4.", "high.expansions.4.")
    above = {name: t.clone() for name, t in higher.state_dict().items() if name.startswith(of_last)}
    fill(higher, higher.adapt_init(learned.state_dict()), "there")
    louder = [name for name, t in above.items() if not torch.equal(higher.state_dict()[name], t)]
    assert sorted(louder) == [f"units_of.4.{t}.reduction.{w}" for t in (0, 1) for w in ("weight", "whole_weight")]
    assert all(torch.equal(higher.state_dict()[name], LOUDER * above[name]) for name in louder)
    x = features(learned, 1)
    [mine], [theirs] = encode(learned, x), encode(higher, x, layers=4)
    assert same(mine, theirs) and encode(higher, x)[0].symbols.keys() > mine.symbols.keys()
    for name, restored in learned.restore(mine).features.items():
        assert torch.equal(higher.restore(theirs).features[name], restored)
    for other in (layered(channels="1x4-2x4-4"), layered(channels="1x4-2x4-4-7-3x1")):
        with pytest.raises(WeightsError, match="there does not fit the model"):
            fill(other, other.adapt_init(learned.state_dict()), "there")


# -- specs ------------------------------------------------------------------------------------------------------------


def test_layers_are_named_by_channels_and_stride():
    assert spec.layers("4x4-8-16x2-3") == tuple(spec.Layer(c, s) for c, s in ((4, 4), (8, 4), (16, 2), (3, 2)))
    assert spec.layers(7) == (spec.Layer(7, 2),)
    assert spec.layers("8x2x4-6-3x1") == (spec.Layer(8, 2, 4), spec.Layer(6, 2, 4), spec.Layer(3, 1, 4))
    for wrong in ("", "0", "4x3", "4x2x3", "4x2x2x2", "4x4-", "x2", "600", "a", "-".join(["1"] * 65)):
        with pytest.raises(SpecMismatch):
            spec.layers(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layered:layers=5+vit-nano-server@input", "more than the 4"),
        ("layered:low=4+vit-nano-server", "leaves none"),
        ("layered+vit-nano", "feature maps"),
        (f"layered:channels={'-'.join(['512x8'] * 64)}+resnet50@layer4", "weights, of at most"),
        ("feature-hyperprior:channels=512,stride=8+resnet50@layer4", "weights, of at most"),
        ("layered:channels=4x3+vit-nano-server", "strides"),
        ("layered:width=64+vit-nano-server@block2", "width=0"),
        ("feature-hyperprior:stride=3+vit-nano-server", "stride"),
    ],
)
def test_wrong_specs_are_refused_before_anything_is_built(text, message):
    with pytest.raises(SpecError, match=message):
        compose_spec(text)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressai():
    return pytest.importorskip("compressai", reason="the extra 'learned' is not installed")


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS.keys())
def test_what_training_sees_is_what_the_decoder_restores(compressai, make):
    codec = make()
    x = {n: to_fixed(t, FEATURE_BITS).float() / 2**FEATURE_BITS for n, t in features(codec, 2).items()}
    codec.begin()
    with torch.no_grad():
        for unit in itertools.chain(*codec.units_of):  # on the grid, so that float and integers round alike
            unit.reduction.weight.copy_(unit.reduction.whole_weight / 2**WEIGHT_BITS)
            unit.reduction.bias.zero_()
            unit.reduction.freeze()
        coded = codec.forward_train(x, np.random.default_rng(0))
        again = codec.forward_train(x, np.random.default_rng(0))
    assert len(coded) == len(codec.stack)
    for count, ((partial, bits), (_, repeated)) in enumerate(zip(coded, again, strict=True), 1):
        assert bits.shape == (2,)
        assert torch.equal(bits, repeated)
        for row, latent in enumerate(encode(codec, x, count)):
            for name, t in codec.restore(latent).features.items():
                assert (t[0] - partial.features[name][row]).abs().max() < 1e-5
    assert all(a[1].mean() < b[1].mean() for a, b in itertools.pairwise(coded))


def test_every_part_learns_and_bits_are_what_is_sent(compressai):
    """Fits one batch: the estimate falls, and integer tables cost what training said they would."""
    codec = single(ONE)
    x = features(codec, 4, 2.0)
    densities = codec.begin()
    codec.start(list(x.values()), [0.5])
    parameters = [*codec.units_of.parameters(), *codec.high.parameters(), *densities.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-2)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        [(partial, bits)] = codec.forward_train(x, rng)
        error = (partial.features["a"] - x["a"]).square().mean()
        (error + bits.mean() / 2000).backward()
        if not seen:
            assert all(p.grad is not None and p.grad.isfinite().all() for p in codec.units_of.parameters())
        seen.append((error.item(), bits.mean().item()))
        optimiser.step()
        optimiser.zero_grad()
    assert seen[-1][0] + seen[-1][1] / 2000 < 0.9 * (seen[0][0] + seen[0][1] / 2000)
    codec.freeze()
    sizes = []
    for latent in encode(codec, x):
        sink = PacketSink(Rans())
        codec.write(latent, sink)
        sizes.append(8 * sum(row.bytes for row in sink.rows))
    assert np.mean(sizes) == pytest.approx(seen[-1][1], rel=0.1, abs=80)


def test_it_starts_from_principal_components():
    """Of features that really have three dimensions a block, three channels keep everything but rounding."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q[:3]
    blocks = torch.randn(40, 36, 3, generator=generator) @ basis + 0.3
    x = torch.nn.functional.fold(blocks.transpose(1, 2), 12, 2, stride=2)
    codec = FeatureHyperprior(ONE, **{"channels": 3, "lambda": 1.0, "prior": "hyper", "stride": 2}).eval()
    codec.start([x], [0.05])
    found = torch.cat([codec.restore(latent).features["a"] for latent in encode(codec, {"a": x})])
    assert (found - x).square().mean() < 0.003 * x.var()
    assert (found - x).square().mean() > 0  # integers were sent


# -- in a pipeline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["layered:channels=2x8-3x4,low=1", "feature-hyperprior:channels=3"])
def test_whole_streams(text):
    pipeline = semcodec.compose(f"{text}+vit-nano-server", weights="random")
    side = pipeline.composition.request.height
    source = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    encoded = pipeline.encode_batch(source, [0, 1])
    first = pipeline.decode_batch(pipeline.records(encoded))
    assert [p.layers for p in first] == [(2, 2)] * 2 if "layered" in text else [(1, 1)] * 2
    for e in encoded:
        assert e.bytes_total == e.bytes_payload + e.bytes_side + e.bytes_header
        assert [row.name for row in e.rows] == [
            f"{z}y{i}.image" for i in range(1, first[0].layers[1] + 1) for z in ("z.", "")
        ]
        assert all(row.side_bytes == (row.bytes if row.name.startswith("z.") else 0) for row in e.rows)


def test_a_damaged_layer_is_decoded_without():
    """Damage in layer k of a packet: what is before it decodes as of a packet cut there, and one line says so."""
    pipeline = semcodec.compose("layered:channels=2x8-3x4-4x4,low=1+vit-nano-server", weights="random")
    side = pipeline.composition.request.height
    source = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    [encoded] = pipeline.encode_batch(source, [7])
    [packet] = pipeline.records([encoded])
    ends = [len(encoded.data) - bytes_behind(packet, layers) for layers in (1, 2, 3)]
    starts = [0, *ends]
    for layer in (2, 3):
        [cut] = pipeline.decode_batch(list(read_packets(BytesIO(encoded.data[: ends[layer - 2]]), pipeline.header)))
        for place in range(starts[layer - 1], ends[layer - 1], 3):
            damaged = bytearray(encoded.data)
            damaged[place] ^= 8
            with pytest.warns(DataNote, match=f"packet 7: layer {layer} of 3 is damaged"):
                [found] = pipeline.decode_batch(list(read_packets(BytesIO(bytes(damaged)), pipeline.header)))
            assert found.layers == cut.layers == (layer - 1, 3)
            np.testing.assert_array_equal(found.logits, cut.logits)
            assert found.rows == cut.rows
    for place in range(0, ends[0], 3):
        damaged = bytearray(encoded.data)
        damaged[place] ^= 8
        with pytest.raises(StreamError):
            pipeline.decode_batch(list(read_packets(BytesIO(bytes(damaged)), pipeline.header)))
    pipeline.server.restore(pipeline.server.source(packet))
    damaged = bytearray(encoded.data)
    damaged[-1] ^= 8
    [packet] = read_packets(BytesIO(bytes(damaged)), pipeline.header)
    with pytest.raises(CorruptStream, match="fails its checksum"):
        pipeline.server.restore(pipeline.server.source(packet))


def test_decode_says_that_a_layer_is_damaged(tmp_path):
    from click.testing import CliRunner

    from semcodec.cli import main

    file, random = tmp_path / "a.sem", ["--weights", "encoder=random"]
    spec = "layered:channels=2x8-3x4,low=1+vit-nano-server"
    told = CliRunner().invoke(main, ["encode", spec, "digits-scenes:0", "-o", str(file), *random])
    assert told.exit_code == 0, told.output
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    told = CliRunner().invoke(main, ["decode", str(file), *random, "--format", "json"])
    assert told.exit_code == 0, told.output
    assert told.stderr == "note: packet 0: layer 2 of 2 is damaged, decoded without it\n"
    found = json.loads(told.stdout)
    assert found["layers"] == [1, 2]
    assert found["file_bytes"] == len(whole)
    assert found["bytes_total"] == found["bytes_payload"] + found["bytes_side"] + found["bytes_header"] < len(whole)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("feature-hyperprior+resnet18@layer2", 1),
        ("feature-hyperprior:prior=factorized+resnet-nano@layer1", 1),
        ("layered+resnet-nano@layer2", 1),
        ("layered:layers=2+det-nano@d4", 2),
        ("layered:low=2+yolov5n@5", 1),
        ("feature-hyperprior+yolov5n@10", 3),
    ],
)
def test_any_cut_with_maps_by_spec_alone(text, features):
    stages = compose_spec(text).stages
    assert len(stages.features) == features
    assert {n: s for n, s in stages.restored.items() if n in stages.features} == dict(stages.features)
    assert len(stages.latent) == features * (1 if "hyper" in text else 2 if "layers" in text else 4)


def test_the_recipe_trains_all_of_it_and_what_it_writes_codes(compressai, tmp_path):
    from semcodec.training.train import train

    text = "layered:channels=2x4-4,low=1+det-nano@d4"
    card = train(text, "digits-scenes", tmp_path, scale=0.0005)
    assert [row["step"] for row in card["metrics"]] == ["start", "match", "picture", "task"]
    assert set(card["keys"]) == {"encoder"}  # the backbone is the one that ships, untouched
    pipeline = semcodec.compose(text, weights={"encoder": str(tmp_path)})
    encoder = pipeline.stages.encoder
    fresh = semcodec.compose(text, weights={"encoder": "random"}).stages.encoder
    for (name, after), before in zip(encoder.named_parameters(), fresh.parameters(), strict=True):
        assert not torch.equal(after, before), name
    source = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    for layers in (1, 2):
        point = pipeline.replace(composition=pipeline.composition.with_call(layers=layers))
        (found,) = point.decode_batch(point.records(point.encode_batch(source, [0])))
        assert found.layers == (layers, layers)
        panels = encoder.panels(*_of(point, source))
        assert panels[-1].title == "picture from features"
        assert panels[-1].image.shape == (48, 48, 3)


def _of(pipeline, source):
    with torch.inference_mode():
        x = pipeline.stages.backbone.head(pipeline.features(source), pipeline.composition.cut)
        [latent] = encode(pipeline.stages.encoder, x, pipeline.composition.call["layers"])
        return x, Analysis(x), {}, pipeline.stages.encoder.restore(latent)


@pytest.mark.parametrize(("text", "points"), [("layered", {1: 0.15, 4: 0.9}), ("feature-hyperprior", {None: 0.9})])
def test_what_ships_detects(text, points):
    pipeline = semcodec.compose(f"{text}+det-nano@d3")
    for layers, least in points.items():
        point = (
            pipeline if layers is None else pipeline.replace(composition=pipeline.composition.with_call(layers=layers))
        )
        record = point.evaluate("digits-scenes", limit=20)
        assert record["weights"]["encoder"]["source"].startswith("shipped")
        assert record["map50"] > least
        assert record["bytes_total"] < (100 if layers == 1 else 450)
