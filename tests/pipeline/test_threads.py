"""Threads that share one pipeline, its models with their weights, come to the bytes and answers of one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Barrier

import numpy as np
import pytest

from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_packets
from semcodec.pipeline.pipeline import Pipeline

THREADS, EACH = 2, 20


@pytest.mark.parametrize(
    "spec",
    [
        "cls-attn:keep=40+top-k+rans+vit-nano-server",
        "cls-attn:scores=rollout+rans+vit-nano-server",
        "sdt+rans+vit-nano-server",
        "aecnn+rans+resnet-nano@layer2.0",
        "jpeg+det-nano",
    ],
)
def test_two_threads_come_to_the_bytes_and_answers_of_one(spec):
    pipeline = Pipeline.load(compose_spec(spec), partial=True)
    pixels = np.random.default_rng(0).integers(0, 256, (THREADS * EACH, *pipeline.request.shape), np.uint8)
    start = Barrier(THREADS)

    def one(number: int) -> tuple[bytes, bytes]:
        [encoded] = pipeline.encode_batch(pixels[number : number + 1], [number])
        [answer] = pipeline.decode_batch([*read_packets(BytesIO(encoded.data), pipeline.header)])
        values = answer.probability if answer.boxes is None else answer.boxes.xyxy.tolist()
        return encoded.data, repr((answer.index, values)).encode()

    def several(thread: int) -> list[tuple[bytes, bytes]]:
        start.wait()
        return [one(number) for number in range(thread, THREADS * EACH, THREADS)]

    wanted = [one(number) for number in range(THREADS * EACH)]
    with ThreadPoolExecutor(THREADS) as pool:
        for thread, found in enumerate(pool.map(several, range(THREADS))):
            assert found == wanted[thread::THREADS]
