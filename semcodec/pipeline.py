"""A composition with its models built: pixels to packets on the device, packets to logits on the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from semcodec import __version__, prediction, sources, weights
from semcodec.batching import alike, analysis_rows, rows_of, stack
from semcodec.clock import Clock
from semcodec.composition import Composition, compose_spec
from semcodec.container import (
    LocalRecord,
    Packet,
    StreamHeader,
    check_versions,
    check_weights,
    read_packets,
    write_header,
    write_local,
)
from semcodec.data.base import Request
from semcodec.detection import nms
from semcodec.errors import CorruptStream, DataError, UsageError, WeightsError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Selector, Sink, Source
from semcodec.models import Stages, build, weightless
from semcodec.packet import ChunkRow, PacketSink, PacketSource
from semcodec.pixels import from_eight_bits
from semcodec.prediction import MAX_SIZE, SOURCE, Answer, Prediction, Size, size_bytes
from semcodec.selection import Keep, Scorer, select
from semcodec.specs import FeatureSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from semcodec.sources import Sample

    UInt8 = npt.NDArray[np.uint8]

Head = Callable[[Features], Features]
UNNAMED = 10
"""Classes of an untrained backbone whose data set is not known."""


@dataclass(frozen=True)
class Encoded:
    """One sample's record, and what its bytes are.

    data: a packet, or the LOCAL record of a sample that the gate kept on the device, which sends nothing:
    then ``bytes_total`` is 0 and ``bytes_local`` its size. kept: units sent, by target.
    """

    data: bytes
    bytes_payload: int = 0
    bytes_side: int = 0
    bytes_header: int = 0
    bytes_local: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[ChunkRow, ...] = ()

    @property
    def bytes_total(self) -> int:
        return self.bytes_payload + self.bytes_side + self.bytes_header


class Pipeline:
    """Encodes, decodes and evaluates one composition.

    composition: what is composed. stages: its models. sources: by slot, where weights came from (None: nowhere).
    """

    def __init__(self, composition: Composition, stages: Stages, sources: Mapping[str, weights.Weights | None]) -> None:
        self.composition, self.stages, self.sources = composition, stages, sources
        self.digests = {slot: weights.digest(m.state_dict()) for slot, m in stages.modules().items()}
        self.header = self._header()
        self._narrow: Head | None = None

    @classmethod
    def load(
        cls,
        composition: Composition,
        request: weights.Request | None = None,
        *,
        classes: Sequence[str] | None = None,
        partial: bool = False,
        decoding: bool = False,
    ) -> Pipeline:
        """Build ``composition`` and fill it with weights.

        classes: names for an untrained backbone. partial: leave untrained what has no weights and download
        nothing, as for a table of parameters. decoding: the device's own weights may be missing: a server decodes
        without them. Raises WeightsError where weights are missing otherwise.
        """
        request = request or weights.Request()
        found = weights.find(composition, "backbone", request, hub=not partial)
        request.check(composition)
        stages = build(composition, _class_names(composition, found, classes), request.given)
        composition = stages.composition
        device = {"encoder", *stages.models} if not stages.encoder.decoder_state() else set()
        sources: dict[str, weights.Weights | None] = {}
        for slot, module in stages.modules().items():
            idle = partial or (decoding and slot in device)
            source = found if slot == "backbone" else weights.find(composition, slot, request, hub=not idle)
            if source is None and not idle:
                raise WeightsError(_no_weights(composition, slot))
            if source is not None:
                weights.load(module, source)
            sources[slot] = source
        return cls(composition, stages, sources)

    def shares_models(self, composition: Composition) -> bool:
        """Whether ``composition`` differs in call parameters, Selectors or entropy stage alone."""
        slots = (*weights.SLOTS, *self.composition.models)
        return all(self.composition.weights_key(slot) == composition.weights_key(slot) for slot in slots)

    def at(self, composition: Composition) -> Pipeline:
        """The same models in a composition that shares them."""
        composition = composition.knowing(self.composition.known)
        other = object.__new__(Pipeline)
        other.composition, other.sources, other.digests = composition, self.sources, self.digests
        other._narrow = self._narrow
        other.stages = replace(self.stages, composition=composition, **weightless(composition))
        other.header = other._header()
        return other

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> str:
        return self.composition.spec

    @property
    def classes(self) -> Sequence[str]:
        return self.stages.backbone.classes

    @property
    def input(self) -> FeatureSpec:
        spec = self.composition.stages.input
        assert spec is not None
        return spec

    @property
    def request(self) -> Request:
        """The pixels that the backbone wants."""
        request = self.composition.request
        assert request is not None
        return request

    @property
    def raw_float32_bytes(self) -> int:
        """The float32 tensors at the cut: what split inference would send without compression."""
        features = self.composition.stages.features
        assert features is not None
        return sum(4 * spec.size for spec in features.values() if spec.dtype == "float32")

    @property
    def raw_uint8_bytes(self) -> int:
        """The source as 8-bit pixels."""
        return sum(spec.size for spec in self.input.values())

    def keep(self) -> Keep:
        return self.stages.budgeted(self.composition)

    def _header(self) -> StreamHeader:
        c = self.composition
        coding = [c.encoder, c.recoverer, *([c.entropy] if c.entropy else [])]
        modules = self.stages.modules()
        decoding: dict[str, str] = {}
        if "encoder" in modules:
            state = self.stages.encoder.decoder_state()
            if state:
                decoding["encoder"] = weights.digest(state)
        if "recoverer" in modules:
            decoding["recoverer"] = self.digests["recoverer"]
        return StreamHeader(
            spec=c.spec,
            components={f"{b.component.kind}/{b.name}": b.component.stream_version for b in coding},
            weights=decoding,
            input={name: (spec.shape, spec.dtype) for name, spec in self.input.items()},
            params=dict(c.call),
            package=__version__,
        )

    # -- device ------------------------------------------------------------------------------------------------------

    def features(self, pixels: UInt8) -> Features:
        """uint8 pixels (B, T, H, W, 3) or (B, H, W, 3) to the model's input, float32 in [0, 1], channels first."""
        name = "frames" if "frames" in self.input else "image"
        shape = self.input[name].shape
        given = (*pixels.shape[1:-3], pixels.shape[-1], *pixels.shape[-3:-1])
        if pixels.dtype != np.uint8 or given != shape:
            raise DataError(
                f"expects uint8 pixels of {self.request}x3 with a batch axis, gets {pixels.dtype}{list(pixels.shape)}"
            )
        return {name: from_eight_bits(pixels)}

    @torch.inference_mode()
    def encode_batch(
        self,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock | None = None,
        sizes: Sequence[Size] | None = None,
    ) -> list[Encoded]:
        """Pixels of several samples to one record each.

        sequence: their numbers in the stream. sizes: width and height of each source, in which a detector's boxes are
        told; those of the pixels where left out.
        """
        clock = clock or Clock()
        if self.stages.point is not None:
            return self._pointed(self.stages.point, pixels, sequence, clock, sizes)
        features, analysis = self.analyse(pixels, clock)
        sent, out = self.gate(analysis, sequence)
        if sent:
            if len(sent) < len(sequence):
                features, analysis = rows_of(features, sent), analysis_rows(analysis, sent)
            numbers = [sequence[i] for i in sent]
            latents, kept = self.latents(features, analysis, numbers, clock)
            for i, number, latent, units in zip(sent, numbers, latents, kept, strict=True):
                out[i] = self.pack(latent, number, units, clock, size=sizes[i] if sizes else None)
        return [out[i] for i in range(len(sequence))]

    def _pointed(
        self,
        point: Selector,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock,
        sizes: Sequence[Size] | None,
    ) -> list[Encoded]:
        """Each sample at the call parameters that ``point`` sets for it, those of equal ones together."""
        with clock("point"):
            knobs = point.point(self.composition, sequence)
        settings: dict[tuple[tuple[str, Any], ...], list[int]] = {}
        for row, chosen in enumerate(knobs):
            settings.setdefault(tuple(sorted(chosen.items())), []).append(row)
        out: dict[int, Encoded] = {}
        for setting, rows in settings.items():
            there = copy(self)  # with the stream header of the whole
            there.composition = self.composition.with_call(**dict(setting))
            there.stages = replace(self.stages, point=None)
            numbers, of = [sequence[i] for i in rows], [sizes[i] for i in rows] if sizes else None
            out.update(zip(rows, there.encode_batch(pixels[rows], numbers, clock, of), strict=True))
        return [out[i] for i in range(len(sequence))]

    def analyse(self, pixels: UInt8, clock: Clock) -> tuple[Features, Analysis]:
        """The features at the cut and what the Encoder knows of them. Depends on no call parameter or Selector."""
        x, head = self.features(pixels), self.head
        with clock("head"):
            features = head(x)
        with clock("analyse"):
            return features, self.stages.encoder.analyse(features)

    @property
    def head(self) -> Head:
        """The device's part of the backbone: what its Encoder reads, and no more."""
        backbone, cut, channels = self.stages.backbone, self.composition.cut, self.stages.encoder.channels
        if not channels:
            return lambda x: backbone.head(x, cut)
        if self._narrow is None:
            self._narrow = backbone.narrowed(cut, channels)
        return self._narrow

    @torch.inference_mode()
    def figures(self, pixels: UInt8) -> Mapping[str, Sequence[float]]:
        """The papers' own figures of what is sent for each sample; none where the Encoder's paper has none."""
        encoder = self.stages.encoder
        if type(encoder).figures is Encoder.figures:
            return {}
        return encoder.figures(self.head(self.features(pixels)))

    def latents(
        self, features: Features, analysis: Analysis, numbers: Sequence[int], clock: Clock, scorer: Scorer | None = None
    ) -> tuple[list[Latent], list[dict[str, int]]]:
        """What each sample sends, and how many units of each target that is. Depends on no entropy stage.

        scorer: asked for scores in the Encoder's place.
        """
        masks, _ = select(scorer or self.stages.encoder, analysis, self.keep(), numbers, clock)
        kept = [self._kept(masks, row) for row in range(len(numbers))]
        with clock("encode"):
            latents = self.stages.encoder.encode(features, analysis, masks, dict(self.composition.call))
        return latents, [{**units, **latent.kept} for units, latent in zip(kept, latents, strict=True)]

    def pack(
        self,
        latent: Latent,
        number: int,
        kept: Mapping[str, int],
        clock: Clock,
        sink: PacketSink | None = None,
        size: Size | None = None,
    ) -> Encoded:
        """One Latent to its packet. ``sink``: to write to, empty, where another than the usual one is wanted."""
        sink = sink or PacketSink(self.stages.entropy)
        start = time.perf_counter()
        self.write(latent, sink, size)
        encoded = self.sealed(sink, number, kept)
        clock.add("write", time.perf_counter() - start - sink.seconds)
        clock.add("entropy_encode", sink.seconds)
        return encoded

    def write(self, latent: Latent, sink: Sink, size: Size | None = None) -> None:
        """All that a packet holds: for a detector the source's width and height, then what the Encoder writes."""
        if self.request.boxes:
            size = size or (self.request.width, self.request.height)
            sink.blob(SOURCE, size_bytes(size), side=True)
        self.stages.encoder.write(latent, sink)

    def sealed(self, sink: PacketSink, number: int, kept: Mapping[str, int]) -> Encoded:
        """The packet of what was written to ``sink``."""
        packed = sink.pack(self.header, number, self.composition.call)
        return Encoded(
            packed.data, packed.bytes_payload, packed.bytes_side, packed.bytes_header, kept=kept, rows=packed.rows
        )

    def _kept(self, masks: Mapping[str, torch.Tensor], row: int) -> dict[str, int]:
        units = self.stages.encoder.units
        return {t: int(masks[t][row].sum()) if t in masks else units[t] for t in self.composition.keep}

    def gate(self, analysis: Analysis, sequence: Sequence[int]) -> tuple[list[int], dict[int, Encoded]]:
        """Rows to send, and the LOCAL records of the others."""
        if self.stages.gate is None or analysis.prediction is None:
            return list(range(len(sequence))), {}
        send = self.stages.gate.gate(analysis.prediction).tolist()
        probability, index = analysis.prediction.softmax(1).max(1)
        local: dict[int, Encoded] = {}
        for i, number in enumerate(sequence):
            if not send[i]:
                data = write_local(self.header, LocalRecord(number, int(index[i]), min(1.0, float(probability[i]))))
                local[i] = Encoded(data, bytes_local=len(data))
        return [i for i, wanted in enumerate(send) if wanted], local

    # -- server ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def decode_batch(self, records: Sequence[Packet | LocalRecord], clock: Clock | None = None) -> list[Prediction]:
        """Records of this pipeline's stream to predictions."""
        clock = clock or Clock()
        packets = [record for record in records if isinstance(record, Packet)]
        partials: list[Partial] = []
        read: list[tuple[ChunkRow, ...]] = []
        for packet in packets:
            source = self.source(packet)
            partials.append(self.restore(source, clock))
            read.append(tuple(source.rows))
        return self.predictions(records, self.answer(partials, clock), read)

    def source(self, packet: Packet, kind: type[PacketSource] = PacketSource) -> PacketSource:
        """What the Encoder reads a packet from. Raises CorruptStream for call parameters that cannot be."""
        return kind(packet, self.stages.entropy, self._checked(packet.params))

    def restore(self, source: PacketSource, clock: Clock) -> Partial:
        """One packet to what it holds of the features."""
        start = time.perf_counter()
        latent = self.read(source)
        source.finish()
        clock.add("entropy_decode", source.seconds)
        clock.add("read", time.perf_counter() - start - source.seconds)
        with clock("restore"):
            return self.stages.encoder.restore(latent)

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``, less the source's size."""
        if self.request.boxes:
            source.blob(SOURCE, MAX_SIZE)
        return self.stages.encoder.read(source)

    def answer(self, partials: Sequence[Partial], clock: Clock) -> list[Answer]:
        """What the model says of each sample."""
        recovered = self.recover(partials, clock)
        found: dict[int, Answer] = {}
        for members, batch in self.stages.backbone.collate(recovered):
            with clock("tail"):
                values = self.stages.backbone.tail(batch, self.composition.cut).cpu()
            if self.request.boxes:
                with clock("nms"):
                    found.update(zip(members, map(nms, values), strict=True))
            else:
                found.update(zip(members, values.numpy(), strict=True))
        return [found[i] for i in range(len(partials))]

    def predictions(
        self,
        records: Sequence[Packet | LocalRecord],
        found: Sequence[Answer],
        read: Sequence[tuple[ChunkRow, ...]],
    ) -> list[Prediction]:
        """One for each record. ``found``, ``read``: of the packets among them, in order."""
        answers = iter(zip(found, read, strict=True))
        out = []
        for record in records:
            if isinstance(record, LocalRecord):
                out.append(prediction.of_local(record, self.classes))
            else:
                answer, rows = next(answers)
                out.append(prediction.of_packet(record, answer, self.classes, self.request, rows))
        return out

    def _checked(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A packet's call parameters, which must be ones that the spec could have named."""
        if dict(params) == dict(self.composition.call):
            return params
        try:
            return self.composition.with_call(**params).call
        except UsageError as error:
            first = str(error).splitlines()[0]
            raise CorruptStream(f"the packet's call parameters are not possible: {first}") from error

    def recover(self, partials: Sequence[Partial], clock: Clock) -> list[Features]:
        """Recover in batches of equal shapes."""
        both = [p.features | {f"present {name}": mask for name, mask in p.present.items()} for p in partials]
        out: dict[int, Features] = {}
        with clock("recover"):
            for members in alike(both):
                batch = Partial(
                    stack([partials[i].features for i in members]), stack([partials[i].present for i in members])
                )
                features = self.stages.recoverer.recover(batch)
                for row, i in enumerate(members):
                    out[i] = {name: t[row : row + 1] for name, t in features.items()}
        return [out[i] for i in range(len(partials))]

    # -- one sample, whole streams -----------------------------------------------------------------------------------

    def encode(self, source: Sample, sequence: int = 0) -> Encoded:
        """One sample to one record: a clip (T, H, W, 3) or image (H, W, 3), uint8, of the size that the model takes; or
        what is brought to that size: a Pillow image, a file's path, "DATASET:INDEX". See ``semcodec.sources.read``."""
        pixels, size = sources.read(source, self.request)
        return self.encode_batch(pixels, [sequence], sizes=None if size is None else [size])[0]

    def decode(self, record: Encoded | bytes) -> Prediction:
        """One record of ``encode``. Raises StreamError for bytes that are none."""
        data = record.data if isinstance(record, Encoded) else record
        return self.decode_batch(list(read_packets(BytesIO(data), self.header)))[0]

    def records(self, encoded: Sequence[Encoded]) -> list[Packet | LocalRecord]:
        """What a receiver reads from the bytes alone."""
        return list(read_packets(BytesIO(b"".join(e.data for e in encoded)), self.header))

    def stream(self, encoded: Sequence[Encoded]) -> bytes:
        """A whole .sem file: the stream header and the records."""
        return write_header(self.header) + b"".join(e.data for e in encoded)

    def check(self, header: StreamHeader) -> None:
        """Refuse a stream of other component versions or weights. Raises VersionMismatch, WeightsMismatch."""
        bounds = {f"{b.component.kind}/{b.name}": b.component.reads for b in self.composition.bounds}
        check_versions(header, {key: bounds[key] for key in self.header.components})
        check_weights(header, self.header.weights)

    def evaluate(self, data: str, **options: Any) -> dict[str, Any]:
        """Accuracy, bytes and times over a data set: see ``semcodec.evaluation.evaluate``."""
        from semcodec.data import open_dataset
        from semcodec.evaluation import evaluate

        dataset = open_dataset(data, options.pop("split", "test"), self.request)
        return evaluate(self, dataset, **options)


def open_stream(header: StreamHeader, request: weights.Request | None = None) -> Pipeline:
    """The pipeline that decodes a stream, from its header alone plus weights. Checks versions and weights."""
    composition = compose_spec(header.spec)
    pipeline = Pipeline.load(composition, request, decoding=True)
    pipeline.check(header)
    pipeline.header = header
    return pipeline


def _no_weights(composition: Composition, slot: str) -> str:
    message = (
        f"no weights for {composition.weights_key(slot)}: give --weights {slot}=PATH, "
        "train them with semcodec train, or say --weights random to run it untrained"
    )
    fallback = composition.recoverer.component.traits.get("fallback") if slot == "recoverer" else None
    return f"{message}; {fallback}, in its place in the spec, needs none" if fallback else message


def _class_names(
    composition: Composition, found: weights.Weights | None, classes: Sequence[str] | None
) -> Sequence[str]:
    """As the weights name them; else as those that are published do, then as the data does."""
    if found and found.classes:
        return found.classes
    bound = composition.backbone
    published = composition.registry.load(bound.component).published_classes(**bound.build)
    if found and found.path:
        return weights.foreign_classes(found.path) or published or classes or _numbered(composition)
    return classes or published or _numbered(composition)


def _numbered(composition: Composition) -> list[str]:
    return [f"class {i}" for i in range(composition.backbone.component.traits.get("classes", UNNAMED))]
