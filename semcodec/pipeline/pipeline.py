"""A composition with its models built: pixels to packets on the device, packets to logits on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from semcodec._version import __version__
from semcodec.composition.composition import Composition, compose_spec
from semcodec.container.packets import (
    LocalRecord,
    Packet,
    StreamHeader,
    check_versions,
    check_weights,
    read_packets,
    write_header,
)
from semcodec.data import inputs
from semcodec.errors import WeightsError
from semcodec.pipeline import weights
from semcodec.pipeline.device import Device, Encoded
from semcodec.pipeline.server import Server
from semcodec.pipeline.stages import Stages, build, weightless
from semcodec.tasks.prediction import Prediction

if TYPE_CHECKING:
    from semcodec.data.inputs import Sample

UNNAMED = 10
"""Classes of an untrained backbone whose data set is not known."""


class Pipeline(Device, Server):
    """Encodes, decodes and evaluates one composition.

    composition: what is composed. stages: its models. sources: by slot, where weights came from (None: nowhere).
    """

    def __init__(self, composition: Composition, stages: Stages, sources: Mapping[str, weights.Weights | None]) -> None:
        self.composition, self.stages, self.sources = composition, stages, sources
        self.digests = {slot: weights.digest(m.state_dict()) for slot, m in stages.modules().items()}
        self.header = self._header()

    @classmethod
    def load(
        cls,
        composition: Composition,
        request: weights.WeightsRequest | None = None,
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
        request = request or weights.WeightsRequest()
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
        composition = composition.with_built_specs(self.composition.known)
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
    def raw_float32_bytes(self) -> int:
        """The float32 tensors at the cut: what split inference would send without compression."""
        features = self.composition.stages.features
        assert features is not None
        return sum(4 * spec.size for spec in features.values() if spec.dtype == "float32")

    @property
    def raw_uint8_bytes(self) -> int:
        """The source as 8-bit pixels."""
        return sum(spec.size for spec in self.input.values())

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

    # -- one sample, whole streams -----------------------------------------------------------------------------------

    def encode(self, source: Sample, sequence: int = 0) -> Encoded:
        """One sample to one record: a clip (T, H, W, 3) or image (H, W, 3), uint8, of the size that the model takes; or
        what is brought to that size: a Pillow image, a file's path, "DATASET:INDEX". See ``data.inputs``."""
        pixels, size = inputs.read(source, self.request)
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
        """Accuracy, bytes and times over a data set: see ``semcodec.evaluation.evaluate.evaluate``."""
        from semcodec.data import open_dataset
        from semcodec.evaluation.evaluate import evaluate

        dataset = open_dataset(data, options.pop("split", "test"), self.request)
        return evaluate(self, dataset, **options)


def open_stream(header: StreamHeader, request: weights.WeightsRequest | None = None) -> Pipeline:
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
