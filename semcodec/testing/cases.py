"""An Encoder under test in a whole pipeline: each stand-in that it fits, at each choice of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.grammar import format_value
from semcodec.composition.registry import Registry
from semcodec.container.packets import Packet, read_packets
from semcodec.container.sinks import PacketSource
from semcodec.errors import SpecError
from semcodec.interfaces import Encoder, EntropyStage
from semcodec.pipeline.accelerator import Accelerator
from semcodec.pipeline.device import Encoded, Prepared
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import build
from semcodec.priors import Int32, Prior
from semcodec.specs import FeatureSpec, TensorSpec
from semcodec.testing.side_effects import witness
from semcodec.testing.stand_ins import at_cut, surroundings, with_stand_ins
from semcodec.testing.subject import CheckFailed, CheckSkipped, Subject, describe, require, settings
from semcodec.testing.tensors import copied, pixels
from semcodec.types import Features, Latent, Partial

CLASSES = ("one", "two", "three")
MANY = 24
"""Settings at places, from which on not every one is tried with every other."""
Placed = tuple[Mapping[str, Any], Composition]
"""Parameters that are not at their defaults, and a composition with them."""


@dataclass(frozen=True, eq=False)
class Case:
    """One pipeline around the Encoder, untrained and without a gate, which would send nothing.

    setting: parameters that are not at their defaults.
    """

    pipeline: Pipeline
    setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def composition(self) -> Composition:
        """What is encoded, with all defaults."""
        return self.pipeline.composition

    @property
    def encoder(self) -> Encoder:
        """The Encoder under test."""
        return self.pipeline.stages.encoder

    @property
    def restored(self) -> FeatureSpec:
        """What the spec function says is restored."""
        spec = self.composition.stages.restored
        assert spec is not None  # nothing could be built without
        return spec

    @property
    def taken(self) -> FeatureSpec:
        """What is restored, with every axis open that the backbone's tail leaves open."""
        source = self.composition.source
        assert source is not None
        wide: dict[str, TensorSpec] = {}
        for form in source.accepts(self.composition.cut):
            wide |= form
        return {n: wide[n] if n in wide and wide[n].accepts(spec) else spec for n, spec in self.restored.items()}

    @contextmanager
    def name_failures(self) -> Iterator[None]:
        """Failures name the spec, exceptions of the component too."""
        try:
            yield
        except CheckSkipped:
            raise
        except CheckFailed as failure:
            raise CheckFailed(f"{self.composition.spec}: {failure}") from failure.__cause__
        except Exception as error:
            raise CheckFailed(f"{self.composition.spec}: raises {describe(error)}") from error

    def pixels(self, count: int) -> npt.NDArray[np.uint8]:
        """``count`` samples for the pipeline, uint8, channels last, each different."""
        return pixels(self.pipeline.input, count)

    def asking(self, encoder: Encoder) -> Case:
        """The same around another instance of the Encoder."""
        return replace(self, pipeline=self.pipeline.replace(encoder=encoder))

    def on(self, there: Accelerator) -> Case:
        """The same around models that are made anew, with equal weights, and moved to an accelerator."""
        made = Pipeline.of(build(self.composition, CLASSES), accelerator=there)
        return replace(self, pipeline=made.replace(selectors=self.pipeline.device.selectors))

    def features(self, count: int, *, first: int = 0, whole: bool = False) -> Features:
        """``count`` samples at the cut, with the channels that the Encoder reads or ``whole``."""
        pipeline = self.pipeline
        with torch.no_grad():
            x = pipeline.features(self.pixels(first + count)[first:])
            features = pipeline.stages.backbone.head(x, self.composition.cut) if whole else pipeline.head(x)
        return copied(features)

    def prepare(self, count: int, sequence: Sequence[int] | None = None, *, inference: bool = True) -> Prepared:
        """``count`` samples as ``Pipeline.encode_batch`` treats them."""
        return self.select(self.features(count), sequence or range(count), inference=inference)

    def select(self, features: Features, sequence: Sequence[int], *, inference: bool = True) -> Prepared:
        """Features to latents."""
        with torch.inference_mode(inference):
            return self.pipeline.device.choose(features, self.encoder.analyse(features), sequence)

    def encode(self, prepared: Prepared) -> list[Latent]:
        """Latents under the masks that are already chosen."""
        call = dict(self.composition.call)
        return self.encoder.encode(prepared.features, prepared.analysis, prepared.masks, call)

    def row(self, batch: Prepared, row: int) -> Prepared:
        """One sample of a batch, analysed and scored alone but under the masks that it has in the batch."""

        def only(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[row : row + 1].clone() for name, tensor in tensors.items()}

        features, masks = only(batch.features), only(batch.masks)
        with torch.inference_mode():
            analysis = self.encoder.analyse(features)
            scores, chosen = dict[str, Tensor](), dict[str, Tensor]()
            for target in batch.scores:
                scores[target] = self.encoder.scores(analysis, target, chosen)
                chosen[target] = masks[target]
        return Prepared(features, analysis, masks, scores, [], [])

    def pack(self, latent: Latent, sequence: int = 0) -> Encoded:
        """One Latent to its packet."""
        return self.pipeline.device.pack(latent, sequence, {})

    def symbols(self, data: bytes) -> dict[int, tuple[int, Prior]]:
        """Count and prior of every chunk of symbols in a packet, by its place."""
        [packet] = read_packets(BytesIO(data), self.pipeline.header)
        assert isinstance(packet, Packet)
        source = _Witness(packet, self.pipeline.stages.entropy)
        self.pipeline.server.read(source)
        return source.seen

    def listening(self, packet: Packet) -> _Witness:
        """A source of a packet that notes counts, priors and symbols by the chunk's place."""
        return _Witness(packet, self.pipeline.stages.entropy)

    def receive(self, data: bytes) -> list[tuple[Packet, Partial]]:
        """What a server makes of bytes, up to the Recoverer. Raises SemcodecError for bytes that are no packets."""
        received, server = [], self.pipeline.server
        for packet in read_packets(BytesIO(data), self.pipeline.header):
            assert isinstance(packet, Packet)  # the gate is out
            received.append((packet, server.restore(PacketSource(packet, server.entropy))))
        return received


class _Witness(PacketSource):
    """A source that notes what it was asked for."""

    def __init__(self, packet: Packet, stage: EntropyStage | None) -> None:
        super().__init__(packet, stage)
        self.seen: dict[int, tuple[int, Prior]] = {}
        self.values: dict[int, list[int]] = {}

    def symbols(self, name: str, count: int, prior: Prior) -> Int32:
        place = len(self.rows)
        self.seen[place] = count, prior
        values = super().symbols(name, count, prior)
        self.values[place] = values.tolist()
        return values


@lru_cache(maxsize=1)
def cases(subject: Subject) -> tuple[Case, ...]:
    """Pipelines around an Encoder: at every place that takes it, every setting that fits there.

    Fails where no backbone takes it with its parameters at their defaults.
    """
    with witness(subject.heard):
        return _cases(subject)


def _cases(subject: Subject) -> tuple[Case, ...]:
    registry = with_stand_ins(subject.registry)
    refusals: list[str] = []
    for places in surroundings(registry, subject.component):
        found: list[list[Placed]] = []
        for backbone, cut, _ in places:
            try:
                found.append(list(_compositions(subject, registry, at_cut(backbone, cut))))
            except SpecError as error:
                refusals.append(error.message)
        if found:
            return tuple(case for compositions in _thinned(found) for case in _built(compositions))
    require(False, f"no backbone takes it: {'; '.join(dict.fromkeys(refusals))}")
    return ()


def _thinned(places: Sequence[list[Placed]]) -> Sequence[list[Placed]]:
    """What fits each place; where that is much, the defaults at every place and each other setting at one, in turn."""
    if sum(map(len, places)) <= MANY:
        return places
    at: dict[str, list[int]] = {}
    for place, found in enumerate(places):
        for setting, _ in found:
            at.setdefault(repr(setting), []).append(place)
    chosen = {setting: options[turn % len(options)] for turn, (setting, options) in enumerate(at.items())}
    return [[one for one in found if not one[0] or chosen[repr(one[0])] == place] for place, found in enumerate(places)]


def _compositions(subject: Subject, registry: Registry, backbone: str) -> Iterator[Placed]:
    """One for each setting that fits; raises SpecError where the defaults do not."""
    for setting in settings(subject.component.params):
        args = ",".join(f"{name}={format_value(value)}" for name, value in setting.items())
        encoder = f"encoder/{subject.component.name}" + (f":{args}" if args else "")
        try:
            yield setting, compose_spec(f"{encoder}+{backbone}", registry)
        except SpecError:
            if not setting:
                raise


def _built(compositions: Sequence[Placed]) -> list[Case]:
    """Models are made once for all compositions that share them."""
    made: list[Pipeline] = []
    built = []
    for setting, composition in compositions:
        base = next((p for p in made if p.shares_models(composition)), None)
        if base is None:
            base = Pipeline.of(build(composition, CLASSES))
            made.append(base)
        pipeline = base.replace(composition=composition)
        sending = replace(pipeline.stages.selectors, gate=None)
        built.append(Case(pipeline.replace(selectors=sending), setting))
    return built
