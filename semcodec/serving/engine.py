"""The models of a server: which streams they answer, and the thread that they run in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Generic, Protocol, TypeVar

from semcodec.container.packets import LocalRecord, Packet, read_header, read_packets
from semcodec.errors import CorruptStream, SemcodecError, VersionMismatch, WeightsMismatch, first_line
from semcodec.pipeline.server import Server
from semcodec.pipeline.timing import Clock
from semcodec.serving.answers import to_message
from semcodec.serving.batching import Batcher, Job
from semcodec.serving.messages import Failed, First, Late, Outcome
from semcodec.serving.metrics import Metrics
from semcodec.serving.sessions import ServerSession
from semcodec.tasks.prediction import Prediction

KEPT = 256
"""Headers beside those of open streams of which it is remembered what answers them, at most."""
RECORD_MARGIN = 1 << 16
"""Bytes of a record beside twice its features and its pixels: heads, tables, and small models."""


@dataclass(eq=False)
class Hosted:
    """The streams of one header, and the server that answers them. open: sessions that send such records now."""

    server: Server
    header: bytes = b""
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
    _hosted: dict[bytes, Hosted] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def host(self, first: First) -> Hosted:
        """What answers a stream: nothing is built for it. Raises StreamError, SpecError, PluginError."""
        with self._lock:
            if (known := self._hosted.get(first.header)) is not None:
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
                self._check_backbone(accepted, first.backbone)
            except (VersionMismatch, WeightsMismatch) as error:
                # Other weights of the right composition say more than another composition.
                refused = error if refused is None or isinstance(error, WeightsMismatch) else refused
                continue
            with self._lock:
                if len(self._hosted) >= KEPT:
                    self._hosted = {key: hosted for key, hosted in self._hosted.items() if hosted.open}
                return self._hosted.setdefault(first.header, Hosted(accepted, first.header))
        assert refused is not None
        if len(self.servers) > 1 and isinstance(refused, VersionMismatch):
            here = ", ".join(server.spec for server in self.servers)
            raise VersionMismatch(f"the stream was made by {header.spec}, and this server answers {here}")
        raise refused

    def _check_backbone(self, server: Server, digest: str) -> None:
        here = server.digests.get("backbone", "")
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

    deliver: called in that thread with owners and outcomes. fault: with the traceback of an error that is ours.
    """

    def __init__(
        self,
        batcher: Batcher[Hosted, OwnerT],
        metrics: Metrics,
        deliver: Callable[[Sequence[tuple[OwnerT, Outcome]]], None],
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
            out: list[tuple[OwnerT, Outcome]] = [
                (job.owner, Late(job.sequence, _microseconds(now - job.arrived))) for job in late
            ]
            if batch:
                out += self._answer(batch, now)
            self.deliver(out)

    def _answer(self, batch: Sequence[Job[Hosted, OwnerT]], began: float) -> list[tuple[OwnerT, Outcome]]:
        server = batch[0].stream.server
        clock = server.clock()
        records: list[tuple[Job[Hosted, OwnerT], Packet | LocalRecord]] = []
        out: list[tuple[OwnerT, Outcome]] = []
        for job in batch:
            try:
                records.append((job, _record(job, server)))
            except SemcodecError as error:
                out.append((job.owner, Failed(job.sequence, _line(error))))
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
            times = (_microseconds(waited), decode, recover, tail)
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

    def _decode(
        self, server: Server, records: Sequence[Packet | LocalRecord], clock: Clock
    ) -> Sequence[Prediction | SemcodecError]:
        """A prediction or an error for each; an error that is ours costs those alone that make it."""
        try:
            return server.decode_each(records, clock)
        except Exception as error:
            if len(records) == 1:
                self.fault(error)
                return [SemcodecError("this record could not be answered: the server's log says why")]
        return [found for record in records for found in self._decode(server, [record], clock)]


def _record(job: Job[Hosted, Any], server: Server) -> Packet | LocalRecord:
    found = list(read_packets(BytesIO(job.record), server.header))
    if len(found) != 1 or found[0].sequence != job.sequence:
        raise CorruptStream(f"message {job.sequence} does not hold the one record of that number")
    return found[0]


def _line(error: SemcodecError) -> str:
    return "".join(c if c.isprintable() else "?" for c in first_line(error))[:1000]


def _microseconds(seconds: float) -> int:
    return max(0, round(1e6 * seconds))
