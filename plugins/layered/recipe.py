"""How learned codecs at a cut are trained; the backbone stays as it is.

At tokens by ``semcodec.training.distillation``, at maps:

1. The backbone, if it comes without weights, by its own recipe.
2. Reductions and expansions start as the principal components of blocks of features, with the step of quantisation
   that is best at lambda for many uniform quantisers.
3. ``match``, without labels: L = rate + lambda * distance to the uncompressed features, at the cut and at the last.
4. ``picture``: the network that shows what was received.
5. ``task``: L = rate + lambda * loss of the task. ``--until picture`` leaves it out, and needs no labels.

Layers are trained for the average over their number: two numbers are drawn for every batch. lambda is that of all
layers, and falls in equal ratios to ``1 / SPREAD`` of it for the base alone, so that each number of layers is a point
of its own on the curve of rate and distortion.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.interfaces import Features
from semcodec.specs import TOKENS
from semcodec.training import distillation
from semcodec.training.augmentation import window
from semcodec.training.feature_steps import backbone_first, distance, model_input, observe, put_channels_last
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.layered.token_codec import TokenCodec

SPREAD = 64.0
MATCH, PICTURE, TASK = 16, 4, 2
"""Passes over the data, at most ``MOST`` samples each."""
MOST = 40_000
DRAWN = 2
_SEEN = 1 << 25  # values of features that principal components are taken from
WINDOW = 320
"""Pixels along each side of the window, drawn at random, that all but ``task`` look at in larger inputs."""


def single(job: Job) -> list[Step]:
    """For ``feature-hyperprior``, at its one lambda. Raises UsageError for an empty data set."""
    encoder: Any = job.modules["encoder"]
    if isinstance(encoder, TokenCodec):
        return _at_tokens(job, encoder)
    return _steps(job, [encoder.trade])


def layered(job: Job) -> list[Step]:
    """For ``layered``, at a lambda for each number of layers. Raises UsageError for an empty data set."""
    encoder: Any = job.modules["encoder"]
    if isinstance(encoder, TokenCodec):
        return _at_tokens(job, encoder)
    count = len(encoder.stack)
    ratio = SPREAD ** (1 / max(1, count - 1))
    return _steps(job, [encoder.trade * ratio ** (i - count + 1) for i in range(count)])


def _at_tokens(job: Job, encoder: TokenCodec) -> list[Step]:
    """Of tokens: their mean and deviation, then distillation, with 1 / lambda the weight of a kilobyte.

    Raises UsageError for an empty data set.
    """
    if not len(job.dataset):
        raise UsageError("there are no samples to train on: give a data set that has some")
    seen: list[Tensor] = []
    begin = observe(
        job, lambda features: seen.append(features[TOKENS]), lambda: encoder.observe(torch.cat(seen)), name="start"
    )
    steps = [
        replace(step, finish=functools.partial(_finish, step.finish, encoder))
        for step in distillation.steps(job, 1 / encoder.trade)
    ]
    return [*backbone_first(job), *([] if "encoder" in job.ready else [begin]), *steps]


def _finish(first: Callable[[], None] | None, encoder: TokenCodec) -> None:
    if first is not None:
        first()
    encoder.freeze()


def _steps(job: Job, trades: list[float]) -> list[Step]:
    """trades: lambda by number of layers."""
    encoder: Any = job.modules["encoder"]
    batch = 8 if _pixels(job) > WINDOW**2 // 4 else 32
    if not len(job.dataset):
        raise UsageError("there are no images to train on: give a data set that has some")
    last = list(job.cuts)[-1]
    to = () if last == job.cut else (last,)
    put_channels_last(job.modules["backbone"])
    learning = job.trainable_parts
    codec = [*learning.modules, *learning.densities.values()]
    steps = [] if "encoder" in job.ready else [_start(job, trades, batch)]
    steps += [
        Step("match", codec, _match(job, trades, to), _passes(job, MATCH), 1e-3, batch, 0.0, finish=learning.settle),
        Step("picture", [encoder.picture], _picture(job), _passes(job, PICTURE), 2e-3, batch, 0.0),
        Step("task", codec, _task(job, trades), _passes(job, TASK), 2e-4, batch, 0.0, finish=learning.settle),
    ]
    return [*backbone_first(job), *steps]


def _pixels(job: Job) -> int:
    height, width = next(iter(job.cuts["input"].values())).shape[-2:]
    assert height is not None and width is not None
    return height * width


def _passes(job: Job, count: int) -> int:
    return min(MOST, count * len(job.dataset))


def _start(job: Job, trades: list[float], batch: int) -> Step:
    encoder: Any = job.modules["encoder"]
    seen: dict[str, list[Tensor]] = {name: [] for name in encoder.features}

    def see(features: Features) -> None:
        for name, kept in seen.items():
            if sum(x.numel() for x in kept) < _SEEN:
                kept.append(features[name].float())

    def finish() -> None:
        values = sum(shape.size for shape in encoder.features.values()) / len(encoder.features)
        # Of a distortion lambda * step^2 / 12 a value and -log2(step) bits a value, the least sum. A layer counts in
        # every number of layers from its own on, each with its lambda.
        steps = []
        for i in range(len(trades)):
            trade = len(trades[i:]) / sum(1 / t for t in trades[i:])
            steps.append(math.sqrt(6 * values / (trade * _pixels(job) * math.log(2))))
        encoder.start([torch.cat(kept) for kept in seen.values()], steps)
        seen.clear()

    return observe(job, see, finish, name="start", batch=batch)


def _match(job: Job, trades: list[float], to: tuple[str, ...]) -> Callable[[Batch], tuple[Tensor, dict[str, float]]]:
    backbone: Any = job.modules["backbone"]

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        b = _window(b)
        with torch.no_grad():
            features = backbone.head(model_input(b), job.cut)
            later = {cut: backbone.advance(features, job.cut, cut) for cut in to}

        def distortion(recovered: Features) -> Tensor:
            far = [distance(backbone.advance(recovered, job.cut, cut), wanted) for cut, wanted in later.items()]
            return torch.stack([distance(recovered, features), *far]).sum()

        return _weigh(job, b, features, trades, distortion)

    return loss


def _window(b: Batch) -> Batch:
    return replace(b, pixels=window(b.pixels, b.rng, WINDOW))


def _task(job: Job, trades: list[float]) -> Callable[[Batch], tuple[Tensor, dict[str, float]]]:
    backbone: Any = job.modules["backbone"]

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            features = backbone.head(model_input(b), job.cut)
        return _weigh(job, b, features, trades, lambda given: backbone.task_loss(given, job.cut, b.labels)[0])

    return loss


def _weigh(
    job: Job, b: Batch, features: Features, trades: list[float], cost: Callable[[Features], Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """The mean over drawn numbers of layers of rate / lambda + cost. Rate in bits a pixel of the input."""
    encoder: Any = job.modules["encoder"]
    count = len(trades)
    drawn = sorted((b.rng.choice(count, min(DRAWN, count), replace=False) + 1).tolist())
    losses, costs, rates = [], [], []
    assert job.recover is not None
    for number, (partial, bits) in zip(drawn, encoder.operate(features, b.rng, drawn), strict=True):
        bpp = bits.mean() / (b.pixels.shape[-1] * b.pixels.shape[-2])
        costs.append(cost(job.recover(partial)))
        rates.append(bpp)
        losses.append(costs[-1] + bpp / trades[number - 1])
    means = {"cost": torch.stack(costs).mean().item(), "bpp": torch.stack(rates).mean().item()}
    return torch.stack(losses).mean(), means


def _picture(job: Job) -> Callable[[Batch], tuple[Tensor, dict[str, float]]]:
    """Absolute error of the picture against the input at its size, at a number of layers drawn for every batch."""
    encoder: Any = job.modules["encoder"]
    backbone: Any = job.modules["backbone"]

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        b = _window(b)
        with torch.no_grad():
            features = backbone.head(model_input(b), job.cut)
            count = int(b.rng.integers(1, len(encoder.stack) + 1))
            ((partial, _),) = encoder.operate(features, b.rng, [count])
        picture = encoder.picture(partial.features)
        wanted = F.interpolate(b.pixels, size=picture.shape[-2:], mode="area")
        return (picture - wanted).abs().mean(), {}

    return loss
