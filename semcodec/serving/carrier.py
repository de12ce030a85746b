"""The device's connection: a thread with an event loop that keeps a session alive over WebSockets, whatever is cut."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from semcodec.errors import CorruptStream, LinkError, SemcodecError, UsageError, first_line
from semcodec.serving import messages
from semcodec.serving.messages import Bye, Failed, Hello, Late, Outcome, Ready, Reply
from semcodec.serving.meter import Meter, tcp_segments
from semcodec.serving.sessions import DeviceSession, Refused

PATH = "/v1/stream"
OPEN_S = 10.0
"""For a connection to be made and the server to say READY."""
PING_S, PONG_S = 10.0, 30.0
METER_S = 1.0
"""Between the pings of a link that is measured."""
BACKOFF_S = 0.1
BACKOFF_MOST_S = 5.0
FIRST_TRIES = 5
"""Of a first connection that is cut before the server has said READY."""
Asking = Callable[[Reply, int], None]
LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass
class Sent:
    """How a record fared.

    outcome: what the server said. left, came: when its message was first written, and answered, on the clock of
    ``time.perf_counter``.
    """

    outcome: Outcome
    left: float
    came: float


@dataclass
class Traffic:
    """Of all connections of a link. connections: that said READY. up, down: bytes of messages."""

    connections: int = 0
    up: int = 0
    down: int = 0


@dataclass(eq=False)
class Carrier:
    """Sends records and gives a future for each outcome. ``start`` first, ``close`` last; any thread may ``submit``.

    url: ws:// or wss:// HOST:PORT. patience_s: without a connection, after which what is unanswered fails; None: never.
    meter: told of what is sent and acknowledged, and of pings. shape: milliseconds that so many bytes take which begin
    so many seconds after the start; messages are held back as if the uplink were no faster.
    task: of a stream for several, the one that the server shall answer.
    """

    url: str
    hello: Hello
    ssl_context: ssl.SSLContext | None = None
    patience_s: float | None = 60.0
    meter: Meter | None = None
    shape: Callable[[int, float], float] | None = None
    task: str | None = None
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise UsageError(f"{self.url}: a server's address is ws://HOST:PORT, or wss://HOST:PORT with TLS")
        try:
            parts.port  # noqa: B018 - which raises
        except ValueError as error:
            raise UsageError(f"{self.url}: {error}") from None
        if self.ssl_context is not None and parts.scheme == "ws":
            raise UsageError(f"{self.url}: --ca is for wss://, which has TLS")
        self._near = parts.hostname in LOCAL
        self.session = DeviceSession(self.hello)
        self._futures: dict[int, Future[Sent]] = {}
        self._left: dict[int, float] = {}
        self._asking: dict[int, Asking] = {}
        self._began = self._free = time.monotonic()
        self._ready: Future[Ready] = Future()
        self._error: SemcodecError | None = None
        self._reason: SemcodecError | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="semcodec-link", daemon=True)

    # -- called from any thread ----------------------------------------------------------------------------------------

    def start(self) -> Ready:
        """Connect; what the server says. Raises LinkError where it cannot be reached, Refused where it refuses."""
        self._thread.start()
        try:
            return self._ready.result()
        except BaseException:
            self.close()
            raise

    @property
    def window(self) -> int:
        """How many records may be in flight."""
        return self.session.window

    def submit(
        self, sequence: int, record: bytes, deadline: float | None = None, asked: Asking | None = None
    ) -> Future[Sent]:
        """Send one record. deadline: on the clock of ``time.monotonic``. The future raises LinkError.

        asked: of a first round; called in the carrier's thread with what the server asks for and the bytes of that
        message. ``submit_second`` is to follow.
        """
        future: Future[Sent] = Future()
        with self._lock:
            if self._error is not None:
                future.set_exception(self._error)
                return future
            self._futures[sequence] = future
        with suppress(RuntimeError):  # the loop has ended, and what is unanswered fails
            if self.meter is not None:
                self.meter.submitted(sequence, len(record))
            self._loop.call_soon_threadsafe(self._submit, sequence, record, deadline, asked)
        return future

    def submit_second(self, reply: Reply, record: bytes) -> None:
        """Send the second round that ``reply`` asked for."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._submit_second, reply, record)

    def close(self) -> None:
        """Say BYE and end. What is unanswered fails."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)
        if self._thread.ident is not None:
            self._thread.join()

    # -- in the carrier's thread ---------------------------------------------------------------------------------------

    def _submit(self, sequence: int, record: bytes, deadline: float | None, asked: Asking | None) -> None:
        if asked is not None:
            self._asking[sequence] = asked
        self.session.submit(sequence, record, deadline, first=asked is not None)
        self._wake.set()

    def _submit_second(self, reply: Reply, record: bytes) -> None:
        self.session.submit_second(reply.sequence, reply.request, record)
        self._wake.set()

    def _close(self) -> None:
        self._closing = True
        self._wake.set()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._fail(self._reason or LinkError("the link is closed"))

    def _fail(self, error: SemcodecError) -> None:
        with self._lock:
            self._error = error
            unanswered, self._futures = list(self._futures.values()), {}
        if not self._ready.done():
            self._ready.set_exception(error)
        for future in unanswered:
            future.set_exception(error)

    async def _run(self) -> None:
        """Connect again and again, until it is closed, refused, or out of patience."""
        from websockets.exceptions import ConnectionClosed, InvalidMessage, WebSocketException

        cut = ConnectionClosed, InvalidMessage, ConnectionResetError, BrokenPipeError
        tries, since = 0, time.monotonic()
        while not self._closing:
            try:
                before = self.traffic.connections
                idle = await self._connect()
            except Refused as refused:
                error: Exception = refused
                if not refused.retry:
                    self._reason = refused
                    return
                idle = False
            except (OSError, TimeoutError, CorruptStream, WebSocketException) as failure:
                error, idle = failure, False
            else:
                error = LinkError("the server closed the connection")
            self.session.cut()
            if self.meter is not None:
                self.meter.cut()
            if self._closing:
                return
            if self.traffic.connections > before:
                tries, since = 0, time.monotonic()
            told = self._told(error)
            begun = self.traffic.connections > 0 or isinstance(error, Refused)
            if not begun and not (isinstance(error, cut) and tries < FIRST_TRIES):  # nobody there is nobody there
                self._reason = told
                return
            if idle and not self.session.unanswered:  # nothing to say: wait until there is
                self._wake.clear()
                await self._wake.wait()
                since = time.monotonic()
                continue
            if self.patience_s is not None and time.monotonic() - since > self.patience_s:
                self._reason = told
                return
            most = min(BACKOFF_MOST_S, BACKOFF_S * 2**tries)
            tries = min(tries + 1, 16)
            with suppress(TimeoutError):
                async with asyncio.timeout(most * (0.5 + 0.5 * random.random())):
                    while not self._closing:
                        self._wake.clear()
                        await self._wake.wait()

    def _told(self, error: Exception) -> SemcodecError:
        if isinstance(error, SemcodecError):
            return error
        reason = "no answer in time" if isinstance(error, TimeoutError) else ""
        reason = reason or (isinstance(error, OSError) and error.strerror) or first_line(error)
        return LinkError(f"{self.url} cannot be reached ({reason}): does semcodec serve run there?")

    async def _connect(self) -> bool:
        """One connection, to its end; whether the server closed it for want of messages."""
        from websockets.asyncio.client import connect

        options: dict[str, Any] = {"proxy": None} if self._near else {}
        if self.ssl_context is not None:
            options["ssl"] = self.ssl_context
        asking = "" if self.task is None else "?" + urlencode({"task": self.task})
        async with asyncio.timeout(OPEN_S):
            socket = await connect(
                self.url.rstrip("/") + PATH + asking, compression=None, max_size=messages.MAX_DOWN, max_queue=4,
                open_timeout=None, ping_interval=PING_S, ping_timeout=PONG_S, close_timeout=2, user_agent_header=None,
                **options,
            )  # fmt: skip
        try:
            async with asyncio.timeout(OPEN_S):
                await self._send(socket, self.session.open())
                ready = self.session.receive(await self._next(socket))
            if not isinstance(ready, Ready):
                raise CorruptStream("the server does not begin with READY")
            self.traffic.connections += 1
            if not self._ready.done():
                self._ready.set_result(ready)
            writer = asyncio.create_task(self._write(socket))
            reader = asyncio.create_task(self._read(socket))
            pinger = asyncio.create_task(self._ping(socket, self.meter)) if self.meter is not None else None
            try:
                done, _ = await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
                if reader in done:
                    return reader.result()
                writer.result()
                with suppress(TimeoutError):  # we have said BYE: the server's ends it
                    async with asyncio.timeout(2):
                        await asyncio.wait((reader,))
                return False
            finally:
                tasks = [task for task in (writer, reader, pinger) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await socket.close()

    def _measure(self, meter: Meter, got: Outcome | Reply) -> None:
        if isinstance(got, Failed):  # which does not say how long the server had it
            meter.forget(got.sequence)
            return
        spent = got.queue_us if isinstance(got, Late) else sum(got.microseconds)
        meter.acknowledged(got.sequence, spent / 1e6)

    async def _ping(self, socket: Any, meter: Meter) -> None:
        while True:
            meter.ping(await (await socket.ping()))
            counted = tcp_segments(socket.transport.get_extra_info("socket"))
            if counted is not None:
                meter.segments(*counted)
            await asyncio.sleep(METER_S)

    async def _send(self, socket: Any, data: bytes) -> None:
        self.traffic.up += len(data)
        if self.shape is not None:
            now = time.monotonic()
            begin = max(now, self._free)
            self._free = begin + self.shape(len(data), begin - self._began) / 1000
            await asyncio.sleep(self._free - now)
        await socket.send(data)

    async def _next(self, socket: Any) -> bytes:
        data = await socket.recv()
        if isinstance(data, str):
            raise CorruptStream("messages of the protocol are binary")
        self.traffic.down += len(data)
        return bytes(data)

    async def _write(self, socket: Any) -> None:
        """Send what the window lets go, until the link is closed."""
        while not self._closing:
            self._wake.clear()
            for sequence, data in self.session.to_send(time.monotonic()):
                self._left.setdefault(sequence, time.perf_counter())
                if self.meter is not None:
                    self.meter.sent(sequence, len(data))
                await self._send(socket, data)
            if not self._closing:
                await self._wake.wait()
        await self._send(socket, self.session.counts.bye("done"))

    async def _read(self, socket: Any) -> bool:
        """Take what the server says, until BYE; whether that was for want of messages."""
        while True:
            data = await self._next(socket)
            got = self.session.receive(data)
            if isinstance(got, Bye):
                return got.reason == "idle"
            self._wake.set()
            if got is None or isinstance(got, Ready):
                continue
            if self.meter is not None:
                self._measure(self.meter, got)
            if isinstance(got, Reply):
                self._asking[got.sequence](got, len(data))
                continue
            came = time.perf_counter()
            self._asking.pop(got.sequence, None)
            future = self._futures.pop(got.sequence)
            future.set_result(Sent(got, self._left.pop(got.sequence, came), came))
