"""The best operating point for a link as it is now: the choice of the selector ``deadline``, by what a meter tells."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from semcodec.errors import UsageError
from semcodec.planning.latency import OperatingPoint
from semcodec.planning.link import Link
from semcodec.planning.plan import check_deadline

if TYPE_CHECKING:
    from semcodec.composition.composition import Composition

SEND, LOCAL, SKIP = "send", "local", "skip"
NEWEST = 0.2
"""Of the newest measurement in what was learned."""
OF_THE_LINK = ("rate", "rtt", "loss", "trace", "period", "profile")
"""Parameters of ``deadline`` that say what is measured here, or what the results name."""


class LinkState(Protocol):
    """A link at a moment: ``serving.meter.State``."""

    @property
    def mbps(self) -> float | None: ...
    @property
    def rtt_ms(self) -> float: ...
    @property
    def wait_ms(self) -> float: ...


@dataclass(frozen=True)
class Choice:
    """What to do with one sample. what: ``SEND`` at call parameters, ``LOCAL``: the device answers, ``SKIP``.

    ms: what it is expected to take.
    """

    what: str
    point: OperatingPoint | None
    ms: float

    @property
    def knobs(self) -> Mapping[str, Any]:
        """The Encoder's call parameters."""
        return {} if self.point is None else self.point.knobs


class LiveDeadline:
    """The most accurate of ``points``, and of answering at home, that is in time over the link of the moment.

    Where nothing is, the fastest is sent; but where the device can answer itself, the sample is skipped, since not even
    that would be in time. Before anything is known of the link the smallest point is sent. What answers take beside the
    link is learned: the ends may be busy, or others than those that were measured. By how much expected times were off,
    in the mean, is left free of the deadline. Any thread may use it.

    home: answering at home, or None. state: of the link, now. within_ms: the deadline, less its headroom.
    """

    def __init__(
        self,
        points: Sequence[OperatingPoint],
        home: OperatingPoint | None,
        state: Callable[[], LinkState],
        within_ms: float,
    ) -> None:
        check_deadline(within_ms)
        self.points = [variant for point in points for variant in point.variants()]
        self.home, self.state, self.within_ms = home, state, within_ms
        self.taken: Counter[str] = Counter()
        self._beside, self._off = {SEND: 0.0, LOCAL: 0.0}, {SEND: 0.0, LOCAL: 0.0}
        self._lock = threading.Lock()

    def choose(self) -> Choice:
        """For a sample that is there now."""
        state = self.state()
        with self._lock:
            choice = self._choose(state)
            self.taken[choice.what if choice.point is None or choice.what != SEND else choice.point.label] += 1
            return choice

    def _choose(self, state: LinkState) -> Choice:
        if state.mbps is None:
            return Choice(SEND, min(self.points, key=lambda point: point.bytes), 0.0)
        # Half a round trip there and half back: a link has half of it, and the answer's way is the other.
        link = Link.fixed(state.mbps, rtt_ms=2 * state.rtt_ms)
        sent = [Choice(SEND, point, state.wait_ms + self._ms(SEND, point, link)) for point in self.points]
        at_home = [] if self.home is None else [Choice(LOCAL, self.home, self._ms(LOCAL, self.home, link))]
        fits = [choice for choice in (*sent, *at_home) if choice.ms + self._off[choice.what] <= self.within_ms]
        if fits:
            return max(fits, key=_worth)
        return Choice(SKIP, None, 0.0) if at_home else min(sent, key=lambda choice: choice.ms)

    def _ms(self, what: str, point: OperatingPoint, link: Link) -> float:
        sent = float(link.ms(point.bytes)) if what == SEND else 0.0
        return max(0.0, self._computing(what, point) + self._beside[what]) + sent

    @staticmethod
    def _computing(what: str, point: OperatingPoint) -> float:
        """Of a sample that is sent: with a gate the mean over all would count the server's part too little."""
        return sum(point.device_ms.values()) + (sum(point.server_ms.values()) if what == SEND else 0.0)

    def took(self, choice: Choice, what: str, ends_ms: float, total_ms: float) -> None:
        """A sample was answered. what: how it came out. ends_ms: all of its time but the link's."""
        if choice.point is None or what != choice.what:
            return
        with self._lock:
            beside = ends_ms - self._computing(what, choice.point)
            self._beside[what] += NEWEST * (beside - self._beside[what])
            if choice.ms:
                self._off[what] += NEWEST * (abs(total_ms - choice.ms) - self._off[what])


def _worth(choice: Choice) -> tuple[float, float]:
    assert choice.point is not None
    return (-1.0 if choice.point.accuracy is None else choice.point.accuracy), -choice.ms


def check_adapt(composition: Composition, results: str, deadline_ms: float | None) -> None:
    """Raise UsageError for a sender that adapts and lacks something, or is told what it measures itself."""
    point = composition.point
    if not os.path.isdir(results):
        raise UsageError(f"adapt: {results} is no folder; 'semcodec bench --out DIR' makes one")
    if point is None:
        if deadline_ms is None:
            raise UsageError("adapt chooses what is in time: give --deadline-ms, in Python deadline_ms")
        return
    said = (arg.key for item in composition.parsed.items if item.name == point.name for arg in item.args)
    given = [key for key in said if key in OF_THE_LINK]
    if given:
        raise UsageError(
            f"{point.name} is given {', '.join(given)}, and adapt takes the link as it is and its points "
            f"from {results}: leave these out"
        )


def open_live(
    composition: Composition, results: str, deadline_ms: float | None, state: Callable[[], LinkState]
) -> LiveDeadline:
    """The choice for each sample, among the points of a results folder that are the composition's.

    deadline_ms: where the composition has no selector that says it. state: of the link, now. Raises as ``check_adapt``,
    and DataError for a folder without such points.
    """
    from semcodec.planning.matching import answering_here, matching
    from semcodec.planning.operating_points import open_points
    from semcodec.tasks.weighted import Asked

    check_adapt(composition, results, deadline_ms)
    task = composition.task if len(composition.tails) > 1 else None
    profile, point = open_points(results, asked=Asked((task,) if task else ())), composition.point
    within = deadline_ms or 0.0
    if point is not None:
        within = point.build["ms"] * (1 - point.build["headroom"])
    found = matching(profile, results, composition)
    return LiveDeadline(found, answering_here(profile, composition), state, within)
