"""Measures what docs/results/cls_attn_nips.md and cls_attn_digits.md show, into the .jsonl files beside them.

    python docs/results/cls_attn.py nips nips2017 deit_tiny_patch16_224.safetensors
    python docs/results/cls_attn.py digits
    python docs/results/cls_attn.py show nips          tables and a picture of the records; likewise digits

Run again to go on. What points have in common is done once, as in ``semcodec bench``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from semcodec.bench.memory import Memory, SharedDataset
from semcodec.bench.reuse import share
from semcodec.composition.registry import get_registry
from semcodec.composition.stored import compose_stored
from semcodec.data.base import Dataset
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import evaluate, identity
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest

HERE = Path(__file__).parent
TABLE_II = {
    0.87: 88.40, 0.90: 100.84, 0.92: 110.82, 0.93: 116.51, 0.94: 122.80,
    0.95: 129.86, 0.96: 137.89, 0.97: 147.24, 0.98: 158.47, 0.99: 172.76,
}  # fmt: skip
TABLE_III = {1.0: 0.3567, 0.8: 0.4290, 0.6: 0.5116, 0.4: 0.6246, 0.3: 0.7109, 0.2: 0.8445, 0.1: 0.9714}
MEMORY = 8 << 30
"""Bytes for what points share."""
SUMS, BITS = tuple(TABLE_II), tuple(TABLE_III)
SOME = (0.7, 0.8, 0.87, 0.92, 0.97, 0.99)


def nips() -> Iterator[tuple[str, str]]:
    """Name and spec of every point on photographs, DeiT-Tiny on both ends."""
    server = "deit-tiny"
    yield "plain", f"png+{server}"
    yield from rules(server, SUMS, (49, 74, 98, 123, 147), (0.002, 0.003, 0.004, 0.005, 0.006))
    yield from whole(server)
    yield from pictured(server, (0.97,), (25, 40, 55, 70))
    yield from pictured("smooth-fill+" + server, (0.97,), (40, 55))
    for threshold in (0.7, 0.8, 0.9, 0.95):
        yield "rollout, sum", f"cls-attn:scores=rollout+attention-sum:{threshold}+rans+{server}"
    yield from pictured(server, (0.93, 0.99), (40, 55))
    for coding in ("webp", "avif"):
        for threshold in (0.8, 0.87):
            for quality in (40, 55):
                spec = f"cls-attn:scores=rollout,patches={coding},quality={quality}+attention-sum:{threshold}"
                yield f"cls-attn, rollout, {coding}", f"{spec}+rans+{server}"


def digits() -> Iterator[tuple[str, str]]:
    """The same on digits-scenes with the embedded pair, where the server is better, and the paper's other schemes."""
    server = "vit-nano-server"
    yield "server", f"png+{server}"
    yield "edge", "png+vit-nano-edge"
    yield from rules(server, (*SUMS, 0.995), (18, 27, 36, 54, 72, 108), (0.0002, 0.0005, 0.001, 0.002, 0.006))
    for threshold in SOME:
        yield "rollout, sum", f"cls-attn:scores=rollout+attention-sum:{threshold}+rans+{server}"
        yield "scored by the server, sum", f"cls-attn:edge=vit-nano-server+attention-sum:{threshold}+rans+{server}"
    for bits in BITS:
        yield "gate min-entropy", f"cls-attn+attention-sum:1.0+min-entropy:{bits}+rans+{server}"
        for threshold in (0.95, 0.97, 0.99, 0.995):  # Fig. 8
            yield "both thresholds", f"cls-attn+attention-sum:{threshold}+min-entropy:{bits}+rans+{server}"
    for bits in (2.0, 1.5, 1.2, 0.9, 0.6, 0.3, 0.1):
        yield "gate shannon-entropy", f"cls-attn+attention-sum:1.0+shannon-entropy:{bits}+rans+{server}"
    yield from whole(server)
    yield "webp, whole", f"webp:1+{server}"
    yield from pictured(server, (0.97, 0.99, 1.0), (10, 30, 50, 75))
    for quality in (1, 10, 30):
        for threshold in (0.7, 0.8, 0.87):
            spec = f"cls-attn:scores=rollout,patches=webp,quality={quality}+attention-sum:{threshold}+rans+{server}"
            yield "cls-attn, rollout, webp", spec
        for count in (54, 72):
            spec = f"cls-attn:patches=webp,quality={quality},keep={count}+top-k+rans+{server}"
            yield "cls-attn, top-k, webp", spec
    for bits in (0.8, 0.2):
        for threshold in (0.99, 1.0):  # 1.0: the whole picture behind the same gate
            for coding in ("webp", "avif"):
                for quality in (1, 10, 30, 50, 75):
                    spec = f"cls-attn:patches={coding},quality={quality}+attention-sum:{threshold}"
                    name = f"{coding} gated at {bits}, {'whole' if threshold == 1 else 'patches'}"
                    yield name, f"{spec}+min-entropy:{bits}+{server}"
    yield from others(server)


def rules(
    server: str, sums: Sequence[float], counts: Sequence[int], floors: Sequence[float]
) -> Iterator[tuple[str, str]]:
    for threshold in sums:
        yield "sum", f"cls-attn+attention-sum:{threshold}+rans+{server}"
    for count in counts:
        yield "top-k", f"cls-attn+top-k:{count}+rans+{server}"
        yield "random", f"cls-attn+random:{count}+rans+{server}"
    for floor in floors:
        yield "threshold", f"cls-attn+attention-threshold:{floor}+rans+{server}"


def whole(server: str) -> Iterator[tuple[str, str]]:
    for quality in (10, 20, 30, 50, 75):
        yield "jpeg, whole", f"jpeg:{quality}+{server}"
    for quality in (5, 10, 20, 30, 50, 75):
        yield "webp, whole", f"webp:{quality}+{server}"
    for quality in (10, 20, 30, 40, 50, 65):
        yield "avif, whole", f"avif:{quality}+{server}"


def pictured(server: str, sums: Sequence[float], qualities: Sequence[int]) -> Iterator[tuple[str, str]]:
    for coding in ("webp", "avif"):
        for threshold in sums:
            for quality in qualities:
                spec = f"cls-attn:patches={coding},quality={quality}+attention-sum:{threshold}+rans+{server}"
                yield f"cls-attn, {coding}{', smooth fill' * ('smooth' in server)}", spec


def others(server: str) -> Iterator[tuple[str, str]]:
    """Fig. 10, at real bytes: the gate off, as these schemes have none."""
    for count in (36, 72, 108):
        yield "mot", f"mot:{count},side=8+rans+{server}"
        yield "mot, smooth fill", f"mot:{count},side=8+smooth-fill+rans+{server}"
        yield "mean fill", f"patches:keep={count},side=8+random+mean-fill+rans+{server}"
    for sure in (0.1, 0.8, 1.5):
        yield "a-mot", f"a-mot:side=8,first=36,keep=108,sure={sure}+rans+{server}"
        yield "a-mot, smooth fill", f"a-mot:side=8,first=36,keep=108,sure={sure}+smooth-fill+rans+{server}"
        yield "sdt", f"sdt:sure={sure}+rans+{server}"
    for scale in (2, 4):
        for quality in (30, 75):
            yield "isr", f"isr:{scale},quality={quality}+{server}"
            yield "isr, bicubic", f"isr:{scale},quality={quality}+bicubic:{scale}+{server}"


def measure(points: list[tuple[str, str]], records: Path, data: str, request: WeightsRequest, batch: int) -> None:
    memory, known = Memory(MEMORY), Known.read(records)
    pipeline: Pipeline | None = None
    dataset: Dataset | None = None
    for name, spec in points:
        composition = compose_stored(spec, {})
        if pipeline is not None and pipeline.shares_models(composition):
            pipeline = pipeline.replace(composition=composition)
        else:
            pipeline = Pipeline.load(composition, request, classes=open_dataset(data).classes)
        dataset = dataset or SharedDataset(open_dataset(data, "test", pipeline.request), memory)
        if known.has(identity(pipeline, dataset, len(dataset))):
            continue
        record = evaluate(share(pipeline, memory, dataset), dataset, batch=batch)
        known.add(record)
        record["data"] = Path(data).name
        for weights in record["weights"].values():
            weights["source"] = Path(weights["source"]).name
        with records.open("a") as file:
            print(json.dumps({"name": name, **record}), file=file)
        patches, sent = record.get("patches_mean", 0) or 0, record["sent_ratio"]
        size, top1 = record["bytes_total"], 100 * record["top1"]
        print(f"{name:22} {record['spec']:72} {top1:5.1f} % {size:8.0f} B {patches:6.1f} x {sent:.3f}", flush=True)


def tables(data: str, request: WeightsRequest) -> None:
    """The paper's Tables II and III: patches that each threshold keeps, images that each gate sends."""
    pipeline = Pipeline.load(compose_stored("cls-attn+rans+deit-tiny", {}), request, classes=open_dataset(data).classes)
    dataset = open_dataset(data, "test", pipeline.request)
    scores, logits = [], []
    for start in range(0, len(dataset), 25):
        pixels, _ = dataset.batch(range(start, min(start + 25, len(dataset))))
        with torch.inference_mode():
            analysis = pipeline.stages.encoder.analyse(pipeline.features(pixels))
        scores.append(analysis.scores["keep"])
        logits.append(analysis.prediction)
    load, find = get_registry().load, get_registry().find
    kind = load(find("attention-sum"))
    print("\n| attention sum | patches | the paper | difference |\n| ---: | ---: | ---: | ---: |")
    for threshold, theirs in TABLE_II.items():
        ours = kind(threshold).keep(torch.cat(scores), None, range(len(dataset))).sum(1).double().mean().item()
        print(f"| {threshold} | {ours:.2f} | {theirs:.2f} | {100 * (ours / theirs - 1):+.2f} % |")
    spread(pipeline, dataset)
    kind = load(find("min-entropy"))
    print("\n| min-entropy, bits | sent | the paper |\n| ---: | ---: | ---: |")
    for bits, theirs in TABLE_III.items():
        print(f"| {bits} | {kind(bits).gate(torch.cat(logits)).double().mean().item():.4f} | {theirs:.4f} |")


def spread(pipeline: Pipeline, dataset: Dataset) -> None:
    """How even scores are (Fig. 11): the share of all score that the best patches hold."""
    encoder: Any = pipeline.stages.encoder
    print("\n| scores | best 5 % | 10 % | 25 % | 50 % of the patches |\n| --- | ---: | ---: | ---: | ---: |")
    for kind in ("mean", "rollout"):
        held = []
        for start in range(0, min(200, len(dataset)), 25):
            pixels, _ = dataset.batch(range(start, start + 25))
            with torch.inference_mode():
                _, scores = encoder.edge.attend(pipeline.features(pixels), kind)
            best = scores.sort(1, descending=True).values.cumsum(1)
            held.append(best[:, [round(share * best.shape[1]) - 1 for share in (0.05, 0.1, 0.25, 0.5)]])
        print(f"| {kind} | {' | '.join(f'{share:.3f}' for share in torch.cat(held).mean(0).tolist())} |")


def show(records: Path) -> None:
    """The records as a table, and as a picture beside them."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in records.read_text().splitlines()]
    print(
        "\n| what | spec | top-1, % (95 %) | bytes | patches, of those sent | sent |\n"
        "| --- | --- | --- | ---: | ---: | ---: |"
    )
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["name"], row["bytes_total"])):
        curves.setdefault(row["name"], []).append(row)
        low, high = row["top1_interval"]
        patches = f"{row['patches_mean']:.1f}" if row.get("patches_mean") else "-"
        print(
            f"| {row['name']} | `{row['spec']}` | {100 * row['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
            f"{row['bytes_total']:.0f} | {patches} | {row['sent_ratio']:.3f} |"
        )
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 6))
    colours = pyplot.get_cmap("tab20")(range(20))
    for number, (name, points) in enumerate(curves.items()):
        grid = name.startswith("cls-attn,") or "gated" in name  # of two knobs: a cloud, no curve
        look: dict[str, Any] = {"color": colours[number % 20], "markersize": 4, "linewidth": 0 if grid else 1}
        look["marker"] = "*" if len(points) == 1 else "s" if number >= 20 else "o"
        top1 = [100 * p["top1"] for p in points]
        if not name.startswith("both"):
            axes[0].plot([p["bytes_total"] for p in points], top1, label=name, **look)
        costs = [p.get("patch_cost") for p in points]
        if None not in costs and not any(word in name for word in ("webp", "avif", "gate", "both")):
            axes[1].plot(costs, top1, label=name, **look)
    best = 100 * max(row["top1"] for row in rows)
    axes[0].set(xscale="log", xlabel="bytes an image (whole packets)", ylabel="top-1, %", ylim=(best - 24, best + 1))
    axes[1].set(xlabel="patches sent over all patches (the paper's cost)")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, ncols=2, loc="lower right")
    figure.tight_layout()
    figure.savefig(records.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    if sys.argv[1:2] == ["show"]:
        show(HERE / f"cls_attn_{sys.argv[2]}.jsonl")
    elif sys.argv[1:2] == ["nips"]:
        data, weights = sys.argv[2:4]
        request = WeightsRequest.parse([f"backbone={weights}"], offline=True)
        tables(data, request)
        points = list(nips())[:: -1 if "--backwards" in sys.argv else 1]  # two can share the work
        measure(points, HERE / "cls_attn_nips.jsonl", data, request, 25)
    else:
        measure(list(digits()), HERE / "cls_attn_digits.jsonl", "digits-scenes", WeightsRequest(offline=True), 50)


if __name__ == "__main__":
    main()
