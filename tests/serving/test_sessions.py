"""Whatever is cut, lost or repeated, every record that is handed in has exactly one outcome at the device."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcodec.errors import CorruptStream
from semcodec.serving import messages
from semcodec.serving.messages import Bye, Data, Failed, Hello, Late, Ready, Refuse, Reply, Resume
from semcodec.serving.sessions import DeviceSession, Refused, Second, ServerSession

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
        self.joined: list[tuple[bytes, bytes, bytes]] = []
        self.replies: deque[Reply] = deque()

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
            elif isinstance(got, Second):
                self.joined.append((got.first, got.request, got.data.record))

    def deliver_down(self, twice: bool = False) -> None:
        if not self.down:
            return
        data = self.down.popleft()
        for _ in range(1 + (twice and self.device.ready is not None and data[1] != 3)):
            got = self.device.receive(data)
            if isinstance(got, messages.Outcome):
                self.outcomes.append(got.sequence)
            elif isinstance(got, Reply):
                self.replies.append(got)

    def second(self) -> None:
        """The device has made a second round; by now it may have no use."""
        if self.replies:
            reply = self.replies.popleft()
            self.device.submit_second(reply.sequence, reply.request, b"s" + reply.request)

    def compute(self, which: int, kind: int) -> None:
        """The server finishes one of the records that it has, whether or not its device is connected."""
        waiting = [(session, number) for session in self.servers.values() for number in session.queued]
        if not waiting:
            return
        session, number = sorted(waiting, key=lambda pair: (pair[0].id, pair[1]))[which % len(waiting)]
        if kind == 3 and number in session.firsts:
            data = session.ask(Reply(number, b"%d" % number, (1, 2)))
            if session is self.server:
                self.down.append(data)
            return
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
            while self.replies:
                self.second()
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
    assert messages.read_up(data, 1 << 20) == Data(7, 0, 1500, b"record")
    assert pair.server is not None
    assert pair.server.receive(data) == Data(7, 0, 1500, b"record")
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
    session.receive(messages.write(Data(0, 0, None, b"r")))
    session.receive(messages.write(Data(1, 0, None, b"r")))
    with pytest.raises(CorruptStream, match="more than 2 messages are in flight"):
        session.receive(messages.write(Data(2, 0, None, b"r")))


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
        session.receive(messages.write(Data(number, 0, None, b"r")))
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


def asked(pair: Pair) -> None:
    """A first round is at the server, which has asked for more."""
    pair.device.submit(0, b"r0", first=True)
    pair.connect()
    pair.deliver_up()
    pair.deliver_down()
    pair.send()
    pair.deliver_up()
    pair.compute(0, 3)


def test_a_second_round_has_the_number_of_the_first_and_its_outcome():
    pair = Pair(window=1)
    asked(pair)
    pair.deliver_down()
    pair.device.submit(1, b"r1")
    pair.send()
    assert not pair.up, "a sample is in flight until its outcome"
    pair.second()
    [(number, data)] = pair.device.to_send(0.0)
    assert messages.read_up(data, 100) == Data(0, 2, None, b"s0")
    assert (number, pair.outcomes) == (0, [])
    pair.up.append(data)
    pair.deliver_up(twice=True)
    assert pair.joined == [(b"r0", b"0", b"s0")]
    pair.compute(0, 0)
    pair.deliver_down()
    assert pair.outcomes == [0]
    pair.settle()
    assert (pair.outcomes, pair.device.counts.sent, pair.device.counts.answered) == ([0, 1], 2, 2)


@pytest.mark.parametrize("lost", ["reply", "second"])
def test_what_is_lost_between_two_rounds_is_said_again(lost):
    pair = Pair()
    asked(pair)
    if lost == "second":
        pair.deliver_down()
        pair.second()
        pair.send()
    pair.cut()
    pair.settle()
    assert (pair.outcomes, pair.joined) == ([0], [(b"r0", b"0", b"s0")])
    assert pair.device.resent == (lost == "second")


def test_a_new_server_is_told_from_the_first_round_on():
    pair = Pair()
    asked(pair)
    pair.deliver_down()
    pair.restart()
    pair.connect()
    pair.second()  # made for the server that is no more
    pair.settle()
    assert (pair.outcomes, pair.joined) == ([0], [])


def test_a_second_round_without_its_first_fails_alone():
    session = ServerSession("0" * 32, CLASSES, 100, WINDOW, WINDOW, 60)
    said = session.receive(messages.write(Data(5, 2, None, b"s")))
    assert isinstance(said, bytes)
    assert messages.read_down(said) == Failed(5, "a second round whose first is not here")
    assert not session.queued


def test_more_is_not_asked_of_a_whole_record():
    pair = Pair()
    pair.device.submit(0, b"r0")
    pair.connect()
    pair.deliver_up()
    pair.deliver_down()
    pair.send()
    with pytest.raises(CorruptStream, match="asks for more of record 0, which is whole"):
        pair.device.receive(messages.write(Reply(0, b"0", (0, 0))))


STEPS = st.one_of(
    st.tuples(st.just("submit"), st.booleans()),
    st.just(("second",)),
    st.just(("send",)),
    st.tuples(st.just("up"), st.booleans()),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("compute"), st.integers(0, 7), st.integers(0, 3)),
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
            pair.device.submit(submitted, b"r%d" % submitted, first=arguments[0])
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
            assert len(session.queued) + len(session.asked) <= WINDOW
            assert set(session.firsts) <= session.queued
            assert len(session.kept) <= WINDOW
    lost = pair.born > 1
    pair.settle()
    assert sorted(pair.outcomes) == list(range(submitted))
    if not lost and pair.born <= 1:
        assert len(pair.computed) == submitted, "while the server lives nothing is computed twice"
        assert len(pair.joined) == len(set(pair.joined)), "nor is a second round taken twice"
    for first, request, second in pair.joined:
        assert (first, second) == (b"r" + request, b"s" + request), "a second round is joined to its own first"
