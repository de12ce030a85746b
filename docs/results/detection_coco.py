"""Measures what docs/results/detection_coco.md shows: codecs at two cuts of YOLOv5n on COCO images, in one command.

    python docs/results/detection_coco.py coco128 yolov5n_coco80.safetensors nips2017 caltech101 RUNS
    python docs/results/detection_coco.py show              tables and a picture of the records

Trains into RUNS, evaluates into detection_coco.jsonl, times into detection_coco_times.json. Run again to go on: what is
there is not done again. Training sees COCO's train images, and of the other sets images alone.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from PIL import Image, ImageOps

from semcodec.bench.equal import Method, at_equal_accuracy
from semcodec.composition.composition import compose_spec
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.average_precision import Matches, paired
from semcodec.training.train import train

HERE = Path(__file__).parent
RECORDS, TIMES = HERE / "detection_coco.jsonl", HERE / "detection_coco_times.json"
ZOO = HERE.parents[1] / "examples" / "zoo" / "yolov5n"
MODEL = "yolov5n"
D3, D4 = "5", "7"
STACK = "4x4-8x4-12x4-12x2-20-32"
QUALITIES = {
    "jpeg": (1, 3, 5, 7, 10, 15, 20, 30, 50, 70, 90),
    "webp": (1, 10, 20, 30, 50, 70, 90),
    "avif": (1, 10, 20, 30, 40, 50, 70, 90),
    "avif:slow=true": (1, 10, 20),
}
COMPONENTS = (2, 4, 8, 16, 32, 64)
KNOBS = ("layers", "components", "quality")
FAR = 2.5
WANTED, GOAL = [percent / 100 for percent in range(30, 51)], 0.5
SIDE, COPIES = 320, 4


def two_decoders(cut: str) -> str:
    return f"layered:channels={STACK},lambda=1.5,low=3+{MODEL}@{cut}"


def one_decoder(cut: str) -> str:
    return f"layered:channels={STACK},lambda=1.5+{MODEL}@{cut}"


def single(cut: str, trade: float) -> str:
    return f"feature-hyperprior:channels=48,lambda={trade}+{MODEL}@{cut}"


FROM = {
    "layered2-d3-longer": "layered2-d3",
    "layered2-d3-longest": "layered2-d3-longer",
    "layered2-d3-task": "layered2-d3-longest",
    "single-d3-0.5-task": "single-d3-0.5",
    "single-d3-1.5-task": "single-d3-1.5",
}
"""Runs that go on from what another has learned."""


def trained() -> Iterator[tuple[str, str, str, float]]:
    """Name, spec, last step and share of the recipe's samples of everything that learns, the most telling first.

    Those whose last step is ``task`` see COCO's train images alone, with their boxes.
    """
    yield "pca-d3", f"pca+{MODEL}@{D3}", "histograms", 1.0
    yield "layered2-d3", two_decoders(D3), "picture", 0.6
    for trade in (0.15, 0.5, 0.05, 1.5):
        yield f"single-d3-{trade}", single(D3, trade), "match", 0.6
    yield "pca-adapt-d3", f"pca-adapt+{MODEL}@{D3}", "adapt", 1.0
    yield "layered2-d4", two_decoders(D4), "match", 0.4
    yield "layered1-d3", one_decoder(D3), "match", 0.6
    for trade in (0.15, 0.5):
        yield f"single-d4-{trade}", single(D4, trade), "match", 0.4
    yield "pca-d4", f"pca+{MODEL}@{D4}", "histograms", 1.0
    for name in ("layered2-d3-longer", "layered2-d3-longest"):
        yield name, two_decoders(D3), "match", 0.6
    yield "layered2-d3-task", two_decoders(D3), "task", 2.0
    for trade in (0.5, 1.5):
        yield f"single-d3-{trade}-task", single(D3, trade), "task", 2.0


def points() -> Iterator[tuple[str, str, str | None, dict[str, Any]]]:
    """Name, spec, run that it takes weights from, and what is swept."""
    yield "plain", f"png+{MODEL}", None, {}
    for coding, qualities in QUALITIES.items():
        yield coding, f"{coding}+{MODEL}", None, {f"{coding.split(':')[0]}.quality": qualities}
    layers = {"layered.layers": tuple(range(1, STACK.count("-") + 2))}
    for run, spec, _, _ in trained():
        name = spec.split(":")[0].split("+")[0]
        swept = {
            "layered": layers,
            "pca": {"pca.components": COMPONENTS},
            "pca-adapt": {"pca-adapt.components": COMPONENTS},
        }
        yield run, spec, run, swept.get(name, {})
    yield "zoo", two_decoders(D3), str(ZOO), layers


def mixture(coco: Path, others: list[Path], folder: Path) -> Path:
    """COCO's train images, and mosaics of four of other images each, in the layout of boxes but without any."""
    images = folder / "images" / "train"
    if (folder / "done").exists():
        return folder
    images.mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    for source in sorted((coco / "images" / "train2017").iterdir()):
        for copy in range(COPIES):
            (images / f"coco{copy}-{source.name}").unlink(missing_ok=True)
            (images / f"coco{copy}-{source.name}").symlink_to(source.resolve())
    files = [f for root in others for f in _listed(root)]
    order = np.random.default_rng(0).permutation(len(files))
    for number in range(len(files) // 4):
        mosaic = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for place in range(4):
            with Image.open(files[order[4 * number + place]]) as image:
                part = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
            mosaic.paste(part, (SIDE * (place % 2), SIDE * (place // 2)))
        mosaic.save(images / f"mosaic-{number:04}.jpg", quality=95)
    (folder / "done").touch()
    return folder


def _listed(root: Path) -> list[Path]:
    listed = root / "train.txt"
    if listed.exists():
        return [root / line for line in listed.read_text().splitlines() if line]
    return sorted((root / "images").iterdir())


def learn(runs: Path, coco: Path, images: Path, detector: str) -> None:
    for name, spec, until, scale in trained():
        if not (runs / name / "weights.safetensors").exists():
            start = time.monotonic()
            given = {"backbone": detector}
            if name in FROM:
                given["encoder"] = str(runs / FROM[name])
            data = coco if until == "task" else images
            train(spec, str(data), runs / name, request=WeightsRequest(given), until=until, scale=scale)
            print(f"{name}: trained in {time.monotonic() - start:.0f} s", flush=True)


def evaluate(runs: Path, coco: Path, detector: str) -> None:
    known = Known.read(RECORDS)
    for name, spec, run, grid in points():
        if run and not (runs / run / "weights.safetensors").exists():
            print(f"{name}: not trained", flush=True)
            continue
        request = WeightsRequest({"backbone": detector} | ({"encoder": str(runs / run)} if run else {}))
        for record in run_sweep(compose_spec(spec), grid, request, str(coco), batch=4, known=known):
            record["data"] = coco.name
            for weights in record["weights"].values():
                weights["source"] = Path(weights["source"]).name
            with RECORDS.open("a") as file:
                print(json.dumps({"name": name, **record}), file=file)
            print(f"{name:16} {record['spec']:70} {100 * record['map50']:5.1f} {record['bpp']:.4f} bpp", flush=True)


def times(runs: Path, coco: Path, detector: str) -> None:
    """One image at a time on one thread: what the device does, beside the whole detector and a learned image codec."""
    from compressai.models import ScaleHyperprior

    from semcodec.data.datasets import open_dataset

    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for run, spec in (
        ("layered2-d3", two_decoders(D3)),
        ("single-d3-0.5", single(D3, 0.5)),
        ("layered2-d4", two_decoders(D4)),
    ):
        if not (runs / run / "weights.safetensors").exists():
            continue
        pipeline = Pipeline.load(compose_spec(spec), WeightsRequest({"backbone": detector, "encoder": str(runs / run)}))
        pixels, _ = open_dataset(str(coco), "test", pipeline.request).batch([0])
        backbone, cut = pipeline.stages.backbone, pipeline.composition.cut
        x = pipeline.features(pixels)
        if not found:
            found["whole detector"] = timed(lambda b=backbone, x=x: b.tail(x, "input"))
            # Times do not depend on the weights, which are not to be had here.
            image = ScaleHyperprior(128, 192).eval()
            image.update()
            found["bmshj2018-hyperprior, compress"] = timed(lambda m=image, x=x: m.compress(x["image"]))
        found[f"{run}, head"] = timed(lambda b=backbone, x=x, c=cut: b.head(x, c))
        found[f"{run}, head, encoder and entropy coding"] = timed(lambda p=pipeline, x=pixels: p.encode_batch(x, [0]))
        if run.startswith("layered"):
            base = pipeline.replace(composition=pipeline.composition.with_call(layers=1))
            found[f"{run}, the same, one layer"] = timed(lambda p=base, x=pixels: p.encode_batch(x, [0]))
    TIMES.write_text(json.dumps({"threads": 1, "ms": found}, indent=1) + "\n")


@torch.inference_mode()
def timed(work: Callable[[], Any], repeats: int = 15) -> float:
    """Processor milliseconds, the least of several: other programs may run beside."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - start))
    return min(spent)


def show() -> None:
    # Of a point that was measured with other weights before, the last counts.
    known = map(json.loads, RECORDS.read_text().splitlines())
    rows = list({(row["name"], row["spec"]): row for row in known}.values())
    order = list(dict.fromkeys(name for name, *_ in points()))
    rows.sort(key=lambda row: (order.index(row["name"]), row["bpp"]))
    print("| what | knob | mAP50, % (95 %) | mAP50-95, % | bpp | bytes |\n| --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        low, high = (100 * end for end in row["map50_interval"])
        knob = _knob(row)
        print(
            f"| {row['name']} | {knob} | {100 * row['map50']:.1f} ({low:.1f}-{high:.1f}) | "
            f"{100 * row['map50_95']:.1f} | {row['bpp']:.4f} | {row['bytes_total']:.0f} |"
        )
    orderings(rows)
    equal(rows)
    picture(rows)
    if TIMES.exists():
        print("\n| on the device, one thread | ms |\n| --- | ---: |")
        for name, value in json.loads(TIMES.read_text())["ms"].items():
            print(f"| {name} | {value:.1f} |")


def _knob(row: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in row["knobs"].items() if k in KNOBS)


def _point(row: dict[str, Any]) -> str:
    return f"{row['name']} {_knob(row)}".strip()


def _family(row: dict[str, Any]) -> str:
    """Of codecs of one rate each, which make one curve, the name without lambda."""
    return re.sub(r"-\d[\d.]*", "", row["name"])


def orderings(rows: list[dict[str, Any]]) -> None:
    """Pairs of points of about equal rate, each over the same images."""
    of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(_family(row), []).append(row)
    print("\n| is better? | than | bpp | mAP50 apart, points (95 %) |\n| --- | --- | --- | --- |")
    claims = (
        ("single-d3", "pca-adapt-d3"), ("layered2-d3", "pca-adapt-d3"), ("pca-adapt-d3", "pca-d3"),
        ("layered2-d3", "single-d3"), ("layered2-d3-longer", "single-d3"), ("layered2-d3-longest", "single-d3"),
        ("single-d3-task", "single-d3"), ("layered2-d3-task", "layered2-d3-longest"),
        ("layered2-d3", "layered1-d3"), ("layered2-d3", "layered2-d4"),
        ("layered2-d3", "pca-d3"), ("layered2-d3", "jpeg"), ("layered2-d3", "avif"), ("layered2-d3", "webp"),
        ("layered2-d3-longest", "avif"), ("zoo", "single-d3"), ("zoo", "layered2-d3-longest"), ("zoo", "avif"),
        ("single-d3", "jpeg"), ("single-d3", "avif"),
    )  # fmt: skip
    for first, second in claims:
        for ours in sorted(of.get(first, []), key=lambda row: row["bpp"]):
            if first == "layered2-d3" and second == "layered1-d3":
                theirs = next((r for r in of.get(second, []) if r["knobs"] == ours["knobs"]), None)
            else:
                # The cheapest that costs at least as much, if one does that is not far off.
                dear = [r for r in of.get(second, []) if 0.98 <= r["bpp"] / ours["bpp"] <= FAR]
                theirs = min(dear, key=lambda row: row["bpp"], default=None)
            if theirs is None:
                continue
            apart = paired(Matches.read(ours["matches"]), Matches.read(theirs["matches"]))
            print(
                f"| {_point(ours)} | {_point(theirs)} | {ours['bpp']:.4f}, "
                f"{theirs['bpp']:.4f} | {100 * apart['difference']:+.1f} ({100 * apart['low']:+.1f} to "
                f"{100 * apart['high']:+.1f}) |"
            )


def equal(rows: list[dict[str, Any]]) -> None:
    """The codec of the zoo beside pictures: bytes at equal accuracy."""
    of = {
        name: Method.of([row for row in rows if row["name"] == name])
        for name in ("zoo", "avif", "avif:slow=true", "webp")
    }
    ours = of.pop("zoo")
    print(f"\n| mAP50, % | zoo | {' | '.join(of)} | zoo / best (95 %) | half |")
    print("| ---: | ---: |" + " ---: |" * len(of) + " --- | --- |")
    for one in at_equal_accuracy(ours, of, WANTED):
        if one.ratio is not None:
            print(pages.compared(one, GOAL, 2))


def picture(rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["name"] != "plain" and not row["name"].endswith(("-longer", "-task")):
            lines.setdefault(_family(row), []).append((row["bpp"], 100 * row["map50"]))
    figure, axes = pyplot.subplots(figsize=(7.5, 5))
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20")(range(20)))
    plain = next((100 * row["map50"] for row in rows if row["name"] == "plain"), None)
    if plain is not None:
        axes.axhline(plain, color="grey", lw=0.8, ls="--", label="uncompressed")
    for name, found in lines.items():
        axes.plot(*zip(*sorted(found), strict=True), marker="o", ms=3, label=name)
    axes.set(xscale="log", xlabel="bits per pixel of the source", ylabel="mAP50, %", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(HERE / "detection_coco.svg", metadata={"Date": None})


def main() -> None:
    if sys.argv[1:] == ["show"]:
        return show()
    coco, detector, *others, runs = sys.argv[1:]
    torch.set_num_threads(1)
    images = mixture(Path(coco), [Path(root) for root in others], Path(runs) / "mixture")
    learn(Path(runs), Path(coco), images, detector)
    evaluate(Path(runs), Path(coco), detector)
    times(Path(runs), Path(coco), detector)
    return show()


if __name__ == "__main__":
    main()
