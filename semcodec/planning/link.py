"""Links as light data: how long bytes take at a fixed rate, over a varying one, and where packets are lost.

A ``Link`` is a rate that holds until the next, a round-trip time and a loss. A fixed rate is a trace of one line:

    Link.fixed(10)                      10 Mbit/s
    Link.fixed(10, rtt_ms=20, loss=0.01)
    Link.trace("drive.csv", rtt_ms=20)  lines of ``time_s, mbps``
    rayleigh(seconds=60, seed=1)        a fading channel
    markov((1, 20), seconds=60, seed=1)

Rates are in Mbit/s (10^6 bit/s), times in ms unless a name ends in ``_s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec._files import read_regular, whole_file
from semcodec.composition.grammar import parse_item
from semcodec.errors import DataError, SemcodecError, UsageError, first_line

Float64 = npt.NDArray[np.float64]

MTU = 1500
"""Bytes of one packet on the link, Ethernet's."""
CHANCE = 1e-12
"""Rounds of retransmission that are rarer than this are left out."""
MOST_LOSS = 0.99
LATEST_S = 1e12
"""Of a trace, either way from 0."""
LARGEST = 1 << 26
"""Bytes of a trace that are read."""
GENERATORS = ("rayleigh", "markov")


@dataclass(frozen=True, eq=False)
class Link:
    """``mbps[i]`` holds from ``times_s[i]`` on, the last one for good; before the first line its rate holds.

    loss: probability that a packet of ``mtu`` bytes is lost and sent again.
    Raises UsageError for values that no link has.
    """

    times_s: Float64
    mbps: Float64
    rtt_ms: float = 0.0
    loss: float = 0.0
    mtu: int = MTU

    def __post_init__(self) -> None:
        object.__setattr__(self, "times_s", np.asarray(self.times_s, np.float64))
        object.__setattr__(self, "mbps", np.asarray(self.mbps, np.float64))
        if self.times_s.ndim != 1 or self.times_s.shape != self.mbps.shape or not self.times_s.size:
            raise UsageError("a link has one rate for each of its times, and at least one")
        if not ((np.abs(self.times_s) <= LATEST_S).all() and (np.diff(self.times_s) > 0).all()):
            raise UsageError(f"the times of a link are at most {LATEST_S:g} s from 0 and rise from line to line")
        if not (np.isfinite(self.mbps).all() and (self.mbps >= 0).all()):
            raise UsageError("the rate of a link is a number of Mbit/s of at least 0")
        if not (isfinite(self.rtt_ms) and self.rtt_ms >= 0):
            raise UsageError(f"a round-trip time is a number of ms of at least 0, not {self.rtt_ms:g}")
        if not 0 <= self.loss <= MOST_LOSS:
            raise UsageError(
                f"a loss is the probability that a packet is lost, from 0 to {MOST_LOSS}, not {self.loss:g}"
            )
        if self.mtu < 1:
            raise UsageError(f"a packet holds at least 1 byte, not {self.mtu}")

    @classmethod
    def fixed(cls, mbps: float, rtt_ms: float = 0.0, loss: float = 0.0, mtu: int = MTU) -> Link:
        """A link of one rate. Raises UsageError."""
        if not (isfinite(mbps) and mbps > 0):
            raise UsageError(f"the rate of a link is a number of Mbit/s above 0, not {mbps:g}")
        return cls(np.zeros(1), np.array([mbps]), rtt_ms, loss, mtu)

    @classmethod
    def trace(cls, text: str | Path, rtt_ms: float = 0.0, loss: float = 0.0, mtu: int = MTU) -> Link:
        """A file of ``time_s, mbps`` lines, or a generator with its arguments: ``rayleigh:snr_db=5,seed=1``.

        Empty lines and what follows ``#`` are passed over. Raises DataError that names the line, UsageError.
        """
        made = _generated(str(text))
        return replace(made or _read(Path(text)), rtt_ms=rtt_ms, loss=loss, mtu=mtu)

    @property
    def end_s(self) -> float:
        """When the last rate begins: how long a trace tells something new."""
        return float(self.times_s[-1])

    def rate_at(self, time_s: float | Float64) -> Float64:
        """Mbit/s at a time, or at each of several."""
        at = np.searchsorted(self.times_s, time_s, side="right") - 1
        return np.asarray(self.mbps[np.maximum(at, 0)])

    def ms(self, nbytes: float | Float64, start_s: float | Float64 = 0.0) -> Any:
        """Expected ms until ``nbytes`` that begin at ``start_s`` have arrived; arrays broadcast.

        Nothing takes no time. Infinite where the link ends at rate 0 before they are through.
        """
        size, start = np.broadcast_arrays(np.asarray(nbytes, np.float64), np.asarray(start_s, np.float64))
        # Every packet is sent 1 / (1 - loss) times in the mean.
        megabits = 8e-6 * size / (1 - self.loss)
        # By each line's time, what the link has carried since the first: piecewise linear, so inverting it is exact.
        carried = np.concatenate([[0.0], np.cumsum(self.mbps[:-1] * np.diff(self.times_s))])
        line = np.maximum(np.searchsorted(self.times_s, start, side="right") - 1, 0)
        goal = carried[line] + self.mbps[line] * (start - self.times_s[line]) + megabits
        # The first line at whose end the goal is carried; a start before the first line has its rate.
        last = np.maximum(np.searchsorted(carried, goal, side="left") - 1, line)
        rest = goal - carried[last]
        with np.errstate(divide="ignore", invalid="ignore"):
            end = self.times_s[last] + np.where(rest == 0, 0.0, rest / self.mbps[last])
        found = np.where(size > 0, 1e3 * (end - start) + self.waiting_ms(size), 0.0)
        return float(found) if found.ndim == 0 else found

    def at_rate_ms(self, nbytes: float, mbps: Float64) -> Float64:
        """What ``ms`` would be if each of these rates stayed: the estimate of who knows the rate of the moment."""
        if not nbytes:
            return np.zeros_like(mbps)
        with np.errstate(divide="ignore"):
            return np.asarray(8e-3 * nbytes / (1 - self.loss) / mbps + self.waiting_ms(nbytes))

    def waiting_ms(self, nbytes: float | Float64) -> Any:
        """Expected ms that are not sending: half a round trip on the way, and a whole one for each round again.

        Lost packets are sent again together, a round trip after the round that lost them. Of n packets none is
        missing after k rounds with probability (1 - loss^k)^n, which gives the expected number of rounds.
        """
        if not self.loss:
            return self.rtt_ms / 2
        packets = np.ceil(np.maximum(np.asarray(nbytes, np.float64), 1) / self.mtu)
        most = int(np.ceil(np.log(CHANCE / packets.max()) / np.log(self.loss)))
        missing = self.loss ** np.arange(1, max(most, 1) + 1)
        again = -np.expm1(packets[..., None] * np.log1p(-missing)).sum(-1)
        return self.rtt_ms / 2 + self.rtt_ms * again


def _read(path: Path) -> Link:
    try:
        lines = read_regular(path, LARGEST).decode().splitlines()
    except OSError as error:
        raise DataError(f"no trace {path}: {error.strerror}; a trace is a file of 'time_s, mbps' lines") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text; a trace is a file of 'time_s, mbps' lines") from None
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text or (not rows and text.replace(" ", "") == "time_s,mbps"):
            continue
        try:
            time_s, mbps = (float(word) for word in text.replace(",", " ").split())
        except ValueError:
            raise DataError(f"{path}, line {number}: expects 'time_s, mbps', not {text[:40]!r}") from None
        if not (isfinite(time_s) and isfinite(mbps) and mbps >= 0):
            raise DataError(f"{path}, line {number}: a time and a rate of at least 0 Mbit/s, not {text[:40]!r}")
        if rows and time_s <= rows[-1][0]:
            raise DataError(f"{path}, line {number}: {time_s:g} s is not later than {rows[-1][0]:g} s before it")
        rows.append((time_s, mbps))
    if not any(mbps for _, mbps in rows):
        raise DataError(f"{path} has no line with a rate above 0; a trace is a file of 'time_s, mbps' lines")
    return Link(*np.array(rows).T)


def write_trace(link: Link, path: Path) -> None:
    """The file that ``Link.trace`` reads back to the same times and rates."""
    lines = [f"{time!r}, {mbps!r}\n" for time, mbps in zip(link.times_s.tolist(), link.mbps.tolist(), strict=True)]
    with whole_file(path) as file:
        file.write(("# time_s, mbps\n" + "".join(lines)).encode())


def _generated(text: str) -> Link | None:
    name = text.partition(":")[0]
    if name not in GENERATORS:
        return None
    try:
        item = parse_item(text)
    except SemcodecError as error:
        raise UsageError(f"trace {text}: {first_line(error)}") from None
    given = {arg.key: arg.value for arg in item.args}
    kinds = {
        "rayleigh": ("bandwidth_mhz", "snr_db", "doppler_hz", "step_s", "seconds", "seed"),
        "markov": ("low", "high", "stay_s", "seconds", "seed"),
    }
    for key, value in given.items():
        if key not in kinds[name]:
            raise UsageError(f"trace {name} has no {key or 'bare value'}; it takes {', '.join(kinds[name])}")
        if isinstance(value, str | bool):
            raise UsageError(f"{key} of trace {name} is a number, not {value}")
    if name == "rayleigh":
        return rayleigh(**given)  # type: ignore[arg-type]
    low, high = (float(given.pop(key, default)) for key, default in (("low", 1.0), ("high", 10.0)))
    return markov((low, high), **given)  # type: ignore[arg-type]


def rayleigh(
    *,
    bandwidth_mhz: float = 5.0,
    snr_db: float = 10.0,
    doppler_hz: float = 1.0,
    step_s: float = 0.02,
    seconds: float = 60.0,
    seed: int = 0,
) -> Link:
    """A Rayleigh-fading channel at its capacity, bandwidth * log2(1 + SNR |h|^2), E|h|^2 = 1.

    h is Clarke's model: many waves of equal strength from all around, each with the Doppler shift of its angle, so
    that its autocorrelation is J0(2 pi doppler t). Raises UsageError.
    """
    _positive(bandwidth_mhz=bandwidth_mhz, doppler_hz=doppler_hz, step_s=step_s, seconds=seconds)
    draw, waves = np.random.default_rng(_seed(seed)), 64
    angles, phases = draw.uniform(0, 2 * np.pi, (2, waves))
    times = np.arange(_count(seconds, step_s), dtype=np.float64) * np.float64(step_s)
    h = np.exp(1j * (2 * np.pi * doppler_hz * times[:, None] * np.cos(angles) + phases)).sum(1) / np.sqrt(waves)
    return Link(times, bandwidth_mhz * np.asarray(np.log2(1 + 10 ** (snr_db / 10) * np.abs(h) ** 2), np.float64))


def markov(mbps: Sequence[float], *, stay_s: float = 2.0, seconds: float = 60.0, seed: int = 0) -> Link:
    """A channel that jumps among some rates: two make Gilbert and Elliott's.

    It stays for exponential times of mean ``stay_s``, then goes to any other state alike. Raises UsageError.
    """
    _positive(stay_s=stay_s, seconds=seconds)
    rates = np.asarray(mbps, np.float64)
    if rates.ndim != 1 or len(rates) < 2:
        raise UsageError("a Markov channel has at least two rates")
    draw = np.random.default_rng(_seed(seed))
    mean = _count(seconds, stay_s)
    stays = draw.exponential(stay_s, mean + 10 * int(np.sqrt(mean)) + 20)
    times = np.concatenate([[0.0], np.cumsum(stays)])
    jumps = np.concatenate([draw.integers(len(rates), size=1), draw.integers(1, len(rates), size=len(stays))])
    inside = times < seconds
    return Link(times[inside], rates[(np.cumsum(jumps) % len(rates))[inside]])


def _count(seconds: float, step_s: float) -> int:
    steps = seconds / step_s
    if steps > 1e7:
        raise UsageError(f"{seconds:g} s in steps of {step_s:g} s are too many lines for a trace; at most ten million")
    return max(1, int(np.ceil(steps)))


def _seed(seed: int) -> int:
    if seed != int(seed) or seed < 0:
        raise UsageError(f"a seed is an integer of at least 0, not {seed}")
    return int(seed)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (isfinite(value) and value > 0):
            raise UsageError(f"{name} is a number above 0, not {value:g}")
