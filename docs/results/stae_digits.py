"""Measures what docs/results/stae_digits.md shows, into stae_digits.jsonl beside it; run again to go on.

    semcodec train stae+rans+vit-nano --data digits-motion -o runs/stae
    semcodec train stae+random@frames+random@pixels+rans+vit-nano --data digits-motion -o runs/random
    python docs/results/stae_digits.py [--random runs/random] [--limit 1000]

Spends about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semcodec.composition import compose_spec
from semcodec.evaluation import run_sweep
from semcodec.metrics import paired
from semcodec.weights import Request

HERE = Path(__file__).parent
FRAMES, PIXELS = (16, 8, 4, 2, 1), (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
RANDOM = "stae+random@frames+random@pixels+rans+vit-nano"
FULL = "png+vit-nano"


def plan(random: str | None) -> Iterator[tuple[str, str, dict[str, Any], Request]]:
    """Name, spec, grid and weights of each sweep."""
    shipped = Request(offline=True)
    budgets = {"stae.frames": FRAMES, "stae.pixels": PIXELS}
    yield "full", FULL, {}, shipped
    yield "stae", "stae+rans+vit-nano", budgets, shipped
    few = {"stae.frames": (4, 2), "stae.pixels": (0.4,)}
    yield "no recovery", "stae+none+rans+vit-nano", few, shipped
    if random:
        yield "random", RANDOM, few, Request({"": random}, offline=True)
    picture = {"stae.frames": (16, 8, 4, 2), "stae.pixels": (1.0, 0.4), "stae.quality": (30, 75)}
    for coding in ("webp", "jpeg"):
        yield f"stae, {coding}", f"stae:coding={coding}+rans+vit-nano", picture, shipped
        yield coding, f"{coding}+vit-nano", {f"{coding}.frames": (16, 8, 4), f"{coding}.quality": (10, 30, 75)}, shipped
    yield "h264", "h264+vit-nano", {"h264.frames": (16, 4), "h264.crf": (20, 28, 36, 44)}, shipped


def measure(records: Path, random: str | None, data: str, limit: int | None) -> None:
    lines = records.read_text().splitlines() if records.exists() else []
    done = {json.loads(line)["key"] for line in lines}
    for name, spec, grid, request in plan(random):
        for record in run_sweep(compose_spec(spec), grid, request, data, limit=limit, done=done):
            with records.open("a") as file:
                print(json.dumps({"name": name, **record}), file=file)
            print(
                f"{name:14} {record['spec']:60} {100 * record['top1']:5.1f} % {record['bytes_total']:8.0f} B",
                flush=True,
            )


def row(record: dict[str, Any], full: float) -> str:
    low, high = record["top1_interval"]
    return (
        f"| `{record['spec']}` | {100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
        f"{100 * (full - record['top1']):+.1f} | {record['bytes_total']:.0f} | {record['ratio_float32']:.0f} | "
        f"{record['ratio_uint8']:.0f} |"
    )


def against(records: list[dict[str, Any]], name: str) -> Iterator[str]:
    """STAE beside another variant at the same budgets, paired over the clips."""
    for other in (r for r in records if r["name"] == name):
        same = {k: other["knobs"][k] for k in ("frames", "pixels")}
        stae = next(r for r in records if r["name"] == "stae" and {k: r["knobs"][k] for k in same} == same)
        test = paired([c == "1" for c in stae["correct"]], [c == "1" for c in other["correct"]])
        yield (
            f"| {same['frames']} | {same['pixels']} | {100 * stae['top1']:.1f} | {100 * other['top1']:.1f} | "
            f"{100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to {100 * test['high']:+.1f}) | {test['p']:.2g} | "
            f"{stae['bytes_total']:.0f} / {other['bytes_total']:.0f} |"
        )


def tables(records: list[dict[str, Any]]) -> str:
    full = next(r for r in records if r["name"] == "full")["top1"]
    by_budget = {(r["knobs"]["frames"], r["knobs"]["pixels"]): r for r in records if r["name"] == "stae"}
    head = "| frames \\ pixels | " + " | ".join(f"{100 * p:.0f} %" for p in PIXELS) + " |"
    out = ["## All 35 budgets: top-1 in % / bytes a clip", "", head, "| --- |" + " ---: |" * len(PIXELS)]
    for f in FRAMES:
        cells = [by_budget[f, p] for p in PIXELS]
        out.append(f"| {f} | " + " | ".join(f"{100 * c['top1']:.1f} / {c['bytes_total']:.0f}" for c in cells) + " |")
    columns = "| spec | top-1, % (95 %) | points lost | bytes | x float32 | x 8 bit |\n| --- | --- | ---: | ---: | ---: | ---: |"
    out += ["", "## Beside what else could be sent", "", columns]
    rest = [r for r in records if r["name"] not in ("stae", "random", "no recovery")]
    chosen = [by_budget[16, 0.5], by_budget[8, 1.0]]
    out += [row(r, full) for r in sorted([*rest, *chosen], key=lambda r: -r["bytes_total"])]
    pair = "| frames | pixels | STAE | other | difference, points (95 %) | McNemar p | bytes |\n| --- | --- | --- | --- | --- | --- | --- |"
    out += ["", "## Against random frames and pixels, recovered by a network trained as long", "", pair]
    out += against(records, "random")
    out += ["", "## Against no recovery", "", pair, *against(records, "no recovery")]
    a, b = by_budget[16, 0.5], by_budget[8, 1.0]
    test = paired([c == "1" for c in a["correct"]], [c == "1" for c in b["correct"]])
    out += [
        "",
        "## Space against time",
        "",
        f"16 frames at 50 %: {100 * a['top1']:.1f} % in {a['bytes_total']:.0f} bytes; 8 frames at 100 %: "
        f"{100 * b['top1']:.1f} % in {b['bytes_total']:.0f} bytes. Difference {100 * test['difference']:+.1f} points "
        f"({100 * test['low']:+.1f} to {100 * test['high']:+.1f}), McNemar p = {test['p']:.2g}.",
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", help="weights trained with random selection")
    parser.add_argument("--data", default="digits-motion")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--records", type=Path, default=HERE / "stae_digits.jsonl")
    options = parser.parse_args()
    measure(options.records, options.random, options.data, options.limit)
    records = [json.loads(line) for line in options.records.read_text().splitlines()]
    page = HERE / "stae_digits.md"
    text = page.read_text() if page.exists() else ""
    begin, end = "<!-- measured -->\n", "<!-- end -->\n"
    before, after = (text.split(begin)[0], text.split(end)[-1]) if begin in text else (text, "")
    page.write_text(f"{before}{begin}{tables(records)}{end}{after}")


if __name__ == "__main__":
    main()
