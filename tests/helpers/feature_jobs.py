"""A training job over a few pictures, for codecs at a cut: no tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from semcodec.composition.composition import compose_spec
from semcodec.pipeline.stages import build
from semcodec.training.loop import Job


def images(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 12, 12)))
    return nn.functional.interpolate(coarse, (96, 96), mode="bilinear").movedim(1, -1).byte().numpy()


class Pictures:
    """Ten classes that mean nothing."""

    classes, varies = tuple(map(str, range(10))), False

    def __init__(self, count: int) -> None:
        self.pixels, self.labels = images(count), np.arange(count) % 10

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows):
        return self.pixels[rows], self.labels[rows]


def job_of(spec: str, count: int = 32) -> Job:
    composition, dataset = compose_spec(spec), Pictures(count)
    stages = build(composition, dataset.classes)
    return Job(
        stages.modules(), dataset, cut=composition.cut, cuts=composition.source.cuts, recover=stages.recoverer.recover,
        ready=frozenset({"backbone"}),
    )  # fmt: skip
