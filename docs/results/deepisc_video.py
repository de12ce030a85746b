r"""Measures what docs/results/deepisc_video.md shows: DeepISC against STAE and video codecs, into deepisc_video.jsonl.

    semcodec train deepisc+huffman+vit-nano --data digits-motion --weights backbone=vit-nano.safetensors -o runs/own
    python docs/results/deepisc_video.py share digits-motion runs/own runs/shared
    semcodec train deepisc+huffman+vit-nano --data digits-motion --weights backbone=vit-nano.safetensors \
        --weights encoder=runs/shared -o runs/deepisc                          (ships as deepisc-vit-nano.safetensors)
    python docs/results/deepisc_video.py digits-motion

and for the other set, with the two runs that docs/results/stae_natural.md makes:

    semcodec train deepisc+huffman+vit-tiny:112 --data activities --weights backbone=runs/activities-vit \
        --samples-scale 0.5 -o runs/own
    python docs/results/deepisc_video.py share activities runs/own runs/shared runs/activities
    semcodec train deepisc+huffman+vit-tiny:112 --data activities --weights backbone=runs/activities-vit \
        --weights encoder=runs/shared -o runs/deepisc
    python docs/results/deepisc_video.py activities runs/activities-vit runs/deepisc runs/activities
    python docs/results/deepisc_video.py show

``share`` puts STAE's own frame attention into DeepISC, after which synthesiser and ViT are tuned behind it.
STAE's records, and those of what else was measured on the same clips with the same weights, are taken from
stae_digits.jsonl and stae_natural.jsonl. Run again to go on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detection_coco import timed

from semcodec.composition.composition import compose_spec
from semcodec.composition.stored import compose_stored
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.statistics import paired, wilson
from semcodec.training.train import save

HERE = Path(__file__).parent
RECORDS, TIMES = HERE / "deepisc_video.jsonl", HERE / "deepisc_video_times.json"
BEFORE = {"digits-motion": HERE / "stae_digits.jsonl", "activities": HERE / "stae_natural.jsonl"}
BACKBONE = {"digits-motion": "vit-nano", "activities": "vit-tiny:112"}
CLIPS = {"digits-motion": 300, "activities": 49}
FRAMES = (16, 8, 4, 2, 1)
TARGETS = {"digits-motion": (99, 98, 95, 80), "activities": (85, 80, 75, 70)}
VIDEO = {"h265": (28, 36, 44), "av1": (35, 48, 60), "h264": (28, 36, 44)}
LOWEST = {"h265": (51,), "av1": (63,), "h264": (51,)}
"""Down to the lowest quality that each has, where that takes minutes."""
Record = dict[str, Any]
Sweep = tuple[str, dict[str, Any]]

PUBLISHED, ALL = "DeepISC as published", "DeepISC, all coded"


def plan(name: str) -> Iterator[Sweep]:
    """DeepISC as published at the paper's budgets, all parts coded with and without a residual, and video."""
    backbone = BACKBONE[name]
    published, coded = f"deepisc+huffman+{backbone}", f"deepisc:entropy=all+rans+{backbone}"
    yield published, {"deepisc.pixels": (0.4,), "deepisc.frames": FRAMES}
    yield coded, {"deepisc.pixels": (0.0,), "deepisc.frames": FRAMES}
    yield from video(name)
    yield coded, {"deepisc.pixels": (0.4,), "deepisc.frames": FRAMES}
    yield coded, {"deepisc.pixels": (0.4,), "deepisc.step": (16,), "deepisc.frames": FRAMES}
    yield published, {"deepisc.pixels": (1.0,), "deepisc.frames": FRAMES}
    yield coded, {"deepisc.pixels": (1.0,), "deepisc.frames": FRAMES}


def video(name: str) -> Iterator[Sweep]:
    for codec, crfs in VIDEO.items():
        # Written out, as the records of h264 before have it.
        frames = {f"{codec}.frames": (16,)} if name == "digits-motion" else {}
        crfs = (*crfs, *(LOWEST[codec] if name == "digits-motion" else ()))
        yield f"{codec}+{BACKBONE[name]}", {f"{codec}.crf": crfs, **frames}


def measure(data: str, vit: str | None, deepisc: str | None) -> None:
    name = Path(data).name
    known = Known.read(RECORDS, BEFORE[name])
    alone = WeightsRequest({"backbone": vit} if vit else {}, offline=True)
    whole = WeightsRequest({"": deepisc} if deepisc else {}, offline=True)
    for spec, grid in plan(name):
        request, batch = whole if spec.startswith("deepisc") else alone, 32 if name == "digits-motion" else 8
        options = {"limit": CLIPS[name], "batch": batch, "known": known}
        for record in run_sweep(compose_stored(spec, {}), grid, request, data, **options):
            record["data"] = name
            for weights in record["weights"].values():
                weights["source"] = Path(weights["source"]).name
            with RECORDS.open("a") as file:
                print(json.dumps(record), file=file)
            print(f"{record['spec']:60} {100 * record['top1']:5.1f} % {record['bytes_total']:8.0f} B", flush=True)


def share(name: str, deepisc: str, out: str, stae: str | None = None) -> None:
    """DeepISC's encoder with the frame attention that STAE has: what differs is then how kept frames are sent."""
    ours, theirs = (
        Pipeline.load(compose_spec(spec), WeightsRequest({"": path} if path else {}, offline=True))
        for spec, path in ((f"deepisc+huffman+{BACKBONE[name]}", deepisc), (f"stae+rans+{BACKBONE[name]}", stae))
    )
    encoder: Any = ours.stages.encoder
    learned: Any = theirs.stages.encoder
    encoder.frame_attention.load_state_dict(learned.frame_attention.state_dict())
    card = {"spec": ours.spec, "keys": {"encoder": ours.composition.weights_key("encoder")}, "classes": None}
    Path(out).mkdir(parents=True, exist_ok=True)
    save({"encoder": encoder}, card, Path(out))


# -- time ------------------------------------------------------------------------------------------------------------


def times(data: str, vit: str | None, deepisc: str | None, stae: str | None) -> None:
    """Processor time of one clip on one thread, the least of several: other programs may run beside."""
    name = Path(data).name
    found = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    rows = found.setdefault(name, {})
    for spec, path in (
        *((f"stae:frames={k},pixels=0.4+rans+{BACKBONE[name]}", stae) for k in FRAMES[::2]),
        *((f"deepisc:frames={k},pixels=0.4+huffman+{BACKBONE[name]}", deepisc) for k in FRAMES[::2]),
        *((f"deepisc:frames={k},pixels=0.0,entropy=all+rans+{BACKBONE[name]}", deepisc) for k in FRAMES[::2]),
        *((f"{codec}+{BACKBONE[name]}", vit) for codec in VIDEO),
    ):
        slot = "backbone" if path == vit else ""
        pipeline = Pipeline.load(compose_stored(spec, {}), WeightsRequest({slot: path} if path else {}, offline=True))
        pixels, _ = open_dataset(data, "test", pipeline.request).batch([0])
        records = list(pipeline.records(pipeline.encode_batch(pixels, [0])))
        device = timed(lambda p=pipeline, x=pixels: p.encode_batch(x, [0]), repeats=5)
        server = timed(lambda p=pipeline, r=records: p.decode_batch(r), repeats=5)
        rows[pipeline.spec] = {"device": round(device, 1), "server": round(server, 1)}
    TIMES.write_text(json.dumps(found, indent=1) + "\n")


# -- the page --------------------------------------------------------------------------------------------------------


def records(name: str) -> list[Record]:
    """All of a data set, each under its ``method``, with as many clips as DeepISC was measured on."""
    out: dict[str, Record] = {}
    for path in (BEFORE[name], RECORDS):
        for record in map(json.loads, path.read_text().splitlines()):
            fits = record["data"] == name and record["samples"] >= CLIPS[name] and "run" not in record
            if fits and method(record):
                out[record["spec"]] = shortened(record, CLIPS[name])
    return list(out.values())


def shortened(record: Record, clips: int) -> Record:
    """A record of more clips, all of them of one size, by the first of them."""
    correct = record["correct"][:clips]
    right = correct.count("1")
    return {**record, "correct": correct, "top1": right / clips, "top1_interval": wilson(right, clips)}


def method(record: Record) -> str | None:
    spec, knobs = record["spec"], record["knobs"]
    name = spec.partition("+")[0].partition(":")[0]
    if name == "deepisc":
        return PUBLISHED if knobs["entropy"] == "latent" else ALL
    if name == "stae" and "random" not in spec and "none" not in spec:
        if knobs["pixels"] not in (1.0, 0.4):
            return None
        return "STAE" if knobs["coding"] == "raw" else "STAE, WebP" if knobs["coding"] == "webp" else None
    if name in VIDEO and knobs["frames"] in (0, 16):
        return name
    return "full" if name == "png" else None


def budget(record: Record) -> tuple[int, float]:
    return record["knobs"]["frames"], record["knobs"]["pixels"]


def score(record: Record) -> str:
    low, high = record["top1_interval"]
    return f"{100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def apart(first: Record, second: Record) -> str:
    test = paired(*([digit == "1" for digit in record["correct"]] for record in (first, second)))
    return f"{100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to {100 * test['high']:+.1f}) | {test['p']:.2g}"


def page(name: str) -> Iterator[str]:
    rows = records(name)
    of: dict[str, list[Record]] = {}
    for row in sorted(rows, key=lambda r: -r["bytes_total"]):
        of.setdefault(method(row) or "", []).append(row)
    coded = {(*budget(r), r["knobs"]["step"]): r for r in of[ALL]}
    stae = {budget(r): r for r in of["STAE"]}
    yield f"## {name}, {CLIPS[name]} test clips\n"
    if "full" in of:
        yield f"The whole clip without loss, `{of['full'][0]['spec']}`: {score(of['full'][0])} %.\n"
    yield "### The paper's budgets\n"
    yield (
        "| frames | pixels | STAE, % | DeepISC, % | STAE - DeepISC, points (95 %) | McNemar p | STAE, bytes | "
        "DeepISC as published, bytes | all coded, bytes |"
    )
    yield "| ---: | ---: | --- | --- | --- | ---: | ---: | ---: | ---: |"
    for ours in sorted(of[PUBLISHED], key=lambda r: (-r["knobs"]["pixels"], -r["knobs"]["frames"])):
        frames, pixels = budget(ours)
        other, same = stae[frames, pixels], coded.get((frames, pixels, 2))
        size = f"{same['bytes_total']:.0f}" if same else ""
        yield (
            f"| {frames} | {100 * pixels:.0f} % | {score(other)} | {score(ours)} | {apart(other, ours)} | "
            f"{other['bytes_total']:.0f} | {ours['bytes_total']:.0f} | "
            f"{size} |"
        )
    families = {m: of.get(m, []) for m in ("STAE", "STAE, WebP", PUBLISHED, ALL, *VIDEO)}
    yield "\n### At equal accuracy\n"
    yield "The fewest bytes at which a measured point of each is right on at least so many clips.\n"
    yield f"| top-1, % | {' | '.join(families)} |"
    yield "| ---: |" + " ---: |" * len(families)
    for target in TARGETS[name]:
        enough = [[r["bytes_total"] for r in rows if 100 * r["top1"] >= target] for rows in families.values()]
        yield f"| {target} | " + " | ".join(f"{min(sizes):.0f}" if sizes else "" for sizes in enough) + " |"
    yield "\n### At equal bytes\n"
    yield "Points that no other of the same method beats in both, beside the best of each other that costs no more.\n"
    yield "| point | bytes | top-1, % | best no dearer | bytes | top-1, % | difference, points (95 %) | McNemar p |"
    yield "| --- | ---: | ---: | --- | ---: | ---: | --- | ---: |"
    for family, others in (("STAE", (PUBLISHED, ALL, "av1")), ("STAE, WebP", (ALL, *VIDEO)), (ALL, VIDEO)):
        for first in envelope(families[family]):
            for other in others:
                yield from beside(first, families[other])
    own = {budget(r): r for r in map(json.loads, RECORDS.read_text().splitlines()) if "run" in r and r["data"] == name}
    if own:
        yield "\n### STAE's frame attention in DeepISC, and one trained anew\n"
        yield "| frames | STAE's, % | its own, % | difference, points (95 %) | McNemar p |"
        yield "| ---: | --- | --- | --- | ---: |"
        for first in sorted(of[PUBLISHED], key=lambda r: -r["knobs"]["frames"]):
            if second := own.get(budget(first)):
                yield f"| {budget(first)[0]} | {score(first)} | {score(second)} | {apart(first, second)} |"
    yield "\n### All points\n"
    yield "| spec | top-1, % (95 %) | bytes | x float32 |\n| --- | --- | ---: | ---: |"
    for row in sorted(rows, key=lambda r: -r["bytes_total"]):
        yield f"| `{row['spec']}` | {score(row)} | {row['bytes_total']:.0f} | {row['ratio_float32']:.0f} |"
    if TIMES.exists() and name in (found := json.loads(TIMES.read_text())):
        yield "\n### Processor time of one clip, one thread, ms\n"
        yield "| spec | device | server |\n| --- | ---: | ---: |"
        for spec, spent in found[name].items():
            yield f"| `{spec}` | {spent['device']:.1f} | {spent['server']:.1f} |"
    yield ""


def envelope(rows: list[Record]) -> list[Record]:
    """Those that none with as few bytes equals."""
    best, out = -1.0, []
    for row in sorted(rows, key=lambda r: (r["bytes_total"], -r["top1"])):
        if row["top1"] > best:
            best = row["top1"]
            out.append(row)
    return out[::-1]


def beside(first: Record, others: list[Record]) -> Iterator[str]:
    """A row of ``first`` and the best of others that cost no more."""
    no_dearer = envelope([r for r in others if r["bytes_total"] <= first["bytes_total"]])
    if no_dearer:
        second = no_dearer[0]
        yield (
            f"| {short(first)} | {first['bytes_total']:.0f} | {100 * first['top1']:.1f} | {short(second)} | "
            f"{second['bytes_total']:.0f} | {100 * second['top1']:.1f} | {apart(first, second)} |"
        )


def short(record: Record) -> str:
    """What tells a point from the others of the page."""
    return "`" + record["spec"].partition("+")[0] + "`"


def picture() -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    names = [name for name in BEFORE if any(json.loads(r)["data"] == name for r in RECORDS.read_text().splitlines())]
    figure, panels = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4.5), squeeze=False)
    colours: dict[str, Any] = {}
    for name, axes in zip(names, panels[0], strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in records(name):
            label = method(row) or ""
            if label == "full":
                axes.axhline(100 * row["top1"], color="grey", lw=0.8, ls="--", label="the whole clip")
                continue
            if "pixels" in row["knobs"]:
                label += f", {100 * row['knobs']['pixels']:.0f} %"
            if row["knobs"].get("step", 2) != 2:
                label += f", step {row['knobs']['step']}"
            if row["knobs"].get("pixels", 1.0) in (0.0, 0.4, 1.0):
                lines.setdefault(label, []).append((row["bytes_total"], 100 * row["top1"]))
        for label, found in sorted(lines.items()):
            style = {"D": "-", "S": "--"}.get(label[0], ":")
            colour = colours.setdefault(label, pyplot.get_cmap("tab20")(len(colours)))
            axes.plot(*zip(*sorted(found), strict=True), style, marker="o", ms=3, label=label, color=colour)
        axes.set(xscale="log", xlabel="bytes a clip", ylabel="top-1, %", title=f"{name}, {CLIPS[name]} clips")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(HERE / "deepisc_video.svg", metadata={"Date": None})


def show() -> None:
    path = HERE / "deepisc_video.md"
    text = path.read_text() if path.exists() else ""
    begin, end = "<!-- measured -->\n", "<!-- end -->\n"
    before, after = (text.split(begin)[0], text.split(end)[-1]) if begin in text else (text, "")
    measured = {json.loads(line)["data"] for line in RECORDS.read_text().splitlines()}
    tables = "\n".join(line for name in BEFORE if name in measured for line in page(name))
    path.write_text(f"{before}{begin}{tables}{end}{after}")
    picture()


def main() -> None:
    data, *paths = sys.argv[1:]
    if data == "share":
        return share(*paths)
    if data != "show":
        torch.set_num_threads(1)
        vit, deepisc, stae = paths or (None, None, None)
        measure(data, vit, deepisc)
        times(data, vit, deepisc, stae)
    return show()


if __name__ == "__main__":
    main()
