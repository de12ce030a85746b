"""Standard codecs beside a method, on one input before the same model: at as many bytes, and at the same answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from semcodec.composition.composition import Composition, compose_spec
from semcodec.errors import SemcodecError
from semcodec.pipeline.pipeline import Pipeline

if TYPE_CHECKING:
    from semcodec.data.inputs import Input
    from semcodec.tasks.prediction import Prediction

NAMES = ("jpeg", "avif", "h265")
SHOWN = 0.25
"""The least score of an object that counts."""
AGREES = 0.95
TRIED = 9
"""Settings over a rival's range, of which the cheapest with the same answer is taken."""


@dataclass(frozen=True)
class Point:
    """A rival at one setting. knob: as in "quality=40"."""

    name: str
    knob: str
    bytes: int
    prediction: Prediction
    device_ms: float
    server_ms: float


@dataclass(frozen=True)
class Beside:
    """One rival. same_bytes: its best of no more bytes, or its smallest where it cannot be so small (``fits`` says).

    same_answer: its smallest that is answered alike; None where none of those tried is.
    """

    name: str
    fits: bool
    same_bytes: Point
    same_answer: Point | None


def found_names(prediction: Prediction) -> list[str] | None:
    """Names of the objects that score enough to be shown; None of what is no detector's."""
    if prediction.boxes is None or prediction.boxes.scores is None:
        return None
    scores = prediction.boxes.scores.tolist()
    return [name for name, score in zip(prediction.names, scores, strict=False) if score >= SHOWN]


def is_alike(one: Prediction, other: Prediction) -> bool:
    """Whether two answers count as the same.

    That is the same class; as many objects of each name; a mask that agrees in ``AGREES`` of its places; an embedding
    in nearly the same direction, of a cosine of at least ``AGREES``.
    """
    if one.mask is not None and other.mask is not None:
        return one.mask.shape == other.mask.shape and bool((one.mask == other.mask).mean() >= AGREES)
    if one.embedding is not None and other.embedding is not None:
        first, second = one.embedding, other.embedding
        return bool(first @ second >= AGREES * np.linalg.norm(first) * np.linalg.norm(second))
    names, others = found_names(one), found_names(other)
    if names is not None and others is not None:
        return sorted(names) == sorted(others)
    return one.index == other.index


@dataclass
class Rival:
    """A codec before a model, on one input; what was tried once is known."""

    name: str
    pipeline: Pipeline
    source: Input
    knob: str
    settings: list[int]
    """From the fewest bytes to the most."""
    _points: dict[int, Point] = field(default_factory=dict)

    def beside(self, size: int, answer: Prediction) -> Beside:
        """The rival at ``size`` bytes and at an answer."""
        low, high = 0, len(self.settings) - 1
        fits = self.at(0).bytes <= size
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle).bytes <= size else (low, middle - 1)
        last = len(self.settings) - 1
        tried = [self.at(round(i * last / (TRIED - 1))) for i in range(TRIED)]
        alike = [point for point in (*tried, self.at(low)) if is_alike(point.prediction, answer)]
        return Beside(self.name, fits, self.at(low), min(alike, key=lambda point: point.bytes, default=None))

    def at(self, place: int) -> Point:
        if place not in self._points:
            self._points[place] = self._measured(self.settings[place])
        return self._points[place]

    def _measured(self, value: int) -> Point:
        pipeline = self.pipeline.replace(composition=self.pipeline.composition.with_call(**{self.knob: value}))
        device, server = pipeline.clock(), pipeline.clock()
        size = self.source.size
        encoded = pipeline.encode_batch(self.source.pixels, [0], device, size and [size])
        [prediction] = pipeline.decode_batch(pipeline.records(encoded), server)
        spent = [1e3 * sum(clock.seconds.values()) for clock in (device, server)]
        return Point(self.name, f"{self.knob}={value}", encoded[0].bytes_total, prediction, *spent)


def rivals(composition: Composition, source: Input, load: Callable[[Composition], Pipeline]) -> list[Rival]:
    """Those codecs that compose with the model of a pipeline, each on one input. load: gives a pipeline."""
    found = []
    for name in NAMES:
        try:
            against = compose_spec(f"{name}+{composition.backbone.weights_item}")
            pipeline = load(against)
        except SemcodecError:  # not installed, or of the other kind of input
            continue
        component = against.encoder.component
        param = component.param(component.positional or "")
        if param is None or param.low is None or param.high is None:
            continue
        settings = list(range(int(param.low), int(param.high) + 1))
        rival = Rival(name, pipeline, source, param.name, settings)
        if rival.at(0).bytes > rival.at(len(settings) - 1).bytes:  # as crf, of which more is less
            rival = Rival(name, pipeline, source, param.name, settings[::-1])
        found.append(rival)
    return found
