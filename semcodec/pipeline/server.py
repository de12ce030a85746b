"""The server's end: records to predictions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from semcodec.container.packets import LocalRecord, Packet
from semcodec.container.sinks import ChunkRow, PacketSource
from semcodec.errors import CorruptStream, UsageError
from semcodec.pipeline.end import End
from semcodec.pipeline.timing import Clock
from semcodec.tasks.prediction import Answer, Prediction
from semcodec.tasks.table import get_task
from semcodec.tensors import alike, stack
from semcodec.types import Features, Latent, Partial, Source


class Server(End):
    """Reads, restores, recovers and answers."""

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
        """The inverse of ``write``, less the task's side information."""
        get_task(self.composition.task).read_side(source)
        return self.stages.encoder.read(source)

    def answer(self, partials: Sequence[Partial], clock: Clock) -> list[Answer]:
        """What the model says of each sample."""
        recovered = self.recover(partials, clock)
        found: dict[int, Answer] = {}
        for members, batch in self.stages.backbone.collate(recovered):
            with clock("tail"):
                values = self.stages.backbone.tail(batch, self.composition.cut).cpu()
            found.update(zip(members, get_task(self.composition.task).answers(values, clock), strict=True))
        return [found[i] for i in range(len(partials))]

    def predictions(
        self,
        records: Sequence[Packet | LocalRecord],
        found: Sequence[Answer],
        read: Sequence[tuple[ChunkRow, ...]],
    ) -> list[Prediction]:
        """One for each record. ``found``, ``read``: of the packets among them, in order."""
        task, answers = get_task(self.composition.task), iter(zip(found, read, strict=True))
        out = []
        for record in records:
            if isinstance(record, LocalRecord):
                out.append(task.predict_local(record, self.classes))
            else:
                answer, rows = next(answers)
                out.append(task.predict(record, answer, self.classes, self.request, rows))
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
