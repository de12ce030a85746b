"""A pipeline that does what neighbouring cells have in common once: same records as evaluating each alone.

Kept of each batch are head pass and analysis, scores, what the Encoder wrote, and the answers. An entropy stage is
tried on the symbols that the Encoder wrote for another. Its bytes are really decoded; where every symbol is what the
Encoder read before, the Encoder would do what it did before, so that its answer is taken from there.

Times of what is shared are those of the one time that it ran.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.bench.cells import point_of
from semcodec.bench.memory import Batch, Memory, Scores
from semcodec.container.packets import LocalRecord, Packet
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.pipeline.device import Encoded
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.timing import Clock
from semcodec.tensors import inference
from semcodec.types import Analysis, Features

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from semcodec.data.base import Dataset, UInt8
    from semcodec.tasks.prediction import Answer, Prediction, Size

_Tape = tuple[list[tuple[Any, ...]], Mapping[str, int]]
"""The Encoder's calls for one sample, and units kept by target."""


@dataclass
class _Written:
    """One batch at one point: what each sent sample wrote, and by recoverer and tail what came of reading it."""

    sent: list[int]
    prediction: Tensor | None
    tapes: list[_Tape]
    seconds: Mapping[str, float]
    answers: dict[str, _Answers] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answers:
    """reads: by packet, the Encoder's calls with what each gave."""

    reads: list[list[tuple[Any, ...]]]
    found: list[Answer]
    seconds: Mapping[str, float]


class TapedSink(PacketSink):
    """Remembers what was written, for another entropy stage."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tape: list[tuple[Any, ...]] = []

    def symbols(self, name: str, values: npt.NDArray[Any], prior: Any, *, side: bool = False) -> None:
        super().symbols(name, values, prior, side=side)
        self.tape.append(("symbols", name, _narrow(values), prior, side))

    def blob(self, name: str, data: bytes, *, side: bool = False) -> None:
        super().blob(name, data, side=side)
        self.tape.append(("blob", name, data, None, side))

    def layer(self) -> None:
        super().layer()
        self.tape.append(("layer", "", None, None, False))


class TapedSource(PacketSource):
    """Remembers what was asked and the digest of what was answered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tape: list[tuple[Any, ...]] = []

    def symbols(self, name: str, count: int, prior: Any) -> npt.NDArray[np.int32]:
        values = super().symbols(name, count, prior)
        self.tape.append(("symbols", (name, count, prior), _digest(values.tobytes())))
        return values

    def blob(self, name: str, max_bytes: int) -> bytes:
        data = super().blob(name, max_bytes)
        self.tape.append(("blob", (name, max_bytes), _digest(data)))
        return data

    def layer(self) -> bool:
        more = super().layer()
        self.tape.append(("layer", (), bytes([more])))
        return more


@dataclass(frozen=True, eq=False)
class SharedPipeline(Pipeline):
    """A pipeline with a memory. What it is given by ``evaluate`` must be of one data set. Made by ``share``."""

    memory: Memory

    @inference
    def encode_batch(
        self,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock | None = None,
        sizes: Sequence[Size] | None = None,
    ) -> list[Encoded]:
        clock, batch = clock or self.clock(), tuple(sequence)
        written: _Written | None = self.memory.points.get(batch)
        if written is None:
            return self._encode_anew(pixels, batch, clock, sizes)
        _, out = self.device.gate(Analysis({}, {}, written.prediction), sequence)
        _add(clock, written.seconds)
        for i, (tape, kept) in zip(written.sent, written.tapes, strict=True):
            sink = PacketSink(self.device.entropy)
            for call, name, value, prior, side in tape:
                if call == "symbols":
                    sink.symbols(name, value, prior, side=side)
                elif call == "blob":
                    sink.blob(name, value, side=side)
                else:
                    sink.layer()
            out[i] = self.device.seal(sink, batch[i], kept)
            clock.add("entropy_encode", sink.seconds)
        return [out[i] for i in range(len(batch))]

    def _encode_anew(self, pixels: UInt8, batch: Batch, clock: Clock, sizes: Sequence[Size] | None) -> list[Encoded]:
        """As the device does, with what is known of the batch, and a tape of what each sample writes."""
        own, device = self.clock(), self.device
        predictions: list[Tensor | None] = []

        def analyse(pixels: UInt8, clock: Clock) -> tuple[Features, Analysis]:
            features, analysis = self._analyse(pixels, batch, clock)
            predictions.append(analysis.prediction)
            return features, analysis

        prepared, sent, out = device.prepare(pixels, batch, own, analyse=analyse, scorer=_Scorer(self, batch, own))
        tapes: list[_Tape] = []
        for row, i in enumerate(sent):
            sink, kept = TapedSink(device.entropy), prepared.kept[row]
            size = sizes[i] if sizes else None
            out[i] = device.pack(prepared.latents[row], batch[i], kept, own, sink=sink, size=size)
            tapes.append((sink.tape, kept))
        _add(clock, own.seconds)
        seconds = {stage: took for stage, took in own.seconds.items() if stage != "entropy_encode"}
        self.memory.points.put(batch, _Written(sent, predictions[0], tapes, seconds))
        return [out[i] for i in range(len(batch))]

    def _analyse(self, pixels: UInt8, batch: Batch, clock: Clock) -> tuple[Features, Analysis]:
        known = self.memory.analyses.get(batch)
        if known is None:
            own = self.clock()
            features, analysis = self.device.analyse(pixels, own)
            # At the input the features are the pixels, made again in no time and four times as large.
            same = self.composition.cut == "input"
            kept = Analysis({} if same and analysis.features is features else analysis.features, analysis.scores,
                            analysis.prediction)  # fmt: skip
            self.memory.analyses.put(batch, (None if same else features, kept, dict(own.seconds)))
            _add(clock, own.seconds)
            return features, analysis
        features, analysis, seconds = known
        if features is None:
            features = self.features(pixels)
        _add(clock, seconds)
        return features, Analysis(analysis.features or features, analysis.scores, analysis.prediction)

    @inference
    def decode_batch(self, records: Sequence[Packet | LocalRecord], clock: Clock | None = None) -> list[Prediction]:
        clock, server = clock or self.clock(), self.server
        written: _Written | None = self.memory.points.get(tuple(record.sequence for record in records))
        packets = [record for record in records if isinstance(record, Packet)]
        c = self.composition
        recoverer = f"{c.recoverer.weights_item} {self.digests.get('recoverer')} {c.seen}"
        known = written.answers.get(recoverer) if written else None
        if known and len(known.reads) == len(packets):
            own = self.clock()
            sources = [server.source(packet) for packet in packets]
            if all(_reads_alike(source, calls) for source, calls in zip(sources, known.reads, strict=True)):
                own.add("entropy_decode", sum(source.seconds for source in sources))
                _add(own, known.seconds)
                _add(clock, own.seconds)
                return server.predict(records, known.found, [tuple(source.rows) for source in sources])
        own = self.clock()
        taped = [server.source(packet, TapedSource) for packet in packets]
        found = server.answer(server.restore_batch(taped, own), own)
        _add(clock, own.seconds)
        if written is not None:
            seconds = {stage: took for stage, took in own.seconds.items() if stage != "entropy_decode"}
            reads = [source.tape for source in taped if isinstance(source, TapedSource)]
            answers = _Answers(reads, found, seconds)
            if self.memory.points.takes(answers):
                written.answers[recoverer] = answers
        return server.predict(records, found, [tuple(source.rows) for source in taped])


def share(pipeline: Pipeline, memory: Memory, dataset: Dataset) -> SharedPipeline:
    """``pipeline`` with a memory, which forgets what the pipeline has no use for.

    dataset: what is evaluated; several tails share what is coded where its samples are the same.
    """
    models = tuple(d for slot, d in sorted(pipeline.digests.items()) if slot != "recoverer")
    c = pipeline.composition
    samples = tuple(dataset.ids(range(len(dataset)))) if len(c.tails) > 1 else ()
    memory.enter(
        (c.encoder.weights_item, *c.models.items(), *map(c.weights_key, c.slots), c.cut, models, samples), point_of(c)
    )
    return SharedPipeline(**{f.name: getattr(pipeline, f.name) for f in fields(pipeline)}, memory=memory)


class _Scorer:
    """An Encoder's scores, remembered for equal masks of the earlier targets."""

    def __init__(self, pipeline: SharedPipeline, numbers: Batch, clock: Clock) -> None:
        self.encoder, self.memory = pipeline.stages.encoder, pipeline.memory
        self.units = self.encoder.units
        self.numbers, self.clock, self.clock_of = numbers, clock, pipeline.clock
        point = point_of(pipeline.composition)
        self.prefix = {target: (point.gate, point.keep[:i]) for i, (target, _, _) in enumerate(point.keep)}

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        if target in analysis.scores:  # nothing to compute
            return self.encoder.scores(analysis, target, masks)
        known = self.memory.scores.get((self.numbers, target))
        if known is not None and known.prefix == self.prefix[target]:
            self.clock.add(f"select_{target}", known.seconds)
            return known.tensor
        own = self.clock_of()
        with own("scores"):
            found = self.encoder.scores(analysis, target, masks)
        name = self.numbers, target
        self.memory.remember_scores(name, Scores(self.prefix[target], found, own.seconds["scores"]))
        return found


def _reads_alike(source: PacketSource, calls: Sequence[tuple[Any, ...]]) -> bool:
    """Whether a packet, read as another was, gives at every step what that gave."""
    for call, arguments, answer in calls:
        found: Any = getattr(source, call)(*arguments)
        if call == "symbols":
            found = _digest(found.tobytes())
        elif call == "blob":
            found = _digest(found)
        else:
            found = bytes([found])
        if found != answer:
            return False
    source.finish()
    return True


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=20).digest()


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A flat copy in the smallest type that holds the values."""
    flat = values.reshape(-1)
    if not flat.size or flat.dtype.itemsize == 1:
        return flat.copy()
    return flat.astype(np.promote_types(np.min_scalar_type(flat.min()), np.min_scalar_type(flat.max())))


def _add(clock: Clock, seconds: Mapping[str, float]) -> None:
    for stage, took in seconds.items():
        clock.add(stage, took)
