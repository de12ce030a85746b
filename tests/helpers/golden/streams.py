"""Writes golden streams and reads them back: stream, config and arrays of everything that was decoded.

Reading is the shortest way from bytes to features, by the public parts alone and without a backbone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import torch
from golden.parts import COMPONENTS

from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.container.header import FORMATS
from semcodec.container.packets import (
    CurrentHeader,
    LocalRecord,
    StreamHeader,
    check_versions,
    check_weights,
    read_stream,
    write_header,
    write_local,
)
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.interfaces import Encoder, EntropyStage
from semcodec.pipeline.selection import select

REGISTRY = Registry.of([*get_registry(), *COMPONENTS])


@dataclass(frozen=True)
class Recipe:
    """What goes into a stream: one packet of random features for each entry of ``packets``, its call parameters.

    local: a LOCAL record follows the first packet. cut: bytes left out at the end of the stream.
    """

    spec: str
    packets: tuple[Mapping[str, Any], ...] = ({}, {})
    local: bool = False
    cut: str | None = None


LAYERED = ({}, {"layers": 1}, {"layers": 2, "mark": 300})
RECIPES = {
    "layered": Recipe("golden-layered+rans+golden-numbers", LAYERED, local=True),
    "layered-cut": Recipe("golden-layered+range+golden-numbers", LAYERED, cut="last layer"),
    "png": Recipe("png+golden-image"),
    "png-clip": Recipe("png:frames=2+golden-clip", ({}, {"frames": 3})),
    "patches": Recipe("patches:keep=5,side=4+random@keep+mean-fill+rans+golden-image", ({}, {"keep": 1}, {"keep": 12})),
    "a-mot": Recipe(
        "a-mot:side=8,first=4,keep=9,sure=0.1+smooth-fill+rans+vit-nano-server", ({}, {"sure": 3.0}, {"keep": 4})
    ),
    "stae-raw": Recipe(
        "stae:frames=3,pixels=0.5+none+rans+golden-clip",
        ({}, {"frames": 1, "pixels": 1.0}, {"frames": 5, "pixels": 0.2}),
    ),
    "feature-video": Recipe(
        "feature-video:30+rans+golden-image",
        ({}, {"codec": "av1", "qp": 55}, {"codec": "h264", "bits": 8, "ranges": "channel", "qp": 20}),
    ),
    "stae-random": Recipe("stae:frames=2,pixels=0.3+random@frames+random@pixels+none+huffman+golden-clip"),
    **{
        f"tensor8-{stage}": Recipe(f"tensor8+{stage}+golden-maps")
        for stage in ("rans", "range", "huffman", "deflate", "zstd", "pack")
    },
}


@dataclass
class Decoded:
    """config: all that JSON can hold. arrays: decoded integers and restored features by "packet.part.name"."""

    config: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def decode(stream: bytes) -> Decoded:
    """Everything that a stream says. Raises SemcodecError where it is not read here."""
    header, records = read_stream(stream)
    composition, encoder, entropy = models(header.spec)
    bounds = [composition.encoder, composition.recoverer, *([composition.entropy] if composition.entropy else [])]
    check_versions(header, {f"{b.component.kind}/{b.name}": b.component.reads for b in bounds})
    check_weights(header, {})
    decoded = Decoded({"header": msgspec.to_builtins(header), "records": []})
    for i, record in enumerate(records):
        if isinstance(record, LocalRecord):
            said = {"local": record.sequence, "class": record.index, "probability": record.probability}
        else:
            source = PacketSource(record, entropy, composition.with_call(**record.params).call)
            latent = encoder.read(source)
            source.finish()
            partial = encoder.restore(latent)
            said = {
                "packet": record.sequence,
                "params": dict(record.params),
                "layers": [record.layers_present, record.layers_total],
                "bytes": record.size,
                "chunks": [[row.name, row.kind, row.count, row.bytes, row.side_bytes] for row in source.rows],
            }
            parts = {"symbols": latent.symbols, "restored": partial.features, "present": partial.present}
            for part, values in parts.items():
                decoded.arrays |= {f"{i}.{part}.{name}": np.asarray(value) for name, value in values.items()}
        decoded.config["records"].append(said)
    decoded.config = json.loads(json.dumps(decoded.config))  # tuples become lists, as in the file
    return decoded


def models(spec: str) -> tuple[Composition, Encoder, EntropyStage | None]:
    composition = compose_spec(spec, REGISTRY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what the device chooses by is untrained
        given = {name: REGISTRY.load(b.component)(["a", "b"], **b.build) for name, b in composition.models.items()}
        encoder = REGISTRY.load(composition.encoder.component)(
            composition.stages.features, **{**composition.encoder.build, **given}
        )
    entropy = composition.entropy
    return composition, encoder, REGISTRY.load(entropy.component)(**entropy.build) if entropy else None


@torch.no_grad()
def encode(recipe: Recipe, version: int) -> bytes:
    """The stream of a recipe in a format of the container, by the code of today: only ever used to add a stream."""
    composition, encoder, entropy = models(recipe.spec)
    bounds = [composition.encoder, composition.recoverer, *([composition.entropy] if composition.entropy else [])]
    header = {1: StreamHeader, 2: CurrentHeader}[version](
        spec=composition.spec,
        components={f"{b.component.kind}/{b.name}": b.component.stream_version for b in bounds},
        weights={},
        input={name: (spec.shape, spec.dtype) for name, spec in composition.stages.input.items()},
        params=dict(composition.call),
        package="0.1.0",
    )
    out = [write_header(header)]
    for number, params in enumerate(recipe.packets):
        at = composition.with_call(**params)
        features = sample(at, number)
        analysis = encoder.analyse(features)
        load = REGISTRY.load
        keep = {t: (load(b.component)(**b.build), budget) for t, (b, budget) in at.keep.items()}
        masks, _ = select(encoder, analysis, keep, [number])
        [latent] = encoder.encode(features, analysis, masks, at.call)
        sink = PacketSink(entropy)
        encoder.write(latent, sink)
        packed = sink.pack(header, 1000 * number, at.call)
        out.append(packed.data)
        if recipe.local and not number:
            out.append(write_local(header, LocalRecord(7, 3, 0.75)))
    stream = b"".join(out)
    if recipe.cut:  # the chunks after the last layer's end but one, with their checksums
        [packet] = read_stream(write_header(header) + packed.data)[1]
        stream = stream[: -FORMATS[version].bytes_behind(packet, packet.layers_present - 1)]
    return stream


def sample(composition: Composition, seed: int) -> dict[str, torch.Tensor]:
    """Features in [0, 1), smooth along the last axes with some noise; integers count up."""
    rng = np.random.default_rng(seed)
    features = {}
    for name, spec in composition.stages.features.items():
        if spec.dtype == "int64":
            values = np.arange(spec.shape[0])
        else:
            grid = sum(np.cos(axis / 5 + k) for k, axis in enumerate(np.indices(spec.shape)))
            values = np.clip(0.5 + 0.12 * grid + rng.normal(0, 0.03, spec.shape), 0, 0.999)
        features[name] = torch.from_numpy(np.asarray(values)[None].astype(spec.dtype))
    return features
