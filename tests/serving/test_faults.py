"""What goes wrong on a network and what strangers send: other streams are served throughout, and nothing is lost.

Real processes on loopback. A ``Witness`` sends beside whatever is done, and fails where an answer of its is late.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from serving_process import TOKEN, Relay, ServerProcess, Witness, free_port
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_socket

import semcodec
from semcodec.container.packets import write_header
from semcodec.errors import LinkError
from semcodec.pipeline.device import Device
from semcodec.serving import messages
from semcodec.serving.messages import Bye, Data, Hello, Ready, Refuse

SPEC = "jpeg:40+vit-nano-server"
IDLE_S = 2
PIXELS = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN)
    options = ("--token-file", str(folder / "token"), "--idle-s", str(IDLE_S), "--log-format", "json")
    with ServerProcess(folder, SPEC, "layered+det-nano@d3", *options) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def device() -> Device:
    return Device.load(SPEC, offline=True)


@pytest.fixture(scope="module")
def loris(server) -> list[tuple[socket.socket, float]]:
    """Connections that never say enough: nothing, half a request, and a WebSocket without a first message."""
    out = []
    for begun in (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ", _upgrade()):
        one = socket.create_connection(("127.0.0.1", server.port))
        one.sendall(begun)
        out.append((one, time.monotonic()))
    return out


@pytest.fixture
def witness(server, loris, device) -> Iterator[Witness]:
    with (
        semcodec.connect(server.url, SPEC, token=TOKEN, offline=True) as link,
        Witness(link, PIXELS) as beside,
    ):
        yield beside


def _upgrade() -> bytes:
    lines = [
        "GET /v1/stream HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def raw(server: ServerProcess, first: bytes | None = None):
    """A WebSocket of a device that does as it likes; it has sent ``first``."""
    one = connect_socket(
        server.url + "/v1/stream", compression=None, max_size=None, proxy=None, close_timeout=1, legacy=True
    )
    if first is not None:
        one.send(first)
    return one


def hello(device: Device, *, token: str = TOKEN, backbone: str | None = None, header: bytes | None = None) -> bytes:
    digest = device.digests["backbone"] if backbone is None else backbone
    return messages.write(Hello(token, header or write_header(device.header), digest, False, 0.0))


def refusal(server: ServerProcess, first: bytes) -> Refuse:
    """What the server says to a first message; it closes then."""
    with raw(server, first) as one:
        said = messages.read_down(one.recv(timeout=20))
        with pytest.raises(ConnectionClosed):
            one.recv(timeout=20)
    assert isinstance(said, Refuse)
    return said


# -- who is not answered -----------------------------------------------------------------------------------------------


def test_a_wrong_token(server, witness, device):
    for token in ("", "another-token-of-tests", TOKEN + "x"):
        said = refusal(server, hello(device, token=token))
        assert (said.code, said.retry) == ("token", False)
        assert TOKEN not in said.message
    with pytest.raises(LinkError, match="--token-file"), semcodec.connect(server.url, SPEC, offline=True):
        pass
    assert TOKEN not in server.log.read_text()


def test_other_weights(server, witness, device):
    said = refusal(server, hello(device, backbone="0123456789abcdef"))
    assert said.code == "weights"
    assert "backbone: the device has 0123456789abcdef, loaded here is " in said.message
    layered = "layered+det-nano@d3"
    untrained = semcodec.connect(server.url, layered, {"encoder": "random"}, token=TOKEN, offline=True)
    with pytest.raises(LinkError, match="encoder: the stream was made with"), untrained:
        pass


def test_a_newer_protocol(server, witness, device):
    newer = bytearray(hello(device))
    newer[4] = messages.VERSION + 1
    said = refusal(server, bytes(newer))
    assert said.code == "version"
    told = f"the device speaks protocol version {messages.VERSION + 1}, this server reads {messages.VERSION}"
    assert told in said.message


def test_another_composition_builds_nothing(server, witness, device):
    before = server.memory()
    other = Device.load("jpeg+resnet-nano", offline=True)
    for header in (write_header(other.header), write_header(other.header)[:-1], b"SEMC\x07" + b"\0" * 40):
        assert refusal(server, hello(device, header=header)).code == "composition"
    assert server.memory() - before < 20 * MEGABYTE


def test_garbage(server, witness, device):
    assert refusal(server, b"").code == "protocol"
    assert refusal(server, os.urandom(5000)).code == "protocol"
    assert refusal(server, b"SEMP\x02" + os.urandom(200)).code == "protocol"
    assert refusal(server, "words").code == "protocol"
    for garbage in (b"", os.urandom(300), messages.write(Data(0, 0, None, b"x"))[:-1], "words", hello(device)):
        with raw(server, hello(device)) as one:
            assert isinstance(messages.read_down(one.recv(timeout=20)), Ready)
            one.send(garbage)
            said = messages.read_down(one.recv(timeout=20))
            assert isinstance(said, Refuse)
            assert said.code == "protocol"
    with raw(server, hello(device)) as one:  # in the form of a record it costs an answer, not the session
        one.recv(timeout=20)
        for number in range(3):
            one.send(messages.write(Data(number, 0, None, os.urandom(300))))
        failed = [messages.read_down(one.recv(timeout=20)) for _ in range(3)]
        assert [type(said).__name__ for said in failed] == ["Failed"] * 3
    one = socket.create_connection(("127.0.0.1", server.port))
    one.sendall(os.urandom(100_000))
    one.close()


def test_a_message_of_a_gigabyte(server, witness, device):
    """It is given up when its length is told, not when it is there."""
    before = server.memory()
    for opened in (False, True):
        with raw(server, hello(device) if opened else None) as one:
            if opened:
                one.recv(timeout=20)
            one.socket.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 30) + b"mask")
            sent = 0
            with suppress(OSError):
                while sent < 1 << 30:
                    sent += one.socket.send(b"\0" * (1 << 20))
            assert sent < 1 << 28
    assert server.memory() - before < 50 * MEGABYTE


def test_a_device_that_stops_reading(server, witness):
    """It asks again and again for an answer that was kept, and reads none: the server stops reading, then lets go."""
    device = Device.load("layered+det-nano@d3", offline=True)
    record = device.encode("digits-scenes:0", sequence=0).data
    descriptors, before = server.descriptors(), server.memory()
    first = messages.write(Hello(TOKEN, write_header(device.header), "", False, 0.0))
    one = raw(server, first)
    one.recv(timeout=20)
    one.send(messages.write(Data(0, 0, None, record)))
    answer = one.recv(timeout=20)
    assert len(answer) > 1000
    one.socket.settimeout(1.0)
    frame = messages.write(Data(0, 0, None, record))
    again = b"\x82\xfe" + struct.pack(">H", len(frame)) + b"\0\0\0\0" + frame
    sent, closed = 0, False
    stop = time.monotonic() + 3 * IDLE_S + 20
    while not closed and time.monotonic() < stop:
        try:
            sent += one.socket.send(again * 50)
        except TimeoutError:
            continue
        except OSError:
            closed = True
    assert closed, "the server holds a connection that nobody reads from"
    assert sent < 16 * MEGABYTE  # what sockets hold; a server that went on reading would take it as long as it likes
    assert server.memory() - before < 30 * MEGABYTE
    one.close()
    _until(lambda: server.descriptors() <= descriptors + 1)


def test_a_slow_loris(server, witness, loris):
    """Those that began with the tests, and one that goes on word by word."""
    for one, begun in loris:
        one.settimeout(max(1.0, begun + 25 - time.monotonic()))
        try:
            while one.recv(4096):
                pass
        except ConnectionResetError:
            pass
        assert time.monotonic() - begun < 25
        one.close()


def test_a_hundred_sessions_opened_and_dropped(server, witness, device):
    _until(lambda: server.metric("semcodec_sessions_detached") == 0)
    descriptors, threads, before = server.descriptors(), server.threads(), server.memory()
    opened = server.metric("semcodec_sessions_total")
    first = hello(device)
    for _ in range(100):
        one = raw(server, first)
        assert isinstance(messages.read_down(one.recv(timeout=20)), Ready)
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.socket.shutdown(socket.SHUT_RDWR)
        one.socket.close()
    assert server.metric("semcodec_sessions_total") == opened + 100
    _until(lambda: server.metric("semcodec_sessions_detached") == 0, 4 * IDLE_S + 20)
    _until(lambda: server.descriptors() <= descriptors + 1)
    assert server.threads() <= threads
    assert server.memory() - before < 20 * MEGABYTE


def test_what_ended_sessions_left_waits_for_nobody(server, witness, device):
    record = device.encode(PIXELS).data
    for _ in range(20):
        one = raw(server, hello(device))
        assert isinstance(messages.read_down(one.recv(timeout=20)), Ready)
        for sequence in range(8):
            one.send(messages.write(Data(sequence, 0, None, record)))
        one.send(messages.write(Bye("done", 8, 0, 0, 0)))
        while not isinstance(messages.read_down(one.recv(timeout=20)), Bye):
            pass
        one.close()
    assert server.metric("semcodec_queued") <= 16


def _until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not within the time it should take"
        time.sleep(0.1)


def test_forty_streams_at_once_share_the_window(server, witness, device):
    """READY comes before any CREDIT, and windows are wide again when the streams are gone."""
    record = device.encode(PIXELS, sequence=0).data
    ones = [raw(server, hello(device)) for _ in range(40)]
    for one in ones:
        ready = messages.read_down(one.recv(timeout=20))
        assert isinstance(ready, Ready)
        one.send(messages.write(Data(0, 0, None, record)))
    for one in ones:
        said = [messages.read_down(one.recv(timeout=20))]
        while not isinstance(said[-1], messages.Answer):
            assert isinstance(said[-1], messages.Credit)
            said.append(messages.read_down(one.recv(timeout=20)))
    assert witness.link.window == 8
    for one in ones:
        one.send(messages.write(messages.Bye("done", 1, 1, 0, 0)))
        one.close()
    _until(lambda: witness.link.window == 32)


# -- what is cut -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "every_s"), [(400, 0.5), pytest.param(20_000, 2.0, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_a_link_that_is_cut_again_and_again_loses_nothing(server, witness, samples, every_s):
    with Relay(server.port) as relay:
        names: dict[int, int] = {}
        with semcodec.connect(relay.url, SPEC, token=TOKEN, offline=True) as link:
            due = time.monotonic() + every_s
            for answer in link.stream((PIXELS for _ in range(samples)), fps=100):
                names[answer.sequence] = names.get(answer.sequence, 0) + 1
                assert answer.outcome == "answered"
                if time.monotonic() > due and len(names) < samples - 40:
                    relay.cut()
                    due = time.monotonic() + every_s
            statistics = link.statistics
        assert relay.cuts >= 3
        assert statistics["connections"] >= 1 + relay.cuts / 2
    assert names == dict.fromkeys(range(samples), 1)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_link_that_stalls_goes_on(server, witness, seconds):
    with Relay(server.port) as relay, semcodec.connect(relay.url, SPEC, token=TOKEN, offline=True) as link:
        answers = []
        for answer in link.stream((PIXELS for _ in range(100)), fps=100):
            answers.append(answer)
            if len(answers) == 20:
                relay.stalled, began = True, time.monotonic()
                while time.monotonic() - began < seconds:
                    time.sleep(0.05)
                relay.stalled = False
        assert sorted(answer.sequence for answer in answers) == list(range(100))
        assert {answer.outcome for answer in answers} == {"answered"}
        assert max(answer.total_ms for answer in answers) > 500 * seconds
        assert link.statistics["connections"] == 1


class Frames:
    """A camera at 50 frames a second: iterating gives the newest that was not given."""

    def __init__(self, frames: int) -> None:
        self.numbers, self.frames, self.began, self.given = count(), frames, time.monotonic(), -1
        self.dropped = 0

    def __iter__(self):
        return self

    def __next__(self):
        while (newest := min(self.frames, int((time.monotonic() - self.began) * 50))) == self.given:
            time.sleep(0.002)
        self.dropped += newest - self.given - 1
        self.given = newest
        if newest >= self.frames:
            raise StopIteration
        return PIXELS


def test_of_a_camera_the_newest_is_sent_after_a_stall(server, witness):
    with Relay(server.port) as relay, semcodec.connect(relay.url, SPEC, token=TOKEN, offline=True, in_flight=2) as link:
        camera, answers = Frames(150), []
        for answer in link.stream(camera):
            answers.append(answer)
            if len(answers) == 10:
                relay.stalled = True
                time.sleep(1.0)
                relay.stalled = False
        assert len(answers) + camera.dropped == 150
        assert camera.dropped >= 30
        assert {answer.outcome for answer in answers} == {"answered"}


def test_a_server_that_is_killed_and_started_again_in_mid_stream(tmp_path):
    """Every sample has one answer, though the new process knows nothing of the session. One that stays away ends the
    link with one line."""
    with ServerProcess(tmp_path, SPEC, port=free_port()) as server:
        answers = []
        with semcodec.connect(server.url, SPEC, offline=True, patience_s=300) as link:
            for answer in link.stream((PIXELS for _ in range(150)), fps=100):
                answers.append(answer)
                if len(answers) == 40:
                    server.kill()
                    server.start()
            statistics = link.statistics
        assert sorted(answer.sequence for answer in answers) == list(range(150))
        assert {answer.outcome for answer in answers} == {"answered"}
        assert statistics["connections"] == 2
        assert statistics["resent"] >= 1
        with semcodec.connect(server.url, SPEC, offline=True, patience_s=0.5) as link:
            link.send(PIXELS)
            server.kill()
            began = time.monotonic()
            with pytest.raises(LinkError, match="cannot be reached"):
                link.send(PIXELS)
            assert time.monotonic() - began < 15
