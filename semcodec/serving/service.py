"""Many sessions over one event loop: opening, reading, delivering, resuming, draining. An ASGI application.

Networks run in the engine's thread; here nothing waits for anything but messages. No stream can hold another up: each
has a window, a bounded outbox, and a reader that stops while its device does not read.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any
from urllib.parse import parse_qs

from semcodec.errors import CorruptStream, SemcodecError, VersionMismatch, WeightsMismatch, first_line, printable
from semcodec.pipeline.server import Server
from semcodec.serving import messages
from semcodec.serving.batching import Batcher, Job
from semcodec.serving.engine import Engine, Executor, Here, Hosted, Models
from semcodec.serving.figures import Figures
from semcodec.serving.limits import Limits
from semcodec.serving.log import Log
from semcodec.serving.messages import Answer, Bye, Data, First, Outcome, Refuse, Reply, Resume
from semcodec.serving.metrics import Metrics
from semcodec.serving.sessions import Second, ServerSession

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SWEEP_S = 1.0
LOOK_S = 10.0
"""After a look at the page, for which records are kept to be shown."""
LONGEST_QUERY = 1024
"""Bytes of an address behind its "?", of which no more are looked at."""
FLUSH_S = 2.0
"""For the last messages of a connection that is being closed."""


class Connection:
    """What is to be written to one device. task: that reads from it."""

    def __init__(self, send: Send, now: float, peer: str = "") -> None:
        self.send, self.seen, self.peer = send, now, peer
        self.outbox: deque[bytes] = deque()
        self.wake, self.drained = asyncio.Event(), asyncio.Event()
        self.drained.set()
        self.blocked: float | None = None
        self.task = asyncio.current_task()
        self.closing: str | None = None

    def push(self, data: bytes) -> None:
        """Write it when the device reads."""
        self.outbox.append(data)
        self.drained.clear()
        self.wake.set()

    async def write(self, metrics: Metrics) -> None:
        """Write what is pushed, until it is cancelled or the device is gone."""
        with suppress(OSError):
            while True:
                await self.wake.wait()
                self.wake.clear()
                while self.outbox:
                    data = self.outbox[0]
                    self.blocked = time.monotonic()
                    await self.send({"type": "websocket.send", "bytes": data})
                    self.blocked = None
                    self.outbox.popleft()
                    metrics.sent.inc()
                    metrics.bytes_sent.inc(len(data))
                self.drained.set()

    def end(self, reason: str) -> None:
        """Stop reading; what is in flight is answered, and BYE says why."""
        if self.closing is None and self.task is not None:
            self.closing = reason
            self.task.cancel()


@dataclass(eq=False)
class Held:
    """A session with its connection, if it has one. allowance: samples that it may send now, where that is limited.

    figures: of its last seconds. awaited, shown: while somebody looks, a job that is to be shown, and the last one
    that was answered, with its answer.
    """

    session: ServerSession
    hosted: Hosted
    connection: Connection | None = None
    detached: float = 0.0
    allowance: float = 1.0
    since: float = field(default_factory=time.monotonic)
    figures: Figures = field(default_factory=lambda: Figures(time.monotonic()))
    awaited: Job[Hosted, Held] | None = None
    shown: tuple[Job[Hosted, Held], Answer] | None = None


class _Refusal(Exception):
    def __init__(self, code: str, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.refuse = Refuse(code, printable(message)[:2000], retry)


class Service:
    """Answers streams of what ``servers`` decode. Made and used on one event loop.

    token: that devices have to know; None: none is asked for. executor: that decodes; None: these servers, here.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        limits: Limits | None = None,
        *,
        token: str | None = None,
        log: Log | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.limits, self.token, self.log = limits or Limits(), token, log or Log()
        self.models, self.metrics = Models(servers), Metrics()
        self.sessions: dict[str, Held] = {}
        self.draining = False
        self.began, self.looked = time.monotonic(), -inf
        self.batcher: Batcher[Hosted, Held] = Batcher(self.limits.max_batch, self.limits.batch_wait_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._window = self.limits.window
        self.engine: Engine[Held] = Engine(
            self.batcher, self.metrics, self._deliver_soon, executor or Here(self.log.fault)
        )

    async def start(self) -> None:
        """Begin to answer."""
        self._loop = asyncio.get_running_loop()
        self.engine.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def drain(self) -> None:
        """Take no new streams, answer what is in flight, and close every connection."""
        self.draining = True
        self.log("draining", streams=self._connected)
        tasks = [held.connection.task for held in self.sessions.values() if held.connection]
        for held in self.sessions.values():
            if held.connection:
                held.connection.end("draining")
        if waiting := [task for task in tasks if task is not None]:
            await asyncio.wait(waiting, timeout=self.limits.drain_s + FLUSH_S)

    async def stop(self) -> None:
        """End. What waits is answered first."""
        if self._sweeper:
            self._sweeper.cancel()
        await asyncio.to_thread(self.engine.stop)

    @property
    def _connected(self) -> int:
        return sum(held.connection is not None for held in self.sessions.values())

    # -- one connection ------------------------------------------------------------------------------------------------

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """A WebSocket, as ASGI has it: one binary message is one message of the protocol."""
        await receive()
        await send({"type": "websocket.accept"})
        peer = "{}:{}".format(*(scope.get("client") or ("?", 0)))
        connection = Connection(send, time.monotonic(), peer)
        try:
            held = await self._open(receive, connection, peer, _task(scope))
        except _Refusal as refusal:
            refuse = refusal.refuse
            self.metrics.refused.labels(refuse.code).inc()
            self.log("refused", peer=peer, code=refuse.code, message=refuse.message)
            with suppress(OSError):
                await send({"type": "websocket.send", "bytes": messages.write(refuse)})
                await send({"type": "websocket.close", "code": 1008, "reason": refuse.code})
            return
        if held is None:
            return
        writer = asyncio.create_task(connection.write(self.metrics))
        ended = False
        try:
            ended = await self._serve(held, connection, receive)
        finally:
            writer.cancel()
            self._detach(held, connection, ended)

    async def _open(self, receive: Receive, connection: Connection, peer: str, task: str) -> Held | None:
        """The session of a connection's first message, with what is due already pushed; None where it went away.

        task: that the address names, "" for none.
        """
        try:
            async with asyncio.timeout(self.limits.opening_s):
                data = await _message(receive)
        except TimeoutError:
            raise _Refusal("slow", f"no first message within {self.limits.opening_s:g} seconds") from None
        except CorruptStream as error:
            raise _Refusal("protocol", first_line(error)) from None
        if data is None:
            return None
        self._count(data)
        try:
            first = messages.read_first(data)
        except VersionMismatch as error:
            raise _Refusal("version", str(error)) from None
        except CorruptStream as error:
            raise _Refusal("protocol", str(error)) from None
        if self.token is not None and not hmac.compare_digest(first.token.encode(), self.token.encode()):
            raise _Refusal("token", "this server asks for a token, and this is not it: give --token-file")
        if self.draining:
            raise _Refusal("draining", "this server is about to end; try again", retry=True)
        known = self.sessions.get(first.session) if isinstance(first, Resume) else None
        if known is None or (known.hosted.header, known.hosted.task) != (first.header, task):
            known = await self._new(first, task)
            self.metrics.opened.inc()
            self.log("opened", session=known.session.id[:8], peer=peer, spec=known.hosted.server.spec)
        else:
            if known.connection is not None:  # of which the server has not yet heard that it is gone
                known.connection.end("done")
            self.metrics.resumed.inc()
            self.log("resumed", session=known.session.id[:8], peer=peer)
        known.connection, known.detached = connection, 0.0
        known.hosted.open += 1
        connection.seen = time.monotonic()
        for due in known.session.attach(first if isinstance(first, Resume) else None):
            connection.push(due)  # READY is the first of them
        self._narrow()
        return known

    async def _new(self, first: First, task: str) -> Held:
        if len(self.sessions) >= self.limits.max_streams and not self._forget_one():
            message = f"{self.limits.max_streams} streams are open, and no more are allowed; try again later"
            raise _Refusal("busy", message, retry=True)
        identity = secrets.token_hex(16)
        try:
            hosted = await asyncio.to_thread(self.models.host, first.header, task, first.backbone)
        except WeightsMismatch as error:
            raise _Refusal("weights", first_line(error)) from None
        except SemcodecError as error:
            raise _Refusal("composition", first_line(error)) from None
        if len(self.sessions) >= self.limits.max_streams:  # others came meanwhile
            raise _Refusal("busy", "too many streams are open; try again later", retry=True)
        limits = self.limits
        session = ServerSession(
            identity, hosted.server.classes, hosted.largest, self._window, limits.window, limits.idle_s, first.logits,
            first.least_score,
        )  # fmt: skip
        held = self.sessions[identity] = Held(session, hosted)
        return held

    async def _serve(self, held: Held, connection: Connection, receive: Receive) -> bool:
        """Read until the connection ends; whether the session does too."""
        try:
            return await self._read(held, connection, receive)
        except CorruptStream as error:
            self.metrics.refused.labels("protocol").inc()
            self.log("refused", session=held.session.id[:8], code="protocol", message=first_line(error))
            connection.push(messages.write(_Refusal("protocol", first_line(error)).refuse))
            await self._flush(connection, 1008)
            return True
        except asyncio.CancelledError:
            if connection.closing is None or connection.task is None:
                raise
            connection.task.uncancel()
            if held.connection is connection:
                await self._finish(held, connection)
            return False

    async def _finish(self, held: Held, connection: Connection) -> None:
        """Answer what is in flight, say BYE, and close."""
        end = time.monotonic() + self.limits.drain_s
        while held.session.queued and time.monotonic() < end:
            await asyncio.sleep(0.01)
        connection.push(held.session.counts.bye(connection.closing or "done"))
        await self._flush(connection, 1001)

    async def _flush(self, connection: Connection, code: int) -> None:
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(FLUSH_S):
                await connection.drained.wait()
                await connection.send({"type": "websocket.close", "code": code})

    async def _read(self, held: Held, connection: Connection, receive: Receive) -> bool:
        session, rate = held.session, self.limits.max_samples_per_s
        while True:
            data = await _message(receive)
            if data is None:
                return False
            self._count(data)
            now = connection.seen = time.monotonic()
            got = session.receive(data)
            if isinstance(got, Data | Second):
                self._take(held, got, now)
                if rate is not None and isinstance(got, Data):
                    await self._pace(held, rate)
            elif isinstance(got, Bye):
                connection.push(session.counts.bye("done"))
                await self._flush(connection, 1000)
                return True
            elif got is not None:
                connection.push(got)
            while len(connection.outbox) >= session.limit:  # it does not read: neither do we
                await connection.drained.wait()

    def _take(self, held: Held, got: Data | Second, now: float) -> None:
        """Put what a message holds before the models."""
        data, first = (got, None) if isinstance(got, Data) else (got.data, (got.first, got.request))
        left = inf if data.remaining_ms is None else data.remaining_ms / 1000
        job = Job(held.hosted, held, data.sequence, data.record, now, now + left, data.round, first)
        self.batcher.put(job)
        held.figures.add_record(now, len(data.record), int(first is None))
        awaited = held.awaited
        if (awaited is None and self.watched(now)) or (awaited is not None and awaited.sequence == data.sequence):
            held.awaited = job

    async def _pace(self, held: Held, rate: float) -> None:
        """Return when the stream may send another sample."""
        now = time.monotonic()
        held.allowance = min(1.0, held.allowance + (now - held.since) * rate) - 1
        held.since = now
        if held.allowance < 0:
            await asyncio.sleep(-held.allowance / rate)

    def _detach(self, held: Held, connection: Connection, ended: bool) -> None:
        held.hosted.open -= 1
        if held.connection is not connection:  # another one has gone on with the session
            return
        held.connection, held.detached = None, time.monotonic()
        counts = held.session.counts
        if ended:
            self.sessions.pop(held.session.id, None)
            self.batcher.discard(held)
        self.log(
            "closed" if ended else "detached", session=held.session.id[:8], received=counts.sent,
            answered=counts.answered, late=counts.late, failed=counts.failed,
        )  # fmt: skip
        self._narrow()

    # -- all of them ---------------------------------------------------------------------------------------------------

    def _count(self, data: bytes) -> None:
        self.metrics.received.inc()
        self.metrics.bytes_received.inc(len(data))

    def _deliver_soon(self, outcomes: Sequence[tuple[Held, Outcome | Reply]]) -> None:
        """Called in the engine's thread."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _deliver(self, outcomes: Sequence[tuple[Held, Outcome | Reply]]) -> None:
        for owner, outcome in outcomes:
            if isinstance(outcome, Reply):
                data = owner.session.ask(outcome)
                self.metrics.asked.inc()
            else:
                data = owner.session.answer(outcome)
                kind = type(outcome).__name__.lower()
                self.metrics.ended["answered" if kind == "answer" else kind].inc()
                self._show(owner, outcome)
            if owner.connection is not None:
                owner.connection.push(data)

    def _show(self, owner: Held, outcome: Outcome) -> None:
        """Keep what a page shows of a stream."""
        now = time.monotonic()
        owner.figures.add_outcome(now, outcome)
        if owner.awaited is not None and owner.awaited.sequence == outcome.sequence:
            if isinstance(outcome, Answer):
                owner.shown = owner.awaited, outcome
            owner.awaited = None

    def look(self) -> None:
        """Somebody looks: for some seconds each stream keeps a record to be shown."""
        self.looked = time.monotonic()

    def watched(self, now: float) -> bool:
        """Whether somebody has looked of late."""
        return now - self.looked < LOOK_S

    def metrics_text(self) -> bytes:
        """What is counted, as Prometheus reads it."""
        connected = self._connected
        self.metrics.streams.set(connected)
        self.metrics.detached.set(len(self.sessions) - connected)
        self.metrics.queued.set(len(self.batcher))
        return self.metrics.text()

    def _narrow(self) -> None:
        """Give every stream the window that so many streams may have."""
        window = self.limits.window_of(self._connected)
        if window == self._window:
            return
        self._window = window
        for held in self.sessions.values():
            credit = held.session.narrow(window)
            if credit is not None and held.connection is not None:
                held.connection.push(credit)

    def _forget_one(self) -> bool:
        """Make room by the session that has been without a connection for longest; whether there is one."""
        kept = [held for held in self.sessions.values() if held.connection is None and not held.session.queued]
        if not kept:
            return False
        oldest = min(kept, key=lambda held: held.detached)
        del self.sessions[oldest.session.id]
        return True

    async def _sweep(self) -> None:
        """Close what is idle or does not read, and forget sessions that nobody has gone on with."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now, idle = time.monotonic(), self.limits.idle_s
            for held in list(self.sessions.values()):
                connection = held.connection
                if not self.watched(now):
                    held.awaited = held.shown = None
                if connection is None:
                    if now - held.detached > idle and not held.session.queued:
                        del self.sessions[held.session.id]
                        self.log("forgotten", session=held.session.id[:8])
                elif (connection.blocked is not None and now - connection.blocked > idle) or (
                    now - connection.seen > idle and not held.session.queued
                ):
                    connection.end("idle")


async def _message(receive: Receive) -> bytes | None:
    """The next message; None at the end of the connection. Raises CorruptStream for text."""
    event = await receive()
    if event["type"] == "websocket.disconnect":
        return None
    data = event.get("bytes")
    if data is None:
        raise CorruptStream("messages of the protocol are binary")
    return bytes(data)


def _task(scope: MutableMapping[str, Any]) -> str:
    """The task that a connection's address asks for, as in /v1/stream?task=detection; "" where it names none."""
    asked = parse_qs(scope.get("query_string", b"")[:LONGEST_QUERY].decode("ascii", "replace"))
    task: str = asked.get("task", [""])[0]
    return task
