"""What the page shows, computed: pipelines and inputs that were used stay, so that a turned knob costs one run."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from semcodec.composition.composition import Composition, compose_spec
from semcodec.data.datasets import NAMED
from semcodec.data.folders import VIDEO_SUFFIXES
from semcodec.data.inputs import Input, open_input
from semcodec.errors import UsageError
from semcodec.evaluation.cost import Costs
from semcodec.evaluation.sample_panels import make_panels
from semcodec.panels import UInt8
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.planning.latency import OperatingPoint
from semcodec.play import choices
from semcodec.play.choices import Control, Kind
from semcodec.play.pictures import picture
from semcodec.play.rivals import Beside, Rival, rivals
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.table import get_task

KEPT = 6
"""Pipelines, and inputs with what rivals made of them, that stay in memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """All that one run gives.

    spec: with the knobs as they are set. answer: in words, the first foremost. pictures: RGB with titles.
    bytes: payload, side and header; kept: of a sample that the device answers itself, what a file keeps of it.
    point: times and bytes, by which completion times are told. raw: bytes of the input as 8-bit pixels.
    """

    spec: str
    answer: tuple[str, ...]
    pictures: tuple[tuple[UInt8, str], ...]
    bytes: Mapping[str, int]
    kept: int
    point: OperatingPoint
    rivals: tuple[Beside, ...]
    raw: int

    @property
    def total(self) -> int:
        """Bytes that were sent."""
        return sum(self.bytes.values())


@dataclass(frozen=True)
class Share:
    """What both ends compute of one input, in multiply-accumulates. device: the device's part; None where none do."""

    device: float | None
    macs_device: float
    macs_server: float
    macs_whole: float


class Playground:
    """Specs, inputs and runs of one server; any number of threads may use it, and one of its own runs the models.

    request: which weights are taken. device: where networks run. free: whether a spec may be any that composes, rather
    than one of those that are listed: what strangers reach is not.
    """

    def __init__(self, request: WeightsRequest | None = None, *, device: str = "cpu", free: bool = False) -> None:
        self.request, self.device, self.free = request or WeightsRequest(offline=True), device, free
        self._lock = threading.Lock()
        self._shown = 0
        self._worker = ThreadPoolExecutor(1, "playground")  # threads that come and go would each begin cold
        self._listed: dict[Kind, list[str]] = {}
        self._pipelines: OrderedDict[Any, Pipeline] = OrderedDict()
        self._inputs: OrderedDict[Any, Input] = OrderedDict()
        self._rivals: OrderedDict[Any, list[Rival]] = OrderedDict()
        self._costs: OrderedDict[Any, Share] = OrderedDict()

    # -- what there is -------------------------------------------------------------------------------------------------

    def specs(self, kind: Kind) -> list[str]:
        """Those that fit an input of the kind."""
        with self._lock:
            if kind not in self._listed:
                self._listed[kind] = choices.specs_that_fit(kind, self.request)
            return self._listed[kind]

    def compose(self, spec: str, parts: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> Composition:
        """A listed spec with parts added and knobs turned. Raises SpecError, UsageError."""
        listed = {*self.specs("image"), *self.specs("video")}
        if spec not in listed:
            composition = compose_spec(spec)
            if not self.free and composition.spec not in listed:
                raise UsageError(f"{spec} is none of the specs that are offered here")
        base = compose_spec(spec)
        if parts:
            offered = choices.additions(base)
            for part in parts:
                if not self.free and part not in offered:
                    raise UsageError(f"{part} is none of the parts that are offered here")
            base = compose_spec(choices.with_parts(base.spec, list(parts)))
        if not self.free:
            words = {control.key for control in choices.controls(base) if control.kind == "text"}
            if named := words & (settings or {}).keys():  # which may name a file, as a trace of a link
                raise UsageError(f"{named.pop()} cannot be set from elsewhere")
        return choices.at(base, settings or {})

    def parts(self, spec: str) -> list[str]:
        """What a spec can take besides."""
        return choices.additions(self.compose(spec))

    def controls(self, spec: str, parts: Sequence[str] = ()) -> list[Control]:
        """The knobs of a spec with parts; for strangers none that takes any words."""
        found = choices.controls(self.compose(spec, parts))
        return [control for control in found if self.free or control.kind != "text"]

    # -- a run ---------------------------------------------------------------------------------------------------------

    def show(
        self, source: str, spec: str, parts: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> Shown:
        """One input, a file's path or DATASET:INDEX of a built-in set, through a spec. Raises SemcodecError."""
        composition = self.compose(spec, parts, settings)
        self._shown += 1
        return self._worker.submit(self._show, composition, source).result()

    def share(
        self, source: str, spec: str, parts: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> Share | None:
        """What both ends compute of the same; None where another run was asked for before it was counted.

        Counting is slow, so that it is asked for apart. Raises SemcodecError.
        """
        composition = self.compose(spec, parts, settings)
        return self._worker.submit(self._share, composition, source, self._shown).result()

    # -- in the worker's thread ----------------------------------------------------------------------------------------

    def _share(self, composition: Composition, source: str, shown: int) -> Share | None:
        if shown != self._shown:
            return None
        pipeline = self._pipeline(composition)
        sample = self._input(source, pipeline)
        encoded = self._encoded(pipeline, sample)[0]

        def count() -> Share:
            costs = Costs(pipeline)
            costs.add(sample.pixels, [0], [encoded], pipeline.records([encoded]), sample.size and [sample.size])
            told = costs.figures()
            macs = [float(told[f"macs_{end}"] or 0) for end in ("device", "server", "whole")]
            return Share(told["device_share"], *macs)

        kind = tuple(sorted(encoded.kept.items())), bool(encoded.bytes_local)  # packets alike cost alike
        return self._keep(self._costs, (composition.spec, kind), count, 64)

    def _pipeline(self, composition: Composition) -> Pipeline:
        """With models that were loaded before, where they are the same."""
        for known in reversed(self._pipelines.values()):
            if known.shares_models(composition):
                return known.replace(composition=composition)
        loaded = Pipeline.load(composition, self.request, device=self.device)
        return self._keep(self._pipelines, composition.spec, lambda: loaded)

    def _input(self, source: str, pipeline: Pipeline) -> Input:
        request = pipeline.request
        stamp = os.stat(source).st_mtime_ns if os.path.isfile(source) else None
        if stamp is None and source.rpartition(":")[0] not in NAMED:
            raise UsageError("take a picture or a clip first, or a sample of a built-in data set")
        return self._keep(self._inputs, (source, stamp, repr(request)), lambda: open_input(source, request))

    def _show(self, composition: Composition, source: str) -> Shown:
        pipeline = self._pipeline(composition)
        sample = self._input(source, pipeline)
        task = get_task(pipeline.composition.task)
        key = (source, id(sample), pipeline.composition.backbone.weights_item)
        self._encoded(pipeline, sample)  # so that the times are not those of a first run
        encoded, prediction, device_ms, server_ms = self._encoded(pipeline, sample)
        others = self._keep(self._rivals, key, lambda: rivals(pipeline.composition, sample, self._pipeline))
        label = None
        if sample.label is not None and sample.classes is not None:
            label = task.label(sample.label, sample.classes, sample.size, pipeline.request)
        told = task.describe(prediction, pipeline.classes, label, sample.classes)
        sizes = {part: int(getattr(encoded, f"bytes_{part}")) for part in ("payload", "side", "header")}
        total = sum(sizes.values())
        panels = make_panels(pipeline, sample.pixels, sample.size)
        point = OperatingPoint(
            pipeline.composition.encoder.name, None, float(total), device_ms, server_ms, sent=1.0 if total else 0.0
        )
        return Shown(
            spec=pipeline.composition.spec,
            answer=tuple(task.headline(told)),
            pictures=tuple((picture(panel), panel.title) for panel in panels),
            bytes=sizes,
            kept=encoded.bytes_local,
            point=point,
            rivals=tuple(rival.beside(total, prediction) for rival in others),
            raw=pipeline.raw_uint8_bytes,
        )

    def _encoded(
        self, pipeline: Pipeline, sample: Input
    ) -> tuple[Any, Prediction, Mapping[str, float], Mapping[str, float]]:
        device, server = pipeline.clock(), pipeline.clock()
        [encoded] = pipeline.encode_batch(sample.pixels, [0], device, sample.size and [sample.size])
        [prediction] = pipeline.decode_batch(pipeline.records([encoded]), server)
        times = [{stage: 1e3 * seconds for stage, seconds in clock.seconds.items()} for clock in (device, server)]
        return encoded, prediction, times[0], times[1]

    def _keep(self, kept: OrderedDict[Any, T], key: Any, make: Callable[[], T], most: int = KEPT) -> T:
        if key not in kept:
            kept[key] = make()
            while len(kept) > most:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]


def kind_of(source: str) -> Kind:
    """Whether an input is a picture or a clip, by its name."""
    name = source.rpartition(":")[0]
    if not os.path.isfile(source) and name in NAMED:
        return NAMED[name].kind
    return "video" if os.path.splitext(source)[1].lower() in VIDEO_SUFFIXES else "image"
