"""What arrives at a report's points: one sample of their data, sent through each of them anew."""

from __future__ import annotations

from dataclasses import dataclass

from semcodec.bench.results import Group, MeasuredPoint, followed
from semcodec.errors import SemcodecError, WeightsError
from semcodec.tasks.table import WEIGHTS

WIDTH = 300
"""Pixels of a picture in the page."""


@dataclass(frozen=True)
class Received:
    """One picture. title: of the panel. image: a data: URL. spec: of the point, "" for the source. told: the answer."""

    spec: str
    title: str
    image: str
    told: str


def received(
    group: Group, anchor: str | None, sample: int = 0, weights: tuple[str, ...] = ()
) -> tuple[list[Received], list[str]]:
    """The source, then what the server has of it at each point that is followed; and why some could not be run.

    weights: as of ``--weights``. Nothing is looked for on the network.
    """
    found: list[Received] = []
    notes: list[str] = []
    for point in followed(group, anchor):
        try:
            made = _run(point, group, sample, weights)
        except (SemcodecError, OSError) as error:
            notes.append(f"no picture of {point.spec}: {error}")
            continue
        found += made if not found else made[1:]
    return found, notes


def _run(point: MeasuredPoint, group: Group, sample: int, weights: tuple[str, ...]) -> list[Received]:
    """Source and what arrived of one sample. Raises WeightsError where the weights here are not those of the point."""
    from semcodec.composition.composition import compose_spec
    from semcodec.data.datasets import open_dataset
    from semcodec.evaluation.sample_panels import make_panels
    from semcodec.evaluation.thumbnails import data_url, folded
    from semcodec.painting import paint
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.weights import WeightsRequest

    request = WeightsRequest.parse(weights, offline=True)
    composition = compose_spec(point.spec)
    if len(composition.tails) > 1:  # of a mean of tasks the first answers
        composition = composition.alone(point.record.get("task") or next(iter(point.record[WEIGHTS])))
    pipeline = Pipeline.load(composition, request)
    for slot, source in (point.record.get("weights") or {}).items():
        if pipeline.digests.get(slot, source.get("digest")) != source.get("digest"):
            raise WeightsError(f"the weights of its {slot} are not here; name them with --weights {slot}=PATH")
    dataset = open_dataset(group.data, group.split or "test", pipeline.request)
    pixels, _ = dataset.batch([sample])
    panels = make_panels(pipeline, pixels)
    packet = pipeline.encode_batch(pixels, [0])
    [answer] = pipeline.decode_batch(pipeline.records(packet))
    source = next((panel for panel in panels if panel.title.startswith("source")), panels[0])
    told = f"{answer.name}, {answer.probability:.0%}; {packet[0].bytes_total:,} B"
    raw = f"{pipeline.raw_uint8_bytes:,} B as 8-bit pixels"
    shown = panels[-1]
    return [
        Received("", source.title, data_url(folded(paint(source)), WIDTH), raw),
        Received(point.spec, shown.title, data_url(folded(paint(shown)), WIDTH), told),
    ]
