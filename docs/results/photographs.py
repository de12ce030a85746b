"""Trains and measures what docs/results/photographs.md shows: codecs behind the fourth and second block of DeiT-Tiny.

    python docs/results/photographs.py deit_tiny_patch16_224.safetensors --pictures PICTURES RUNS      trains
    python docs/results/photographs.py deit_tiny_patch16_224.safetensors --data DATA/nips2017          measures
    python docs/results/photographs.py                                   the page's tables, from the records there are

The codec that ships sends 48 numbers for every four tokens. The wider one begins as it is: 144 more are the principal
components of what it leaves of the tokens, which the decoder does not read at first. It learns by distillation four
times; the third begins as the mean of two, and the fourth as that of this mean and the third, with two more blocks in
its decoder: see ``learn``. The one behind two blocks begins as the first of them.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from semcodec.bench.equal import Method, at_equal_accuracy
from semcodec.coding import gaussian_tables
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_unlabelled
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import build
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import TOKENS
from semcodec.training.distillation import Settings
from semcodec.training.train import CARD, WEIGHTS, save, train
from semcodec_plugins.layered.coding import SCALE_STEPS

HERE = Path(__file__).parent
ZOO = HERE.parents[1] / "examples" / "zoo"
RECORDS, PAGE = HERE / "photographs.jsonl", HERE / "photographs.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
SHIPPED, SHALLOWER = "layered+rans+deit-tiny@block4", "layered:channels=192x2,levels=5+rans+deit-tiny@block4"
WIDER = SHALLOWER.replace("channels", "blocks=4,channels")
EARLY = SHALLOWER.replace("block4", "block2")
NAMES = {SHIPPED: "shipped", WIDER: "wider", EARLY: "behind two blocks"}
LEARNED = {WIDER: "deit-tiny", EARLY: "deit-tiny-block2"}
"""Folders of those that lie in examples/zoo, and of their runs."""
GOALS = {SHIPPED: 1 / 6, WIDER: 1 / 6, EARLY: 1 / 4}
STEPS = (16.0, 8.0, 5.5, 4.0, 3.0)
"""Of quantisation that the added numbers begin with at each level, of tokens whose channels have deviation 1."""
LOOKED_AT = 1500
RATES = (2, 0.8, 0.32, 0.12, 0.05)
TRAININGS = {
    "first": (SHALLOWER, 83_200, Settings(features=0.4, lr=2e-4, crop=0.6, mix=False)),
    "second": (SHALLOWER, 96_000, Settings(features=0.3, lr=3e-4, crop=0.5)),
    "third": (SHALLOWER, 96_000, Settings(features=0.3, lr=3e-4, crop=0.5, behind=0.3)),
    "fourth": (WIDER, 64_000, Settings(features=0.3, lr=3e-4, crop=0.5, behind=0.5)),
    LEARNED[EARLY]: (EARLY, 48_000, Settings(features=0.5, lr=5e-4, crop=0.6, mix=False)),
}
"""By the folder that is made: spec, samples and how."""
RIVALS: dict[str, tuple[str, Mapping[str, Sequence[Any]]]] = {
    "AVIF": ("avif+deit-tiny", {"avif.quality": (1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)}),
    "WebP": ("webp:slow=true+deit-tiny", {"webp.quality": (1, 5, 10, 20, 30, 40, 50)}),
    "JPEG XL": ("jpegxl:slow=true+deit-tiny", {"jpegxl.quality": (1, 10, 20, 30, 40, 50)}),
    "AVIF at half size": (
        "isr:2,coding=avif+bicubic:2+deit-tiny", {"isr.quality": (20, 30, 40, 50, 60, 70)}
    ),
}  # fmt: skip
EFFORTS = {"usual": "avif+deit-tiny", "greatest": "avif:slow=true+deit-tiny"}
"""Of AVIF's coder, compared on ``FEW`` photographs: the greatest takes a second and more for each."""
FEW, COMPARED = 50, {"avif.quality": (20, 30, 40, 55)}
WANTED = [percent / 100 for percent in range(65, 83)]


# -- the wider codec ---------------------------------------------------------------------------------------------------


def begin(pictures: str, deit: str, out: Path) -> Path:
    """A file of weights that the wider codec starts from."""
    if out.exists():
        return out
    pipeline = Pipeline.load(compose_spec(SHIPPED), weights_of(deit))
    wider: Any = build(compose_spec(SHALLOWER), pipeline.classes).encoder
    old: Any = pipeline.stages.encoder
    found = widened(old.state_dict(), wider.state_dict(), *seen(pipeline, old, pictures))
    wider.load_state_dict(found)
    wider.freeze()
    return write(wider.state_dict(), out)


def write(state: Mapping[str, Tensor], out: Path) -> Path:
    """A codec's state into a file that training begins with."""
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"encoder.{name}": tensor.contiguous() for name, tensor in state.items()}, out)
    return out


def weights_of(deit: str, codec: Path | None = None) -> WeightsRequest:
    """DeiT-Tiny's, and a codec's; without one that which ships, or none."""
    return WeightsRequest({"backbone": deit, **({"encoder": str(codec)} if codec else {})}, offline=True)


@torch.inference_mode()
def seen(pipeline: Pipeline, codec: Any, pictures: str) -> tuple[Tensor, Tensor]:
    """Normalised tokens of some pictures, four to a row (rows, 4 D), and what the codec leaves of them, unrounded."""
    data = open_unlabelled(pictures, pipeline.request)
    rows = sorted(np.random.default_rng(0).permutation(len(data))[:LOOKED_AT].tolist())
    wanted, left = [], []
    for start in range(0, len(rows), 50):
        pixels, _ = data.batch(rows[start : start + 50])
        x = codec.normalise(pipeline.head(pipeline.features(pixels))[TOKENS])
        [unit], level = codec.by_layer, codec.levels - 1
        back = codec.decoder([unit.reduction(x, level)], level)[:, codec.prefix :].transpose(1, 2).reshape(x.shape)
        wanted.append(by_four(x))
        left.append(by_four(x - back))
    return torch.cat(wanted).double(), torch.cat(left).double()


def by_four(x: Tensor) -> Tensor:
    """Maps (B, D, H, W) to (B H W / 4, 4 D): rows, columns, channels."""
    count, dim, height, width = x.shape
    return x.view(count, dim, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4 * dim)


def widened(old: dict[str, Tensor], new: dict[str, Tensor], x: Tensor, left: Tensor) -> dict[str, Tensor]:
    """The state of a codec of more channels and levels that begins by answering as one of fewer does."""
    channels, before = new["decoder.gains.0"].shape[1], old["decoder.gains.0"].shape[1]
    levels, more = len(STEPS), channels - before
    mean, x = x.mean(0), x - x.mean(0)
    left = left - left.mean(0)
    _, directions = torch.linalg.eigh(left.T @ left)
    directions = directions.flip(1)[:, :more]
    reading = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(len(mean)), x.T @ left) @ directions
    steps = torch.tensor(STEPS)
    deviations = ((x @ reading).std(0) / steps[:, None]).clamp_min(gaussian_tables.LOWEST).float()
    scales = (deviations / gaussian_tables.LOWEST).log() / gaussian_tables.STEP / SCALE_STEPS
    own = "units_of.0.0."
    found = {}
    for name, tensor in new.items():
        there = old[name]
        if there.shape == tensor.shape:
            found[name] = there
        elif "whole" in name:
            found[name] = tensor  # made of the others when these are frozen
        elif name == own + "prior.offsets":
            means, spreads = between(there, levels).chunk(2, 1)
            found[name] = torch.cat([means, torch.zeros(levels, more), spreads, scales], 1)
        elif name in (own + "reduction.gain", "decoder.gains.0"):
            sign = -1 if name.startswith(own) else 1
            found[name] = torch.cat([between(there, levels), (sign * steps.log())[:, None].repeat(1, more)], 1)
        elif name == own + "prior.scales":
            found[name] = between(there, levels)
        elif "synthesis" in name:  # means, then scales
            found[name] = torch.zeros_like(tensor)
            for place, part in zip((0, channels), there.chunk(2), strict=True):
                found[name][place : place + before] = part
        else:
            found[name] = beside(name.removeprefix(own), there, tensor, reading, mean)
    return found


def between(values: Tensor, levels: int) -> Tensor:
    """Rows of so many levels on lines between those that there are."""
    place = torch.linspace(0, len(values) - 1, levels)
    low = place.long().clamp_max(len(values) - 2)
    share = (place - low)[:, None]
    return values[low] * (1 - share) + values[low + 1] * share


def beside(name: str, old: Tensor, new: Tensor, reading: Tensor, mean: Tensor) -> Tensor:
    """A weight with more channels: what was there, and a quiet beginning of the others."""
    axis = 1 if name == "prior.analysis.0.weight" else 0  # of what is reduced, which that one reads
    before = old.shape[axis]
    made = new * {"prior.analysis.0.weight": 0.3, "reduction.net.2.weight": 0.1}.get(name, 0.0)
    if name == "reduction.skip.weight":
        made[before:] = reading.T.reshape(-1, 2, 2, new.shape[1]).permute(0, 3, 1, 2)
    elif name == "reduction.skip.bias":
        made[before:] = -(mean @ reading)
    made.narrow(axis, 0, before).copy_(old)
    return made


@torch.no_grad()
def deepen(deit: str, shallower: Path, out: Path) -> Path:
    """A file of weights that the wider codec goes on from: of more blocks, which add nothing yet."""
    if out.exists():
        return out
    pipeline = Pipeline.load(compose_spec(SHALLOWER), weights_of(deit, shallower))
    deeper: Any = build(compose_spec(WIDER), pipeline.classes).encoder
    old: Any = pipeline.stages.encoder
    there = old.state_dict()
    own = {name: t * 0 if ".scale" in name else t for name, t in deeper.state_dict().items() if name not in there}
    return write({**there, **own}, out)


def learn(pictures: str, deit: str, runs: Path) -> None:
    """Each training goes on from what the ones before it made; what is there already stays as it is."""

    def teach(name: str, start: Path) -> Path:
        spec, samples, settings = TRAININGS[name]
        if not (runs / name / WEIGHTS).exists():
            train(
                spec, pictures, runs / name, request=weights_of(deit), objective="distil",
                init=str(start), rate_weight=RATES, samples={"distil": samples}, distillation=settings,
            )  # fmt: skip
        return runs / name

    def mean(name: str, *codecs: Path) -> Path:
        spec, *_ = TRAININGS[codecs[-1].name]
        if not (runs / name / WEIGHTS).exists():
            average(spec, deit, codecs, runs / name)
        return runs / name

    first = teach("first", begin(pictures, deit, runs / "begin.safetensors"))
    both = mean("mean", first, teach("second", first))
    deeper = deepen(deit, mean("mean-of-three", both, teach("third", both)), runs / "deeper.safetensors")
    mean(LEARNED[WIDER], deeper, teach("fourth", deeper))
    teach(LEARNED[EARLY], first)


def average(spec: str, deit: str, codecs: Sequence[Path], out: Path) -> None:
    """The mean of weights of which each began to learn as the one before it (Wortsman et al., 2022).

    codecs: folders or files, of which the last is a folder.
    """
    encoder: Any = Pipeline.load(compose_spec(spec), weights_of(deit, codecs[-1])).stages.encoder
    states = [load_file(one / WEIGHTS if one.is_dir() else one) for one in codecs]
    means = {
        name: torch.stack([state[f"encoder.{name}"].float() for state in states]).mean(0)
        for name, tensor in encoder.state_dict().items()
        if tensor.is_floating_point()
    }
    encoder.load_state_dict({**encoder.state_dict(), **means})
    encoder.freeze()
    out.mkdir(parents=True, exist_ok=True)
    save({"encoder": encoder}, json.loads((codecs[-1] / CARD).read_text()), out)


# -- measuring and showing ---------------------------------------------------------------------------------------------


def measure(data: str, deit: str, learned: Path) -> None:
    for spec, levels in ((SHIPPED, 4), (WIDER, 5), (EARLY, 5)):
        given = weights_of(deit, learned / LEARNED[spec] if spec in LEARNED else None)
        sweep = {"layered.level": range(1, levels + 1)}
        pages.measure(RECORDS, NAMES[spec], spec, sweep, given, data)
    for name, (spec, grid) in {"uncompressed": ("png+deit-tiny", {}), **RIVALS}.items():
        pages.measure(RECORDS, name, spec, grid, weights_of(deit), data)
    for effort, spec in EFFORTS.items():
        pages.measure(RECORDS, effort, spec, COMPARED, weights_of(deit), data, FEW)


def lines(found: Sequence[pages.Record]) -> Iterator[str]:
    order = [*NAMES.values(), "uncompressed", *RIVALS]
    rows = [r for r in found if r["name"] in order]
    by: dict[str, list[pages.Record]] = {}
    for row in sorted(rows, key=lambda r: (order.index(r["name"]), float(r["bytes_total"]))):
        by.setdefault(row["name"], []).append(row)
    yield from pages.sent(row for one in by.values() for row in one)
    rivals = {name: Method.of(by[name]) for name in RIVALS if name in by}
    for spec, name in NAMES.items():
        if name not in by or not rivals:
            continue
        yield ""
        part = {6: "a sixth", 4: "a quarter"}[round(1 / GOALS[spec])]
        yield f"| top-1, % | {name} | {' | '.join(rivals)} | ours / best (95 %) | {part} |"
        yield "| ---: | ---: |" + " ---: |" * len(rivals) + " --- | --- |"
        for one in at_equal_accuracy(Method.of(by[name]), rivals, WANTED):
            yield pages.compared(one, GOALS[spec], 3)
    yield from ("", *efforts([r for r in found if r["name"] in EFFORTS]))


def efforts(found: Sequence[pages.Record]) -> Iterator[str]:
    """AVIF's bytes at its usual and its greatest effort, by quality."""
    yield f"| AVIF's quality, {FEW} photographs | usual effort, bytes | greatest | greatest / usual | top-1, % |"
    yield "| ---: | ---: | ---: | ---: | --- |"
    by = {(r["knobs"]["quality"], r["name"]): r for r in found}
    for quality in sorted(quality for quality, effort in by if effort == "greatest"):
        usual, greatest = (by[quality, effort] for effort in EFFORTS)
        sizes = usual["bytes_total"], greatest["bytes_total"]
        scores = " and ".join(f"{100 * r['top1']:.0f}" for r in (usual, greatest))
        yield f"| {quality} | {sizes[0]:,.0f} | {sizes[1]:,.0f} | {sizes[1] / sizes[0]:.3f} | {scores} |"


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("deit", nargs="?", help="weights of DeiT-Tiny")
    parser.add_argument("--pictures", nargs=2, metavar=("PICTURES", "RUNS"), help="train on a folder, into another")
    parser.add_argument("--data", help="photographs by class that are measured")
    options = parser.parse_args()
    learned = ZOO
    if options.pictures:
        pictures, runs = options.pictures
        learned = Path(runs)
        learn(pictures, options.deit, learned)
    if options.data:
        measure(options.data, options.deit, learned)
    pages.tell(PAGE, MARKS, lines(pages.read(RECORDS)))


if __name__ == "__main__":
    main()
