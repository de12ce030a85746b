"""The device's end: pixels to records, of which packets are sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.coding.patches import Bool
from semcodec.coding.rounds import TwoRounds, read_request
from semcodec.composition.composition import Composition, compose_spec
from semcodec.container.packets import LocalRecord, StreamHeader, write_header, write_local
from semcodec.container.sinks import ChunkRow, PacketSink
from semcodec.data.inputs import read
from semcodec.errors import CorruptStream, DataError, PluginError, UsageError, WeightsError, cure, first_line
from semcodec.interfaces import Encoder, EntropyStage
from semcodec.pipeline.accelerator import CPU, Accelerator, Where
from semcodec.pipeline.end import End, make_header
from semcodec.pipeline.exported import ExportedHalf, is_exported, load_exported
from semcodec.pipeline.heads import Head
from semcodec.pipeline.light_stages import build_entropy, build_selectors
from semcodec.pipeline.selection import Scorer, Selectors, select
from semcodec.pipeline.timing import Clock
from semcodec.pipeline.weights import Given, Weights, WeightsRequest
from semcodec.tasks.prediction import Size
from semcodec.tasks.table import write_side
from semcodec.tensors import Valued, as_array, inference, likeliest, rows_of
from semcodec.types import Analysis, Features, Latent, Sink, analysis_rows

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from semcodec.data.base import UInt8
    from semcodec.data.inputs import Sample

    Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoded(Valued):
    """One sample's record, and what its bytes are.

    data: a packet, or the LOCAL record of a sample that the gate kept on the device, which sends nothing:
    then ``bytes_total`` is 0 and ``bytes_local`` its size. kept: units sent, by target. logits: float32 (classes,), the
    device's own answer to a sample that is sent, of an Encoder that predicts.
    """

    data: bytes
    bytes_payload: int = 0
    bytes_side: int = 0
    bytes_header: int = 0
    bytes_local: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[ChunkRow, ...] = ()
    logits: Float32 | None = field(default=None, repr=False)

    @property
    def bytes_total(self) -> int:
        """Bytes that are sent: payload, side information and header."""
        return self.bytes_payload + self.bytes_side + self.bytes_header

    def _repr_html_(self) -> str:
        """For notebooks: what its bytes are."""
        from semcodec import _html

        parts = [(f"bytes_{part}", getattr(self, f"bytes_{part}")) for part in ("total", "payload", "side", "header")]
        pairs: list[tuple[str, Any]] = [*parts, *([("bytes_local", self.bytes_local)] if self.bytes_local else [])]
        pairs += [(f"kept {target}", count) for target, count in self.kept.items()]
        headers = ("chunk", "kind", "symbols", "bytes", "of it tables", "layer")
        rows = [(r.name, r.kind, r.count or None, r.bytes, r.side_bytes, r.layer) for r in self.rows]
        return _html.fields(pairs) + (_html.table(headers, rows) if rows else "")


@dataclass(frozen=True)
class Begun:
    """A sample whose first round was made. first: its packet, one that a server which is sure answers.

    The rest is what ``Device.finish`` goes on with.
    """

    first: Encoded
    sequence: int
    features: Features = field(repr=False)
    latent: Latent = field(repr=False)
    offered: Bool | None = field(repr=False)


@dataclass
class Prepared:
    """Samples on the device, from features at the cut to what each will send; batch first.

    masks, scores: by target, what is kept and what that was chosen by; none for a target that keeps everything.
    latents, kept: of each sample, what it sends, and by target how many units that is.
    """

    features: Features
    analysis: Analysis
    masks: dict[str, Tensor]
    scores: dict[str, Tensor]
    latents: list[Latent]
    kept: list[dict[str, int]]


Analyse = Callable[["UInt8", Clock], tuple[Features, Analysis]]


@dataclass(frozen=True, eq=False)
class Device(End):
    """Runs the head, chooses, encodes and packs. Any number of threads may use one at the same time.

    Made by ``load``, or as the device of a ``Pipeline``. Nothing in it changes: ``dataclasses.replace`` makes another.
    """

    composition: Composition
    header: StreamHeader
    classes: Sequence[str]
    head: Head
    encoder: Encoder
    selectors: Selectors
    entropy: EntropyStage | None
    sources: Mapping[str, Weights | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    accelerator: Accelerator = CPU
    replied: bool = False

    @classmethod
    def load(
        cls,
        spec: str | Path | Composition,
        weights: Given | WeightsRequest = None,
        *,
        classes: Sequence[str] | None = None,
        offline: bool = False,
        device: Where = "cpu",
        half: bool = False,
        replied: bool | None = False,
    ) -> Device:
        """Build the device's half of ``spec`` alone: no tail, no recoverer, and of the weights only what it uses.

        weights: a path for all slots, paths by slot, or a request; ``semcodec split`` writes files that hold just this
        half. spec: also a file of ``semcodec export``, which ends in .semdev, has its own weights and needs no torch.
        classes: names for an untrained backbone. device: where networks run, in torch's words: "cpu", "cuda",
        "cuda:1", "mps". half: in bfloat16 where they can. replied: of a method with two rounds, whose server's model
        is elsewhere and answers what ``begin`` sends; None: whether the method has two. Raises SpecError, PluginError,
        WeightsError, UsageError, and OSError for a file that is not there.
        """
        if not isinstance(spec, Composition) and is_exported(spec):
            request = WeightsRequest.of(weights, offline)
            there = load_exported(str(spec), request, classes=classes, device=device, half=half)
            exported = cls.of_exported(there)
            exported.try_once(str(spec))
            return exported
        try:
            from semcodec.pipeline.loading import has_rounds, load_device_half
        except ImportError as error:
            if remedy := cure(error):
                raise PluginError(f"{spec} runs by torch: {remedy}, or run a file of semcodec export") from error
            raise

        accelerator = Accelerator.find(device, half)
        composition = spec if isinstance(spec, Composition) else compose_spec(str(spec))
        replied = has_rounds(composition) if replied is None else replied
        found = load_device_half(composition, WeightsRequest.of(weights, offline), classes=classes, replied=replied)
        accelerator.place(found.backbone, found.encoder)
        composition = found.composition
        return cls(
            composition,
            make_header(composition, found.decoding),
            found.classes,
            Head(found.backbone, composition.cut, found.encoder),
            found.encoder,
            build_selectors(composition),
            build_entropy(composition),
            found.sources,
            found.digests,
            accelerator,
            replied,
        )

    @classmethod
    def of_exported(cls, there: ExportedHalf) -> Device:
        """Of what a file of ``semcodec export`` holds."""
        selectors, entropy = build_selectors(there.composition), build_entropy(there.composition)
        return cls(there.composition, there.header, there.classes, there.head, there.encoder, selectors, entropy,
                   there.sources, there.digests, there.accelerator)  # fmt: skip

    def try_once(self, what: str) -> None:
        """Encode a black sample, so that what does not fit together in a file is known when it is loaded.

        Raises WeightsError, naming ``what``.
        """
        try:
            self.encode_batch(np.zeros((1, *self.request.shape), np.uint8), [0])
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"{type(error).__name__}: {first_line(error)}"
            raise WeightsError(f"{what}: what it holds does not fit together ({told}); export it again") from error

    # -- whole samples -----------------------------------------------------------------------------------------------

    def encode(self, source: Sample, sequence: int = 0, clock: Clock | None = None, **call: Any) -> Encoded:
        """One sample to one record: a clip (T, H, W, 3) or image (H, W, 3), uint8, of the size that the model takes; or
        what is brought to that size: a Pillow image, a file's path, "DATASET:INDEX". See ``data.inputs``.

        call: call parameters of the encoder, for this sample alone. Raises UsageError for one that it has not.
        """
        end = self.with_call(**call) if call else self
        pixels, size = read(source, self.request)
        return end.encode_batch(pixels, [sequence], clock, None if size is None else [size])[0]

    def encode_batch(
        self,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock | None = None,
        sizes: Sequence[Size] | None = None,
    ) -> list[Encoded]:
        """Pixels of several samples to one record each.

        pixels: uint8 (B, T, H, W, 3) or (B, H, W, 3). sequence: their numbers in the stream. sizes: width and height of
        each source, in which a detector's boxes are told; those of the pixels where left out. Raises DataError for
        pixels of another form, UsageError where these are not equally many.
        """
        if not len(pixels) == len(sequence) == (len(sequence) if sizes is None else len(sizes)):
            raise UsageError(f"each of {len(pixels)} samples has a number and, if any, a size: not {len(sequence)}")
        if not len(sequence):
            return []
        clock = clock or self.clock()
        if self.selectors.point is not None:
            return self._encode_at_points(pixels, sequence, clock, sizes)
        prepared, sent, out = self.prepare(pixels, sequence, clock)
        logits = as_array(prepared.analysis.prediction)
        for row, i in enumerate(sent):
            size = sizes[i] if sizes else None
            encoded = self.pack(prepared.latents[row], sequence[i], prepared.kept[row], clock, size=size)
            out[i] = encoded if logits is None else replace(encoded, logits=logits[row])
        return [out[i] for i in range(len(sequence))]

    def with_call(self, **call: Any) -> Device:
        """This device at other call parameters, in the same stream: its packets say so. Raises UsageError."""
        # The stream's header stays, and so does the head, which no call parameter touches.
        return replace(self, composition=self.composition.with_call(**call))

    # -- two rounds, where the server is elsewhere -------------------------------------------------------------------

    @inference
    def begin(self, pixels: UInt8, sequence: Sequence[int], clock: Clock | None = None) -> list[Begun]:
        """First rounds of samples, to be sent, for ``Server.reply`` to answer; pixels, sequence as of ``encode_batch``.

        Raises UsageError for an Encoder that has no second round.
        """
        clock, rounds = clock or self.clock(), self.encoder
        if not isinstance(rounds, TwoRounds):
            raise UsageError(f"{self.composition.encoder.name} sends all in one round: encode it")
        features = self.features(pixels)
        masks: dict[str, Tensor] = {}
        if "keep" in self.composition.keep and rounds.offered({}, 0) is not None:  # chosen here
            keep = self.selectors.budgeted(self.composition)
            masks, _ = select(self.encoder, Analysis(features), keep, sequence, clock)
        with clock("encode"):
            latents = rounds.begin(features, masks, dict(self.composition.call))
        begun = []
        for row, (latent, number) in enumerate(zip(latents, sequence, strict=True)):
            encoded = self.pack(latent, number, {}, clock)
            begun.append(Begun(encoded, number, rows_of(features, [row]), latent, rounds.offered(masks, row)))
        return begun

    @inference
    def finish(self, begun: Begun, message: bytes, clock: Clock | None = None) -> Encoded:
        """The packet of both rounds, in the form of a file, after a server's message.

        Raises CorruptStream for a message that is none.
        """
        clock, rounds = clock or self.clock(), self.encoder
        assert isinstance(rounds, TwoRounds)
        asked = read_request(message, rounds.grid, begun.offered)
        with clock("encode"):
            latent = rounds.finish(begun.features, begun.latent, asked, dict(self.composition.call))
        return self.pack(latent, begun.sequence, latent.kept, clock)

    @inference
    def second(self, begun: Begun, message: bytes, clock: Clock | None = None) -> Encoded:
        """The second round alone, as a packet of the same number, after a server's message that asks for it.

        Raises CorruptStream for a message that is none or asks for nothing.
        """
        clock, rounds = clock or self.clock(), self.encoder
        assert isinstance(rounds, TwoRounds)
        asked = read_request(message, rounds.grid, begun.offered)
        if not asked.any():
            raise CorruptStream("the server asks for a second round and for nothing in it")
        with clock("encode"):
            latent = rounds.finish(begun.features, begun.latent, asked, dict(self.composition.call))
        sink = PacketSink(self.entropy)
        rounds.write_second(latent, sink)
        return self.seal(sink, begun.sequence, latent.kept)

    def stream(self, encoded: Sequence[Encoded]) -> bytes:
        """A whole .sem file: the stream header and the records."""
        return write_header(self.header) + b"".join(e.data for e in encoded)

    def _encode_at_points(
        self, pixels: UInt8, sequence: Sequence[int], clock: Clock, sizes: Sequence[Size] | None
    ) -> list[Encoded]:
        """Each sample at the call parameters that the Selector sets for it, those of equal ones together."""
        point = self.selectors.point
        assert point is not None
        with clock("point"):
            knobs = point.point(self.composition, sequence)
        settings: dict[tuple[tuple[str, Any], ...], list[int]] = {}
        for row, chosen in enumerate(knobs):
            settings.setdefault(tuple(sorted(chosen.items())), []).append(row)
        out: dict[int, Encoded] = {}
        for setting, rows in settings.items():
            there = replace(self.with_call(**dict(setting)), selectors=replace(self.selectors, point=None))
            numbers, of = [sequence[i] for i in rows], [sizes[i] for i in rows] if sizes else None
            out.update(zip(rows, there.encode_batch(pixels[rows], numbers, clock, of), strict=True))
        return [out[i] for i in range(len(sequence))]

    # -- the path from pixels to a packet, step by step ----------------------------------------------------------------

    def prepare(
        self,
        pixels: UInt8,
        sequence: Sequence[int],
        clock: Clock | None = None,
        *,
        analyse: Analyse | None = None,
        scorer: Scorer | None = None,
    ) -> tuple[Prepared, list[int], dict[int, Encoded]]:
        """Everything up to what is sent: of the samples to send, their rows, and by row the records of the others.

        analyse, scorer: asked in the place of ``analyse`` and of the Encoder's scores, where these are known already.
        """
        if self.replied:
            raise UsageError("this device's server answers elsewhere: begin, and finish with its reply")
        clock = clock or self.clock()
        with self.accelerator.inference():
            features, analysis = (analyse or self.analyse)(pixels, clock)
            sent, kept_here = self.gate(analysis, sequence)
            if len(sent) < len(sequence):
                features, analysis = rows_of(features, sent), analysis_rows(analysis, sent)
            if not sent:
                return Prepared(features, analysis, {}, {}, [], []), sent, kept_here
            return self.choose(features, analysis, [sequence[i] for i in sent], clock, scorer), sent, kept_here

    def features(self, pixels: UInt8) -> Features:
        """uint8 pixels (B, T, H, W, 3) or (B, H, W, 3) to the model's input, float32 in [0, 1], channels first, where
        networks run.

        Raises DataError for another shape or dtype.
        """
        name = "frames" if "frames" in self.input else "image"
        shape = self.input[name].shape
        given = (*pixels.shape[1:-3], pixels.shape[-1], *pixels.shape[-3:-1])
        if pixels.dtype != np.uint8 or pixels.ndim != len(shape) + 1 or given != shape:
            raise DataError(
                f"expects uint8 pixels of {self.request}x3 with a batch axis, gets {pixels.dtype}{list(pixels.shape)}"
            )
        return self.accelerator.inputs(name, pixels)

    def analyse(self, pixels: UInt8, clock: Clock) -> tuple[Features, Analysis]:
        """The features at the cut and what the Encoder knows of them. Depends on no call parameter or Selector."""
        x, there = self.features(pixels), self.accelerator
        with clock("head"), there.autocast():
            features = there.full(self.head(x))
        with clock("analyse"), there.autocast():
            analysis = self.encoder.analyse(features)
        if there.half:
            prediction = None if analysis.prediction is None else analysis.prediction.float()
            analysis = Analysis(analysis.features, there.full(analysis.scores), prediction)
        logits = as_array(analysis.prediction)
        if logits is not None and not np.isfinite(logits).all():
            raise WeightsError(f"{self.spec}: the device's own answer is NaN or infinity: its weights are of no use")
        return features, analysis

    def gate(self, analysis: Analysis, sequence: Sequence[int]) -> tuple[list[int], dict[int, Encoded]]:
        """Rows to send, and the LOCAL records of the others."""
        gate, prediction = self.selectors.gate, analysis.prediction
        if gate is None or prediction is None:
            return list(range(len(sequence))), {}
        logits: Any = prediction
        send = (gate.gate_array(logits) if isinstance(logits, np.ndarray) else gate.gate(logits)).tolist()
        index, probability = likeliest(prediction)
        kept_here: dict[int, Encoded] = {}
        for i, number in enumerate(sequence):
            if not send[i]:
                data = write_local(self.header, LocalRecord(number, int(index[i]), min(1.0, float(probability[i]))))
                kept_here[i] = Encoded(data, bytes_local=len(data))
        return [i for i, wanted in enumerate(send) if wanted], kept_here

    def choose(
        self,
        features: Features,
        analysis: Analysis,
        sequence: Sequence[int],
        clock: Clock | None = None,
        scorer: Scorer | None = None,
    ) -> Prepared:
        """What each sample sends: selection and encoding. Depends on no entropy stage.

        sequence: the samples' numbers. scorer: asked for scores in the Encoder's place.
        """
        clock = clock or self.clock()
        keep = self.selectors.budgeted(self.composition)
        masks, scores = select(scorer or self.encoder, analysis, keep, sequence, clock)
        with clock("encode"):
            latents = self.encoder.encode(features, analysis, masks, dict(self.composition.call))
        units = self.encoder.units
        kept = [
            {t: int(masks[t][row].sum()) if t in masks else units[t] for t in self.composition.keep} | latent.kept
            for row, latent in enumerate(latents)
        ]
        return Prepared(features, analysis, masks, scores, latents, kept)

    def pack(
        self,
        latent: Latent,
        number: int,
        kept: Mapping[str, int],
        clock: Clock | None = None,
        *,
        sink: PacketSink | None = None,
        size: Size | None = None,
    ) -> Encoded:
        """One Latent to its packet. ``sink``: to write to, empty, where another than the usual one is wanted."""
        clock, sink = clock or self.clock(), sink or PacketSink(self.entropy)
        start = time.perf_counter()
        self.write(latent, sink, size)
        encoded = self.seal(sink, number, kept)
        clock.add("write", time.perf_counter() - start - sink.seconds)
        clock.add("entropy_encode", sink.seconds)
        return encoded

    def write(self, latent: Latent, sink: Sink, size: Size | None = None) -> None:
        """All that a packet holds: the tasks' side information, if any, then what the Encoder writes."""
        write_side(self.composition.tasks, sink, size, self.request)
        self.encoder.write(latent, sink)

    def seal(self, sink: PacketSink, number: int, kept: Mapping[str, int]) -> Encoded:
        """The packet of what was written to ``sink``."""
        packed = sink.pack(self.header, number, self.composition.call)
        return Encoded(
            packed.data, packed.bytes_payload, packed.bytes_side, packed.bytes_header, kept=kept, rows=packed.rows
        )

    def figures(self, pixels: UInt8) -> Mapping[str, Sequence[float]]:
        """The papers' own figures of what is sent for each sample; none where the Encoder's paper has none, and none of
        an exported device.
        """
        if not isinstance(self.encoder, Encoder) or type(self.encoder).figures is Encoder.figures:
            return {}
        with self.accelerator.inference(), self.accelerator.autocast():
            features = self.accelerator.full(self.head(self.features(pixels)))
            return self.encoder.figures(features)
