"""Trains and measures what docs/results/aecnn_caltech.md shows: Table I of AECNN on Caltech-101, from real packets.

    semcodec train resnet50-caffe:side=128 --init resnet50_caffe_to_layer3.safetensors --data caltech101 -o runs/base
    python docs/results/aecnn_caltech.py caltech101 runs/base runs/aecnn

Run again to go on: what has been trained or measured is left as it is. The records are in aecnn_caltech.jsonl; the
tables of aecnn_caltech.md, between its two marks, are made from them anew each time.
"""

from __future__ import annotations

import math
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pages
import torch

from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.statistics import paired
from semcodec.tensors import from_eight_bits
from semcodec.training.train import WEIGHTS, train
from semcodec_plugins.aecnn.attention import Importance

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "aecnn_caltech.jsonl", HERE / "aecnn_caltech.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
BACKBONE = "resnet50-caffe"
METHODS = {"BottleNet++": "bottlenetpp:ratio={}", "CA_Pruned": "aecnn:ratio={},bits=8+none",
           "AECNN": "aecnn:ratio={},bits=8"}  # fmt: skip
FEWER_BITS = {
    "AECNN for any bits": (16, "aecnn:ratio=16"),
    "CA_Pruned for any bits": (16, "aecnn:ratio=16+none"),
    "AECNN for 2 bits": (16, "aecnn:ratio=16,bits=2"),
    "AECNN for 1 bit": (4, "aecnn:ratio=4,bits=1"),
}
"""By name, ratio and codec of what is trained for fewer bits, at the first of the cuts."""
LAYERS = {"stem": 1, "layer1.0": 2}
QUALITIES = (10, 20, 50, 90)

Record = dict[str, Any]


def trained(
    options: Namespace, name: str, codec: str, cut: str, ratio: int, times: float = 1
) -> tuple[str, WeightsRequest]:
    """The spec of a codec (such as "aecnn:ratio=4") at a cut, and its weights, once they are there.

    times: how many times the samples of all others it learns from.
    """
    text = f"{codec}+rans+{BACKBONE}@{cut}:side={options.side}"
    out = options.runs / f"{name}-{cut}-{ratio}".lower().replace("+", "p").replace(",", "").replace(" ", "-")
    if not (out / WEIGHTS).exists():
        base = WeightsRequest({"backbone": str(options.base)}, offline=True)
        print(f"training {name} at {cut}, ratio {ratio}", flush=True)
        train(text, options.data, out, request=base, scale=times * options.scale)
    return text, WeightsRequest({"": str(out)}, offline=True)


def measure(options: Namespace) -> None:
    alone = WeightsRequest({"backbone": str(options.base)}, offline=True)
    ending = f"{BACKBONE}:side={options.side}"
    keep(options, "whole", f"png+{ending}", {}, alone)
    for cut in options.cuts:
        for ratio in options.ratios:
            for name in options.methods:
                text, whole = trained(options, name, METHODS[name].format(ratio), cut, ratio)
                keep(options, name, text, {}, whole, l=LAYERS[cut], ratio=ratio)
                tell()
    for name, ratio, times in options.longer:
        told = f"{name}, {times:g} times the samples"
        text, whole = trained(options, told, METHODS[name].format(ratio), options.cuts[0], ratio, times)
        keep(options, told, text, {}, whole)
        tell()
    if options.rows:
        return
    for cut in options.cuts:
        keep(options, "tensor8", f"tensor8+rans+{BACKBONE}@{cut}:side={options.side}", {}, alone, l=LAYERS[cut])
    keep(options, "full offload, JPEG", f"jpeg+{ending}", {"jpeg.quality": QUALITIES}, alone)
    keep(options, "local", f"local+{ending}", {}, alone)
    tell()
    text, whole = trained(options, "BottleNet++", METHODS["BottleNet++"].format(16), options.cuts[0], 16)
    keep(options, "BottleNet++ at fewer bits", text, {"bottlenetpp.bits": (3, 2)}, whole)
    for name, (ratio, codec) in FEWER_BITS.items():
        text, whole = trained(options, name, codec, options.cuts[0], ratio)
        keep(options, name, text, {} if "bits=" in codec else {"aecnn.bits": (8, 3, 2)}, whole)
        tell()


def keep(
    options: Namespace, name: str, text: str, grid: dict[str, Sequence[Any]], request: WeightsRequest, **more: Any
) -> None:
    """Append the records of a sweep that are not there yet."""
    known = Known.read(RECORDS)
    for record in run_sweep(compose_spec(text), grid, request, options.data, limit=options.limit, known=known):
        pages.append(RECORDS, {**record, "name": name, **more, "data": Path(options.data).name})
        print(f"{record['spec']}: {100 * record['top1']:.1f} %, {record['bytes_total']:.0f} bytes", flush=True)


# -- tables -----------------------------------------------------------------------------------------------------------


def tell() -> None:
    """The tables, into the page between its marks."""
    found = pages.read(RECORDS)
    pages.tell(PAGE, MARKS, [*table_i(found), "", *comparisons(found), "", *others(found)])


def accuracy(record: Record | None) -> str:
    if record is None:
        return "-"
    low, high = record["top1_interval"]
    return f"{100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def times(record: Record) -> str:
    """Milliseconds of encoding and of decoding, network parts left out."""
    ms = record["stages_ms"]
    encode = sum(ms.get(stage, 0) for stage in ("encode", "write", "entropy_encode"))
    decode = sum(ms.get(stage, 0) for stage in ("entropy_decode", "read", "restore", "recover"))
    return f"{encode:.1f} | {decode:.1f}"


def cells(found: Sequence[Record]) -> dict[tuple[int, int], dict[str, Record]]:
    """By l and ratio, the record of each method."""
    rows: dict[tuple[int, int], dict[str, Record]] = {}
    for record in found:
        if record["name"] in METHODS:
            rows.setdefault((record["l"], record["ratio"]), {})[record["name"]] = record
    return dict(sorted(rows.items()))


def table_i(found: Sequence[Record]) -> list[str]:
    lines = [
        "| l | ratio | BottleNet++, % (95 %) | CA_Pruned, % | AECNN, % | entropy, bit | bytes: BottleNet++ | CA_Pruned "
        "| AECNN | x float32 | encode, ms | decode, ms |",
        "| --- | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (layer, ratio), row in cells(found).items():
        last = row.get("AECNN") or next(iter(row.values()))
        sizes = " | ".join(f"{row[m]['bytes_total']:.0f}" if m in row else "-" for m in METHODS)
        right = " | ".join(accuracy(row.get(m)) for m in METHODS)
        entropy = last["paper"].get("entropy_bits", math.nan)
        lines.append(
            f"| {layer} | {ratio} | {right} | {entropy:.2f} | {sizes} | {last['ratio_float32']:.0f} | {times(last)} |"
        )
    return lines


def comparisons(found: Sequence[Record]) -> list[str]:
    """Pairs of methods on the same images: row by row, and over the rows that both have."""
    lines = [
        "| pair | rows | difference, points (95 %) | p (McNemar) |",
        "| --- | --- | --- | ---: |",
    ]
    rows = cells(found)
    for other in ("CA_Pruned", "BottleNet++"):
        both = [(key, row["AECNN"], row[other]) for key, row in rows.items() if {"AECNN", other} <= row.keys()]
        for (layer, ratio), first, second in both:
            lines.append(_compared(f"AECNN - {other}", f"l={layer}, ratio {ratio}", [(first, second)]))
        if len(both) > 1:
            lines.append(_compared(f"AECNN - {other}", "all of them", [(a, b) for _, a, b in both]))
    first = {key[1]: row["AECNN"] for key, row in rows.items() if key[0] == 1 and "AECNN" in row}
    second = {key[1]: row["AECNN"] for key, row in rows.items() if key[0] == 2 and "AECNN" in row}
    equal = [(first[ratio // 4], second[ratio]) for ratio in second if ratio // 4 in first]
    if equal:
        lines.append(_compared("AECNN at l=1 - at l=2", "equal numbers of values", equal))
    return lines


def _compared(pair: str, rows: str, records: Sequence[tuple[Record, Record]]) -> str:
    """Over several rows the interval is of the images' means: an image is not as good as new in each row."""
    gains = [
        [int(a) - int(b) for a, b in zip(first["correct"], second["correct"], strict=True)] for first, second in records
    ]
    means = [100 * statistics.mean(image) for image in zip(*gains, strict=True)]
    middle, spread = statistics.mean(means), 1.96 * statistics.stdev(means) / math.sqrt(len(means))
    shown = f"{middle:+.2f} ({middle - spread:+.2f} to {middle + spread:+.2f})"
    if len(records) > 1:
        return f"| {pair} | {rows} | {shown} | - |"
    [(first, second)] = records
    test = paired([right == "1" for right in first["correct"]], [right == "1" for right in second["correct"]])
    return f"| {pair} | {rows} | {shown} | {test['p']:.2g} |"


def others(found: Sequence[Record]) -> list[str]:
    """Everything else, by its bytes."""
    lines = ["| what | spec | top-1, % (95 %) | bytes | x float32 at l = 1 |", "| --- | --- | --- | ---: | ---: |"]
    rest = [r for r in found if r["name"] not in METHODS]
    for r in sorted(rest, key=lambda r: -r["bytes_total"]):
        factor = 4 * 64 * (r["raw_uint8_bytes"] // 3 // 16) / r["bytes_total"] if r["bytes_total"] else None
        shown = "-" if factor is None else f"{factor:.0f}"
        lines.append(f"| {r['name']} | `{r['spec']}` | {accuracy(r)} | {r['bytes_total']:.0f} | {shown} |")
    return lines


# -- Fig. 4 -----------------------------------------------------------------------------------------------------------


def importance(options: Namespace, count: int = 3, size: int = 128) -> None:
    """Fig. 4: the importance of channels by several batches of random training images, and how far they rank alike."""
    import numpy as np

    composition = compose_spec(f"aecnn+none+rans+{BACKBONE}@stem:side={options.side}")
    data = open_dataset(options.data, "train", composition.request)
    base = WeightsRequest({"backbone": str(options.base), "encoder": "random"}, offline=True)
    backbone = Pipeline.load(composition, base, classes=data.classes).stages.backbone
    order = np.random.default_rng(0).permutation(len(data))
    found = []
    for part in np.split(order[: count * size], count):
        one = Importance()
        for rows in np.split(part, size // 32):
            image = from_eight_bits(data.batch(rows.tolist())[0])
            with torch.inference_mode():
                one.see(backbone.head({"image": image}, "stem")["maps"])
        found.append(one.mean().numpy())
    ranks = [np.argsort(np.argsort(one)) for one in found]
    alike = [float(np.corrcoef(a, b)[0, 1]) for a, b in combinations(ranks, 2)]
    print(f"importance by {count} batches of {size}: rank correlations {', '.join(f'{r:.4f}' for r in alike)}")
    for kept in (1, 4, 16, 32):
        sets = [set(np.argsort(-one)[:kept].tolist()) for one in found]
        print(f"  the {kept} most important: {len(set.intersection(*sets))} are the same in all")
    if options.save_plot:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((8, 3), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for number, one in enumerate(found, 1):
            axes.plot(one, marker=".", linewidth=0.8, label=f"batch {number}")
        axes.set(xlabel="channel at l = 1", ylabel="importance, equation 8")
        axes.legend(frameon=False)
        figure.savefig(options.save_plot)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("base", type=Path, help="weights of the uncompressed model")
    parser.add_argument("runs", type=Path, help="folder for what is trained")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--cuts", nargs="+", default=["stem"], choices=list(LAYERS))
    parser.add_argument("--ratios", nargs="*", type=int, default=[4, 16, 64])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--longer", nargs=3, action="append", default=[], metavar=("METHOD", "RATIO", "TIMES"))
    parser.add_argument("--rows", action="store_true", help="only the rows of Table I")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the samples of every recipe")
    parser.add_argument("--limit", type=int, help="test images, all if left out")
    parser.add_argument("--save-plot", type=Path, help="picture of Fig. 4")
    options = parser.parse_args()
    options.longer = [(name, int(ratio), float(times)) for name, ratio, times in options.longer]
    importance(options)
    measure(options)


if __name__ == "__main__":
    main()
