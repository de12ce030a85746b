"""The user's default dtype is the user's: pipelines are built and run in single precision whatever it is."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import semcodec
from semcodec.data.inputs import open_input
from semcodec.tensors import single_precision


@pytest.fixture(params=[torch.float64, torch.bfloat16])
def default(request):
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


SPECS = {
    "stae+rans+vit-nano": "digits-motion:0",
    "cls-attn+vit-nano-server": "digits-scenes:0",
    "aecnn+resnet-nano": "digits-scenes:0",
    "mot+vit-nano-server": "digits-scenes:0",
    "isr+vit-nano-server": "digits-scenes:0",
    "pca+resnet-nano@layer2": "digits-scenes:0",
    "jpeg+det-nano": "digits-scenes:0",
}


def run(spec: str, named: str):
    random = {"encoder": "random"} if spec.startswith("pca") else None
    pipeline = semcodec.compose(spec, weights=random)
    sample = open_input(named, pipeline.request)
    encoded = pipeline.encode_batch(sample.pixels, [0], None, sample.size and [sample.size])
    [prediction] = pipeline.decode_batch(pipeline.records(encoded))
    return encoded[0].data, pipeline.digests, prediction


@pytest.mark.parametrize("spec", SPECS)
def test_bytes_and_answers_do_not_depend_on_it(spec, default, one_thread):
    data, digests, expected = run(spec, SPECS[spec])
    torch.set_default_dtype(default)
    again, named, found = run(spec, SPECS[spec])
    assert torch.get_default_dtype() == default
    assert (again, named) == (data, digests)
    if expected.logits is not None:
        np.testing.assert_array_equal(found.logits, expected.logits)


def test_what_modules_make_when_they_are_imported_is_in_single_precision_too():
    code = (
        "import torch; torch.set_default_dtype(torch.float64); import semcodec, numpy as np;"
        "p = semcodec.compose('cls-attn+vit-nano-server'); side = p.request.height;"
        "[e] = p.encode_batch(np.zeros((1, side, side, 3), np.uint8), [0]); p.decode_batch(p.records([e]));"
        "assert torch.get_default_dtype() == torch.float64"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_give_it_back_when_the_last_leaves(default):
    torch.set_default_dtype(default)
    inside, leave = threading.Barrier(3), threading.Event()

    def work() -> None:
        with single_precision():
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert torch.get_default_dtype() == torch.float32
    with single_precision():
        pass
    assert torch.get_default_dtype() == torch.float32
    leave.set()
    for thread in threads:
        thread.join()
    assert torch.get_default_dtype() == default
