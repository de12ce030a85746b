"""What a link does, from the bytes sent and acknowledged on it: rate, round trip and loss. No clock is compared.

An answer acknowledges its record, and says how long the server had it; what is left of the time is the link's. While
records follow each other closely the time between two acknowledgements is the later one's on the link; of one that
found the link idle it is all of its time less a round trip, which pings tell.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import exp

BUSY_S = 0.15
"""Of time that the link is busy, after which a measurement counts for a third."""
IDLE_S = 1.5
"""Likewise of any time."""
LEAST = 0.3
"""Of one measurement at least, in the same measure: else a link that has become fast were slow to be known for it."""
LEAST_S = 2e-4
"""That a record takes on the link at least, as far as it can be told."""
PINGS = 10
"""Round trips of which the shortest counts."""
TCP_INFO, RETRANSMITTED, SENT = 11, 100, 136
"""Of Linux: the socket option, and where in it there are segments sent again, and all."""


@dataclass(frozen=True)
class State:
    """A link at a moment. mbps: None before anything is known. wait_ms: until it has sent what is before the next
    record. loss: share of segments that were sent again, None where the system does not tell; the rate has suffered
    from it already."""

    mbps: float | None
    rtt_ms: float
    wait_ms: float
    loss: float | None


@dataclass
class _Out:
    octets: int
    sent: float | None = None


class Meter:
    """Measures one connection's uplink. Any thread may use it. now: the clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._out: OrderedDict[int, _Out] = OrderedDict()
        self._octets = self._busy = 0.0
        self._arrived = self._free = self._measured = now()
        self._pings: deque[float] = deque(maxlen=PINGS)
        self._server_s = 0.0
        self._segments: tuple[int, int] | None = None
        self._loss: float | None = None

    def submitted(self, sequence: int, octets: int) -> None:
        """A record waits to be written."""
        with self._lock:
            self._out[sequence] = _Out(octets)
            rate = self._rate()
            if rate is not None:
                self._free = max(self._free, self.now()) + octets / rate

    def sent(self, sequence: int, octets: int) -> None:
        """It is written now, as a message of so many bytes."""
        with self._lock:
            self._out.pop(sequence, None)
            self._out[sequence] = _Out(octets, self.now())

    def acknowledged(self, sequence: int, server_s: float) -> None:
        """Its answer has come, after so many seconds at the server."""
        with self._lock:
            out = self._out.pop(sequence, None)
            if out is None or out.sent is None:
                return
            now = self.now()
            arrived, rtt = now - server_s, self._rtt()
            self._server_s += 0.2 * (server_s - self._server_s)
            idle = out.sent >= self._arrived
            busy = max(LEAST_S, arrived - (out.sent + rtt if idle else self._arrived))
            keep = exp(-max(LEAST, busy / BUSY_S, (now - self._measured) / IDLE_S))
            self._octets, self._busy = keep * self._octets + out.octets, keep * self._busy + busy
            self._arrived, self._measured = max(self._arrived, arrived), now
            rate = self._rate()
            assert rate is not None
            self._free = now + sum(one.octets for one in self._out.values()) / rate

    def forget(self, sequence: int) -> None:
        """It came to an end that tells nothing."""
        with self._lock:
            self._out.pop(sequence, None)

    def cut(self) -> None:
        """The connection is over: nothing that was written on it will be acknowledged on it."""
        with self._lock:
            self._out.clear()
            self._segments = None
            self._arrived = self._free = self.now()

    def ping(self, seconds: float) -> None:
        """A message that holds nothing went there and back."""
        with self._lock:
            self._pings.append(seconds)

    def segments(self, resent: int, sent: int) -> None:
        """What the system has counted of the connection so far."""
        with self._lock:
            if self._segments is not None and sent > self._segments[1]:
                share = (resent - self._segments[0]) / (sent - self._segments[1])
                self._loss = share if self._loss is None else self._loss + 0.3 * (share - self._loss)
            self._segments = resent, sent

    def state(self) -> State:
        """What is known now. A record that is out for longer than the rate allows says that the rate has fallen."""
        with self._lock:
            now, rate = self.now(), self._rate()
            first = next((out for out in self._out.values() if out.sent is not None), None)
            if rate is not None and first is not None and first.sent is not None:
                since = max(first.sent, self._arrived)
                out_for = now - since - self._rtt() - 2 * self._server_s
                if out_for > 0:
                    rate = min(rate, first.octets / out_for)
            mbps = None if rate is None else max(1e-3, 8e-6 * rate)
            return State(mbps, 1000 * self._rtt(), 1000 * max(0.0, self._free - now), self._loss)

    def _rate(self) -> float | None:
        """Bytes a second."""
        return self._octets / self._busy if self._busy else None

    def _rtt(self) -> float:
        return min(self._pings, default=0.0)


def tcp_segments(connection: socket.socket | None) -> tuple[int, int] | None:
    """Segments that a TCP connection has sent again, and all that it has sent; None where the system does not tell."""
    if connection is None or not sys.platform.startswith("linux"):
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 256)
    except OSError:
        return None
    if len(info) < SENT + 4:
        return None
    return struct.unpack_from("=I", info, RETRANSMITTED)[0], struct.unpack_from("=I", info, SENT)[0]
