"""What sharing saves, and what the harness costs. Run with ``pytest tests/benchmarks/test_bench_speed.py -m slow -s``.

Processor time is compared, which other work on the machine hardly changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch

from semcodec.bench import matrix
from semcodec.bench.cells import cell_of, ordered
from semcodec.bench.worker import Settings, Worker
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest

SWEEP = {"stae.frames": (1, 2, 4, 8, 16), "stae.pixels": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}
STAGES = ("rans", "range", "huffman", "zstd")
DATA = "digits-motion"
OFFLINE = WeightsRequest(offline=True)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def took(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_stae_at_35_points_and_4_stages_takes_less_than_a_third_of_one_by_one():
    """One by one is what ``semcodec eval`` does for a spec, within one process: models, data, samples."""
    specs = [(f"stae+{stage}+vit-nano", {}) for stage in STAGES]
    settings = Settings(DATA, limit=4, offline=True)
    cells = ordered(cell_of(c, DATA, "test", 4, 0) for c in matrix.given(specs, SWEEP).seeded(0))
    assert len(cells) == 140

    def alone(spec: str) -> dict:
        composition = compose_spec(spec)
        pipeline = Pipeline.load(composition, OFFLINE, classes=open_dataset(DATA).classes)
        return evaluate(pipeline, open_dataset(DATA, "test", pipeline.request), limit=4)

    alone(cells[0].spec)  # everything is imported
    worker, found, plain = Worker(settings), [], []
    shared = took(lambda: found.extend(worker.measure(cell) for cell in cells))
    single = took(lambda: plain.extend(alone(cell.spec) for cell in cells))
    print(f"\nshared {shared:.1f} s, one by one {single:.1f} s of processor time: {shared / single:.3f}")
    ours = {"stages_ms", "cell", "seed"}
    for one, other in zip(found, plain, strict=True):
        assert {k: v for k, v in one.items() if k not in ours} == {k: v for k, v in other.items() if k not in ours}
    assert shared < single / 3


def test_the_harness_costs_at_most_3_percent_of_a_loop_by_hand():
    """The least of several runs of each, in turn: what is above that is other work on the machine."""
    settings = Settings(DATA, limit=64, offline=True)
    [cell] = [cell_of(compose_spec("stae+rans+vit-nano"), DATA, "test", 64, 0)]
    pipeline = Pipeline.load(compose_spec(cell.spec), OFFLINE)
    dataset = open_dataset(DATA, "test", pipeline.request)

    def by_hand() -> tuple[float, float]:
        correct, size = 0, 0
        for start in range(0, 64, 32):
            pixels, labels = dataset.batch(range(start, start + 32))
            encoded = pipeline.encode_batch(pixels, range(start, start + 32))
            predictions = pipeline.decode_batch(pipeline.records(encoded))
            size += sum(e.bytes_total for e in encoded)
            correct += sum(p.index == int(label) for p, label in zip(predictions, labels, strict=True))
        return correct / 64, size / 64

    def worker() -> Worker:
        """One that has its models and remembers nothing."""
        made = Worker(settings)
        made._family, made._pipelines = cell.family, [pipeline]
        return made

    record = worker().measure(cell)
    assert by_hand() == (record["top1"], record["bytes_total"])
    loop, harness = [], []
    for _ in range(7):
        loop.append(took(by_hand))
        harness.append(took(partial(worker().measure, cell)))
    print(f"\nby hand {min(loop):.3f} s, harness {min(harness):.3f} s: {min(harness) / min(loop) - 1:+.1%}")
    assert min(harness) <= 1.03 * min(loop)
