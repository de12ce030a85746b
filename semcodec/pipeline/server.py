"""The server's end: records to predictions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from semcodec.coding.rounds import TwoRounds, requested, write_request
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.stored import compose_stored
from semcodec.container.packets import (
    LocalRecord,
    Packet,
    StreamHeader,
    check_versions,
    check_weights,
    read_packets,
)
from semcodec.container.sinks import ChunkRow, PacketSource
from semcodec.container.truncation import first_layers
from semcodec.data.notes import note
from semcodec.errors import (
    CorruptStream,
    DamagedLayer,
    SemcodecError,
    TooFewLayers,
    UsageError,
    VersionMismatch,
    first_line,
)
from semcodec.interfaces import Backbone, Encoder, EntropyStage, Recoverer
from semcodec.pipeline.accelerator import CPU, Accelerator, Where
from semcodec.pipeline.end import End, make_header
from semcodec.pipeline.light_stages import build_entropy, build_selectors
from semcodec.pipeline.loading import has_rounds, load_server_half
from semcodec.pipeline.selection import select
from semcodec.pipeline.timing import Clock
from semcodec.pipeline.weights import Given, Weights, WeightsRequest
from semcodec.tasks.prediction import Answer, Prediction
from semcodec.tasks.table import get_task, read_side
from semcodec.tensors import alike, as_array, inference, stack
from semcodec.types import Analysis, Features, Latent, Partial, Source


@dataclass(frozen=True)
class Joined:
    """Both rounds of one sample as two packets. request: what this server said to the first (``Server.reply``)."""

    first: Packet
    request: bytes
    second: Packet


Record = Packet | LocalRecord | Joined
_Received = tuple[Packet | LocalRecord, tuple[ChunkRow, ...] | None, Latent | None]
"""A record, and of a packet the chunks that were read and what it holds."""

TOGETHER = 32
"""Samples that go through the networks at a time: more are no faster on a CPU, and take more memory."""


@dataclass(frozen=True, eq=False)
class Server(End):
    """Reads, restores, recovers and answers. Any number of threads may use one at the same time.

    tails: by name, the models that answer; where they are several, ``alone`` is this server with one of them, which
    decodes. classes: of the first. Made by ``load``, or as the server of a ``Pipeline``. Nothing in it changes:
    ``dataclasses.replace`` makes another.
    """

    composition: Composition
    header: StreamHeader
    classes: Sequence[str]
    encoder: Encoder
    recoverer: Recoverer
    entropy: EntropyStage | None
    tails: Mapping[str, Backbone]
    sources: Mapping[str, Weights | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    accelerator: Accelerator = CPU

    @classmethod
    def load(
        cls,
        stream: str | Composition | StreamHeader,
        weights: Given | WeightsRequest = None,
        *,
        classes: Sequence[str] | None = None,
        offline: bool = True,
        device: Where = "cpu",
        half: bool = False,
        replies: bool | None = False,
        tasks: Collection[str] | None = None,
    ) -> Server:
        """Build the server's half alone: no head, no model of the device, and of the weights only what it uses.

        stream: a spec, or the header of a stream, whose component versions and weights are compared before any network
        is built. weights: a path for all slots, paths by slot, or a request. classes: names for an untrained backbone.
        offline: fetch no weights, as a header is a stranger's. device, half: as of ``Device.load``. replies: whether
        it answers first rounds with ``reply``; None: where the method has them. tasks: of a stream for several, those
        that are answered here, by task or by the backbone's name; left out, all. Raises SpecError, PluginError,
        WeightsError, VersionMismatch, WeightsMismatch, UsageError.
        """
        accelerator = Accelerator.find(device, half)
        header = stream if isinstance(stream, StreamHeader) else None
        spec = stream.spec if isinstance(stream, StreamHeader) else stream
        if header is not None:
            composition = compose_stored(header.spec, header.components)
        else:
            composition = compose_spec(spec) if isinstance(spec, str) else spec
        replies = has_rounds(composition) if replies is None else replies
        if composition.seen is not None and tasks is None:
            tasks = [composition.seen]
        found = load_server_half(
            composition,
            WeightsRequest.of(weights, offline),
            classes=classes,
            header=header,
            replies=replies,
            tails=tasks,
        )
        composition = found.composition
        if len(found.tails) == 1:
            [only] = found.tails
            composition = composition.alone(only)
        assert found.recoverer is not None
        accelerator.place(*found.tails.values(), found.encoder, found.recoverer)
        return cls(
            composition,
            header or make_header(composition, found.decoding),
            found.classes,
            found.encoder,
            found.recoverer,
            build_entropy(composition),
            found.tails,
            found.sources,
            found.digests,
            accelerator,
        )

    # -- whole streams -----------------------------------------------------------------------------------------------

    def accept(self, header: StreamHeader) -> Server:
        """This server for another stream, which may differ in Selectors, gate and call parameters alone.

        Raises VersionMismatch, WeightsMismatch, UsageError where the stream wants other models than are here.
        """
        composition = compose_stored(header.spec, header.components, self.composition.registry)
        composition = composition.with_built_specs(self.composition.known)
        if self.composition.seen is not None and self.composition.seen in composition.tails:
            composition = composition.alone(self.composition.seen)
        if composition.decoding_signature() != self.composition.decoding_signature():
            raise VersionMismatch(
                f"the stream was made by {header.spec}, and here is {self.spec}: encoder, recoverer, entropy stage, "
                "backbone and cut have to be the same"
            )
        self.check(header)
        return replace(self, composition=composition, header=header)

    @property
    def tasks(self) -> dict[str, str]:
        """By task, the names of the models that answer here."""
        by_name = dict(zip(self.composition.tails, self.composition.tasks, strict=True))
        return {by_name[name] or "classification": name for name in self.tails}

    def alone(self, name: str) -> Server:
        """This server with one of its tails, by name or task. Raises UsageError where it is not here."""
        composition = self.composition.alone(name)
        there = composition.backbone.name
        if there not in self.tails:
            raise UsageError(f"this server does not answer {name}: it answers {', '.join(self.tasks)}")
        tail = self.tails[there]
        return replace(self, composition=composition, tails={there: tail}, classes=tail.classes)

    def check(self, header: StreamHeader) -> None:
        """Refuse a stream of other component versions or weights. Raises VersionMismatch, WeightsMismatch."""
        check_versions(header, self.composition.reads)
        check_weights(header, self.header.weights)

    def decode(self, record: bytes) -> Prediction:
        """One record, a packet or a LOCAL one. Raises StreamError for bytes that are none, UsageError for several."""
        if not isinstance(record, bytes | bytearray | memoryview):
            raise UsageError(f"a record is bytes, not {type(record).__name__}; semcodec.decode takes files")
        found = list(read_packets(BytesIO(record), self.header))
        if len(found) > 1:
            raise UsageError(f"these bytes are {len(found)} records, and one is decoded: use decode_stream")
        return self.decode_batch(found)[0]

    def decode_stream(self, stream: BinaryIO) -> Iterator[Prediction]:
        """The predictions of what follows a stream's header, one by one. Raises StreamError after those before it."""
        for record in read_packets(stream, self.header):
            yield from self.decode_batch([record])

    @inference
    def decode_batch(self, records: Sequence[Packet | LocalRecord], clock: Clock | None = None) -> list[Prediction]:
        """Records of this stream to predictions.

        Of a packet whose later layers are damaged those before the damage are decoded, as if no others had arrived;
        a ``DataNote`` says so. Raises StreamError for other damage.
        """
        clock = clock or self.clock()
        return self._answer_received([self._served(self._receive(record, clock)) for record in records], clock)

    @inference
    def decode_each(self, records: Sequence[Record], clock: Clock | None = None) -> list[Prediction | SemcodecError]:
        """``decode_batch`` of records that have nothing to do with each other: for each its prediction, or what is
        wrong with it, which costs no other record its answer."""
        clock = clock or self.clock()
        found: dict[int, Prediction | SemcodecError] = {}
        received: dict[int, _Received] = {}
        for number, record in enumerate(records):
            try:
                received[number] = self._served(self._receive(record, clock))
            except SemcodecError as error:
                found[number] = error
        try:
            found.update(zip(received, self._answer_received(list(received.values()), clock), strict=True))
        except SemcodecError:  # values that no network should see: only each by itself tells whose they are
            for number, one in received.items():
                try:
                    [found[number]] = self._answer_received([one], clock)
                except SemcodecError as error:
                    found[number] = error
        return [found[number] for number in range(len(records))]

    @inference
    def decode_views(
        self,
        views: Sequence[Server],
        records: Sequence[Packet | LocalRecord],
        clock: Clock,
        clocks: Sequence[Clock],
    ) -> list[list[Prediction]]:
        """``decode_batch`` for several tails, whose features are restored and recovered once.

        views: this server, seen with each (``alone``). clock: of what they share. clocks: of each view's own stages.
        Returns the predictions of each view. Raises StreamError.
        """
        received = [self._receive(record, clock) for record in records]
        for view, one in itertools.product(views, received):
            view._served(one)
        return self._answer_views(views, received, clock, clocks)

    @inference
    def decode_tasks(
        self, record: Packet | LocalRecord, clock: Clock | None = None
    ) -> dict[str, Prediction | TooFewLayers]:
        """One record for all tasks that are answered here: by task the prediction, or why its layers do not serve it.

        Raises StreamError for damage.
        """
        clock = clock or self.clock()
        received = self._receive(record, clock)
        found: dict[str, Prediction | TooFewLayers] = {}
        views: dict[str, Server] = {}
        for task, name in self.tasks.items():
            view = self.alone(name)
            try:
                view._served(received)
                views[task] = view
            except TooFewLayers as lacking:
                found[task] = lacking
        clocks = [clock] * len(views)
        answers = self._answer_views(list(views.values()), [received], clock, clocks) if views else []
        found |= {task: answer for task, [answer] in zip(views, answers, strict=True)}
        return {task: found[task] for task in self.tasks}

    def _served(self, received: _Received) -> _Received:
        """The same, where its layers serve the task that this server is seen with. Raises TooFewLayers."""
        packet, *_ = received
        reason = self.composition.lacks_layers(packet.layers_present) if isinstance(packet, Packet) else None
        if reason:
            raise TooFewLayers(f"packet {packet.sequence}: {reason}")
        return received

    def _answer_received(self, received: Sequence[_Received], clock: Clock) -> list[Prediction]:
        """The networks' part of ``decode_batch``."""
        self.check_one()
        [found] = self._answer_views([self], received, clock, [clock])
        return found

    def _answer_views(
        self, views: Sequence[Server], received: Sequence[_Received], clock: Clock, clocks: Sequence[Clock]
    ) -> list[list[Prediction]]:
        latents = [latent for _, _, latent in received if latent is not None]
        read = [rows for _, rows, _ in received if rows is not None]
        answers: list[list[Answer]] = [[] for _ in views]
        for start in range(0, len(latents), TOGETHER):
            recovered = self.recover(self._restore_latents(latents[start : start + TOGETHER], clock), clock)
            for view, found, own in zip(views, answers, clocks, strict=True):
                found += view.answer_recovered(recovered, own)
        records = [record for record, _, _ in received]
        return [view.predict(records, found, read) for view, found in zip(views, answers, strict=True)]

    @inference
    def reply(self, packets: Sequence[Packet], clock: Clock | None = None) -> list[bytes]:
        """What this server says to packets of first rounds (``Device.begin``): messages for ``Device.finish``.

        A message of one zero octet says that the server is sure, and that the first round is all. Raises UsageError
        for an Encoder that has no second round or a server that was not loaded for it, StreamError for damage.
        """
        clock, rounds = clock or self.clock(), self._rounds()
        latents = [self._read_whole(self.source(packet), clock) for packet in packets]
        with clock("look"), self.accelerator.autocast():
            look = rounds.second_round.look(latents)
        requests, selectors = [], build_selectors(self.composition)
        for row, packet in enumerate(packets):
            at = self.composition.with_call(**self._checked(packet.params))
            chosen = np.ones(rounds.grid, bool)
            if look.scores is not None:
                there = Analysis({}, dict.fromkeys(at.keep, look.scores[row : row + 1]))
                masks, _ = select(self.encoder, there, selectors.budgeted(at), [packet.sequence], clock)
                chosen = as_array(masks["keep"][0]).reshape(rounds.grid) if "keep" in masks else chosen
            asked = rounds.second_round.ask(chosen, float(look.doubt[row]), at.call["sure"])
            requests.append(write_request(None if look.scores is None else asked, bool(asked.any())))
        return requests

    def _rounds(self) -> TwoRounds:
        rounds = self.encoder
        if not isinstance(rounds, TwoRounds):
            raise UsageError(f"{self.composition.encoder.name} sends all in one round, to which there is no reply")
        model = rounds.second_round.model
        if any(tensor.is_meta for tensor in getattr(model, "state_dict", dict)().values()):
            raise UsageError("this server holds no model that answers first rounds: load it with replies=True")
        return rounds

    def _receive(self, packet: Record, clock: Clock) -> _Received:
        """A record, or what of a packet comes before a damaged layer, and what is read of it."""
        if isinstance(packet, LocalRecord):
            return packet, None, None
        if isinstance(packet, Joined):
            return self._join(packet, clock)
        while True:
            source = self.source(packet)
            try:
                latent = self._read_whole(source, clock)
                return packet, tuple(source.rows), latent
            except DamagedLayer as damage:
                number, total = damage.layers, packet.layers_total
                note(f"packet {packet.sequence}: layer {number + 1} of {total} is damaged, decoded without it")
                packet = first_layers(packet, number, self.header.format)

    def _join(self, joined: Joined, clock: Clock) -> _Received:
        """Two packets as the one that a file has of both rounds."""
        rounds = self._rounds()
        if joined.second.params != joined.first.params:
            raise CorruptStream("the two rounds have other call parameters")
        first, second = self.source(joined.first), self.source(joined.second)
        latent = self._read_whole(first, clock)
        with clock("read"):
            latent = rounds.read_second(latent, requested(joined.request, rounds.grid), second)
            second.finish()
        return joined.first, (*first.rows, *second.rows), latent

    @inference
    def restored(self, record: Packet | Joined, clock: Clock | None = None) -> Partial:
        """What there is of the features after one packet, or both of a sample. Raises StreamError."""
        clock = clock or self.clock()
        _, _, latent = self._receive(record, clock)
        assert latent is not None
        return self._restore_latents([latent], clock)[0]

    # -- the path from a packet to a prediction, step by step --------------------------------------------------------

    def source(self, packet: Packet, kind: type[PacketSource] = PacketSource) -> PacketSource:
        """What the Encoder reads a packet from. Raises CorruptStream for call parameters that cannot be."""
        return kind(packet, self.entropy, self._checked(packet.params))

    def restore(self, source: PacketSource, clock: Clock | None = None) -> Partial:
        """One packet to what it holds of the features."""
        return self.restore_batch([source], clock)[0]

    def restore_batch(self, sources: Sequence[PacketSource], clock: Clock | None = None) -> list[Partial]:
        """Packets to what each holds of the features; all are read before the first is restored."""
        clock = clock or self.clock()
        return self._restore_latents([self._read_whole(source, clock) for source in sources], clock)

    def _read_whole(self, source: PacketSource, clock: Clock) -> Latent:
        start = time.perf_counter()
        latent = self.read(source)
        source.finish()
        clock.add("entropy_decode", source.seconds)
        clock.add("read", time.perf_counter() - start - source.seconds)
        return latent

    def _restore_latents(self, latents: Sequence[Latent], clock: Clock) -> list[Partial]:
        if not latents:
            return []
        with clock("restore"):
            return self.encoder.restore_batch(latents)

    def read(self, source: Source) -> Latent:
        """The inverse of ``Device.write``, less the tasks' side information."""
        read_side(self.composition.tasks, source)
        return self.encoder.read(source)

    def recover(self, partials: Sequence[Partial], clock: Clock | None = None) -> list[Features]:
        """Complete features of each sample, where networks run, recovered in batches of equal shapes."""
        clock, there = clock or self.clock(), self.accelerator
        both = [p.features | {f"present {name}": mask for name, mask in p.present.items()} for p in partials]
        out: dict[int, Features] = {}
        with clock("recover"), there.autocast():
            for members in alike(both):
                batch = Partial(
                    there.put(stack([partials[i].features for i in members])),
                    there.put(stack([partials[i].present for i in members])),
                )
                features = there.full(self.recoverer.recover(batch))
                for row, i in enumerate(members):
                    out[i] = {name: t[row : row + 1] for name, t in features.items()}
        return [out[i] for i in range(len(partials))]

    def answer(self, partials: Sequence[Partial], clock: Clock | None = None) -> list[Answer]:
        """What the model says of each sample."""
        self.check_one()
        clock = clock or self.clock()
        return self.answer_recovered(self.recover(partials, clock), clock)

    def answer_recovered(self, recovered: Sequence[Features], clock: Clock | None = None) -> list[Answer]:
        """The same of features that are complete (``recover``)."""
        clock, task = clock or self.clock(), get_task(self.composition.task)
        tail = self.check_one()
        found: dict[int, Answer] = {}
        for members, batch in tail.collate(recovered):
            with clock("tail"), self.accelerator.autocast():
                values = tail.tail(batch, self.composition.cut).float().cpu()
            if not bool(values.isfinite().all()):
                name = self.composition.backbone.name
                raise CorruptStream(f"{name} answers with NaN or infinity: what it was sent is damaged or forged")
            found.update(zip(members, task.answers(values, clock), strict=True))
        return [found[i] for i in range(len(recovered))]

    def check_one(self) -> Backbone:
        """The tail, where there is one. Raises UsageError where there are several, of which ``alone`` takes one."""
        if len(self.tails) > 1:
            raise UsageError(f"{self.spec} is for several tasks: name one of {', '.join(self.tasks)}")
        return next(iter(self.tails.values()))

    def predict(
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
            raise CorruptStream(f"the packet's call parameters are not possible: {first_line(error)}") from error
