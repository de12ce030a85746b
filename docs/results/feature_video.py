"""Measures what docs/results/feature_video.md shows, into feature_video.jsonl beside it; run again to go on.

    semcodec train pca+det-nano@d3 --data digits-scenes -o runs/pca-det-nano      a minute; the others ship
    python docs/results/feature_video.py --runs runs

Samples are the first of the test split. Points of every method go down to its lowest quality.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pages

from semcodec.composition.composition import compose_spec
from semcodec.errors import WeightsError
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "feature_video.jsonl", HERE / "feature_video.md"
MARKS = "<!-- table -->", "<!-- end of table -->"
LOST = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of samples, or of mean average precision, that a row of the summary may lose."""


@dataclass(frozen=True)
class Place:
    """A cut, its data, and how its score is called."""

    backbone: str
    cut: str
    data: str
    samples: int
    score: str = "top1"
    components: Sequence[int] = (4, 8, 16)
    qp: Mapping[str, Sequence[int]] = field(
        default_factory=lambda: {"h265": (22, 32, 37, 42, 47, 51), "av1": (30, 46, 54, 60, 63), "h264": (32, 42, 51)}
    )
    basis_qp: Mapping[str, Sequence[int]] = field(
        default_factory=lambda: {"h265": (22, 32, 37, 42, 47), "av1": (30, 46, 54, 60)}
    )
    clip: bool = False


PLACES = (
    Place("resnet-nano", "stem", "digits-scenes", 400),
    Place("det-nano", "d3", "digits-scenes", 200, "map50"),
    Place(
        "vit-nano",
        "embed",
        "digits-motion",
        200,
        components=(8, 16),
        clip=True,
        qp={"h265": (32, 42, 47, 51), "av1": (46, 60, 63)},
        basis_qp={"h265": (32, 42, 47), "av1": (46, 60)},
    ),
)


@dataclass(frozen=True)
class Sweep:
    """What is run under one name."""

    name: str
    spec: str
    grid: dict[str, Any] = field(default_factory=dict)


def plan(place: Place) -> Iterator[Sweep]:
    at = f"{place.backbone}@{place.cut}"
    yield Sweep("uncompressed", f"png+{place.backbone}")
    yield Sweep("tensor8", f"tensor8+rans+{at}")
    if place.clip:
        for codec, grid in (("h264", (28, 36, 44, 51)), ("h265", (28, 44, 51)), ("av1", (50, 63))):
            yield Sweep(f"{codec} of the clip", f"{codec}+{place.backbone}", {f"{codec}.crf": grid})
    else:
        for codec in ("jpeg", "webp", "avif"):
            yield Sweep(f"{codec} of the image", f"{codec}+{place.backbone}", {f"{codec}.quality": (1, 5, 10, 25, 60)})
        yield Sweep("pca", f"pca+rans+{at}", {"pca.components": place.components, "pca.bits": (2, 3, 4, 5, 6)})
        yield Sweep("layered", f"layered+rans+{at}", {"layered.layers": (1, 2, 3, 4)})
    for codec, grid in place.qp.items():
        yield Sweep(f"feature-video, {codec}", f"feature-video:codec={codec}+rans+{at}", {"feature-video.qp": grid})
    for codec, grid in place.basis_qp.items():
        basis = {"feature-video-pca.components": place.components, "feature-video-pca.qp": grid}
        yield Sweep(f"feature-video-pca, {codec}", f"feature-video-pca:codec={codec}+rans+{at}", basis)
    if not place.clip:
        own = {"feature-video.qp": (37, 42)}
        yield Sweep("feature-video, h265, 8 bits", f"feature-video:bits=8+rans+{at}", own)
        yield Sweep("feature-video, h265, a range a channel", f"feature-video:ranges=channel+rans+{at}", own)


def measure(runs: str | None, only: str | None) -> None:
    known = Known.read(RECORDS)
    for place in PLACES:
        at = f"{place.backbone}@{place.cut}"
        for sweep in plan(place) if only in (None, at) else ():
            ships = sweep.name != "pca" or place.cut == "stem"
            request = WeightsRequest({"": runs} if runs and not ships else {}, offline=True)
            try:
                for record in run_sweep(
                    compose_spec(sweep.spec), sweep.grid, request, place.data, limit=place.samples, known=known
                ):
                    keep({"name": sweep.name, "place": at, **record}, record[place.score])
            except WeightsError as error:
                print(f"left out: {error}", flush=True)


def keep(record: dict[str, Any], score: float) -> None:
    pages.append(RECORDS, record)
    print(f"{record['name']:40} {record['spec']:70} {100 * score:5.1f} % {record['bytes_total']:8.0f} B", flush=True)


def front(records: Sequence[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Of each name the points that no other of its own beats, from the most bytes to the fewest."""
    kept: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda r: (r["bytes_total"], -r[score])):
        if not kept or record[score] > kept[-1][score]:
            kept.append(record)
    return kept[::-1]


def tables(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    for place in PLACES:
        at = f"{place.backbone}@{place.cut}"
        here = [r for r in records if r["place"] == at]
        if not here:
            continue
        names = list(dict.fromkeys(r["name"] for r in here))
        whole = next(r for r in here if r["name"] == "uncompressed")[place.score]
        word = "mAP50" if place.score == "map50" else "top-1"
        yield f"## `{at}`, {here[0]['samples']} of {place.data}; uncompressed {word} {100 * whole:.1f} %\n"
        yield "Fewest bytes at which no more is lost, in points:\n"
        yield "| codec | " + " | ".join(f"{100 * lost:.0f}" for lost in LOST) + " |"
        yield "| --- |" + " ---: |" * len(LOST)
        for name in names:
            own = [r for r in here if r["name"] == name]
            cells = []
            for lost in LOST:
                enough = [r["bytes_total"] for r in own if r[place.score] >= whole - lost - 1e-9]
                cells.append(f"{min(enough):.0f}" if enough else "-")
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield f"\nEvery point that no other of its codec beats, {word} in %:\n"
        yield f"| codec | {word} / bytes |"
        yield "| --- | --- |"
        for name in names:
            points = front([r for r in here if r["name"] == name], place.score)
            yield (
                f"| {name} | "
                + ", ".join(f"{100 * r[place.score]:.1f} / {r['bytes_total']:.0f}" for r in points)
                + " |"
            )
        yield ""


def tell() -> None:
    pages.tell(PAGE, MARKS, tables(pages.read(RECORDS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", help="folder of runs of what does not ship")
    parser.add_argument("--only", help="one place, as resnet-nano@stem")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing, write the page from the records")
    options = parser.parse_args()
    if not options.tables_only:
        measure(options.runs, options.only)
    tell()


if __name__ == "__main__":
    main()
