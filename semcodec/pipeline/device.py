"""The device's end: pixels to records, of which packets are sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from semcodec.container.packets import LocalRecord, write_local
from semcodec.container.sinks import ChunkRow, PacketSink
from semcodec.errors import DataError
from semcodec.interfaces import Encoder, Selector
from semcodec.pipeline.end import End
from semcodec.pipeline.selection import Keep, Scorer, select
from semcodec.pipeline.timing import Clock
from semcodec.tasks.prediction import Size
from semcodec.tasks.table import get_task
from semcodec.tensors import from_eight_bits, rows_of
from semcodec.types import Analysis, Features, Latent, Sink, analysis_rows

if TYPE_CHECKING:
    from semcodec.data.base import UInt8

Head = Callable[[Features], Features]


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


class Device(End):
    """Runs the head, chooses, encodes and packs."""

    _narrow: Head | None = None
    """The head that computes only what the Encoder reads, once it was asked for."""

    def keep(self) -> Keep:
        return self.stages.budgeted(self.composition)

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
        """All that a packet holds: the task's side information, if any, then what the Encoder writes."""
        get_task(self.composition.task).write_side(sink, size, self.request)
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
