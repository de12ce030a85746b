"""Measures what docs/results/still_images.md shows: every codec of still images on two sets of photographs.

    python docs/results/still_images.py nips2017 caltech101 deit_tiny_patch16_224.safetensors CAFFE128 RUNS
    python docs/results/still_images.py show                the tables of still_images.md, a picture for each data set

CAFFE128 is trained as docs/results/aecnn_caltech.md says. Trains into RUNS, evaluates into still_images.jsonl, one
thread. Run again to go on: what is there is not done again. Points that cls_attn.py and aecnn_caltech.py have measured
are read from their records, where data and model are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pages
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.bench.memory import Memory, SharedDataset
from semcodec.bench.reuse import share
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.stored import compose_stored
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import evaluate, identity
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.tensor_files import write_tensors
from semcodec.pipeline.weights import WeightsRequest, read_tensors
from semcodec.tasks.statistics import paired
from semcodec.tensors import from_eight_bits
from semcodec.training.train import save, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "still_images.jsonl", HERE / "still_images.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
DEIT, CAFFE = "deit-tiny", "resnet50-caffe"
SIDE = 128
LEARNED = "learned/bmshj2018-factorized:quality={},size=48-64"
QUALITIES = (4, 2, 1)
STACK = "8x2-16x1-32-64"
DEEP = "layer3"
HALF = 505
PICTURES = {"webp": "WebP", "avif": "AVIF"}
SMALL = "encoder.safetensors"
"""A codec's tensors alone, without what they were trained beside: for any backbone."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Where things are: two data sets, weights of the two backbones, and the folder for what is trained."""

    nips: str
    caltech: str
    deit: str
    caffe: str
    runs: Path

    @property
    def started(self) -> dict[str, str]:
        """What lower rates of the learned codec start from: the highest."""
        return {"encoder": str(self.runs / "learned-4" / SMALL)}


@dataclass(frozen=True)
class Point:
    """What is swept of one spec, by a name that a line of the picture has. weights: by slot, where they are."""

    name: str
    spec: str
    weights: Mapping[str, str]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """By "item.parameter", its values; one at most."""
    limit: int | None = None
    """Of the test images, the first so many."""

    def compositions(self) -> Iterator[Composition]:
        whole = compose_stored(self.spec, {})
        for name, values in self.grid.items():
            item, _, parameter = name.rpartition(".")
            yield from (whole.with_args(item, **{parameter: value}) for value in values)
        if not self.grid:
            yield whole


Points = Callable[[Inputs], Iterator[Point]]


# -- training ---------------------------------------------------------------------------------------------------------


def learn(inputs: Inputs) -> Iterator[Path]:
    """Everything that is trained, the most telling first; each folder as it is there."""
    ending, only = f"{CAFFE}:side={SIDE}", {"backbone": inputs.caffe}
    own = {"backbone": str(inputs.runs / "deit-caltech")}
    for name, spec, given, until, scale in (
        ("learned-4", f"{LEARNED.format(4)}+{ending}", only, None, 0.4),
        (f"pca-{DEEP}", f"pca+{CAFFE}@{DEEP}:side={SIDE}", only, None, 1.0),
        ("deit-caltech", None, {}, None, 1.0),
        (f"layered-{DEEP}", f"layered:channels={STACK}+{CAFFE}@{DEEP}:side={SIDE}", only, "match", 0.25),
        ("learned-2", f"{LEARNED.format(2)}+{ending}", only | inputs.started, None, 0.05),
        ("pca-stem", f"pca+{CAFFE}@stem:side={SIDE}", only, None, 1.0),
        ("learned-1", f"{LEARNED.format(1)}+{ending}", only | inputs.started, None, 0.05),
        ("pca-colours", f"pca+{DEIT}", own, None, 1.0),
        (f"pca-adapt-{DEEP}", f"pca-adapt+{CAFFE}@{DEEP}:side={SIDE}", only, None, 0.3),
    ):

        def make(out: Path, spec: Any = spec, given: Any = given, until: Any = until, scale: float = scale) -> None:
            if spec is None:
                probe(inputs, out)
            else:
                train(spec, inputs.caltech, out, request=WeightsRequest(given, offline=True), until=until, scale=scale)

        yield once(inputs.runs / name, make)


def once(out: Path, make: Callable[[Path], Any]) -> Path:
    if not (out / "weights.safetensors").exists():
        start = time.process_time()
        make(out)
        print(f"{out.name}: trained in {time.process_time() - start:.0f} s of one processor", flush=True)
    if out.name.startswith("learned") and not (out / SMALL).exists():
        # In CompressAI's form: a codec of pixels serves every backbone, and other rates start from it.
        write_tensors(out / SMALL, read_tensors(out / "weights.safetensors", "encoder.net."), {})
    return out


def probe(inputs: Inputs, out: Path) -> None:
    """DeiT-Tiny for Caltech-101: a linear classifier on what its trunk, as published, says of whole training images.

    Multinomial logistic regression with weight decay, by L-BFGS.
    """
    names = open_dataset(inputs.caltech, "train").classes
    whole = Pipeline.load(compose_spec(f"png+{DEIT}"), WeightsRequest({"backbone": inputs.deit}, offline=True))
    data = open_dataset(inputs.caltech, "train", whole.request)
    backbone: Any = whole.stages.backbone
    model = backbone.model
    found, labels = [], []
    for start in range(0, len(data), 32):
        pixels, truth = data.batch(range(start, min(start + 32, len(data))))
        with torch.inference_mode():
            x = backbone.normalised(from_eight_bits(pixels))
            found.append(model.forward_head(model.forward_features(x), pre_logits=True).float())
        labels.append(torch.from_numpy(truth))
    weight, bias = regression(torch.cat(found).clone(), torch.cat(labels), len(names))
    model.head = torch.nn.Linear(weight.shape[1], len(names))
    model.head.load_state_dict({"weight": weight, "bias": bias})
    card = {
        "keys": {"backbone": DEIT},
        "classes": list(names),
        "data": Path(inputs.caltech).name,
        "recipe": [{"step": "linear classifier on the published trunk", "samples": len(data)}],
    }
    out.mkdir(parents=True, exist_ok=True)
    save({"backbone": whole.stages.backbone}, card, out)


def regression(x: Tensor, labels: Tensor, classes: int, decay: float = 1e-4) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


# -- measuring --------------------------------------------------------------------------------------------------------


def nips(inputs: Inputs) -> Iterator[Point]:
    """What cls_attn.py has not measured."""
    only = {"backbone": inputs.deit}
    yield Point("JPEG XL", f"jpegxl+{DEIT}", only, {"jpegxl.quality": (10, 30)})
    yield Point("ROI JPEG", f"roi-jpeg:keep=0.5,low=10+{DEIT}", only, {"roi-jpeg.quality": (30,)})
    yield from learned(inputs, DEIT, inputs.deit)


def nips_others(inputs: Inputs) -> Iterator[Point]:
    only = {"backbone": inputs.deit}
    yield Point("JPEG 2000", f"jpeg2000+{DEIT}", only, {"jpeg2000.psnr": (25, 28)})
    yield Point("tensor8", f"tensor8+rans+{DEIT}", only)
    colours = {**only, "encoder": str(inputs.runs / "pca-colours")}
    yield Point("PCA of colours", f"pca:components=3,bits=4+rans+{DEIT}", colours)


def caltech(inputs: Inputs) -> Iterator[Point]:
    """What aecnn_caltech.py has not measured."""
    ending = f"{CAFFE}:side={SIDE}"
    only = {"backbone": inputs.caffe}
    yield Point("WebP", f"webp+{ending}", only, {"webp.quality": (10, 30)})
    yield Point("AVIF", f"avif+{ending}", only, {"avif.quality": (30,)})
    for name, cuts in (("layered", (DEEP,)), ("PCA", (DEEP, "stem")), ("PCA, adapted", (DEEP,))):
        for cut in cuts:
            yield from inside(inputs, name, cut)
    yield from learned(inputs, ending, inputs.caffe)


def caltech_others(inputs: Inputs) -> Iterator[Point]:
    ending = f"{CAFFE}:side={SIDE}"
    only = {"backbone": inputs.caffe}
    yield Point("AVIF", f"avif+{ending}", only, {"avif.quality": (45, 15)})
    yield Point("JPEG XL", f"jpegxl+{ending}", only, {"jpegxl.quality": (10, 35)})
    yield Point("WebP", f"webp+{ending}", only, {"webp.quality": (1, 60)})
    yield Point("ROI JPEG", f"roi-jpeg:keep=0.5,low=10+{ending}", only, {"roi-jpeg.quality": (30,)})
    yield Point("JPEG 2000", f"jpeg2000+{ending}", only, {"jpeg2000.psnr": (25, 28)})


def inside(inputs: Inputs, name: str, cut: str) -> Iterator[Point]:
    """Codecs of features at a cut of the network."""
    method = {"layered": "layered", "PCA": "pca", "PCA, adapted": "pca-adapt"}[name]
    given = {"backbone": inputs.caffe, "encoder": str(inputs.runs / f"{method}-{cut}")}
    if method == "layered":
        spec = f"layered:channels={STACK}+rans+{CAFFE}@{cut}:side={SIDE}"
        yield Point(f"layered, at {cut}", spec, given, {"layered.layers": tuple(range(1, STACK.count("-") + 2))})
        return
    components = (8,) if cut == "stem" else (16, 32, 64, 128)
    spec = f"{method}:bits=5,group=8+rans+{CAFFE}@{cut}:side={SIDE}"
    yield Point(f"{name}, at {cut}", spec, given, {f"{method}.components": components})


def deit_caltech(inputs: Inputs) -> Iterator[Point]:
    """The other network on half of the same images: cls-attn, and pictures beside it."""
    given = str(inputs.runs / "deit-caltech")
    only = {"backbone": given}
    yield Point("uncompressed", f"png+{DEIT}", only, limit=HALF)
    for coding, quality, less in (("webp", 10, 15), ("avif", 30, 35)):
        cut = f"cls-attn:patches={coding},quality={less}+attention-sum:0.97+rans+{DEIT}"
        yield Point(f"cls-attn, {coding}", cut, only, limit=HALF)
        yield Point(PICTURES[coding], f"{coding}:quality={quality}+{DEIT}", only, limit=HALF)


def learned(inputs: Inputs, ending: str, backbone: str) -> Iterator[Point]:
    for quality in sorted(QUALITIES):
        given = {"backbone": backbone, "encoder": str(inputs.runs / f"learned-{quality}" / SMALL)}
        yield Point("learned", f"{LEARNED.format(quality)}+rans+{ending}", given)


def measure(
    inputs: Inputs,
    points: Sequence[Points],
    images: dict[tuple[str, str], SharedDataset],
    finished: set[tuple[str, str]],
) -> None:
    """What can be measured by now. images: kept from one call to the next; finished: data and spec of what is there."""
    for made in points:
        data = inputs.nips if made in (nips, nips_others) else inputs.caltech
        for point in made(inputs):
            if not all(Path(path).exists() for path in point.weights.values()):
                continue  # not trained yet
            pipeline: Pipeline | None = None
            for composition in point.compositions():
                if (data, composition.spec) in finished:
                    continue
                if pipeline is not None and pipeline.shares_models(composition):
                    pipeline = pipeline.replace(composition=composition)
                else:
                    request = WeightsRequest(point.weights, offline=True)
                    pipeline = Pipeline.load(composition, request, classes=open_dataset(data).classes)
                    save_work(pipeline)
                name = data, composition.backbone.name
                if name not in images:
                    images[name] = SharedDataset(open_dataset(data, "test", pipeline.request), MEMORY)
                total = point.limit or len(images[name])
                if not Known.read(RECORDS).has(identity(pipeline, images[name], total)):
                    shared = share(pipeline, MEMORY, images[name])
                    keep(point.name, evaluate(shared, images[name], limit=total, batch=25), data)
                finished.add((data, composition.spec))


MEMORY = Memory(8 << 30)
"""What points share."""
HEADS: dict[tuple[str, str, bytes], Any] = {}


def save_work(pipeline: Pipeline) -> None:
    """What no point of a sweep changes is computed once: the network up to the cut."""
    cut, backbone = pipeline.composition.cut, pipeline.stages.backbone
    if cut != DEEP:
        return
    head, digest = backbone.head, pipeline.digests["backbone"]

    def once_only(x: Any, at: str) -> Any:
        name = digest, at, hashlib.sha1(x["image"].numpy().tobytes()).digest()
        if name not in HEADS:
            HEADS[name] = head(x, at)
        return dict(HEADS[name])

    backbone.head = once_only


def keep(name: str, record: Record, data: str) -> None:
    record |= {"name": name, "data": Path(data).name}
    pages.append(RECORDS, record)
    shown = f"{100 * record['top1']:5.1f} % {record['bytes_total']:8.0f} B"
    print(f"{record['data']:10} {name:20} {record['spec']:70} {shown}", flush=True)


def own() -> list[Record]:
    return pages.read(RECORDS)


# -- showing ----------------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "cls_attn_nips.jsonl": {
        "plain": "uncompressed", "jpeg, whole": "JPEG", "webp, whole": "WebP", "avif, whole": "AVIF",
        "cls-attn, webp": "cls-attn, webp", "cls-attn, avif": "cls-attn, avif", "sum": "cls-attn, raw patches",
        "cls-attn, rollout, webp": "cls-attn, rollout, webp", "cls-attn, rollout, avif": "cls-attn, rollout, avif",
    },
    "aecnn_caltech.jsonl": {
        "whole": "uncompressed", "full offload, JPEG": "JPEG", "AECNN": "AECNN, at stem",
        "CA_Pruned": "CA_Pruned, at stem", "BottleNet++": "BottleNet++, at stem", "tensor8": "tensor8",
        "AECNN for any bits": "AECNN for any bits, at stem",
        "BottleNet++ at fewer bits": "BottleNet++, fewer bits, at stem",
    },
}  # fmt: skip
"""By file, what its records are called here; others are left out."""
BUDGETS = (200, 400, 550, 750, 1000, 1600, 2500, 3500, 5000, 7500)
REFERENCES = ("JPEG", "WebP", "AVIF")
NEAR = 1.4
"""Points are compared where their bytes differ by no more than this factor."""


def collected() -> dict[str, dict[str, list[Record]]]:
    """By data set and backbone, all records; of those measured elsewhere what is of the same images and weights."""
    rows = own()
    data = {r["data_digest"] for r in rows}
    weights = {r["weights"]["backbone"]["digest"] for r in rows}
    for file, names in ELSEWHERE.items():
        for record in map(json.loads, (HERE / file).read_text().splitlines()):
            name = names.get(record["name"])
            # A backbone that learned together with its codec has a digest of its own.
            together = name and name.endswith("at stem")
            if (
                name
                and record["data_digest"] in data
                and (together or record["weights"]["backbone"]["digest"] in weights)
            ):
                rows.append({**record, "name": name})
    found: dict[str, dict[str, list[Record]]] = {}
    for record in rows:
        found.setdefault(record["data"], {}).setdefault(model(record), []).append(record)
    for groups in found.values():
        for name, group in groups.items():
            groups[name] = sorted(group, key=lambda r: (r["name"], r["bytes_total"]))
    return found


def model(record: Record) -> str:
    return str(record["spec"].rpartition("+")[2].partition(":")[0].partition("@")[0])


def bpp(record: Record) -> float:
    """Bits a pixel of the model's input, which is what is sent."""
    return float(8 * record["bytes_total"] / (record["raw_uint8_bytes"] / 3))


def times(record: Record) -> str:
    """Milliseconds of encoding and of decoding an image; networks left out, at both ends and for scores of patches."""
    ms = record["stages_ms"]
    first = () if "cls-attn" in record["spec"] else ("analyse",)
    encode = sum(ms.get(stage, 0) for stage in (*first, "encode", "write", "entropy_encode"))
    decode = sum(ms.get(stage, 0) for stage in ("entropy_decode", "read", "restore", "recover"))
    return f"{encode:.1f} | {decode:.1f}"


def table(rows: Sequence[Record]) -> list[str]:
    lines = [
        "| codec | spec | top-1, % (95 %) | bytes | bpp | encode, ms | decode, ms |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        low, high = (100 * end for end in r["top1_interval"])
        lines.append(
            f"| {r['name']} | `{r['spec']}` | {100 * r['top1']:.1f} ({low:.1f}-{high:.1f}) | {r['bytes_total']:.0f} | "
            f"{bpp(r):.3f} | {times(r)} |"
        )
    return lines


def budgets(rows: Sequence[Record]) -> list[str]:
    """Accuracy at round numbers of bytes, between the two points of a codec's front that are next to it."""
    fronts: dict[str, list[tuple[float, float]]] = {}
    for r in sorted(rows, key=lambda r: r["bytes_total"]):
        front = fronts.setdefault(r["name"], [])
        if not front or 100 * r["top1"] > front[-1][1]:
            front.append((math.log(r["bytes_total"]), 100 * r["top1"]))
    found = {
        name: [_between(front, math.log(size)) for size in BUDGETS] for name, front in fronts.items() if len(front) > 1
    }
    some = [i for i in range(len(BUDGETS)) if sum(row[i] is not None for row in found.values()) > 1]
    lines = [
        f"| bytes | {' | '.join(f'{BUDGETS[i]:,}' for i in some)} |",
        f"| --- |{' ---: |' * len(some)}",
    ]
    for name, row in sorted(found.items()):
        if any(row[i] is not None for i in some):
            cells = ("-" if row[i] is None else f"{row[i]:.1f}" for i in some)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""] if some else []


def _between(front: Sequence[tuple[float, float]], at: float) -> float | None:
    for (low, first), (high, second) in pairwise(front):
        if low <= at <= high:
            return first + (second - first) * (at - low) / (high - low)
    return None


def comparisons(rows: Sequence[Record]) -> list[str]:
    """Each codec against JPEG, WebP and AVIF on the same images, at its two points whose bytes are the most alike."""
    lines = [
        "| codec | bytes | against | bytes | difference, points (95 %) | p (McNemar) |",
        "| --- | ---: | --- | ---: | --- | ---: |",
    ]
    by: dict[str, list[Record]] = {}
    for record in rows:
        by.setdefault(record["name"], []).append(record)
    for name, points in by.items():
        for other in REFERENCES[: REFERENCES.index(name)] if name in REFERENCES else REFERENCES:
            pairs = [(ours, min(by[other], key=lambda r: far(ours, r))) for ours in points if other in by]
            near = sorted((pair for pair in pairs if far(*pair) < math.log(NEAR)), key=lambda pair: far(*pair))
            for ours, theirs in sorted(near[:2], key=lambda pair: pair[0]["bytes_total"]):
                test = paired(*([digit == "1" for digit in r["correct"]] for r in (ours, theirs)))
                shown = f"{100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to {100 * test['high']:+.1f})"
                lines.append(
                    f"| {name} | {ours['bytes_total']:.0f} | {other} | {theirs['bytes_total']:.0f} | {shown} | "
                    f"{test['p']:.2g} |"
                )
    return lines


def far(one: Record, other: Record) -> float:
    return abs(math.log(one["bytes_total"] / other["bytes_total"])) if other["bytes_total"] else math.inf


def show() -> None:
    """The tables, into the page between its marks, and the pictures beside it."""
    lines = []
    for data, groups in collected().items():
        for backbone, rows in groups.items():
            lines += [f"### {data}, {backbone}", "", *budgets(rows), *comparisons(rows), "", *table(rows), ""]
        picture(groups, HERE / f"still_images_{data.rstrip('0123456789')}.svg")
    pages.tell(PAGE, MARKS, lines)


def picture(groups: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Accuracy over bytes; of several networks, each has its kind of line."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    figure, axes = pyplot.subplots(figsize=(9, 6))
    names = sorted({r["name"] for rows in groups.values() for r in rows} - {"uncompressed"})
    colours: dict[str, Any] = dict(zip(names, pyplot.get_cmap("tab20")(range(20)), strict=False))
    colours |= {name: "black" for name in names if name.startswith("layered")}
    for (backbone, rows), style in zip(groups.items(), ("-", "--"), strict=False):
        for name in dict.fromkeys(r["name"] for r in rows):
            points = sorted((r["bytes_total"], 100 * r["top1"]) for r in rows if r["name"] == name)
            label = f"{name} ({backbone})" if len(groups) > 1 else name
            if name == "uncompressed":
                axes.axhline(points[0][1], color="grey", lw=0.8, ls=style, label=label)
                continue
            two_knobs = name.startswith("cls-attn") and "raw" not in name  # a cloud, no curve
            marker = "x" if "cls-attn" in name else "s" if "at " in name else "o"
            axes.plot(
                *zip(*points, strict=True), marker=marker, ms=4, lw=0 if two_knobs else 1, ls=style, label=label,
                color=colours[name], markerfacecolor=colours[name] if style == "-" else "white",
            )  # fmt: skip
    best = max(100 * r["top1"] for rows in groups.values() for r in rows)
    axes.set(xscale="log", xlabel="bytes an image (whole packets)", ylabel="top-1, %", ylim=(best - 40, best + 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=2, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    if sys.argv[1:] == ["show"]:
        return show()
    nips_data, caltech_data, deit, caffe, runs = sys.argv[1:]
    torch.set_num_threads(1)
    inputs = Inputs(nips_data, caltech_data, deit, caffe, Path(runs))
    images: dict[tuple[str, str], SharedDataset] = {}
    finished: set[tuple[str, str]] = set()
    measure(inputs, [nips, caltech, caltech_others, nips_others], images, finished)
    for _ in learn(inputs):
        measure(inputs, [nips, caltech, deit_caltech, nips_others], images, finished)
    return show()


if __name__ == "__main__":
    main()
