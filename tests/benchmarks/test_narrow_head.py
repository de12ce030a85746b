"""What a head costs that computes some channels at its cut, beside the whole head.

Run with ``pytest tests/benchmarks/test_narrow_head.py --benchmark-enable -s`` on an idle machine: ResNet-50, one image
of 224 pixels, 2 threads, rounds side by side in one process; what else the machine does only ever adds, so the least
time counts. Goals: the time's ratio within 1.2 times that of the multiplications where 2 to 4 channels become one, 1.7
times up to 16, and fewer channels never slower. Nothing is asserted but that the features are right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from semcodec_plugins.resnet.backbone import ResNet50

RATIOS = (1, 2, 4, 8, 16, 32, 64)
GOALS = {1: 1.0, 2: 1.2, 4: 1.2, 8: 1.7, 16: 1.7}
ROUNDS, THREADS = 60, 2


@pytest.fixture(scope="module")
def resnet() -> Iterator[ResNet50]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    yield ResNet50([str(i) for i in range(10)]).eval().requires_grad_(False)
    torch.set_num_threads(threads)


def best(functions: dict[int, Callable[[], object]]) -> dict[int, float]:
    """Seconds. Each runs once before it is measured, as a device that is at work would have."""
    times: dict[int, list[float]] = {name: [] for name in functions}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, function in functions.items():
                function()
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


@pytest.mark.parametrize("cut", ["stem", "layer1.0", "layer2.0"])
def test_some_channels_beside_all(resnet: ResNet50, cut: str, benchmark: Any):
    image = {"image": torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))}
    with torch.inference_mode():
        whole = resnet.head(image, cut)["maps"]
    count = whole.shape[1]
    heads: dict[int, Callable[[], object]] = {}
    for ratio in RATIOS:
        channels = torch.arange(0, count, ratio)
        head = resnet.narrowed(cut, {"maps": channels})
        with torch.inference_mode():
            torch.testing.assert_close(head(image)["maps"], whole[:, channels], atol=1e-4, rtol=1e-4)
        heads[ratio] = lambda head=head: head(image)
    heads[1] = lambda: resnet.head(image, cut)
    seconds = best(heads) if benchmark.enabled else {}
    for ratio, taken in seconds.items():
        share = resnet.narrowed_share(cut, count // ratio)
        relative = taken / seconds[1]
        goal = f" (goal {GOALS[ratio]})" if ratio in GOALS else ""
        print(f"\n{cut}, 1 of {ratio} channels: {1000 * taken:.2f} ms, {relative:.3f} of the whole,", end=" ")
        print(f"{relative / share:.2f} of the multiplications' {share:.3f}{goal}", end="")
        benchmark.extra_info[f"1/{ratio}"] = {"ms": 1000 * taken, "time": relative, "multiplications": share}
    benchmark(heads[4])
