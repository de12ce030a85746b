"""Every component on every device that is here: what a device encodes any other decodes."""

from __future__ import annotations

import fake_accelerator  # noqa: F401 - before anything learns
import pytest

from semcodec.composition.registry import get_registry, lacking
from semcodec.pipeline.accelerator import Accelerator
from semcodec.testing import accelerators, checks_for

LARGE = {
    *("deit-base", "deit-small", "vit-small", "vit-base", "resnet34", "resnet50", "resnet50-caffe"),
    *("yolov5s", "yolov5m", "yolov5l", "yolov5x"),
}
"""Models of which a smaller one, of the same class, is looked at in their place."""
ENCODERS = [c for c in get_registry() if c.kind == "encoder"]
OTHERS = [c for c in get_registry() if c.kind in ("backbone", "recoverer", "selector") and c.name not in LARGE]


def run(component, device):
    if reason := lacking(component):
        pytest.skip(reason)
    subject = checks_for(component)[0].subject
    accelerators.CHECKS[component.kind](subject, Accelerator.find(device))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("component", ENCODERS, ids=lambda c: c.name)
def test_encoders_encode_decode_and_learn_there(component, device):
    run(component, device)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("device", ["fakegpu", "cuda"], indirect=True)
@pytest.mark.parametrize("component", OTHERS, ids=lambda c: f"{c.kind}-{c.name}")
def test_others_compute_there_what_they_do_on_the_cpu(component, device):
    run(component, device)
