"""The most accurate operating point that a link and a deadline allow: STAE eq. (5), for each sample anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from semcodec.interfaces import Composed, Selector
from semcodec.planning.latency import OperatingPoint, Profile
from semcodec.planning.link import Link
from semcodec.planning.matching import matching
from semcodec.planning.operating_points import open_points
from semcodec.planning.plan import check_deadline, choices
from semcodec.tasks.weighted import Asked


class Deadline(Selector):
    """Sets call parameters by what a profile or a results folder says of this pipeline; see ``semcodec plan``.

    Over a trace a sample comes every ``period`` ms, and the rate at that moment decides. Where nothing fits, the
    fastest point is taken. ``headroom`` is a share of the deadline to leave for a rate that falls. ``task`` says which
    score of a results folder counts, or weighs several, as ``--task`` of the command. Points are read on first use, by
    the device alone: a decoder does without.
    """

    def __init__(
        self,
        ms: float,
        rate: float,
        rtt: float,
        loss: float,
        trace: str | None,
        period: float | None,
        headroom: float,
        profile: str,
        task: str | None,
    ) -> None:
        check_deadline(ms)
        self.within_ms = ms * (1 - headroom)
        self.rate, self.rtt, self.loss, self.trace, self.profile = rate, rtt, loss, trace, profile
        self.asked = Asked.parse([task] if task else [], "task=")
        self.period = ms if period is None else period
        self._matching: dict[tuple[str, frozenset[str]], list[OperatingPoint]] = {}

    def point(self, composition: Composed, sequence: Sequence[int]) -> list[Mapping[str, Any]]:
        """Raises UsageError where no point is of this pipeline with what its spec sets."""
        points = self._points(composition)
        starts = np.asarray(sequence, np.float64) * (self.period / 1e3 if self.trace else 0.0)
        return [points[i].knobs for i in choices(points, self._link, starts, self.within_ms)]

    @cached_property
    def _link(self) -> Link:
        if self.trace:
            return Link.trace(self.trace, self.rtt, self.loss)
        return Link.fixed(self.rate, self.rtt, self.loss)

    @cached_property
    def _profile(self) -> Profile:
        return open_points(self.profile, asked=self.asked)

    def _points(self, composition: Composed) -> list[OperatingPoint]:
        asked = composition.spec, frozenset(composition.given)  # a spec leaves out what is set to its default
        if asked not in self._matching:
            self._matching[asked] = matching(self._profile, self.profile, composition)
        return self._matching[asked]
