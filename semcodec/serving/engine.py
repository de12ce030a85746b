"""The models of a server: which streams they answer, and the thread that they run in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Generic, Protocol, TypeVar

from semcodec.coding.rounds import SURE
from semcodec.container.packets import LocalRecord, Packet, read_header, read_packets
from semcodec.errors import CorruptStream, SemcodecError, VersionMismatch, WeightsMismatch, first_line
from semcodec.pipeline.server import Joined, Record, Server
from semcodec.pipeline.timing import Clock
from semcodec.serving.answers import to_message
from semcodec.serving.batching import Batcher, Job
from semcodec.serving.messages import Failed, First, Late, Outcome, Reply
from semcodec.serving.metrics import Metrics
from semcodec.serving.sessions import ServerSession
from semcodec.tasks.prediction import Prediction

KEPT = 256
"""Headers beside those of open streams of which it is remembered what answers them, at most."""
RECORD_MARGIN = 1 << 16
"""Bytes of a record beside twice its features and its pixels: heads, tables, and small models."""


@dataclass(eq=False)
class Hosted:
    """The streams of one header, and the server that answers them. open: sessions that send such records now.

    task: of streams for several, the one that was asked for.
    """

    server: Server
    header: bytes = b""
    task: str = ""
    open: int = 0

    @property
    def largest(self) -> int:
        """Bytes of a record that can be meant: twice what is sent uncompressed."""
        return min(1 << 30, 2 * (self.server.raw_float32_bytes + self.server.raw_uint8_bytes) + RECORD_MARGIN)


@dataclass
class Models:
    """The servers that were started, by which every stream is answered or refused. Any thread may ask.

    Streams of one header share what is made for it.
    """

    servers: Sequence[Server]
    _hosted: dict[tuple[bytes, str], Hosted] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def host(self, first: First, task: str = "") -> Hosted:
        """What answers a stream: nothing is built for it. task: of a stream for several, the one that is asked for.

        Raises StreamError, SpecError, PluginError, UsageError for a task that is not answered here.
        """
        asked = first.header, task
        with self._lock:
            if (known := self._hosted.get(asked)) is not None:
                self._check_backbone(known.server, first.backbone)
                return known
        stream = BytesIO(first.header)
        header = read_header(stream)
        if stream.read(1):
            raise CorruptStream("the stream's header has bytes behind it")
        refused: SemcodecError | None = None
        for server in self.servers:
            try:
                accepted = server.accept(header)
                if task:
                    accepted = accepted.alone(task)
                accepted.check_one()
                self._check_backbone(accepted, first.backbone)
            except (VersionMismatch, WeightsMismatch) as error:
                # Other weights of the right composition say more than another composition.
                refused = error if refused is None or isinstance(error, WeightsMismatch) else refused
                continue
            with self._lock:
                if len(self._hosted) >= KEPT:
                    self._hosted = {key: hosted for key, hosted in self._hosted.items() if hosted.open}
                return self._hosted.setdefault(asked, Hosted(accepted, first.header, task))
        assert refused is not None
        if len(self.servers) > 1 and isinstance(refused, VersionMismatch):
            here = ", ".join(server.spec for server in self.servers)
            raise VersionMismatch(f"the stream was made by {header.spec}, and this server answers {here}")
        raise refused

    def _check_backbone(self, server: Server, digest: str) -> None:
        here = server.digests.get(server.composition.head_slot, "")
        if digest and here and digest != here:
            raise WeightsMismatch(
                f"backbone: the device has {digest}, loaded here is {here}: "
                "give the weights it has (--weights backbone=PATH)"
            )


class Owner(Protocol):
    """Whom an answer is for, and what it shall have."""

    @property
    def session(self) -> ServerSession: ...


OwnerT = TypeVar("OwnerT", bound=Owner)


class Engine(Generic[OwnerT]):
    """Answers what is put into its batcher, batch by batch, in a thread of its own.

    deliver: called in that thread with owners, and outcomes or REPLY. fault: with the traceback of an error that is
    ours.
    """

    def __init__(
        self,
        batcher: Batcher[Hosted, OwnerT],
        metrics: Metrics,
        deliver: Callable[[Sequence[tuple[OwnerT, Outcome | Reply]]], None],
        fault: Callable[[BaseException], None],
    ) -> None:
        self.batcher, self.metrics, self.deliver, self.fault = batcher, metrics, deliver, fault
        self._thread = threading.Thread(target=self._run, name="semcodec-models", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, and end. Returns when that is done."""
        self.batcher.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (taken := self.batcher.take()) is not None:
            batch, late = taken
            now = self.batcher.now()
            out: list[tuple[OwnerT, Outcome | Reply]] = [
                (job.owner, Late(job.sequence, _microseconds(now - job.arrived))) for job in late
            ]
            if batch:
                out += self._answer(batch, now)
            self.deliver(out)

    def _answer(self, batch: Sequence[Job[Hosted, OwnerT]], began: float) -> list[tuple[OwnerT, Outcome | Reply]]:
        server = batch[0].stream.server
        records: list[tuple[Job[Hosted, OwnerT], Record]] = []
        out: list[tuple[OwnerT, Outcome | Reply]] = []
        for job in batch:
            try:
                records.append((job, record_of(job)))
            except SemcodecError as error:
                out.append((job.owner, Failed(job.sequence, _line(error))))
        looked = 0
        if any(job.round == 1 for job, _ in records):
            records, looked = self._ask(server, records, began, out)
        clock = server.clock()
        found = self._decode(server, [record for _, record in records], clock) if records else []
        decode = _microseconds(sum(clock.seconds.get(stage, 0.0) for stage in ("entropy_decode", "read", "restore")))
        recover = _microseconds(clock.seconds.get("recover", 0.0))
        tail = max(0, _microseconds(sum(clock.seconds.values())) - decode - recover)
        self.metrics.batch.observe(len(batch))
        for stage, spent in (("decode", decode), ("recover", recover), ("tail", tail)):
            self.metrics.stages[stage].observe(spent / 1e6)
        for (job, _), answer in zip(records, found, strict=True):
            waited = began - job.arrived
            self.metrics.stages["queue"].observe(waited)
            if isinstance(answer, SemcodecError):
                out.append((job.owner, Failed(job.sequence, _line(answer))))
                continue
            times = (_microseconds(waited), decode + looked * (job.round == 1), recover, tail)
            asked = job.owner.session
            message = to_message(
                job.sequence,
                answer,
                times,
                logits=asked.logits,
                least_score=asked.least_score,
                task=server.composition.task,
            )
            out.append((job.owner, message))
        return out

    def _ask(
        self,
        server: Server,
        records: Sequence[tuple[Job[Hosted, OwnerT], Record]],
        began: float,
        out: list[tuple[OwnerT, Outcome | Reply]],
    ) -> tuple[list[tuple[Job[Hosted, OwnerT], Record]], int]:
        """Say REPLY to the first rounds that leave the server in doubt; what can be answered now is given back, with
        the microseconds that looking took."""
        clock = server.clock()
        firsts = [(job, record) for job, record in records if job.round == 1 and isinstance(record, Packet)]
        said = self._look(server, [record for _, record in firsts], clock)
        took = _microseconds(sum(clock.seconds.values()))
        self.metrics.stages["look"].observe(took / 1e6)
        settled: set[int] = set()
        for (job, _), request in zip(firsts, said, strict=True):
            waited = began - job.arrived
            if isinstance(request, SemcodecError):
                out.append((job.owner, Failed(job.sequence, _line(request))))
            elif request != SURE:
                self.metrics.stages["queue"].observe(waited)
                out.append((job.owner, Reply(job.sequence, request, (_microseconds(waited), took))))
            else:
                continue
            settled.add(id(job))
        return [(job, record) for job, record in records if id(job) not in settled], took

    def _look(self, server: Server, packets: Sequence[Packet], clock: Clock) -> Sequence[bytes | SemcodecError]:
        """What the server says to each first round, or what is wrong with it."""
        if not packets:
            return []
        try:
            return server.reply(packets, clock)
        except SemcodecError as error:
            if len(packets) == 1:
                return [error]
        except Exception as error:
            if len(packets) == 1:
                self.fault(error)
                return [SemcodecError("this record could not be looked at: the server's log says why")]
        return [said for packet in packets for said in self._look(server, [packet], clock)]

    def _decode(self, server: Server, records: Sequence[Record], clock: Clock) -> Sequence[Prediction | SemcodecError]:
        """A prediction or an error for each; an error that is ours costs those alone that make it."""
        try:
            return server.decode_each(records, clock)
        except Exception as error:
            if len(records) == 1:
                self.fault(error)
                return [SemcodecError("this record could not be answered: the server's log says why")]
        return [found for record in records for found in self._decode(server, [record], clock)]


def record_of(job: Job[Hosted, Any]) -> Record:
    """What a job holds, both rounds where it is of a second. Raises StreamError."""
    server = job.stream.server
    record = read_one(job.record, job.sequence, server)
    if job.first is None:
        return record
    return join(job.first, record, job.sequence, server)


def read_one(data: bytes, sequence: int, server: Server) -> Packet | LocalRecord:
    """The record of a message. Raises StreamError where it holds another number's, or more or fewer than one."""
    found = list(read_packets(BytesIO(data), server.header))
    if len(found) != 1 or found[0].sequence != sequence:
        raise CorruptStream(f"message {sequence} does not hold the one record of that number")
    return found[0]


def join(first: tuple[bytes, bytes], second: Packet | LocalRecord, sequence: int, server: Server) -> Joined:
    """Both rounds of a sample. first: the record of the first, and what the server said to it. Raises StreamError."""
    begun = read_one(first[0], sequence, server)
    if not isinstance(begun, Packet) or not isinstance(second, Packet):
        raise CorruptStream(f"message {sequence} is a round of a sample that the device has answered itself")
    return Joined(begun, first[1], second)


def _line(error: SemcodecError) -> str:
    return "".join(c if c.isprintable() else "?" for c in first_line(error))[:1000]


def _microseconds(seconds: float) -> int:
    return max(0, round(1e6 * seconds))
