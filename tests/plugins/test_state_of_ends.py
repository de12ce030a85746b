"""Each end of a Backbone works with the weights that it names alone: all others are NaN."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from semcodec.composition.registry import get_registry

CLASSES = ["one", "two", "three"]
NAMES = ["det-nano", "vit-nano-server", "timm/test_vit", "vit-nano", "timm/test_resnet", "yolov5n", "yolo/yolov8n"]
SIDE = 64


def built(name):
    registry = get_registry()
    component = registry.find(name, "backbone")
    build = {p.name: SIDE if p.name == "side" else p.default for p in component.params}
    torch.manual_seed(0)
    backbone = registry.load(component)(CLASSES, **build)
    spec = backbone.spec or registry.spec_function(component)(build)
    return backbone.eval().requires_grad_(False), spec


def alone(backbone, beginnings):
    """A copy of which only what is named is left."""
    other = deepcopy(backbone)
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            if not name.startswith(tuple(beginnings)) and tensor.is_floating_point():
                tensor.fill_(torch.nan)
    return other


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_an_end_needs_no_weights_but_its_own(name):
    backbone, spec = built(name)
    [(key, tensor)] = spec.input.items()
    image = {key: torch.rand(1, *tensor.shape, generator=torch.Generator().manual_seed(1))}
    for cut in spec.cuts:
        head, tail = backbone.head_state(cut), backbone.tail_state(cut)
        features = backbone.head(image, cut)
        found = alone(backbone, head).head(image, cut)
        assert all(torch.equal(found[n], t) for n, t in features.items())
        answer = alone(backbone, [""] if tail is None else tail).tail(features, cut)
        assert torch.equal(answer, backbone.tail(features, cut))
        assert not answer.isnan().any()
        if cut == "input":
            assert len(head) == 0
        for key in backbone.state_dict():
            ends = key.startswith(tuple(head)), tail is None or key.startswith(tuple(tail))
            assert sum(ends) == 1, f"{key} at {cut} is of {ends}"
