"""How long one inference takes at an operating point: the completion time of split inference over a link.

The model is STAE's (Li, Bennis, Iosifidis, Zhang, 2023, eqs. 1-5), of which AECNN's (Li, Iosifidis, Zhang, 2022,
eqs. 1-4) and that of attention-aware patch selection (Im et al., 2024, Section VI-F) are cases. Times are in ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

from semcodec.errors import DataError, UsageError
from semcodec.planning.link import Link

LOCAL, FULL = "local", "full-offload"
"""The two baselines: everything on the device, and the whole input to the server."""
ENCODE, LINK, DECODE = "entropy_encode", "link", "entropy_decode"


@dataclass(frozen=True)
class Coding:
    """What an entropy coder that may be left out would make of a sample: its size, and its time at both ends."""

    bytes: float
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True)
class OperatingPoint:
    """One operating point: what it costs and what it gets right.

    label: names it in tables. accuracy: a fraction; None where it is not known.
    bytes: of a sample that is sent. server_ms: by stage, for a sample that is sent; device_ms: for every sample.
    sent: share of the samples that are sent, the others' answers being the device's.
    coding: an entropy coder that is used only where it pays; None where there is none or ``bytes`` are coded.
    spec, knobs: the pipeline and the Encoder's call parameters that make it so.
    macs: the device's multiply-accumulates, mean of all samples; share: what part they are of those of local computing.
    needs: what it lacks to be timed; then it is shown and never chosen.
    """

    label: str
    accuracy: float | None
    bytes: float
    device_ms: Mapping[str, float]
    server_ms: Mapping[str, float]
    sent: float = 1.0
    coding: Coding | None = None
    spec: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    macs: float | None = None
    share: float | None = None
    interval: Sequence[float] | None = None
    source: str = ""
    needs: tuple[str, ...] = ()

    def variants(self) -> Iterator[OperatingPoint]:
        """The point without its entropy coder, and with it as two more stages."""
        yield replace(self, coding=None)
        if self.coding:
            device = {**self.device_ms, ENCODE: self.coding.encode_ms}
            server = {DECODE: self.coding.decode_ms, **self.server_ms}
            yield replace(self, bytes=self.coding.bytes, device_ms=device, server_ms=server, coding=None)

    def at_speeds(self, device: float, server: float) -> OperatingPoint:
        """The same on a device and a server so many times as fast as those it was timed on."""
        coding = self.coding
        if coding:
            coding = replace(coding, encode_ms=coding.encode_ms / device, decode_ms=coding.decode_ms / server)
        return replace(
            self,
            device_ms={stage: ms / device for stage, ms in self.device_ms.items()},
            server_ms={stage: ms / server for stage, ms in self.server_ms.items()},
            coding=coding,
        )

    @property
    def compute_ms(self) -> float:
        """STAE eq. (3), AECNN eq. (3): the sum of the stages' times, the server's for those that are sent."""
        return sum(self.device_ms.values()) + self.sent * sum(self.server_ms.values())

    def over(self, link: Callable[[float], Any]) -> Any:
        """Completion time, STAE eq. (4), AECNN eq. (4), where ``link(bytes)`` is the time on the link, their eqs. (2).

        With a gate it is the mean over samples that are sent and samples that are not.
        """
        return self.compute_ms + (self.sent * link(self.bytes) if self.sent else 0.0)

    def stages_ms(self, link: Link, start_s: float = 0.0) -> dict[str, float]:
        """The terms of ``ms``, by stage, in the order they run; what a part of the samples does counts that part."""
        way = self.sent * link.ms(self.bytes, start_s + sum(self.device_ms.values()) / 1e3) if self.sent else 0.0
        return {**self.device_ms, LINK: way, **{stage: self.sent * ms for stage, ms in self.server_ms.items()}}

    def ms(self, link: Link, start_s: Any = 0.0) -> Any:
        """Expected completion time of a sample that is there at ``start_s``, which may be an array."""
        return self.over(lambda size: link.ms(size, start_s + sum(self.device_ms.values()) / 1e3))


def paying(point: OperatingPoint, link: Link, start_s: float = 0.0) -> OperatingPoint:
    """The point with its entropy coder only if encoding and decoding take less than the link time they save."""
    return min(point.variants(), key=lambda variant: float(variant.ms(link, start_s)))


@dataclass(frozen=True)
class Energy:
    """What the device spends: joule for each of its multiply-accumulates and each bit that it sends."""

    joule_per_mac: float
    joule_per_bit: float

    def __post_init__(self) -> None:
        """Raises UsageError for what is no energy."""
        for name, value in (("multiply-accumulate", self.joule_per_mac), ("bit", self.joule_per_bit)):
            if not 0 <= value < inf:
                raise UsageError(f"what a {name} costs is a number of joule of at least 0, not {value:g}")

    def mj(self, point: OperatingPoint) -> float:
        """Millijoule of a sample. Raises DataError where the point's multiply-accumulates are not known."""
        if point.macs is None:
            raise DataError(f"nothing says how many multiply-accumulates the device does at {point.label}")
        return 1e3 * (point.macs * self.joule_per_mac + point.sent * 8 * point.bytes * self.joule_per_bit)


@dataclass(frozen=True)
class Profile:
    """Operating points to choose among, and the baselines beside them, of one device, server and data set.

    encoder: whose knobs the points set. assumed: by name, what was assumed and why, where a source prints no figure.
    """

    name: str
    title: str
    points: tuple[OperatingPoint, ...]
    local: OperatingPoint | None = None
    full: OperatingPoint | None = None
    encoder: str = ""
    energy: Energy | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """What tables say of the figures, by its subject."""

    def at_speeds(self, device: float, server: float) -> Profile:
        """The same on a device and a server so many times as fast. Raises UsageError."""
        for end, speed in (("device", device), ("server", server)):
            if not 0 < speed < inf:
                raise UsageError(
                    f"the speed of a {end} is a number above 0, times that of the one timed, not {speed:g}"
                )

        def at(point: OperatingPoint | None) -> OperatingPoint | None:
            return point and point.at_speeds(device, server)

        points = tuple(point.at_speeds(device, server) for point in self.points)
        return replace(self, points=points, local=at(self.local), full=at(self.full))


def size_bytes(factors: Iterable[float]) -> float:
    """STAE eq. (1), 4 * alpha * C * beta * H * W; AECNN eqs. (1) and (2), 4 * C * H * W / V: a plain product."""
    return prod(factors)


def vit_macs(patches: float, width: int, depth: int = 1) -> float:
    """Eq. (9) of patch selection: a ViT's multiply-accumulates, 12 N D^2 + 2 N^2 D for each block.

    Of N patches of width D, 4 N D^2 are the attention's projections, 2 N^2 D its two products, 8 N D^2 the MLP.
    """
    return depth * (12 * patches * width**2 + 2 * patches**2 * width)


def crossing_ms(first: OperatingPoint, second: OperatingPoint, link: Link) -> float:
    """By how much ``second`` is slower than ``first`` over a link: what it would have to gain to be as fast there.

    Solves a claim "first is faster only below that rate" for the time that its source leaves out of ``first``.
    """
    times = [float(paying(point, link).ms(link)) for point in (first, second)]
    return times[1] - times[0]


def crossing_bytes(first: OperatingPoint, second: OperatingPoint, mbps: float) -> float:
    """Bytes that ``second`` would have to send, uncoded, to be as fast as ``first`` at a rate; 0 where none do."""
    link = Link.fixed(mbps)
    left = float(paying(first, link).ms(link)) - second.compute_ms
    return max(0.0, left * mbps * 1e3 / 8)


def crossing_mbps(first: OperatingPoint, second: OperatingPoint, low: float = 1e-3, high: float = 1e6) -> float:
    """The rate up to which ``first`` is faster than ``second``, found by bisection.

    inf: at every rate up to ``high``; 0: not even at ``low``.
    """

    def faster(mbps: float) -> bool:
        return crossing_ms(first, second, Link.fixed(mbps)) > 0

    if not faster(low):
        return 0.0
    if faster(high):
        return inf
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if faster(middle) else (low, middle)
    return low
