"""The models of a server: which streams they answer, and the threads that wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from semcodec.container.packets import read_header
from semcodec.errors import CorruptStream, SemcodecError, VersionMismatch, WeightsMismatch
from semcodec.pipeline.server import Server
from semcodec.serving.batching import Batcher, Job
from semcodec.serving.computing import Computed, Fault, Item, compute, draw, failed, microseconds
from semcodec.serving.messages import Answer, Failed, Late, Outcome, Reply
from semcodec.serving.metrics import Metrics
from semcodec.serving.sessions import ServerSession

KEPT = 256
"""Headers beside those of open streams of which it is remembered what answers them, at most."""
TRIES = 3
"""How often a record is begun whose executor dies: a machine that is taken away is not the record's fault."""
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

    def host(self, header: bytes, task: str = "", backbone: str = "") -> Hosted:
        """What answers a stream: nothing is built for it. task: of a stream for several, the one that is asked for.
        backbone: as in HELLO.

        Raises StreamError, SpecError, PluginError, UsageError for a task that is not answered here.
        """
        asked = header, task
        with self._lock:
            if (known := self._hosted.get(asked)) is not None:
                self._check_backbone(known.server, backbone)
                return known
        stream = BytesIO(header)
        read = read_header(stream)
        if stream.read(1):
            raise CorruptStream("the stream's header has bytes behind it")
        refused: SemcodecError | None = None
        for server in self.servers:
            try:
                accepted = server.accept(read)
                if task:
                    accepted = accepted.alone(task)
                accepted.check_one()
                self._check_backbone(accepted, backbone)
            except (VersionMismatch, WeightsMismatch) as error:
                # Other weights of the right composition say more than another composition.
                refused = error if refused is None or isinstance(error, WeightsMismatch) else refused
                continue
            with self._lock:
                if len(self._hosted) >= KEPT:
                    self._hosted = {key: hosted for key, hosted in self._hosted.items() if hosted.open}
                return self._hosted.setdefault(asked, Hosted(accepted, header, task))
        assert refused is not None
        if len(self.servers) > 1 and isinstance(refused, VersionMismatch):
            here = ", ".join(server.spec for server in self.servers)
            raise VersionMismatch(f"the stream was made by {read.spec}, and this server answers {here}")
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


class WorkerLost(Exception):
    """What computed a batch is gone, and its answers with it."""


class Executor(Protocol):
    """Where batches are computed. Any thread may use it.

    at_once: batches that are computed at a time, at most. ready: whether it answers now. failure: why it never will.
    """

    @property
    def at_once(self) -> int: ...

    @property
    def ready(self) -> bool: ...

    @property
    def failure(self) -> str: ...

    def turn(self) -> AbstractContextManager[None]:
        """Waits until another batch can be computed: it is taken, and computed, inside."""
        ...

    def compute(self, hosted: Hosted, items: Sequence[Item]) -> Computed:
        """Raises WorkerLost, after which the same items may be given again, and SemcodecError where nobody answers."""
        ...

    def draw(self, hosted: Hosted, item: Item, answer: Answer) -> list[Mapping[str, Any]]:
        """The panels of a record that was answered, for the page. Raises SemcodecError."""
        ...

    def end(self) -> None:
        """Nothing is waited for any longer."""
        ...


class Here:
    """An ``Executor`` in the thread that asks, by the models of this process."""

    at_once, ready, failure = 1, True, ""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()

    def compute(self, hosted: Hosted, items: Sequence[Item]) -> Computed:
        return compute(hosted.server, items, self.fault)

    def draw(self, hosted: Hosted, item: Item, answer: Answer) -> list[Mapping[str, Any]]:
        return draw(hosted.server, item, answer)

    def end(self) -> None:
        pass


class Engine(Generic[OwnerT]):
    """Answers what is put into its batcher, batch by batch, in threads of its own: as many as its executor takes.

    deliver: called in such a thread with owners, and outcomes or REPLY.
    """

    def __init__(
        self,
        batcher: Batcher[Hosted, OwnerT],
        metrics: Metrics,
        deliver: Callable[[Sequence[tuple[OwnerT, Outcome | Reply]]], None],
        executor: Executor,
    ) -> None:
        self.batcher, self.metrics, self.deliver, self.executor = batcher, metrics, deliver, executor
        self._threads = [
            threading.Thread(target=self._run, name=f"semcodec-models-{number}", daemon=True)
            for number in range(executor.at_once)
        ]

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Answer what waits, and end. Returns when that is done."""
        self.batcher.close()
        self.executor.end()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        while True:
            with self.executor.turn():
                taken = self.batcher.take()
                if taken is None:
                    return
                batch, late = taken
                now = self.batcher.now()
                out: list[tuple[OwnerT, Outcome | Reply]] = [
                    (job.owner, Late(job.sequence, microseconds(now - job.arrived))) for job in late
                ]
                if batch:
                    out += self._answer(batch, now)
                self.deliver(out)

    def _answer(self, batch: Sequence[Job[Hosted, OwnerT]], began: float) -> list[tuple[OwnerT, Outcome | Reply]]:
        computed = self._compute(batch[0].stream, [item_of(job) for job in batch])
        self.metrics.batch.observe(len(batch))
        for stage, spent in computed.seconds.items():
            self.metrics.stages[stage].observe(spent)
        out: list[tuple[OwnerT, Outcome | Reply]] = []
        for job, said in zip(batch, computed.said, strict=True):
            waited = began - job.arrived + computed.away
            self.metrics.stages["queue"].observe(waited)
            if not isinstance(said, Failed):
                said = replace(said, microseconds=(microseconds(waited), *said.microseconds[1:]))
            out.append((job.owner, said))
        return out

    def _compute(self, hosted: Hosted, items: Sequence[Item]) -> Computed:
        """``Executor.compute``, again where what computes dies: then one by one, since a record may be what kills it,
        which costs that one its answer."""
        began = time.perf_counter()
        parts: list[Computed] = []
        try:
            with suppress(WorkerLost):
                return self.executor.compute(hosted, items)
            for item in items:
                parts.append(self._again(hosted, item))  # noqa: PERF401  # those before an error stay
        except SemcodecError as error:  # nobody answers it, nor would those behind it be
            parts.append(Computed([failed(item, error) for item in items[len(parts) :]]))
        seconds: dict[str, float] = {}
        for part in parts:
            for stage, spent in part.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        away = time.perf_counter() - began - sum(seconds.values())
        return Computed([said for part in parts for said in part.said], seconds, away)

    def _again(self, hosted: Hosted, item: Item) -> Computed:
        for _ in range(TRIES - 1):
            with suppress(WorkerLost):
                return self.executor.compute(hosted, [item])
        return Computed([failed(item, SemcodecError(f"what computes this record died {TRIES} times"))])


def item_of(job: Job[Hosted, Any]) -> Item:
    """What is computed of a job."""
    session = job.owner.session
    return Item(job.sequence, job.record, job.round, job.first, session.logits, session.least_score)
