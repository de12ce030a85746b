"""A device's link to a server: samples in, answers out."""

from __future__ import annotations

import asyncio
import itertools
import queue
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from semcodec.container.packets import LocalRecord, read_packets, write_header
from semcodec.data.inputs import Input, read
from semcodec.errors import SemcodecError, UsageError, first_line
from semcodec.interfaces import Selector
from semcodec.pipeline.device import Begun, Device, Encoded
from semcodec.serving import messages
from semcodec.serving.answers import to_prediction
from semcodec.serving.carrier import Carrier, Sent
from semcodec.serving.messages import Hello, Ready, Reply
from semcodec.serving.meter import Meter
from semcodec.tasks.table import get_task

if TYPE_CHECKING:
    from semcodec.data.inputs import Sample
    from semcodec.interfaces import Bool, Floats
    from semcodec.specs import InputRequest
    from semcodec.tasks.prediction import Prediction


class Choice(Protocol):
    """What to do with a sample: "send" it at call parameters, answer it here ("local"), or "skip" it."""

    @property
    def what(self) -> str: ...
    @property
    def knobs(self) -> Mapping[str, Any]: ...


class Chooser(Protocol):
    """Decides for each sample: ``planning.live.LiveDeadline``. taken: how often what was chosen."""

    @property
    def taken(self) -> Mapping[str, int]: ...

    def choose(self) -> Any:
        """A ``Choice`` for a sample that is there now."""

    def took(self, choice: Any, what: str, ends_ms: float, total_ms: float) -> None:
        """What came of one: how it was answered, and what that took, beside the link and in all."""


class Stay(Selector):
    """A gate that sends nothing."""

    def gate_array(self, prediction: Floats) -> Bool:
        """False for each."""
        return np.zeros(len(prediction), np.bool_)


PARTS = ("device", "link", "queue", "server")
"""Of the time from a sample to its answer. device: until its packet is written. server: decoding, recovering, tail."""

ENCODING_S = 10.0
"""How long a stream that ends waits for a sample that is being encoded."""


@dataclass(frozen=True)
class Answer:
    """What came of one sample.

    sample: as it was given. encoded: its record and what its bytes are. outcome: "answered" by the server; "local"
    where the gate kept it on the device, and nothing was sent; "late" where its deadline was over before it was
    decoded; "failed" where it could not be; "skipped" where no answer would have been in time. prediction: of the first
    two. error: of a failure. ms: milliseconds by ``PARTS``, and "look", "decode", "recover" and "tail" of the server's.
    rounds: packets that were sent, all of which ``encoded`` holds. reply_bytes: of the message that asked for the
    second.
    """

    sample: Any = field(repr=False)
    sequence: int
    encoded: Encoded = field(repr=False)
    outcome: str
    prediction: Prediction | None = None
    error: str | None = None
    ms: Mapping[str, float] = field(default_factory=dict)
    rounds: int = 1
    reply_bytes: int = 0

    @property
    def total_ms(self) -> float:
        """From the sample to its answer."""
        return sum(self.ms[part] for part in PARTS)


class Link:
    """A connection to a server that answers the streams of one composition. Any thread may send.

    Made by ``connect`` as a context manager. device: the end that encodes, of a stream for several tasks seen with the
    one that is to be answered. window: samples that may be in flight. meter: measures the link. chooser: sets call
    parameters for each sample, or keeps it here. shape: as of ``Carrier``.
    """

    def __init__(
        self,
        url: str,
        device: Device,
        *,
        token: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        logits: bool = False,
        least_score: float = 0.0,
        in_flight: int | None = None,
        patience_s: float | None = 60.0,
        meter: Meter | None = None,
        chooser: Chooser | None = None,
        shape: Callable[[int, float], float] | None = None,
    ) -> None:
        self.device, self.in_flight = device, in_flight
        self.meter, self.chooser = meter, chooser
        self._devices: dict[tuple[tuple[str, Any], ...], Device] = {}
        hello = Hello(
            token or "",
            write_header(device.header),
            device.digests.get(device.composition.head_slot, ""),
            logits,
            least_score,
        )
        task = device.composition.task if device.composition.seen else None
        self._carrier = Carrier(url, hello, ssl_context, patience_s, meter, shape, task)
        self._numbers = itertools.count()
        self.pool = ThreadPoolExecutor(1, "semcodec-second")
        self._ready: Ready | None = None

    def open(self) -> None:
        """Connect. Raises LinkError where the server cannot be reached or refuses."""
        self._ready = self._carrier.start()

    def close(self) -> None:
        """Say goodbye and disconnect. What has no answer yet fails."""
        self._carrier.close()
        self.pool.shutdown(cancel_futures=True)

    def second(self, reply: Reply, record: bytes) -> None:
        """Send the second round that ``reply`` asked for."""
        self._carrier.submit_second(reply, record)

    @property
    def request(self) -> InputRequest:
        """The pixels that the model wants."""
        return self.device.request

    @property
    def classes(self) -> Sequence[str]:
        """Names of what the server recognises."""
        assert self._ready is not None
        return self._ready.classes

    @property
    def window(self) -> int:
        """Samples that may be in flight: as the server says, and no more than ``in_flight``."""
        window = self._carrier.window
        return window if self.in_flight is None else min(window, self.in_flight)

    @property
    def statistics(self) -> dict[str, int]:
        """connections, resent (records that were sent again), bytes_up and bytes_down (of messages)."""
        traffic = self._carrier.traffic
        return {
            "connections": traffic.connections,
            "resent": self._carrier.session.resent,
            "bytes_up": traffic.up,
            "bytes_down": traffic.down,
        }

    # -- one sample ----------------------------------------------------------------------------------------------------

    def send(self, sample: Sample | Input, *, deadline_ms: float | None = None, **call: Any) -> Answer:
        """Send one sample and wait for its answer.

        sample: as for ``Device.encode``, or an ``Input``. deadline_ms: from now on. call: call parameters of the
        encoder, for this sample alone. Raises LinkError without a connection for ``patience_s``, UsageError and
        DataError for a sample or a parameter that cannot be.
        """
        return self.submit(sample, deadline_ms=deadline_ms, **call).result()

    def submit(self, sample: Sample | Input, *, deadline_ms: float | None = None, **call: Any) -> Future[Answer]:
        """``send`` without the wait, in a future. It is for the caller to keep to ``window``."""
        began = time.perf_counter()
        deadline = None if deadline_ms is None else time.monotonic() + deadline_ms / 1000
        device = self.device.with_call(**call) if call else self.device
        sequence = next(self._numbers)
        choice = None if self.chooser is None else self.chooser.choose()
        if choice is not None:
            if choice.what == "skip":
                skipped: Future[Answer] = Future()
                skipped.set_result(Answer(sample, sequence, Encoded(b""), "skipped", ms=dict.fromkeys(PARTS, 0.0)))
                return skipped
            device = self._chosen(choice)
        begun = _begin(device, sample, sequence) if device.replied else None
        encoded = begun.first if begun else _encode(device, sample, sequence)
        future: Future[Answer] = Future()
        if encoded.bytes_local:
            ms = {**dict.fromkeys(PARTS, 0.0), "device": 1000 * (time.perf_counter() - began)}
            [record] = read_packets(BytesIO(encoded.data), device.header)
            assert isinstance(record, LocalRecord)
            prediction = get_task(device.composition.task).predict_local(record, device.classes)
            if self.chooser is not None and choice is not None:
                self.chooser.took(choice, "local", ms["device"], ms["device"])
            future.set_result(Answer(sample, sequence, encoded, "local", prediction, ms=ms))
            return future
        if self._ready is not None and len(encoded.data) > self._ready.largest:
            future.set_exception(
                UsageError(f"a record of {len(encoded.data):,} bytes, and the server takes {self._ready.largest:,}")
            )
            return future

        def done(sent: Future[Sent]) -> None:
            error = sent.exception()
            if error is not None:
                future.set_exception(error)
                return
            try:
                if second and second.error is not None:
                    raise second.error
                answer = self._answer(sample, sequence, encoded, sent.result(), began, second)
                if self.chooser is not None and choice is not None and answer.outcome == "answered":
                    self.chooser.took(choice, "send", answer.total_ms - answer.ms["link"], answer.total_ms)
                future.set_result(answer)
            except SemcodecError as wrong:
                future.set_exception(wrong)

        second = _Second(self, device, begun) if begun else None
        asked = None if second is None else second.asked
        self._carrier.submit(sequence, encoded.data, deadline, asked).add_done_callback(done)
        return future

    def _chosen(self, choice: Choice) -> Device:
        """The device that does as is chosen, made once for each setting."""
        key = (("", choice.what), *sorted(choice.knobs.items()))
        if key not in self._devices:
            gate = Stay() if choice.what == "local" else self.device.selectors.gate
            device = self.device if choice.what == "local" else self.device.with_call(**choice.knobs)
            self._devices[key] = replace(device, selectors=replace(device.selectors, point=None, gate=gate))
        return self._devices[key]

    def _answer(
        self, sample: Any, sequence: int, encoded: Encoded, sent: Sent, began: float, second: _Second | None
    ) -> Answer:
        outcome, error, prediction = sent.outcome, None, None
        queued = look = decode = recover = tail = asked = 0.0
        if isinstance(outcome, messages.Answer):
            kind, prediction = "answered", to_prediction(outcome, self.classes, self.device.composition.task)
            queued, decode, recover, tail = (us / 1000 for us in outcome.microseconds)
        elif isinstance(outcome, messages.Late):
            kind, queued = "late", outcome.queue_us / 1000
        else:
            kind, error = "failed", outcome.message
        rounds, reply_bytes = 1, 0
        if second is not None and second.encoded is not None:
            rounds, reply_bytes, asked = 2, second.reply_bytes, second.ms
            encoded = _both(encoded, second.encoded)
            queued, look = queued + second.queued_ms, second.look_ms
        server = look + decode + recover + tail
        ms = {
            "device": 1000 * (sent.left - began) + asked,
            "link": max(0.0, 1000 * (sent.came - sent.left) - asked - queued - server),
            "queue": queued,
            "server": server,
            "look": look,
            "decode": decode,
            "recover": recover,
            "tail": tail,
        }
        return Answer(sample, sequence, encoded, kind, prediction, error, ms, rounds, reply_bytes)

    # -- many samples --------------------------------------------------------------------------------------------------

    def stream(
        self,
        samples: Iterable[Sample | Input],
        *,
        deadline_ms: float | None = None,
        fps: float | None = None,
        **call: Any,
    ) -> Iterator[Answer]:
        """Send samples as fast as the server takes them, and give answers as they come.

        A sample is taken from ``samples`` only when it can be sent: a camera (``semcodec.open_camera``) gives its
        newest one then. fps: no faster than so many a second. Raises as ``send``, after the answers before it.
        """
        answers: queue.SimpleQueue[Answer | BaseException | None] = queue.SimpleQueue()
        feeder = _Feeder(self, samples, answers, deadline_ms, fps, call)
        feeder.start()
        error: BaseException | None = None
        try:
            while (got := answers.get()) is not None:
                if isinstance(got, BaseException):
                    error = error or got
                    feeder.stop()
                    continue
                yield got
        finally:
            feeder.stop()
        if error is not None:
            raise error


class _Second:
    """Makes a sample's second round when the server asks for it, in a thread of the link's pool.

    encoded: of the second round, once it was made; ms: that this took. queued_ms, look_ms: of the first, at the server.
    error: where what the server asks for cannot be.
    """

    def __init__(self, link: Link, device: Device, begun: Begun) -> None:
        self.link, self.device, self.begun = link, device, begun
        self.encoded: Encoded | None = None
        self.error: SemcodecError | None = None
        self.ms = self.queued_ms = self.look_ms = 0.0
        self.reply_bytes = 0

    def asked(self, reply: Reply, size: int) -> None:
        """Called in the carrier's thread, which is not to wait."""
        self.reply_bytes = size
        self.queued_ms, self.look_ms = (us / 1000 for us in reply.microseconds)
        self.link.pool.submit(self._make, reply)

    def _make(self, reply: Reply) -> None:
        began, record = time.perf_counter(), b""  # which the server refuses, so that the sample ends
        try:
            self.encoded = self.device.second(self.begun, reply.request)
            record = self.encoded.data
        except SemcodecError as error:
            self.error = error
        except Exception as error:
            self.error = SemcodecError(f"a second round could not be made: {first_line(error)}")
        self.ms = 1000 * (time.perf_counter() - began)
        self.link.second(reply, record)


class _Feeder(threading.Thread):
    """Takes samples when there is room, encodes and sends them, and puts what comes of them into ``answers``: answers,
    errors, and at the end None."""

    def __init__(
        self,
        link: Link,
        samples: Iterable[Any],
        answers: queue.SimpleQueue[Answer | BaseException | None],
        deadline_ms: float | None,
        fps: float | None,
        call: Mapping[str, Any],
    ) -> None:
        super().__init__(name="semcodec-feeder", daemon=True)
        self.link, self.samples, self.answers = link, samples, answers
        self.deadline_ms, self.fps, self.call = deadline_ms, fps, call
        self._given_up = threading.Event()
        self._changed = threading.Condition()
        self._open = 0
        self._encoding = False

    def stop(self) -> None:
        """Take no more samples. Waits for one that is being encoded: an interpreter that ends while a thread is within
        torch aborts."""
        with self._changed:
            self._given_up.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._encoding, ENCODING_S)

    def run(self) -> None:
        try:
            self._feed()
        except BaseException as error:  # raised where the answers are read
            self.answers.put(error)
        with self._changed:
            while self._open:
                self._changed.wait()
        self.answers.put(None)

    def _feed(self) -> None:
        due = time.monotonic()
        samples = iter(self.samples)
        while True:
            with self._changed:
                while self._open >= max(1, self.link.window) and not self._given_up.is_set():
                    self._changed.wait(0.5)  # the window may have widened
            if self.fps is not None:
                self._given_up.wait(max(0.0, due - time.monotonic()))
                due = max(due + 1 / self.fps, time.monotonic())
            if self._given_up.is_set():
                return
            sample = next(samples, None)
            with self._changed:
                if sample is None or self._given_up.is_set():
                    return
                self._encoding = True
            try:
                future = self.link.submit(sample, deadline_ms=self.deadline_ms, **self.call)
                with self._changed:
                    self._open += 1
            finally:
                with self._changed:
                    self._encoding = False
                    self._changed.notify_all()
            future.add_done_callback(self._done)

    def _done(self, future: Future[Answer]) -> None:
        self.answers.put(future.exception() or future.result())
        with self._changed:
            self._open -= 1
            self._changed.notify_all()


class AsyncLink:
    """A ``Link`` for asyncio: encoding runs in threads. Made by ``connect`` as an async context manager."""

    def __init__(self, link: Link) -> None:
        self.link = link

    @property
    def request(self) -> InputRequest:
        """The pixels that the model wants."""
        return self.link.request

    @property
    def classes(self) -> Sequence[str]:
        """Names of what the server recognises."""
        return self.link.classes

    async def send(self, sample: Sample | Input, *, deadline_ms: float | None = None, **call: Any) -> Answer:
        """See ``Link.send``."""
        future = await asyncio.to_thread(self.link.submit, sample, deadline_ms=deadline_ms, **call)
        return await asyncio.wrap_future(future)

    async def stream(
        self,
        samples: Iterable[Sample | Input],
        *,
        deadline_ms: float | None = None,
        fps: float | None = None,
        **call: Any,
    ) -> AsyncIterator[Answer]:
        """See ``Link.stream``."""
        answers = self.link.stream(samples, deadline_ms=deadline_ms, fps=fps, **call)
        while (answer := await asyncio.to_thread(next, answers, None)) is not None:
            yield answer


class Connecting:
    """What ``connect`` gives: ``with`` makes a ``Link`` of it, ``async with`` an ``AsyncLink``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> Link:
        self._link.open()
        return self._link

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    async def __aenter__(self) -> AsyncLink:
        await asyncio.to_thread(self._link.open)
        return AsyncLink(self._link)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._link.close)


def _encode(device: Device, sample: Any, sequence: int) -> Encoded:
    if not isinstance(sample, Input):
        return device.encode(sample, sequence)
    return device.encode_batch(sample.pixels, [sequence], sizes=None if sample.size is None else [sample.size])[0]


def _begin(device: Device, sample: Any, sequence: int) -> Begun:
    pixels = sample.pixels if isinstance(sample, Input) else read(sample, device.request)[0]
    return device.begin(pixels, [sequence])[0]


def _both(first: Encoded, second: Encoded) -> Encoded:
    """Two packets of one sample, one behind the other."""
    return replace(
        first,
        data=first.data + second.data,
        bytes_payload=first.bytes_payload + second.bytes_payload,
        bytes_side=first.bytes_side + second.bytes_side,
        bytes_header=first.bytes_header + second.bytes_header,
        kept=second.kept,
        rows=(*first.rows, *second.rows),
    )
