"""Codings stand apart from networks: the same bytes both ways without torch, of the weights as they are now."""

from __future__ import annotations

import pickle
import subprocess
import sys
from copy import deepcopy
from io import BytesIO

import pytest
import torch
from two_layers import HEADER

from semcodec.composition.registry import get_registry, import_target
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.interfaces import Analysis, Encoder, Latent, Partial
from semcodec.specs import TensorSpec
from semcodec_plugins.aecnn.encoder import AECNN
from semcodec_plugins.entropy.arithmetic import Rans

pytestmark = pytest.mark.usefixtures("one_thread")

MAPS = {"maps": TensorSpec((8, 12, 8))}
TWO = {"a": TensorSpec((8, 12, 10)), "b.c": TensorSpec((4, 7, 5))}
IMAGE = {"image": TensorSpec((3, 70, 33))}
LEARNED = {"quality": 1, "metric": "mse"}
HYPER = {"prior": "hyper", "lambda": 1.0}
CASES = {
    "aecnn": ("aecnn", MAPS, {"ratio": 2}, {"bits": 6}),
    "bottlenetpp": ("bottlenetpp", MAPS, {"ratio": 4, "spatial": 2}, {"bits": 5}),
    "bottlenetpp, no shrinking": ("bottlenetpp", MAPS, {"ratio": 2, "spatial": 1}, {"bits": 8}),
    "pca": ("pca", TWO, {"rank": 6}, {"components": 5, "group": 2, "bits": 7}),
    "pca-adapt": ("pca-adapt", TWO, {"rank": 0}, {"components": 8, "group": 3, "bits": 8}),
    "feature-hyperprior": (
        "feature-hyperprior",
        TWO,
        {**HYPER, "channels": 5, "stride": 2},
        {},
    ),
    "layered": ("layered", TWO, {"channels": "2x4-3x2-4", "low": 1, **HYPER}, {"layers": 3}),
    "layered, few": ("layered", TWO, {"channels": "2x4-3x2", "low": 1, **HYPER}, {"layers": 1}),
    "layered, factorized": (
        "layered",
        TWO,
        {"channels": "2x4-3x2", "prior": "factorized", "lambda": 1.0, "low": 0},
        {"layers": 0},
    ),
    **{
        f"learned/{model}": (
            f"learned/{model}",
            IMAGE,
            {"model": model, "quality": 1, "metric": "mse", "size": size},
            {},
        )
        for model, size in {
            "bmshj2018-factorized": "8-16",
            "bmshj2018-hyperprior": "8-16",
            "mbt2018": "8-16",
            "cheng2020-anchor": "16",
            "cheng2020-anchor-checkerboard": "16",
            "elic2022-official": "8-16",
        }.items()
    },
}
NETWORK_IN_THE_LOOP = ("hyperprior", "mbt2018", "cheng2020", "elic2022")


@pytest.fixture(params=CASES)
def case(request):
    name, *rest = CASES[request.param]
    if name.startswith("learned/"):
        pytest.importorskip("compressai", reason="pip install 'semcodec[learned]'")
    record = get_registry().find(name, "encoder")
    torch.manual_seed(0)
    return record, *rest


def build(record, features, build_params) -> Encoder:
    """Untrained, but with integers of its own: ranges, counts and loud transforms."""
    encoder = import_target(record.target, record.name)(features, **build_params).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(1)
    for name, t in encoder.state_dict().items():
        if name.endswith("counts"):
            t.copy_(torch.randint(1, 90, t.shape, generator=rng))
        elif name.endswith(("g_a.0.weight", "g_a.0.conv1.weight")):
            t.mul_(30)
    return encoder


def encode(encoder: Encoder, features, params) -> tuple[dict[str, torch.Tensor], list[Latent]]:
    rng = torch.Generator().manual_seed(2)
    x = {n: torch.rand(2, *spec.shape, generator=rng) * (1 if n == "image" else 3) for n, spec in features.items()}
    given = {n: t[:, encoder.channels[n]] if n in encoder.channels else t for n, t in x.items()}
    with torch.inference_mode():
        return x, encoder.encode(given, Analysis(given), {}, params)


def packed(coding, latent: Latent) -> bytes:
    sink = PacketSink(Rans())
    coding.write(latent, sink)
    return sink.pack(HEADER, 0, {}).data


def read(coding, data: bytes, params) -> Latent:
    [packet] = read_packets(BytesIO(data), HEADER)
    source = PacketSource(packet, Rans())
    source.params = params
    latent = coding.read(source)
    source.finish()
    return latent


def with_only(encoder: Encoder, names) -> Encoder:
    """A copy whose other weights are NaN, or the least integer."""
    copy = deepcopy(encoder)
    for name, t in copy.state_dict().items():
        if not name.startswith(tuple(names)):
            t.fill_(float("nan") if t.is_floating_point() else torch.iinfo(t.dtype).min)
    return copy


def same(a: Partial, b: Partial) -> bool:
    return all(torch.equal(t, b.features[n]) for n, t in a.features.items())


def test_each_end_works_with_the_weights_that_it_names(case):
    record, features, build_params, params = case
    encoder = build(record, features, build_params)
    _, latents = encode(encoder, features, params)
    data = [packed(encoder, latent) for latent in latents]
    device, server = encoder.device_state(), encoder.server_state()
    assert device is not None and server is not None
    names = list(encoder.state_dict())
    for end in (device, server):
        assert 0 < sum(name.startswith(tuple(end)) for name in names) < len(names)
    _, again = encode(with_only(encoder, device), features, params)
    assert [packed(with_only(encoder, device), latent) for latent in again] == data
    there = with_only(encoder, server)
    for one in data:
        assert same(there.restore(read(there, one, params)), encoder.restore(read(encoder, one, params)))


def test_a_batch_is_restored_as_its_samples_are(case):
    record, features, build_params, params = case
    encoder = build(record, features, build_params)
    _, latents = encode(encoder, features, params)
    for one, several in zip(map(encoder.restore, latents), encoder.restore_batch(latents), strict=True):
        assert one.features.keys() == several.features.keys() and one.present.keys() == several.present.keys()
        for wanted, found in ((one.features, several.features), (one.present, several.present)):
            for name, t in wanted.items():
                torch.testing.assert_close(found[name], t)


def test_latents_that_differ_are_restored_apart():
    encoder = build(get_registry().find("layered", "encoder"), *CASES["layered"][1:3])
    of = [encode(encoder, TWO, {"layers": count})[1][0] for count in (3, 1, 3, 2)]
    for latent, partial in zip(of, encoder.restore_batch(of), strict=True):
        assert same(encoder.restore(latent), partial)


class Doubles(AECNN):
    """Of others: it has a ``restore`` of its own and knows of no batches."""

    def restore(self, latent: Latent) -> Partial:
        return Partial({n: 2 * t for n, t in super().restore(latent).features.items()})


def test_a_restore_of_ones_own_is_not_passed_by():
    encoder = Doubles(MAPS, ratio=2)
    [one, other] = encode(encoder, MAPS, {"bits": 8})[1]
    assert all(map(same, encoder.restore_batch([one, other]), map(encoder.restore, (one, other))))


def test_a_coding_follows_what_is_loaded(case):
    record, features, build_params, params = case
    encoder = build(record, features, build_params)
    torch.manual_seed(5)
    fresh = import_target(record.target, record.name)(features, **build_params).eval().requires_grad_(False)
    coding = fresh.coding
    fresh.load_state_dict(encoder.state_dict())
    assert fresh.coding is coding
    _, latents = encode(encoder, features, params)
    data = packed(encoder, latents[0])
    for other in (fresh, deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert packed(other, latents[0]) == data
        assert other.coding is not encoder.coding
    for name, t in fresh.state_dict().items():
        if name.endswith("counts"):
            t.copy_(t.flip(1))
    assert packed(fresh, latents[0]) != data
    assert packed(encoder, latents[0]) == data


def test_integers_that_a_header_may_name_are_bounded(case):
    record, *_ = case
    sizes = [p for p in record.params if p.when == "build" and p.type is int and (p.open or not p.values)]
    assert all(p.high is not None for p in sizes)


ALONE = """
import pickle, sys
sys.modules["torch"] = None
from io import BytesIO
from semcodec.composition.registry import import_target
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec_plugins.entropy.arithmetic import Rans
for target, name, features, state, build, params, header, data in pickle.loads(sys.stdin.buffer.read()):
    coding = import_target(target, name)(features, state, **build)
    assert all(key.startswith(coding.state_names) for key in state)
    [packet] = read_packets(BytesIO(data), header)
    source = PacketSource(packet, Rans())
    source.params = params
    latent = coding.read(source)
    source.finish()
    sink = PacketSink(Rans())
    coding.write(latent, sink)
    assert sink.pack(header, 0, {}).data == data, name
print("read and written")
"""


def test_what_needs_no_network_is_read_and_written_without_torch():
    jobs = []
    for name, features, build_params, params in CASES.values():
        if any(word in name.removeprefix("feature-hyperprior") for word in NETWORK_IN_THE_LOOP):
            continue
        if name.startswith("learned/"):
            pytest.importorskip("compressai", reason="pip install 'semcodec[learned]'")
        record = get_registry().find(name, "encoder")
        torch.manual_seed(0)
        encoder = build(record, features, build_params)
        _, latents = encode(encoder, features, params)
        kind = import_target(record.coding, record.name)
        state = {n: t.numpy() for n, t in encoder.state_dict().items() if n.startswith(kind.state_names)}
        data = packed(encoder, latents[0])
        jobs.append((record.coding, record.name, features, state, build_params, params, HEADER, data))
    out = subprocess.run([sys.executable, "-c", ALONE], input=pickle.dumps(jobs), capture_output=True)
    assert out.stdout.decode().strip() == "read and written", out.stderr.decode()
    assert len(jobs) >= 9
