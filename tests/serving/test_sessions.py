"""Whatever is cut, lost or repeated, every record that is handed in has exactly one outcome at the device."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcodec.errors import CorruptStream
from semcodec.serving import messages
from semcodec.serving.messages import Bye, Data, Failed, Hello, Late, Ready, Refuse, Resume
from semcodec.serving.sessions import DeviceSession, Refused, ServerSession

HELLO = Hello("secret-token-of-tests", b"the header's bytes", "0123456789abcdef", False, 0.0)
CLASSES = ["cat", "dog"]
WINDOW = 4


def answer(sequence: int) -> messages.Answer:
    return messages.Answer(sequence, 1, "dog", 0.75, (1, 1), False, None, None, (10, 20, 30, 40))


class Pair:
    """Both ends, and between them two pipes in memory that keep order and, when they are cut, lose what is in them."""

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self.device = DeviceSession(HELLO)
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.servers: dict[str, ServerSession] = {}
        self.server: ServerSession | None = None
        self.connected = False
        self.born = 0
        self.outcomes: list[int] = []
        self.computed: list[int] = []

    def connect(self) -> None:
        self.cut()
        self.connected = True
        self.up.append(self.device.open())

    def cut(self) -> None:
        self.up.clear()
        self.down.clear()
        self.device.cut()
        self.server, self.connected = None, False

    def restart(self) -> None:
        """The server's process is killed, and another one begins."""
        self.cut()
        self.servers.clear()

    def send(self) -> None:
        if self.connected:
            self.up.extend(data for _, data in self.device.to_send(0.0))

    def deliver_up(self, twice: bool = False) -> None:
        if not self.up:
            return
        data = self.up.popleft()
        if self.server is None:
            first = messages.read_first(data)
            known = self.servers.get(first.session) if isinstance(first, Resume) else None
            if known is None:
                self.born += 1
                known = ServerSession(f"{self.born:032x}", CLASSES, 1 << 20, self.window, WINDOW, 60)
                self.servers[known.id] = known
            self.server = known
            self.down.extend(known.attach(first if isinstance(first, Resume) else None))
            return
        for _ in range(1 + twice):
            got = self.server.receive(data)
            if isinstance(got, bytes):
                self.down.append(got)

    def deliver_down(self, twice: bool = False) -> None:
        if not self.down:
            return
        data = self.down.popleft()
        for _ in range(1 + (twice and self.device.ready is not None and data[1] != 3)):
            got = self.device.receive(data)
            if isinstance(got, messages.Outcome):
                self.outcomes.append(got.sequence)

    def compute(self, which: int, kind: int) -> None:
        """The server finishes one of the records that it has, whether or not its device is connected."""
        waiting = [(session, number) for session in self.servers.values() for number in session.queued]
        if not waiting:
            return
        session, number = sorted(waiting, key=lambda pair: (pair[0].id, pair[1]))[which % len(waiting)]
        outcome = (answer(number), Late(number, 5), Failed(number, "damaged"))[kind % 3]
        data = session.answer(outcome)
        self.computed.append(number)
        if session is self.server:
            self.down.append(data)

    def settle(self) -> None:
        """Nothing is cut any more: all goes its way."""
        if not self.connected:
            self.connect()
        for _ in range(1000):
            self.send()
            while self.up:
                self.deliver_up()
            self.compute(0, 0)
            while self.down:
                self.deliver_down()
            if not self.device.unanswered:
                return
        raise AssertionError(f"without an outcome: {list(self.device.unanswered)}")


def test_a_session_from_hello_to_bye():
    pair = Pair()
    pair.connect()
    pair.deliver_up()
    pair.device.submit(7, b"record", deadline=2.5)
    assert pair.device.to_send(1.0) == [], "not before READY"
    pair.deliver_down()
    assert pair.device.ready is not None
    assert pair.device.ready.classes == CLASSES
    [(number, data)] = pair.device.to_send(1.0)
    assert number == 7
    assert messages.read_up(data, 1 << 20) == Data(7, 1500, b"record")
    assert pair.server is not None
    assert pair.server.receive(data) == Data(7, 1500, b"record")
    assert pair.device.receive(pair.server.answer(answer(7))) == answer(7)
    assert pair.device.receive(pair.server.counts.bye("done")) == Bye("done", 1, 1, 0, 0)
    assert not pair.device.unanswered


def test_no_more_is_in_flight_than_the_window():
    pair = Pair(window=2)
    for number in range(5):
        pair.device.submit(number, b"r")
    pair.connect()
    pair.deliver_up()
    pair.deliver_down()
    assert [number for number, _ in pair.device.to_send(0.0)] == [0, 1]
    assert pair.server is not None
    credit = pair.server.narrow(3)
    assert credit is not None
    pair.device.receive(credit)
    assert [number for number, _ in pair.device.to_send(0.0)] == [2]
    assert pair.server.narrow(3) is None, "it is that already"


def test_a_device_that_ignores_the_window_is_cut_off():
    session = ServerSession("0" * 32, CLASSES, 100, 2, 2, 60)
    session.receive(messages.write(Data(0, None, b"r")))
    session.receive(messages.write(Data(1, None, b"r")))
    with pytest.raises(CorruptStream, match="more than 2 messages are in flight"):
        session.receive(messages.write(Data(2, None, b"r")))


def test_an_answer_that_was_lost_is_given_again_and_not_computed_again():
    pair = Pair()
    pair.device.submit(0, b"r")
    pair.connect()
    pair.deliver_up()
    pair.deliver_down()
    pair.send()
    pair.deliver_up()
    pair.compute(0, 0)
    pair.cut()  # the answer is lost on its way
    pair.settle()
    assert (pair.outcomes, pair.computed, pair.device.resent) == ([0], [0], 0)


def test_a_server_that_was_restarted_gets_again_what_is_unanswered():
    pair = Pair()
    for number in range(3):
        pair.device.submit(number, b"r")
    pair.connect()
    pair.deliver_up()
    pair.deliver_down()
    pair.send()
    while pair.up:
        pair.deliver_up()
    pair.compute(0, 0)
    pair.deliver_down()
    pair.restart()
    pair.settle()
    assert sorted(pair.outcomes) == [0, 1, 2]
    assert pair.device.resent == 2
    assert pair.device.ready is not None
    assert not pair.device.ready.resumed


def test_a_session_keeps_no_more_answers_than_may_be_in_flight():
    session = ServerSession("0" * 32, CLASSES, 100, WINDOW, WINDOW, 60)
    for number in range(100):
        session.receive(messages.write(Data(number, None, b"r")))
        session.answer(answer(number))
    assert list(session.kept) == [96, 97, 98, 99]
    assert not session.queued


def test_a_refusal_says_whether_to_try_again():
    device = DeviceSession(HELLO)
    device.open()
    with pytest.raises(Refused, match="full") as refused:
        device.receive(messages.write(Refuse("busy", "the server is full", True)))
    assert (refused.value.code, refused.value.retry) == ("busy", True)


@pytest.mark.parametrize(
    "data", [messages.write(answer(0)), messages.write(messages.Credit(3))], ids=["answer", "credit"]
)
def test_a_server_that_answers_before_it_is_ready_is_refused(data):
    device = DeviceSession(HELLO)
    device.open()
    with pytest.raises(CorruptStream, match="before it is ready"):
        device.receive(data)


def test_ready_comes_once():
    pair = Pair()
    pair.connect()
    pair.deliver_up()
    ready = pair.down[0]
    pair.deliver_down()
    assert isinstance(messages.read_down(ready), Ready)
    with pytest.raises(CorruptStream, match="second time"):
        pair.device.receive(ready)


STEPS = st.one_of(
    st.just(("submit",)),
    st.just(("send",)),
    st.tuples(st.just("up"), st.booleans()),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("compute"), st.integers(0, 7), st.integers(0, 2)),
    st.tuples(st.just("narrow"), st.integers(1, WINDOW)),
    st.just(("connect",)),
    st.just(("cut",)),
    st.just(("restart",)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=120))
def test_every_record_has_exactly_one_outcome(steps):
    """In any order of sending, computing and delivering, with cuts that lose what is on its way, repeats, narrower
    windows, and servers that begin anew."""
    pair, submitted = Pair(), 0
    for name, *arguments in [("connect",), *steps]:
        if name == "submit":
            pair.device.submit(submitted, b"r%d" % submitted)
            submitted += 1
        elif name == "send":
            pair.send()
        elif name == "up":
            pair.deliver_up(*arguments)
        elif name == "down":
            pair.deliver_down(*arguments)
        elif name == "compute":
            pair.compute(*arguments)
        elif name == "narrow":
            credit = pair.server and pair.server.narrow(*arguments)
            if credit:
                pair.down.append(credit)
        else:
            getattr(pair, name)()
        for session in pair.servers.values():
            assert len(session.queued) <= WINDOW
            assert len(session.kept) <= WINDOW
    lost = pair.born > 1
    pair.settle()
    assert sorted(pair.outcomes) == list(range(submitted))
    if not lost and pair.born <= 1:
        assert len(pair.computed) == submitted, "while the server lives nothing is computed twice"
