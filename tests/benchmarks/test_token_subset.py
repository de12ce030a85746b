"""What some patches cost a server beside all, and what attention scores cost beside the answer alone.

Run with ``pytest tests/benchmarks/test_token_subset.py -s --benchmark-enable`` to see the ratios, of the best times of
rounds side by side in one process. Goals: k of 196 patches within 1.25 times the ratio of operations by the paper's
eq. 9, L (12 N D^2 + 2 N^2 D) with the class token in N; scores of the last block within 2 % of the answer alone.
Nothing is asserted but that the answers are right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from semcodec_plugins.timm_models.backbone import DeiTTiny, ImageClassifier

BATCH, ROUNDS, PLACES = 16, 5, 196
GOAL, OVERHEAD = 1.25, 1.02


@pytest.fixture(scope="module")
def deit() -> ImageClassifier:
    torch.manual_seed(0)
    return DeiTTiny([str(i) for i in range(1000)]).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def operations(patches: int, dim: int = 192, depth: int = 12) -> int:
    tokens = patches + 1
    return depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)


def best(*functions: Callable[[], object]) -> list[float]:
    """Seconds; what else the machine does only ever adds, so the least counts."""

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    with torch.inference_mode():
        for function in functions:
            function()
        rounds = [[seconds(function) for function in functions] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


@pytest.mark.parametrize("patches", [49, 98, 147])
def test_some_patches_beside_all(benchmark: Any, deit: ImageClassifier, image: torch.Tensor, patches: int):
    grid = image.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).contiguous()
    index = torch.arange(PLACES).expand(BATCH, -1)
    all_of_them = deit.tail({"patches": grid, "index": index}, "input")
    torch.testing.assert_close(all_of_them, deit.tail({"image": image}, "input"), atol=1e-5, rtol=0)
    order = torch.rand(BATCH, PLACES, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :patches].sort(1).values
    some = {"patches": grid[torch.arange(BATCH)[:, None], order], "index": order}
    with torch.inference_mode():
        benchmark(lambda: deit.tail(some, "input"))
    if not benchmark.enabled:
        return
    part, whole = best(lambda: deit.tail(some, "input"), lambda: deit.tail({"image": image}, "input"))
    expected = operations(patches) / operations(PLACES)
    print(f"\n{patches} of {PLACES} patches {1000 * part:.0f} ms, the image {1000 * whole:.0f} ms:", end=" ")
    print(f"ratio {part / whole:.3f}, {part / whole / expected:.2f} of eq. 9's {expected:.3f} (goal {GOAL})")


@pytest.mark.parametrize("scores", ["mean", "rollout"])
def test_scores_beside_the_answer_alone(benchmark: Any, deit: ImageClassifier, image: torch.Tensor, scores: str):
    logits, row = deit.attend({"image": image}, scores)
    torch.testing.assert_close(logits, deit.tail({"image": image}, "input"))
    torch.testing.assert_close(row.sum(1), torch.ones(BATCH))
    with torch.inference_mode():
        benchmark(lambda: deit.attend({"image": image}, scores))
    if not benchmark.enabled:
        return
    with_scores, alone = best(
        lambda: deit.attend({"image": image}, scores), lambda: deit.tail({"image": image}, "input")
    )
    goal = f" (goal {OVERHEAD})" if scores == "mean" else ""
    print(f"\n{scores} {1000 * with_scores:.0f} ms, the answer alone {1000 * alone:.0f} ms:", end=" ")
    print(f"ratio {with_scores / alone:.3f}{goal}")
