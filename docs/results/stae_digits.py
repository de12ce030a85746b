"""Measures what docs/results/stae_digits.md shows, into stae_digits.jsonl beside it; run again to go on.

    semcodec train stae+rans+vit-nano --data digits-motion -o runs/stae
    semcodec train stae+random@frames+random@pixels+rans+vit-nano --data digits-motion -o runs/random
    python docs/results/stae_digits.py --random runs/random

Spends about half an hour on two cores. Clips are the first of the test split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from semcodec.composition.stored import compose_stored
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.statistics import paired

HERE = Path(__file__).parent
FRAMES, PIXELS = (16, 8, 4, 2, 1), (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
RANDOM = "stae+random@frames+random@pixels+rans+vit-nano"
FULL = "png+vit-nano"
DATA = "digits-motion"


@dataclass
class Sweep:
    """What is run under one name; ``clips`` of the test split, the first ones."""

    name: str
    spec: str
    grid: dict[str, Any]
    weights: WeightsRequest = field(default_factory=lambda: WeightsRequest(offline=True))
    clips: int = 1000


def plan(random: str | None) -> Iterator[Sweep]:
    yield Sweep("full", FULL, {})
    few = {"stae.frames": (4, 2), "stae.pixels": (0.4,)}
    yield Sweep("chosen", "stae+rans+vit-nano", few)
    if random:
        yield Sweep("random", RANDOM, few, WeightsRequest({"": random}, offline=True))
    # The backbone is the one that learned with the recoverer, which nothing but its name would find here.
    together = str(files("semcodec_plugins.stae") / "weights" / "stae-vit-nano.safetensors")
    yield Sweep("no recovery", "stae+none+rans+vit-nano", few, WeightsRequest({"": together}, offline=True))
    budgets = {"stae.frames": (8,), "stae.pixels": (1.0, 0.4), "stae.quality": (30,)}
    yield Sweep("stae, webp", "stae:coding=webp+rans+vit-nano", budgets)
    yield Sweep("space and time", "stae:frames=16,pixels=0.5+rans+vit-nano", {})
    yield Sweep("space and time", "stae:frames=8,pixels=1.0+rans+vit-nano", {})
    yield Sweep("all budgets", "stae+rans+vit-nano", {"stae.frames": FRAMES, "stae.pixels": PIXELS}, clips=300)
    for coding in ("webp", "jpeg"):
        pictures = {f"{coding}.frames": (16, 8, 4), f"{coding}.quality": (1, 10, 30, 75)}
        yield Sweep("other", f"{coding}+vit-nano", pictures, clips=300)
        budgets = {"stae.frames": (16, 4), "stae.pixels": (1.0, 0.4), "stae.quality": (30, 75)}
        yield Sweep("other", f"stae:coding={coding}+rans+vit-nano", budgets, clips=300)
    yield Sweep("other", "h264+vit-nano", {"h264.frames": (16, 4), "h264.crf": (20, 28, 36, 44, 51)}, clips=300)
    for share in (1.0, 0.4):
        low = {"stae.frames": (16, 8, 4, 2), "stae.pixels": (share,), "stae.quality": (1, 10)}
        yield Sweep("other", "stae:coding=webp+rans+vit-nano", low, clips=300)
    whole = {"stae.frames": (16, 8, 4), "stae.pixels": (1.0,), "stae.quality": (1, 10, 30)}
    some = {"stae.frames": (16, 8), "stae.pixels": (0.4,), "stae.quality": (10, 30)}
    for grid in (whole, some):
        yield Sweep("over time", "stae:coding=h264+rans+vit-nano", grid, clips=300)
    for coding in ("h265", "av1"):
        few = {"stae.frames": (16, 8), "stae.pixels": (1.0,), "stae.quality": (10, 30)}
        yield Sweep("over time", f"stae:coding={coding}+rans+vit-nano", few, clips=300)


def measure(records: Path, random: str | None) -> None:
    known = Known.read(records)
    for sweep in plan(random):
        composition = compose_stored(sweep.spec, {})
        for record in run_sweep(composition, sweep.grid, sweep.weights, DATA, limit=sweep.clips, known=known):
            for weights in record["weights"].values():
                weights["source"] = Path(weights["source"]).name
            with records.open("a") as file:
                print(json.dumps({"name": sweep.name, **record}), file=file)
            top1, size = 100 * record["top1"], record["bytes_total"]
            print(f"{sweep.name:14} {record['spec']:60} {top1:5.1f} % {size:8.0f} B", flush=True)


def row(record: dict[str, Any], full: float) -> str:
    low, high = record["top1_interval"]
    return (
        f"| `{record['spec']}` | {100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
        f"{100 * (full - record['top1']):+.1f} | {record['bytes_total']:.0f} | {record['ratio_float32']:.0f} | "
        f"{record['ratio_uint8']:.0f} |"
    )


def versus(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Difference of two records' accuracies in points, paired over the clips."""
    test = paired([c == "1" for c in a["correct"]], [c == "1" for c in b["correct"]])
    return (
        f"{100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to {100 * test['high']:+.1f}) | {test['p']:.2g} | "
        f"{a['bytes_total']:.0f} / {b['bytes_total']:.0f} |"
    )


def against(records: list[dict[str, Any]], name: str) -> Iterator[str]:
    """STAE beside another variant at the same budgets."""
    yield "| frames | pixels | STAE | other | difference, points (95 %) | McNemar p | bytes |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    chosen = {budget(r): r for r in records if r["name"] == "chosen"}
    for other in (r for r in records if r["name"] == name):
        stae = chosen[budget(other)]
        frames, pixels = budget(other)
        both = f"{100 * stae['top1']:.1f} | {100 * other['top1']:.1f}"
        yield f"| {frames} | {pixels} | {both} | {versus(stae, other)}"


def budget(record: dict[str, Any]) -> tuple[int, float]:
    return record["knobs"]["frames"], record["knobs"]["pixels"]


def tables(records: list[dict[str, Any]]) -> str:
    named = {name: [r for r in records if r["name"] == name] for name in dict.fromkeys(r["name"] for r in records)}
    full = named["full"][0]["top1"]
    columns = "| spec | top-1, % (95 %) | points lost | bytes | x float32 | x 8 bit |"
    columns += "\n| --- | --- | ---: | ---: | ---: | ---: |"
    out = ["## Operating points, 1,000 clips", "", columns]
    chosen = [*named["full"], *named["stae, webp"], *named["space and time"], *named["chosen"]]
    out += [row(r, full) for r in sorted(chosen, key=lambda r: -r["bytes_total"])]
    out += ["", "## Against random frames and pixels, recovered by a network trained as long; 1,000 clips", ""]
    out += against(records, "random")
    out += ["", "## Against no recovery; 1,000 clips", "", *against(records, "no recovery")]
    space, time = named["space and time"]
    out += ["", "## Space against time; 1,000 clips", ""]
    out += ["| 16 frames at 50 % | 8 frames at 100 % | difference, points (95 %) | McNemar p | bytes |"]
    out += ["| --- | --- | --- | --- | --- |"]
    out += [f"| {100 * space['top1']:.1f} | {100 * time['top1']:.1f} | {versus(space, time)}"]
    budgets = {budget(r): r for r in named["all budgets"]}
    head = "| frames \\ pixels | " + " | ".join(f"{100 * p:.0f} %" for p in PIXELS) + " |"
    out += [
        "",
        "## All 35 budgets, 300 clips: top-1 in % / bytes a clip",
        "",
        head,
        "| --- |" + " ---: |" * len(PIXELS),
    ]
    for f in FRAMES:
        cells = [budgets[f, p] for p in PIXELS if (f, p) in budgets]
        out.append(f"| {f} | " + " | ".join(f"{100 * c['top1']:.1f} / {c['bytes_total']:.0f}" for c in cells) + " |")
    out += ["", "## Beside what else could be sent, 300 clips", "", columns]
    out += [row(r, full) for r in sorted(named.get("other", []), key=lambda r: -r["bytes_total"])]
    out += ["", "## Kept frames as video, 300 clips: top-1 in % / bytes a clip", "", *over_time(named)]
    return "\n".join(out) + "\n"


def over_time(named: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Frames as video of three codecs beside pictures of the same frames, by share of pixels and quality."""
    found = {(r["knobs"]["coding"], *budget(r), r["knobs"]["quality"]): r for r in named.get("over time", [])}
    found |= {
        (r["knobs"]["coding"], *budget(r), r["knobs"]["quality"]): r
        for r in named["other"]
        if r["knobs"].get("coding") == "webp"
    }
    words = ("webp", "h264", "h265", "av1")
    yield "| frames | pixels | quality | " + " | ".join(words) + " |"
    yield "| ---: | ---: | ---: |" + " ---: |" * len(words)
    for frames, pixels, quality in sorted(
        {at[1:] for at in found if at[0] != "webp"}, key=lambda at: (-at[1], -at[0], at[2])
    ):
        cells = [found.get((word, frames, pixels, quality)) for word in words]
        texts = [f"{100 * r['top1']:.1f} / {r['bytes_total']:.0f}" if r else "" for r in cells]
        yield f"| {frames} | {100 * pixels:.0f} % | {quality} | " + " | ".join(texts) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", help="weights trained with random selection")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing, write the page from the records")
    options = parser.parse_args()
    records = HERE / "stae_digits.jsonl"
    if not options.tables_only:
        measure(records, options.random)
    page = HERE / "stae_digits.md"
    text = page.read_text() if page.exists() else ""
    begin, end = "<!-- measured -->\n", "<!-- end -->\n"
    before, after = (text.split(begin)[0], text.split(end)[-1]) if begin in text else (text, "")
    measured = tables([json.loads(line) for line in records.read_text().splitlines()])
    page.write_text(f"{before}{begin}{measured}{end}{after}")


if __name__ == "__main__":
    main()
