"""Both ends of a session as state machines without input or output: bytes in, bytes and events out.

A session outlives its connections. The carrier keeps the order of what it delivers and, when it is cut, loses the
rest; what comes twice is taken once. Whatever is cut, every record that was handed in has exactly one outcome at the
device's end.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from semcodec.errors import CorruptStream, LinkError
from semcodec.serving import messages
from semcodec.serving.messages import Bye, Credit, Data, Failed, Hello, Outcome, Ready, Refuse, Reply, Resume


class Refused(LinkError):
    """The other end does not answer this stream. code, retry: as in REFUSE."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__(refusal.message)
        self.code, self.retry = refusal.code, refusal.retry


@dataclass
class Counts:
    """Of one session: records sent, and how they ended."""

    sent: int = 0
    answered: int = 0
    late: int = 0
    failed: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more of its kind."""
        if isinstance(outcome, messages.Answer):
            self.answered += 1
        elif isinstance(outcome, messages.Late):
            self.late += 1
        else:
            self.failed += 1

    def bye(self, reason: str) -> bytes:
        """The message that ends a connection."""
        return messages.write(Bye(reason, self.sent, self.answered, self.late, self.failed))


@dataclass
class Pending:
    """A record without an outcome.

    deadline: on the clock that ``to_send`` is told, or None. round: of DATA. sent: whether the server may have what is
    to be sent next or was sent last. asked: what it has asked for after a first round. second: the record of that.
    earlier: whether the last was sent on a connection before this one, so that it may be lost.
    """

    record: bytes
    deadline: float | None
    round: int = 0
    sent: bool = False
    asked: bytes | None = None
    second: bytes | None = None
    earlier: bool = False

    def data(self, sequence: int, now: float) -> bytes:
        """The message of what is to be sent next."""
        left = None if self.deadline is None else max(0, round(1000 * (self.deadline - now)))
        if self.second is not None:
            return messages.write(Data(sequence, 2, left, self.second))
        return messages.write(Data(sequence, self.round, left, self.record))


class DeviceSession:
    """The device's end.

    For each connection: ``open`` gives its first message, ``receive`` takes each that comes, ``to_send`` gives what may
    go now, and ``cut`` is told when it ended. ``submit`` may be called at any time.

    unanswered: records without an outcome, by number, in the order in which they were handed in.
    ready: what the server said last, None before it did. resent: how many records were sent more than once.
    """

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.ready: Ready | None = None
        self.window = 0
        self.unanswered: OrderedDict[int, Pending] = OrderedDict()
        self.counts = Counts()
        self.resent = 0
        self._unsent: deque[int] = deque()
        self._in_flight = 0
        self._opened = False

    def open(self) -> bytes:
        """The first message of a connection."""
        self.cut()
        if self.ready is None:
            return messages.write(self.hello)
        sent = [s for s, pending in self.unanswered.items() if pending.sent or pending.asked is not None]
        hello, session = self.hello, self.ready.session
        return messages.write(
            Resume(hello.token, hello.header, hello.backbone, hello.logits, hello.least_score, session, sent)
        )

    def cut(self) -> None:
        """The connection is over: what it may have lost is sent again on the next one, where the server wants it."""
        self._opened, self._in_flight = False, 0
        for pending in self.unanswered.values():
            pending.earlier = pending.sent

    def submit(self, sequence: int, record: bytes, deadline: float | None = None, *, first: bool = False) -> None:
        """Hand in one record. first: of two rounds. Raises ValueError for a number that has no answer yet."""
        if sequence in self.unanswered:
            raise ValueError(f"record {sequence} has no answer yet")
        self.unanswered[sequence] = Pending(record, deadline, int(first))
        self._unsent.append(sequence)
        self.counts.sent += 1

    def submit_second(self, sequence: int, request: bytes, record: bytes) -> None:
        """Hand in the second round that REPLY asked for by ``request``; it goes before all that was not sent yet.

        Nothing happens where the sample has its outcome, or was begun anew with another server.
        """
        pending = self.unanswered.get(sequence)
        if pending is not None and pending.asked == request and pending.second is None:
            pending.second = record
            self._again(sequence, pending)

    def _again(self, sequence: int, pending: Pending) -> None:
        """Send next what is due of a sample that is in flight."""
        self._in_flight -= pending.sent and self._opened
        pending.sent = False
        self._unsent.appendleft(sequence)

    def to_send(self, now: float) -> list[tuple[int, bytes]]:
        """What the window lets go, by number. now: in seconds, on the clock of the deadlines."""
        out: list[tuple[int, bytes]] = []
        while self._opened and self._unsent and self._in_flight < self.window:
            sequence = self._unsent.popleft()
            pending = self.unanswered.get(sequence)
            if pending is None or pending.sent:
                continue
            out.append((sequence, pending.data(sequence, now)))
            pending.sent, pending.earlier = True, False
            self._in_flight += 1
        return out

    def receive(self, data: bytes) -> Ready | Outcome | Reply | Bye | None:
        """A message of the server: what it says that matters, None for what is settled here or comes a second time.

        Raises Refused, and CorruptStream for what is no message or out of place.
        """
        message = messages.read_down(data)
        if isinstance(message, Refuse):
            raise Refused(message)
        if isinstance(message, Ready):
            if self._opened:
                raise CorruptStream("the server says READY a second time")
            return self._begin(message)
        if not self._opened and not isinstance(message, Bye):
            raise CorruptStream("the server answers before it is ready")
        if isinstance(message, Bye):
            return message
        if isinstance(message, Credit):
            self.window = message.window
            return None
        if isinstance(message, Reply):
            return self._asked(message)
        pending = self.unanswered.pop(message.sequence, None)
        if pending is None:
            return None
        self._in_flight -= pending.sent
        self.counts.add(message)
        return message

    def _asked(self, reply: Reply) -> Reply | None:
        pending = self.unanswered.get(reply.sequence)
        if pending is None:
            return None
        if not pending.round:
            raise CorruptStream(f"the server asks for more of record {reply.sequence}, which is whole")
        if pending.asked is None:
            pending.asked = reply.request
            return reply
        if pending.second is not None and pending.sent and pending.earlier:  # the second round was lost on its way
            self._again(reply.sequence, pending)
            self.resent += 1
        return None

    def _begin(self, ready: Ready) -> Ready:
        wanted = ready.wanted if ready.resumed else list(self.unanswered)
        for sequence in wanted:
            pending = self.unanswered.get(sequence)
            if pending is None:
                continue
            if pending.sent or pending.asked is not None:
                self.resent += 1
            pending.sent, pending.asked, pending.second = False, None, None
        self._unsent = deque(sequence for sequence, pending in self.unanswered.items() if not pending.sent)
        self._in_flight = len(self.unanswered) - len(self._unsent)
        self.ready, self.window, self._opened = ready, ready.window, True
        return ready


@dataclass(frozen=True)
class Second:
    """A second round that came. first: the record of the first; request: what the server said to it."""

    data: Data
    first: bytes
    request: bytes


@dataclass(frozen=True)
class Asked:
    """A first round to which the server has said REPLY, whose bytes are ``message``."""

    first: bytes
    request: bytes
    message: bytes


@dataclass
class ServerSession:
    """The server's end of one session.

    For each connection: ``attach`` gives READY and what else is due, ``receive`` takes each later message, and
    ``answer`` gives the bytes of an outcome, and ``ask`` those of REPLY, to be sent where there is a connection.
    Answers that the device may not have are kept, as many as may be in flight.

    window: messages that may be in flight now. limit: the widest that ``window`` will ever be; a device that sends more
    is cut off. logits, least_score: as in HELLO. queued: numbers of records that are to be computed. firsts: of these
    the records of first rounds. asked: samples whose second round is awaited. kept: outcomes that the device may not
    have.
    """

    id: str
    classes: Sequence[str]
    largest: int
    window: int
    limit: int
    idle_s: int
    logits: bool = False
    least_score: float = 0.0
    counts: Counts = field(default_factory=Counts)
    queued: set[int] = field(default_factory=set)
    firsts: dict[int, bytes] = field(default_factory=dict)
    asked: dict[int, Asked] = field(default_factory=dict)
    kept: OrderedDict[int, bytes] = field(default_factory=OrderedDict)

    def attach(self, resume: Resume | None = None) -> list[bytes]:
        """The first messages of a connection. resume: of a device that comes again, whether or not to this session."""
        known = resume is not None and resume.session == self.id
        unanswered = resume.unanswered if resume is not None else []
        if known:  # an answer that the device has is needed no more
            needed = set(unanswered)
            self.kept = OrderedDict((s, self.kept[s]) for s in self.kept if s in needed)
        wanted = [s for s in unanswered if s not in self.queued and s not in self.kept and s not in self.asked]
        ready = Ready(
            self.id, list(self.classes), self.largest, self.window, self.idle_s, known, wanted if known else []
        )
        again = [self.asked[s].message for s in unanswered if s in self.asked] if known else []
        return [messages.write(ready), *self.kept.values(), *again]

    def receive(self, data: bytes) -> Data | Second | Bye | bytes | None:
        """A message of the device: what to answer, the end, the answer to one that came before, or nothing.

        Raises CorruptStream for what is no message, and where more is in flight than may ever be.
        """
        message = messages.read_up(data, self.largest)
        if isinstance(message, Bye):
            return message
        if message.sequence in self.queued:
            return None
        if message.sequence in self.kept:
            return self.kept[message.sequence]
        asked = self.asked.get(message.sequence)
        if message.round == 2:
            if asked is None:
                return messages.write(Failed(message.sequence, "a second round whose first is not here"))
            del self.asked[message.sequence]
            self.queued.add(message.sequence)
            return Second(message, asked.first, asked.request)
        if asked is not None:
            return asked.message
        if len(self.queued) + len(self.asked) >= self.limit:
            raise CorruptStream(f"more than {self.limit} messages are in flight")
        self.queued.add(message.sequence)
        self.counts.sent += 1
        if message.round == 1:
            self.firsts[message.sequence] = message.record
        return message

    def ask(self, reply: Reply) -> bytes:
        """The message that asks for a second round."""
        self.queued.discard(reply.sequence)
        data = messages.write(reply)
        self.asked[reply.sequence] = Asked(self.firsts.pop(reply.sequence), reply.request, data)
        return data

    def answer(self, outcome: Outcome) -> bytes:
        """The message of an outcome, which is kept for a device that did not get it."""
        self.queued.discard(outcome.sequence)
        self.firsts.pop(outcome.sequence, None)
        self.counts.add(outcome)
        data = messages.write(outcome)
        self.kept[outcome.sequence] = data
        while len(self.kept) > self.limit:
            self.kept.popitem(last=False)
        return data

    def narrow(self, window: int) -> bytes | None:
        """CREDIT for another window; None where it is the one that holds. It is never wider than ``limit``."""
        window = min(window, self.limit)
        if window == self.window:
            return None
        self.window = window
        return messages.write(Credit(window))
