"""Where each embedded composition spends its time: python docs/speed.py > docs/speed.md

What codes with weights that ship is run over samples of its data set on one thread: the device's end one sample at a
time, as a camera gives them, the server's end a batch at a time. Each stage's time is the least of several runs. About
three minutes of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

import semcodec
from semcodec._version import __version__
from semcodec.data.datasets import open_dataset
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.timing import Clock

SPECS = (
    "stae+vit-nano",
    "deepisc+vit-nano",
    "cls-attn+vit-nano-server",
    "isr+sr+vit-nano-server",
    "isr:4+sr:4+vit-nano-server",
    "mot+vit-nano-server",
    "a-mot+vit-nano-server",
    "sdt+vit-nano-server",
    "aecnn+resnet-nano@stem",
    "bottlenetpp+resnet-nano@stem",
    "pca+resnet-nano@stem",
    "pca-adapt+resnet-nano@stem",
    "layered+det-nano@d3",
    "feature-hyperprior+det-nano@d3",
    "jpeg+vit-nano-server",
    "jpeg+det-nano",
)
SAMPLES, RUNS, SHOWN = 32, 7, 3
SEVERAL = 0.1
"""Least share of its end that a stage or an operator is named for."""
TITLE = f"""# Where the time goes

Made by `python docs/speed.py`, which says how: {SAMPLES} samples of each composition's data set, one thread,
semcodec {__version__}, torch {torch.__version__}. The device's end takes one sample at a time, the server's end
{SAMPLES} together. Milliseconds are of processor time for one sample, the least of {RUNS} runs; shares tell more than
they do, as other work shared the machine. Stages are those of `stages_ms` in [records](measuring.md); operators are
torch's own, of what runs on the server, with their share of it.

| composition | device, ms | most of it in | server, ms | most of it in | operators at the server |
| --- | ---: | --- | ---: | --- | --- |"""


def least(work: Callable[[Clock], object], samples: int) -> dict[str, float]:
    """Milliseconds of a sample by stage, the least of the runs of each."""
    work(Clock())
    found: dict[str, float] = {}
    for _ in range(RUNS):
        clock = Clock()
        work(clock)
        for stage, seconds in clock.seconds.items():
            found[stage] = min(found.get(stage, 1e9), 1000 * seconds / samples)
    return found


def shares(parts: dict[str, float]) -> str:
    """The largest of several parts, and their share of all."""
    whole = sum(parts.values())
    largest = sorted(parts.items(), key=lambda part: -part[1])[:SHOWN]
    return ", ".join(f"{name} {value / whole:.0%}" for name, value in largest if value / whole >= SEVERAL)


def operators(work: Callable[[], object]) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return {row.key.removeprefix("aten::"): row.self_cpu_time_total for row in profiled.key_averages()}


def row(spec: str) -> str:
    pipeline: Pipeline = semcodec.compose(spec, offline=True)
    data = open_dataset("digits-motion" if pipeline.request.frames else "digits-scenes", "test", pipeline.request)
    pixels, _ = data.batch(range(SAMPLES))
    encoded = [pipeline.device.encode_batch(pixels[i : i + 1], [i])[0] for i in range(SAMPLES)]
    records = pipeline.records(encoded)

    def device(clock: Clock) -> None:
        for i in range(SAMPLES):
            pipeline.device.encode_batch(pixels[i : i + 1], [i], clock)

    def server(clock: Clock) -> None:
        pipeline.server.decode_batch(records, clock)

    sending, receiving = least(device, SAMPLES), least(server, SAMPLES)
    used = operators(lambda: server(Clock()))
    cells = [f"`{spec}`"]
    for parts in (sending, receiving):
        cells += [f"{sum(parts.values()):.2f}", shares(parts)]
    return f"| {' | '.join([*cells, shares(used)])} |"


def main() -> None:
    torch.set_num_threads(1)
    setattr(time, "perf_counter", time.process_time)  # noqa: B010 - so that other work on the machine does not count
    print(TITLE)
    for spec in SPECS:
        print(row(spec), flush=True)


if __name__ == "__main__":
    main()
