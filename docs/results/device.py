"""A device with torch and without: python docs/results/device.py > docs/results/device.md

Makes an environment of ``semcodec[device]`` in a temporary folder, exports one composition of each kind, and encodes
the first samples of the test split there and by torch's device, each in a process of its own; a server of torch answers
both. Times are the smallest of many, of one sample after the other; peak memory is a process's greatest resident set.
About half an hour of two cores, and the package index.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
KINDS = {
    "layered+det-nano@d3": ("digits-scenes", 200, None),
    "cls-attn+vit-nano-server": ("digits-scenes", 200, None),
    "stae+vit-nano": ("digits-motion", 200, None),
    "aecnn+resnet-nano": ("digits-scenes", 200, None),
    "layered+deit-tiny@block4": ("digits-scenes", 50, "random"),
}
"""By spec, data, samples and weights; untrained answers mean nothing, but agree or do not."""
EIGHT = {"cls-attn+vit-nano-server": "digits-scenes", "tensor8+resnet-nano@layer2": "digits-scenes"}
"""What is also exported in 8 bits, and the data that it is calibrated on."""
COMPILED = ("layered+det-nano@d3", "aecnn+resnet-nano")
"""Whose networks torch.compile is asked for too, at one thread: it takes minutes."""
RATIOS = (2, 4, 8, 16)
HEADS = (("resnet50-caffe", {"side": 128}, "stem"), ("resnet50-caffe", {"side": 128}, "layer1"))
HEADS_NOTE = """
The goal for the exported head is at most 1.2 times its share at ratios 2 and 4, and 1.5 times up to 16. It is met at
`layer1`, and at the stem at ratio 2. There a kernel computes 8 channels at once (16 where a processor has AVX-512),
and fewer cost as much; with one such group it waits for its own sums. So below 8 channels four neighbouring outputs
become channels, which takes 1.65 times the products: the graph is never slower at a higher ratio, and at 16 a quarter
faster than without. Tried and slower: pairs of outputs, rows of four, 4x4 of them, and normalising in what is added
behind the convolution."""
RUNS = 3
FOUND, IOU = 0.25, 0.95
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack")

ENCODE = """
import hashlib, json, re, sys, time
begun = time.perf_counter()
from semcodec.pipeline.device import Device
imported = time.perf_counter()
what, data, count, weights, out = sys.argv[1:]
device = Device.load(what, weights or None, offline=True)
loaded = time.perf_counter()
from semcodec.data.datasets import open_dataset
dataset = open_dataset(data, "test", device.request)
times, records = [], []
for number in range(int(count)):
    pixels, _ = dataset.batch([number])
    sizes = dataset.sizes([number]) if device.request.placed else None
    start = time.perf_counter()
    records += device.encode_batch(pixels, [number], sizes=sizes)
    times.append(time.perf_counter() - start)
open(out, "wb").write(device.stream(records))
print(json.dumps({
    "records": [hashlib.sha256(one.data).hexdigest() for one in records],
    "import": imported - begun, "load": loaded - imported, "encode": min(times[1:]),
    "peak": 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]),
}))
"""


def environment(threads: int = 1) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def run(python: Path | str, *words: object) -> dict[str, Any]:
    """What a program of this page prints, best of several runs by each figure."""
    path = {} if python == sys.executable else {"PYTHONPATH": ""}
    best: dict[str, Any] = {}
    for _ in range(RUNS):
        done = subprocess.run([python, "-c", ENCODE, *map(str, words)], capture_output=True, text=True, check=True,
                              env=environment() | path)  # fmt: skip
        for name, value in json.loads(done.stdout).items():
            best[name] = min(value, best.get(name, value))
    return best


def one_sample(command: list[str], alone: bool) -> float:
    """Seconds of one sample from the command line, the smallest of several runs."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        path = {"PYTHONPATH": ""} if alone else {}
        subprocess.run(command, check=True, capture_output=True, env=environment() | path)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def bare(folder: Path) -> Path:
    """An environment of ``semcodec[device]`` alone; returns its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{ROOT}[device]"], check=True)
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode, "there is torch in the environment that is to be without"
    return python


def sizes(python: Path) -> dict[str, int]:
    """Bytes of what is installed, by folder, without what installs it."""
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    found: dict[str, int] = {}
    for part in packages.iterdir():
        name = part.name.partition("-")[0].partition(".")[0]
        if name not in TOOLS:
            files = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file()]
            found[name] = found.get(name, 0) + sum(path.stat().st_size for path in files)
    return found


def of_torch() -> dict[str, int]:
    """Bytes of what ``semcodec[torch]`` installs, as it is in this environment, by distribution."""
    found: dict[str, int] = {}
    wanted = ["semcodec[torch]"]
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.name in found and not requirement.extras:
            continue
        here = distribution(requirement.name)
        files = [Path(str(path.locate())) for path in here.files or ()]
        found[requirement.name] = sum(file.stat().st_size for file in files if file.is_file())
        for line in here.requires or ():
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(str(needed))
    return found


def on_disk(python: Path) -> str:
    """What is installed, in words."""
    told = []
    for found in (sizes(python), of_torch()):
        large = sorted(found, key=lambda part: -found[part])[:8]
        parts = ", ".join(f"{part} {found[part] / 1e6:,.0f}" for part in large)
        told.append(f"{sum(found.values()) / 1e6:,.0f} MB without pip: {parts}, ...")
    return f"""
## On disk

`pip install 'semcodec[device]'` in a new environment takes {told[0]} There is no torch in it.
`semcodec[torch]`, as it is installed here, takes {told[1]}"""


def answers(stream: Path, server: Any) -> list[Any]:
    """What a server says of each record of a stream."""
    from semcodec.container.packets import read_header

    with stream.open("rb") as file:
        read_header(file)
        return list(server.decode_stream(file))


def agree(a: Any, b: Any) -> bool:
    """The same class; of boxes that count the same classes, each in about the same place."""
    if a.boxes is None:
        return bool(a.name == b.name)
    from torchvision.ops import box_iou

    first, second = a.boxes.above(FOUND), b.boxes.above(FOUND)
    if sorted(first.classes.tolist()) != sorted(second.classes.tolist()):
        return False
    if not len(first):
        return True
    alike = (box_iou(first.xyxy, second.xyxy) >= IOU) & (first.classes[:, None] == second.classes[None])
    return bool(alike.any(0).all() and alike.any(1).all())


def accuracy(server: Any, data: str, found: list[Any]) -> float:
    """The task's own figure of predictions of the first samples."""
    from semcodec.data.datasets import open_dataset
    from semcodec.tasks.table import get_task

    dataset, task = open_dataset(data, "test", server.request), get_task(server.composition.task)
    score = task.score(dataset, server.classes, server.request, server.raw_uint8_bytes)
    _, labels = dataset.batch(range(len(found)))
    score.add(found, labels, dataset.sizes(range(len(found))) if server.request.placed else None)
    return float(score.accuracy()[task.metric.key])


def ends(python: Path, folder: Path) -> None:
    """Both devices over the same samples."""
    import semcodec
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.export import export_device
    from semcodec.pipeline.weights import WeightsRequest

    print("""
## The same samples, with torch and without

| composition | samples | same bytes | answers agree | accuracy, torch | without | peak memory, MB, torch | without |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |""")
    rows = []
    for spec, (data, count, weights) in KINDS.items():
        path = folder / f"{spec}.semdev"
        request = WeightsRequest.of(weights, offline=True)
        export_device(compose_spec(spec), path, request)
        streams = folder / "torch.sem", folder / "bare.sem"
        there = run(sys.executable, spec, data, count, weights or "", streams[0])
        here = run(python, path, data, count, "", streams[1])
        server = semcodec.Server.load(spec, weights)
        theirs, ours = (answers(stream, server) for stream in streams)
        same = sum(a == b for a, b in zip(there["records"], here["records"], strict=True)) / count
        like = sum(map(agree, theirs, ours)) / count
        right = [accuracy(server, data, found) for found in (theirs, ours)] if weights is None else [None, None]
        told = ["-" if one is None else f"{100 * one:.2f} %" for one in right]
        peaks = " | ".join(f"{end['peak'] / 1e6:,.0f}" for end in (there, here))
        shares = f"{100 * same:.1f} % | {100 * like:.1f} %"
        print(f"| `{spec}` | {count} | {shares} | {told[0]} | {told[1]} | {peaks} |", flush=True)
        command, sample = ["-m", "semcodec", "encode"], f"{data}:0"
        cold = [
            one_sample([sys.executable, *command, spec, sample, "-o", str(streams[0]), "--offline",
                        *(["--weights", weights] if weights else [])], alone=False),
            one_sample([str(python), *command, str(path), sample, "-o", str(streams[1])], alone=True),
        ]  # fmt: skip
        rows.append((spec, path.stat().st_size, there, here, cold))
    print("""
Seconds to import and to load, of one sample from the command line, and milliseconds of a whole encode once it runs:

| composition | kB | import, torch | alone | load, torch | alone | command, torch | alone | encode, torch | alone |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |""")
    for spec, size, there, here, cold in rows:
        seconds = [f"{end[what]:.2f}" for what in ("import", "load") for end in (there, here)]
        times = [*seconds, *(f"{one:.2f}" for one in cold), *(f"{1000 * end['encode']:.2f}" for end in (there, here))]
        print(f"| `{spec}` | {size / 1000:,.0f} | {' | '.join(times)} |")


def best(function: Callable[[], object], seconds: float = 0.7) -> float:
    """Milliseconds of a call, the smallest of many."""
    function(), function()
    found, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 10:
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return 1000 * min(found)


def times_of(network: Any, name: str) -> tuple[float, float]:
    """Milliseconds of one sample: torch eager, the exported graph."""
    import torch

    from semcodec.artifact.sessions import Session
    from semcodec.pipeline.graphs import example, export_graph

    inputs = example(network, 1)
    data, form = export_graph(network, name)
    session = Session(data, form, name)
    arrays = [tensor.numpy() for tensor in inputs]
    with torch.inference_mode():
        eager = best(lambda: network.function(*inputs))
    return eager, best(lambda: session(*arrays))


def compiled_time(network: Any) -> float:
    """Milliseconds of one sample by torch.compile. What it has seen of shapes stays with the exporter: export first."""
    import torch

    from semcodec.pipeline.graphs import example

    inputs = example(network, 1)
    with torch.inference_mode():
        function = torch.compile(network.function, dynamic=False)
        return best(lambda: function(*inputs))


def measure_networks(threads: int) -> None:
    """Prints rows of (spec, network, times), as JSON; run in a process of so many threads."""
    import torch

    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.device import Device
    from semcodec.pipeline.export import networks_of

    torch.set_num_threads(threads)
    found = []
    for spec, (_, _, weights) in KINDS.items():
        device = Device.load(compose_spec(spec), weights, offline=True)
        for name, network in networks_of(device, device.encoder.export()).items():
            found.append((spec, name, network, times_of(network, name)))
    rows = []
    for spec, name, network, (eager, graph) in found:
        fast = compiled_time(network) if threads == 1 and spec in COMPILED else None
        rows.append((spec, name, (eager, fast, graph)))
    print(json.dumps(rows))


def networks() -> None:
    """Every network of the device by three runtimes, at one thread and at two."""
    by_threads = []
    for threads in (1, 2):
        command = [sys.executable, __file__, "--networks", str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(threads))
        by_threads.append(json.loads(done.stdout.splitlines()[-1]))
    show_networks(by_threads)


def show_networks(by_threads: list[Any]) -> None:
    """by_threads: what ``measure_networks`` printed at one thread and at two."""
    print("""
## Networks

Milliseconds of one sample; how many times as fast as eager the graph is. At two threads torch's threads wait for each
other while other work has one of the two cores; where they took longer than one thread, no ratio is told.

| composition | network | threads | torch eager | torch.compile | exported | faster |
| --- | --- | ---: | ---: | ---: | ---: | ---: |""")
    for one, two in zip(*by_threads, strict=True):
        one_eager = one[2][0]
        for threads, (spec, name, (eager, fast, graph)) in ((1, one), (2, two)):
            told = "-" if fast is None else f"{fast:.2f}"
            faster = f"{eager / graph:.1f}x" if threads == 1 or eager <= one_eager else "-"
            print(f"| `{spec}` | {name} | {threads} | {eager:.2f} | {told} | {graph:.2f} | {faster} |")


def measure_heads() -> None:
    """Prints rows of (backbone, cut, ratio, share of multiplications, time with torch, exported) as JSON."""
    import torch

    from semcodec.composition.registry import get_registry
    from semcodec.device_half import Network

    torch.set_num_threads(1)
    registry, rows = get_registry(), []
    for name, params, cut in HEADS:
        model = registry.load(registry.find(name, "backbone"))(["a", "b"], **params).eval().requires_grad_(False)
        total, _, _ = model.spec.cuts[cut]["maps"].shape
        kept = [total, *(total // ratio for ratio in RATIOS)]
        for count in kept:
            head = (
                (lambda x, m=model, c=cut: m.head(x, c)) if count == total
                else model.narrowed(cut, {"maps": torch.arange(count)})
            )  # fmt: skip
            network = Network(lambda x, h=head: h({"image": x})["maps"], model.spec.input, ("maps",))
            eager, graph = times_of(network, f"{name}@{cut}")
            rows.append((name, cut, total // count, model.narrowed_share(cut, count), eager, graph))
    print(json.dumps(rows))


def heads() -> None:
    """AECNN's narrowed head beside what its multiplications promise."""
    command = [sys.executable, __file__, "--heads"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
    show_heads(json.loads(done.stdout.splitlines()[-1]))


def show_heads(rows: list[Any]) -> None:
    """rows: what ``measure_heads`` printed."""
    print("""
## AECNN's narrowed head

Of the whole head at one thread: its share of multiplications, and of time; over: the latter over the former.

| head | ratio | multiplications | time, torch | over | time, exported | over | exported, ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |""")
    whole: dict[str, tuple[float, float]] = {}
    for name, cut, ratio, share, eager, graph in rows:
        head = f"`{name}@{cut}`"
        torch_whole, graph_whole = whole.setdefault(head, (eager, graph))
        a, b = eager / torch_whole, graph / graph_whole
        shares = f"{a:.3f} | {a / share:.2f} | {b:.3f} | {b / share:.2f}"
        print(f"| {head} | {ratio} | {share:.3f} | {shares} | {graph:.2f} |")
    print(HEADS_NOTE)


def eight_bits(folder: Path) -> None:
    """The same files in 8 bits."""
    from semcodec.composition.composition import compose_spec
    from semcodec.evaluation.exported import export_eight_bits
    from semcodec.pipeline.export import export_device
    from semcodec.pipeline.weights import WeightsRequest

    print("""
## Eight bits

On 200 samples of the test split, calibrated on 200 of the training split.

| composition | graphs | file, kB | in 8 bits | top-1 | in 8 bits | bytes a sample | in 8 bits |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |""")
    for spec, data in EIGHT.items():
        whole, small = folder / "whole.semdev", folder / "small.semdev"
        request = WeightsRequest(offline=True)
        export_device(compose_spec(spec), whole, request)
        told = export_eight_bits(compose_spec(spec), small, request, data).int8
        ways = ", ".join(f"{name} {way}" for name, way in told["graphs"].items())
        size = [path.stat().st_size / 1000 for path in (whole, small)]
        top = [100 * told[form]["top1"] for form in ("float32", "int8")]
        sent = [told[form]["bytes_total"] for form in ("float32", "int8")]
        shares = f"{top[0]:.1f} % | {top[1]:.1f} % | {sent[0]:,.0f} | {sent[1]:,.0f}"
        print(f"| `{spec}` | {ways} | {size[0]:,.0f} | {size[1]:,.0f} | {shares} |", flush=True)


TITLE = """# A device without torch

Made by `python docs/results/device.py`, which says how. [How to](../device.md) export and install. Machine: {machine}.
Ratios of times count, and small ones may be off by some tenths."""


def machine() -> str:
    """Processor and number of cores."""
    told = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")]  # fmt: skip
    return f"{told[0] if told else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    print(TITLE.format(machine=machine()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = bare(folder / "bare")
        print(on_disk(python))
        ends(python, folder)
        networks()
        heads()
        eight_bits(folder)


if __name__ == "__main__":
    if "--networks" in sys.argv:
        measure_networks(int(sys.argv[-1]))
    elif "--heads" in sys.argv:
        measure_heads()
    else:
        main()
