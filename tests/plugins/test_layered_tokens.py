"""Learned codecs at a transformer's cut: packets at every rate and of every prefix, exact priors, honest estimates."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO

import numpy as np
import pytest
import torch
from two_layers import HEADER

from semcodec.coding import gaussian_tables
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.errors import UsageError
from semcodec.interfaces import Analysis, Latent
from semcodec.pipeline.weights import fill
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec_plugins.entropy.arithmetic import Rans
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.encoder import FeatureHyperprior, Layered
from semcodec_plugins.layered.token_codec import TokenCodec
from semcodec_plugins.layered.tokens import SCALE_STEPS

IMAGE = {"tokens": TensorSpec((35, 12), grid=(5, 7)), "prefix": TensorSpec((2, 12))}
CLIP = {"tokens": TensorSpec((36, 16), grid=(3, 4, 3))}
BUILD = {"lambda": 1.0, "prior": "hyper", "levels": 3, "blocks": 1}
CALL = {"layers": 0, "level": 0}


def layered(features=IMAGE, channels="4x2-6", **more) -> TokenCodec:
    return made(Layered, features, {"channels": channels, "low": 0, **more})


def single(features=CLIP, **more) -> TokenCodec:
    return made(FeatureHyperprior, features, {"channels": 5, "stride": 2, **more})


def made(kind, features, params) -> TokenCodec:
    """Random weights, predictions of z that differ from place to place, and scales that suit what is sent."""
    torch.manual_seed(1)
    codec = kind(features, **{**BUILD, **params}).eval().requires_grad_(False)
    x = codec.normalise(tokens(codec, 8)["tokens"])
    for unit in codec.by_layer:
        for level in range(codec.levels):
            y = unit.reduction(x, level)
            for values, to in (
                (y, unit.prior.offsets[level, y.shape[1] :]),
                (unit.prior.analysis(y), unit.prior.scales[level]),
            ):
                index = (values.transpose(0, 1).flatten(1).std(1) / gaussian_tables.LOWEST).log() / gaussian_tables.STEP
                to.copy_(index / SCALE_STEPS)
    codec.freeze()
    return codec


def tokens(codec: TokenCodec, count: int, size: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {n: size * torch.randn(count, *s.shape, generator=generator) for n, s in codec.features.items()}


def encode(codec, x, **call) -> list[Latent]:
    with torch.inference_mode():
        return codec.encode(x, Analysis(x), {}, {**CALL, **call})


def packed(codec, latent, **call):
    sink = PacketSink(Rans())
    codec.write(latent, sink)
    return sink.pack(HEADER, 0, {"layers": call.get("layers", 0)})


def read(codec, data: bytes, **call) -> Latent:
    [packet] = read_packets(BytesIO(data), HEADER)
    source = PacketSource(packet, Rans(), {**CALL, **call})
    latent = codec.read(source)
    source.finish()
    return latent


def same(a: Latent, b: Latent) -> bool:
    alike = all(np.array_equal(a.symbols[n], b.symbols[n]) for n in a.symbols)
    return a.symbols.keys() == b.symbols.keys() and alike and a.side == b.side


CODECS = {
    "layered": layered,
    "layered, clips": lambda: layered(CLIP, "4x1-3x2"),
    "layered, fewer times": lambda: layered(CLIP, "4x2x2-3x1x4"),
    "single": single,
}


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_packets_of_every_level_hold_the_declared_integers(make):
    codec = make()
    x = tokens(codec, 2)
    declared = spec._at_tokens(codec.features, codec.stack, {**BUILD, "level": 0})
    for level in (0, 1, 2, 3):
        for latent in encode(codec, x, level=level):
            assert {n: (a.shape, a.dtype.name) for n, a in latent.symbols.items()} == {
                n: (s.shape, s.dtype) for n, s in declared.latent.items()
            }
            again = read(codec, packed(codec, latent).data, level=level)
            assert same(latent, again)
            restored = codec.restore(again).features
            assert {n: tuple(t.shape) for n, t in restored.items()} == {
                n: (1, *s.shape) for n, s in codec.features.items()
            }
    assert same(encode(codec, x, level=3)[0], encode(codec, x)[0])


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_finer_levels_send_more_bytes_and_batches_change_none(make):
    codec = make()
    x = tokens(codec, 4)
    sizes = []
    for level in (1, 2, 3):
        together = [packed(codec, latent).data for latent in encode(codec, x, level=level)]
        alone = [
            packed(codec, encode(codec, {n: t[i : i + 1] for n, t in x.items()}, level=level)[0]).data for i in range(4)
        ]
        assert alone == together
        sizes.append(sum(map(len, together)))
    assert sizes[0] < sizes[1] < sizes[2]


def test_every_prefix_of_layers_decodes():
    codec = layered()
    x = tokens(codec, 1)
    whole, base = (packed(codec, encode(codec, x, layers=n)[0], layers=n) for n in (0, 1))
    [packet] = read_packets(BytesIO(whole.data), HEADER)
    assert packet.layers_total == packet.layers_present == 2
    first = read(codec, base.data, layers=1)
    assert list(first.symbols) == ["z1.tokens", "y1.tokens"]
    assert not torch.equal(
        codec.restore(first).features["tokens"], codec.restore(read(codec, whole.data)).features["tokens"]
    )


def test_a_layer_is_put_on_top_of_a_codec_that_has_learned():
    learned, higher = layered(channels="4x2"), layered(channels="4x2-6x1")
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(0.01)
    learned.freeze()
    fill(higher, higher.adapt_init(learned.state_dict()), "there")
    x = tokens(learned, 1)
    [mine], [theirs] = encode(learned, x), encode(higher, x, layers=1)
    assert same(mine, theirs) and len(encode(higher, x)[0].symbols) == 4
    assert torch.equal(learned.restore(mine).features["tokens"], higher.restore(theirs).features["tokens"])


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_bytes_are_what_training_estimates(make):
    """Within 2 % and 8 bytes a chunk; of large values too."""
    codec = make()
    for level in (1, 3):
        x = tokens(codec, 1)
        estimate, normal = 0.0, codec.normalise(x["tokens"])
        for unit in codec.by_layer:
            y = unit.reduction(normal, level - 1)
            estimate += unit.prior(y, level - 1, None)[1].item() / 8
        encoded = packed(codec, encode(codec, x, level=level)[0])
        [packet] = read_packets(BytesIO(encoded.data), HEADER)
        size = sum(chunk.size for chunk in packet.chunks)
        assert abs(size - estimate) < 0.02 * estimate + 8 * len(packet.chunks), (size, estimate)


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_what_is_predicted_is_what_training_sees(make):
    """The integer network against the float one, and what the server restores against the differentiable view."""
    codec = make()
    x = tokens(codec, 1)
    points = len(codec.stack) * codec.levels
    views = codec.forward_train(x, np.random.default_rng(0))
    assert len(views) == points
    for level in range(1, 4):
        [latent] = encode(codec, x, level=level)
        seen, _ = views[points - codec.levels + level - 1]
        for name, tensor in codec.restore(latent).features.items():
            apart = (tensor - seen.features[name]).abs()  # an integer next to a half may be the other one
            assert apart.mean() < 0.01
    [(one, _)] = codec.forward_train_at(x, np.random.default_rng(0), [points - 1])
    torch.testing.assert_close(one.features["tokens"], views[-1][0].features["tokens"])


def test_values_far_beyond_the_tables_are_escaped_and_never_clipped():
    codec = single()
    [latent] = encode(codec, tokens(codec, 1, 1e5))
    assert max(np.abs(a).max() for a in latent.symbols.values()) > 1e4
    assert same(read(codec, packed(codec, latent).data), latent)


@pytest.mark.parametrize(("bad", "says"), [(float("nan"), "NaN or infinity"), (1e30, "too large")])
def test_what_cannot_be_coded_is_refused(bad, says):
    codec = layered()
    x = tokens(codec, 1)
    x["tokens"][0, 3, 2] = bad
    with pytest.raises(UsageError, match=says):
        encode(codec, x)


def test_a_gradient_reaches_every_parameter():
    codec = layered().requires_grad_(True)
    x = tokens(codec, 2)
    coded = codec.forward_train(x, np.random.default_rng(0))
    loss = sum(p.features[n].square().mean() for p, _ in coded for n in x) + 0.1 * sum(bits.mean() for _, bits in coded)
    loss.backward()
    assert not [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_each_end_needs_its_own_weights_alone(make):
    codec = make()
    x = tokens(codec, 1)
    [latent] = encode(codec, x)
    assert same(encode(_alone(codec, codec.device_state()), x)[0], latent)
    server = _alone(codec, codec.server_state())
    received = read(server, packed(codec, latent).data)
    assert torch.equal(server.restore(received).features["tokens"], codec.restore(latent).features["tokens"])
    assert codec.decoder_state().keys() < codec.state_dict().keys()


def _alone(codec, beginnings):
    other = deepcopy(codec)
    for name, tensor in other.state_dict().items():
        if not name.startswith(tuple(beginnings)):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
    return _recoded(other)


def _recoded(other):
    """A copy whose coding looks into the copy."""
    from semcodec.coding.module_state import ModuleState

    for units in other.coding.units:
        for unit in units.values():
            unit._state = ModuleState(other)
    return other


@pytest.mark.parametrize(
    ("features", "change", "says"),
    [
        (IMAGE, {"prior": "factorized"}, "prior=hyper"),
        (IMAGE, {"level": 4}, "level=4"),
        (IMAGE, {"low": 1}, "low=0"),
        ({"tokens": TensorSpec((35, 12))}, {}, "known grid"),
        (IMAGE, {"channels": "4x2x2"}, "only clips have time"),
        ({"maps": TensorSpec((8, 6, 6))}, {"channels": "4x2x2"}, "only clips have time"),
        ({"maps": TensorSpec((8, 6, 6))}, {"level": 1}, "level is of tokens"),
        ({"maps": TensorSpec((8, 6, 6))}, {"levels": 3}, "levels is of tokens"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(features, change, says):
    usual = {"channels": spec.CHANNELS, "layers": 0, "level": 0, "low": 0, "prior": "hyper", "levels": 4, "blocks": 2}
    if "tokens" in features:
        usual["levels"] = 3
    with pytest.raises(SpecMismatch, match=says):
        spec.layered(features, {**usual, **change})


def test_the_usual_channels_are_those_of_the_grid():
    params = {"channels": spec.CHANNELS}
    assert spec.stack_of(IMAGE, params) == (spec.Layer(48, 2),)
    assert spec.stack_of(CLIP, params) == (spec.Layer(8, 1),)
    assert len(spec.stack_of({"maps": TensorSpec((8, 6, 6))}, params)) == 4
