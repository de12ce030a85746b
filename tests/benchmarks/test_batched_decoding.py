"""What decoding packets together saves beside one by one: ``pytest tests/benchmarks/test_batched_decoding.py -s``.

64 packets of each composition on one thread, both ways in turn, processor time, the best of several rounds. Goal: 1.5
times the samples a second for ``layered`` and ``aecnn``. Nothing is asserted but that the answers are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

import semcodec
from semcodec.data.datasets import open_dataset

SPECS = ("layered+det-nano@d3", "aecnn+resnet-nano@stem", "bottlenetpp+resnet-nano@stem", "stae+vit-nano")
COUNT, ROUNDS = 64, 5


def took(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_packets_together_beside_one_by_one(spec, one_thread):
    pipeline = semcodec.compose(spec, offline=True)
    dataset = open_dataset("digits-motion" if pipeline.request.frames else "digits-scenes", "test", pipeline.request)
    pixels, _ = dataset.batch(range(COUNT))
    records = pipeline.records(pipeline.encode_batch(pixels, range(COUNT)))
    together = pipeline.decode_batch(records)
    alone = [pipeline.decode_batch([record])[0] for record in records]
    for one, other in zip(together, alone, strict=True):
        assert one.index == other.index
    several, single = [], []
    for _ in range(ROUNDS):
        several.append(took(lambda: pipeline.decode_batch(records)))
        single.append(took(lambda: [pipeline.decode_batch([record]) for record in records]))
    rates = [COUNT / min(times) for times in (several, single)]
    print(f"\n{spec}: {rates[0]:.0f} samples/s together, {rates[1]:.0f} one by one: {rates[0] / rates[1]:.2f}")
    assert torch.get_num_threads() == 1
