"""Both ends of a composition in one process: pixels to packets on the device, packets to predictions on the server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from semcodec.composition.composition import Composition
from semcodec.container.packets import LocalRecord, Packet, StreamHeader, read_packets
from semcodec.errors import UsageError
from semcodec.interfaces import Encoder
from semcodec.pipeline import weights
from semcodec.pipeline.accelerator import CPU, Accelerator, Where
from semcodec.pipeline.device import Device, Encoded
from semcodec.pipeline.end import End, make_header
from semcodec.pipeline.heads import Head
from semcodec.pipeline.light_stages import build_entropy, build_selectors
from semcodec.pipeline.loading import decoding_digests, load_whole
from semcodec.pipeline.selection import Selectors
from semcodec.pipeline.server import Server
from semcodec.pipeline.stages import Stages
from semcodec.pipeline.timing import Clock
from semcodec.tasks.prediction import Prediction, Size
from semcodec.types import Features

if TYPE_CHECKING:
    from semcodec.data.base import Dataset, UInt8
    from semcodec.data.inputs import Sample


@dataclass(frozen=True, eq=False)
class Pipeline(End):
    """Encodes, decodes and evaluates one composition: it has a device, a server, and the stream's header between them.

    stages: the models that both ends use. Nothing in it changes: ``replace`` makes another.
    """

    device: Device
    server: Server
    stages: Stages
    sources: Mapping[str, weights.Weights | None]
    digests: Mapping[str, str]

    @classmethod
    def of(
        cls,
        stages: Stages,
        sources: Mapping[str, weights.Weights | None] | None = None,
        accelerator: Accelerator = CPU,
    ) -> Pipeline:
        """A pipeline of models that were built. sources: by slot, where their weights came from.

        accelerator: where they run; they are moved there.
        """
        digests = {slot: weights.digest(module.state_dict()) for slot, module in stages.modules().items()}
        return cls._of(stages, sources or {}, digests, accelerator)

    @classmethod
    def load(
        cls,
        composition: Composition,
        request: weights.WeightsRequest | None = None,
        *,
        classes: Sequence[str] | None = None,
        partial: bool = False,
        device: Where = "cpu",
        half: bool = False,
    ) -> Pipeline:
        """Build ``composition`` and fill it with weights.

        classes: names for an untrained backbone. partial: leave untrained what has no weights and download
        nothing, as for a table of parameters. device, half: as of ``Device.load``. Raises WeightsError where weights
        are missing otherwise, UsageError for a device that is not there.
        """
        accelerator = Accelerator.find(device, half)
        whole = load_whole(composition, request, classes=classes, partial=partial)
        return cls._of(whole.stages, whole.sources, whole.digests, accelerator)

    @classmethod
    def _of(
        cls,
        stages: Stages,
        sources: Mapping[str, weights.Weights | None],
        digests: Mapping[str, str],
        there: Accelerator,
    ) -> Pipeline:
        there.place(*stages.tails.values(), stages.encoder, stages.recoverer, *stages.models.values())
        c, classes = stages.composition, stages.backbone.classes
        header = make_header(c, decoding_digests(stages, digests))
        head = Head(stages.backbone, c.cut, stages.encoder)
        device = Device(c, header, classes, head, stages.encoder, stages.selectors, stages.entropy, sources, digests,
                        there)  # fmt: skip
        server = Server(c, header, classes, stages.encoder, stages.recoverer, stages.entropy, stages.tails, sources,
                        digests, there)  # fmt: skip
        made = cls(device, server, stages, sources, digests)
        return made if c.seen is None else made.alone(c.seen)

    # -- what it is, and others like it --------------------------------------------------------------------------------

    @property
    def composition(self) -> Composition:  # type: ignore[override]
        """What is composed."""
        return self.device.composition

    @property
    def header(self) -> StreamHeader:  # type: ignore[override]
        """Of the stream between both ends."""
        return self.device.header

    @property
    def classes(self) -> Sequence[str]:  # type: ignore[override]
        """Names of what is recognised."""
        return self.device.classes

    @property
    def accelerator(self) -> Accelerator:  # type: ignore[override]
        """Where both ends' networks are and run."""
        return self.device.accelerator

    def shares_models(self, composition: Composition) -> bool:
        """Whether ``composition`` differs in call parameters, Selectors or entropy stage alone."""
        slots = (*weights.slots_of(self.composition), *self.composition.models)
        if self.composition.slots.keys() != composition.slots.keys():
            return False
        return all(self.composition.weights_key(slot) == composition.weights_key(slot) for slot in slots)

    def alone(self, name: str) -> Pipeline:
        """This pipeline seen with one of several tails, by name or task: the packets and all models stay the same.

        Raises UsageError where there is none of that name.
        """
        server = self.server.alone(name)
        c, [tail] = server.composition, server.tails.values()
        device = replace(self.device, composition=c, classes=tail.classes)
        return replace(self, device=device, server=server, stages=replace(self.stages, composition=c, backbone=tail))

    def replace(
        self,
        *,
        composition: Composition | None = None,
        selectors: Selectors | None = None,
        encoder: Encoder | None = None,
        half: bool | None = None,
    ) -> Pipeline:
        """Another pipeline, with these in place of its own. The models stay, and so does a head that was narrowed.

        composition: one that shares the models (``shares_models``): its Selectors, entropy stage and header are made
        anew. selectors, encoder: in place of those of the composition. half: whether networks compute in bfloat16.
        """
        stages, device, server = self.stages, self.device, self.server
        if composition is not None:
            c = composition.with_built_specs(self.composition.known)
            entropy = build_entropy(c)
            header = make_header(c, self.header.weights)
            stages = replace(stages, composition=c, entropy=entropy, selectors=build_selectors(c))
            device = replace(device, composition=c, header=header, entropy=entropy, selectors=stages.selectors)
            server = replace(server, composition=c, header=header, entropy=entropy)
        if selectors is not None:
            stages, device = replace(stages, selectors=selectors), replace(device, selectors=selectors)
        if encoder is not None:
            head = Head(stages.backbone, self.composition.cut, encoder)
            stages = replace(stages, encoder=encoder)
            device, server = replace(device, encoder=encoder, head=head), replace(server, encoder=encoder)
        if half is not None:
            accelerator = replace(self.accelerator, half=half)
            device, server = replace(device, accelerator=accelerator), replace(server, accelerator=accelerator)
        return replace(self, device=device, server=server, stages=stages)

    # -- one sample, whole streams -----------------------------------------------------------------------------------

    def encode(self, source: Sample, sequence: int = 0, **call: Any) -> Encoded:
        """One sample to one record: see ``Device.encode``."""
        return self.device.encode(source, sequence, **call)

    def encode_batch(
        self,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock | None = None,
        sizes: Sequence[Size] | None = None,
    ) -> list[Encoded]:
        """Pixels of several samples to one record each: see ``Device.encode_batch``."""
        return self.device.encode_batch(pixels, sequence, clock, sizes)

    def decode(self, record: Encoded | bytes) -> Prediction:
        """One record of ``encode``. Raises StreamError for bytes that are none."""
        return self.server.decode(record.data if isinstance(record, Encoded) else record)

    def decode_batch(self, records: Sequence[Packet | LocalRecord], clock: Clock | None = None) -> list[Prediction]:
        """Records of this pipeline's stream to predictions."""
        return self.server.decode_batch(records, clock)

    def records(self, encoded: Sequence[Encoded]) -> list[Packet | LocalRecord]:
        """What a receiver reads from the bytes alone."""
        return list(read_packets(BytesIO(b"".join(e.data for e in encoded)), self.header))

    def stream(self, encoded: Sequence[Encoded]) -> bytes:
        """A whole .sem file: the stream header and the records."""
        return self.device.stream(encoded)

    def features(self, pixels: UInt8) -> Features:
        """The model's input: see ``Device.features``."""
        return self.device.features(pixels)

    def head(self, x: Features) -> Features:
        """Model input to the features at the cut that the Encoder reads."""
        return self.device.head(x)

    def evaluate(self, data: str | os.PathLike[str] | Dataset, **options: Any) -> dict[str, Any]:
        """Accuracy, bytes and times over a data set: see ``semcodec.evaluation.evaluate``.

        data: a name, a folder, or a ``Dataset`` of your own, opened for ``request``, which is all evaluated. split: of
        a name or folder, "test" where left out.
        """
        from semcodec.data.base import Dataset
        from semcodec.data.datasets import name_of, open_dataset
        from semcodec.evaluation.evaluate import evaluate

        if not isinstance(data, Dataset):
            data = open_dataset(name_of(data), options.pop("split", "test"), self.request)
        elif "split" in options:
            raise UsageError(f"{data.name} is opened already, and split is chosen when a data set is opened")
        return evaluate(self, data, **options)
