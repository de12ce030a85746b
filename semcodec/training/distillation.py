"""Distillation: a codec at a cut learns without labels to leave the uncompressed model's answers as they are.

Shared by every codec that learns through ``Encoder.forward_train``. First ``match``, the squared error of features
beside the rate; then ``distil``, the distance of answers beside both (Hinton et al., 2015; Singh et al., 2020). The
backbone is its own teacher and stays as it is, so any pictures or clips are training data. Of a stream for several
tasks all tails are teachers at once: the distance is the mean of theirs, by the weights of the tasks, at each number
of layers of those that so many serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.errors import UsageError
from semcodec.specs import PREFIX, RECONSTRUCTION, TOKENS
from semcodec.tensors import from_eight_bits
from semcodec.training import processes
from semcodec.training.augmentation import cut_mix, mosaic
from semcodec.training.averaging import Average
from semcodec.training.feature_steps import model_input, put_channels_last
from semcodec.training.loop import Batch, Job, Step
from semcodec.types import Features

MATCH, DISTIL = "match", "distil"
SAMPLES = {MATCH: 40_000, DISTIL: 100_000}
"""Of each step, however many there are in the data: each is seen in another crop every time."""
RATE = 2e-3
"""Learning rate of ``match``."""
WARM = 100
"""Batches in which the weight of the rate rises from nothing, of ``match``."""
SPREAD = 40.0
"""How much less a byte weighs at the finest operating point than at the coarsest, which all others are between."""
BATCH = 32
SMALLEST_CROP = 0.5
"""Of a side, of data that vary: the teacher's answers follow whatever is seen, so crops may be small."""
WINDOW, SMALLEST_WINDOW = 320, 0.35
"""Pixels along each side of what detectors see of larger inputs, and the smallest part of a side that these show: they
answer place by place, so that less of an input teaches as much, at several scales."""

SMALLEST = 0.05
"""Of a side, of what may be asked for."""


@dataclass(frozen=True)
class Settings:
    """What is chosen by data and codec.

    features: weight of the squared error of normalised features beside the answers, in ``distil``. behind: that of the
    same error half-way between the cut and the answer, of a model that has a cut there, for one task. lr: the largest
    learning rate of ``distil``; a codec that has learned, and goes on, forgets at that of a new one. crop: the smallest
    part of a side that is seen, where data vary; None: ``SMALLEST_CROP``, or ``SMALLEST_WINDOW``. mix: whether samples
    are put together, parts of others into one, or four to one for detectors.
    """

    features: float = 0.1
    lr: float = 7e-4
    crop: float | None = None
    mix: bool = True
    behind: float = 0.0

    def __post_init__(self) -> None:
        for weight in (self.features, self.behind):
            if not 0 <= weight < math.inf:
                raise UsageError(f"distillation weighs features by at least 0, not {weight}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"the learning rate of distillation is more than 0, not {self.lr}")
        if self.crop is not None and not SMALLEST <= self.crop <= 1:
            raise UsageError(f"distillation sees crops of {SMALLEST} to 1 of a side, not {self.crop}")

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Settings:
        """Of values by name. Raises UsageError for a name that there is not, or what is out of range."""
        if unknown := sorted(named.keys() - vars(USUAL).keys()):
            raise UsageError(f"distillation has no {unknown[0]}; it has {', '.join(vars(USUAL))}")
        return cls(**named)

    @classmethod
    def parse(cls, named: Mapping[str, str]) -> Settings:
        """Of texts by name. Raises UsageError for a name that there is not, or what is out of range."""
        found: dict[str, Any] = {}
        for name, text in named.items():
            known = {"yes": True, "no": False}.get(text) if name == "mix" else _number(text)
            if name not in vars(USUAL) or known is None:
                raise UsageError(
                    f"{name}={text}: distillation has features, lr, crop and behind=FLOAT, and mix=yes or no"
                )
            found[name] = known
        return cls(**found)

    def told(self) -> dict[str, Any]:
        """Of these, what is not as usual."""
        return {name: value for name, value in vars(self).items() if value != getattr(USUAL, name)}


USUAL = Settings()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def steps(
    job: Job, rate: float | Sequence[float], names: Sequence[str] = (MATCH, DISTIL), settings: Settings = USUAL
) -> list[Step]:
    """Those steps of a codec. rate: weight of a kilobyte at the coarsest operating point, or at each from there on.

    What learned at the end is the moving average of each step. Raises NotImplementedError for a codec that has no
    differentiable view, UsageError for weights of another number of operating points.
    """
    learning = job.trainable_parts
    recoverer = [module for slot, module in job.modules.items() if slot == "recoverer"]
    learn = [*learning.modules, *learning.densities.values(), *recoverer]
    for tail in [job.modules.get("backbone"), *job.tails.values()]:
        if tail is not None:
            put_channels_last(tail)
    average = Average(nn.ModuleList(learn))
    job.auxiliary["average"] = average
    points = count_points(job)
    seen = crops(job, settings)
    return [
        Step(
            name,
            learn,
            _loss(job, name, weights_of(rate, points), average, settings),
            SAMPLES[name],
            settings.lr if name == DISTIL else RATE,
            BATCH,
            weight_decay=1e-4,
            statistics=False,
            **seen,
            finish=average.give,
        )
        for name in names
    ]


def crops(job: Job, settings: Settings = USUAL) -> dict[str, Any]:
    """What a step sees of each sample, as it takes it: by ``smallest_crop`` and ``size``."""
    if job.dataset.varies and min(job.size or (0, 0)) > WINDOW and finds_boxes(job):
        return {"smallest_crop": settings.crop or SMALLEST_WINDOW, "size": (WINDOW, WINDOW)}
    return {"smallest_crop": settings.crop or SMALLEST_CROP}


def weights_of(rate: float | Sequence[float], points: int) -> list[float]:
    """Weights of a kilobyte by operating point: as given, or from one in equal ratios to a ``SPREAD``-th of it."""
    if not isinstance(rate, int | float):
        if len(rate) != points:
            raise UsageError(f"the codec has {points} operating points, and there are {len(rate)} weights of a rate")
        return list(rate)
    return [rate * SPREAD ** (-point / max(1, points - 1)) for point in range(points)]


def count_points(job: Job) -> int:
    """Operating points that the codec is trained at."""
    encoder: Any = job.modules["encoder"]
    with torch.no_grad():
        one = _one(job)
        return len(encoder.forward_train(_head(job, one), one.rng))


def _loss(
    job: Job, name: str, weights: Sequence[float], average: Average, settings: Settings
) -> Callable[[Batch], tuple[Tensor, dict[str, float]]]:
    """At one operating point a batch, each in its turn."""
    encoder: Any = job.modules["encoder"]
    mix = _mixing(job) if settings.mix else None
    of_features = settings.features if name == DISTIL else 1.0
    halfway = half_way(job) if settings.behind and name == DISTIL else job.cut

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        assert job.recover is not None
        average.see()
        number = b.sequence[0] // BATCH
        point = number % len(weights)
        tails = tails_of(job, encoder.layers_at(point) if job.needs else None)
        if mix is not None:
            _, place = processes.place_of(len(b.pixels))
            b = replace(b, pixels=mix(processes.whole(b.pixels), b.rng)[place])
        with torch.no_grad():
            wanted = _head(job, b)
            due = [_behind(tail, wanted, job.cut, halfway) for _, _, tail in tails] if name == DISTIL else None
        [(partial, bits)] = encoder.forward_train_at(wanted, b.rng, [point])
        given = job.recover(partial)
        apart = feature_distance(given, wanted)
        total, figures = of_features * apart, {"features": apart.item()}
        if due is not None:
            for (task, weight, tail), (later, answer) in zip(tails, due, strict=True):
                found, said = _behind(tail, given, job.cut, halfway)
                agreed = answer_distance(said, answer, task)
                total = total + weight * agreed
                if halfway != job.cut:
                    strayed = feature_distance(found, later)
                    total, figures = total + settings.behind * strayed, {**figures, "behind": strayed.item()}
                figures[f"answers of {task}" if len(job.tails) > 1 else "answers"] = agreed.item()
        if bits is not None:
            warm = min(1.0, number / WARM) if name == MATCH else 1.0
            kilobytes = bits.float().mean() / 8000
            total, figures = total + warm * weights[point] * kilobytes, {**figures, "bytes": 1000 * kilobytes.item()}
        return total, figures

    return loss


def half_way(job: Job) -> str:
    """The cut in the middle of those behind the codec's. Raises UsageError where there is none, or several models."""
    names = list(job.cuts)
    later = names[names.index(job.cut) + 1 :] if job.cut in names else []
    if not later or len(job.tails) > 1:
        raise UsageError(f"distillation weighs features behind {job.cut}, of one model that has a cut there: behind=0")
    return later[(len(later) - 1) // 2]


def _behind(tail: Any, features: Features, cut: str, later: str) -> tuple[Features, Tensor]:
    """Features at a later cut, or the same, and the model's answer to them."""
    there = features if later == cut else tail.advance(features, cut, later)
    return there, tail.tail(there, later)


def tails_of(job: Job, layers: int | None = None) -> list[tuple[str, float, Any]]:
    """The tails that teach, each with its task's name and its weight; these sum to 1.

    layers: those that are there; of a stream for several tasks the tails that so many serve teach, maybe none.
    """
    if not job.tails:
        return [(job.task, 1.0, job.modules["backbone"])]
    served = {t: tail for t, tail in job.tails.items() if layers is None or job.needs.get(t, 1) <= layers}
    whole = sum(job.task_weights.get(task, 1.0) for task in served) or 1.0
    return [(task, job.task_weights.get(task, 1.0) / whole, tail) for task, tail in served.items()]


def _mixing(job: Job) -> Callable[[Tensor, np.random.Generator], Tensor] | None:
    """What makes new pictures or clips of a batch; none for data that have their size and place to be learned."""
    if finds_boxes(job):
        return mosaic
    return cut_mix if job.dataset.varies else None


def finds_boxes(job: Job) -> bool:
    """Whether a tail's answers are boxes rather than logits of classes."""
    with torch.no_grad():
        features = _head(job, _one(job))
        return any(tail.tail(features, job.cut).dim() == 3 for _, _, tail in tails_of(job))


def _one(job: Job) -> Batch:
    return Batch(from_eight_bits(job.dataset.batch([0])[0]), [], np.random.default_rng(0), [0]).to(job.accelerator)


def _head(job: Job, b: Batch) -> Features:
    backbone: Any = job.modules["backbone"]
    features: Features = backbone.head(model_input(b), job.cut)
    return features


def feature_distance(given: Features, wanted: Features) -> Tensor:
    """Squared error over the variance of each channel of what is wanted, its mean, summed over tensors of one shape.

    Channels are the second axis of maps and the last of tokens, whose prefix is measured as they are.
    """
    given, wanted = _joined(given), _joined(wanted)
    errors = []
    for name, t in wanted.items():
        if not t.is_floating_point() or name not in given or given[name].shape != t.shape:
            continue
        axis = t.dim() - 1 if name == TOKENS else t.dim() - 3
        others = [other for other in range(t.dim()) if other != axis]
        scale = processes.variance(t.float(), others).clamp_min(1e-6)
        errors.append(((given[name].float() - t.float()).square() / scale).mean())
    return torch.stack(errors).sum() if errors else torch.zeros(())


def _joined(features: Features) -> Features:
    if PREFIX not in features:
        return features
    return {TOKENS: torch.cat([features[PREFIX], features[TOKENS]], 1)}


def answer_distance(given: Tensor, wanted: Tensor, task: str = "") -> Tensor:
    """Of logits (B, classes), or at each place (B, classes, H, W), the mean KL divergence. Of embeddings, which the
    task "retrieval" has, the squared distance; of pictures, of the task "reconstruction", the squared error over the
    variance of the pixels.

    Of boxes (B, N, 4 + classes), as detectors answer, their scores' cross-entropy and the error of boxes over their
    size, where the teacher sees something: weighted by its best score.
    """
    given, wanted = given.float(), wanted.float()
    if task == "retrieval":
        return (given - wanted).square().sum(1).mean()
    if task == RECONSTRUCTION:
        axes = list(range(wanted.dim()))
        return (given - wanted).square().mean() / processes.variance(wanted, axes).clamp_min(1e-6).squeeze()
    if wanted.dim() in (2, 4):
        each = F.kl_div(given.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="none").sum(1)
        return each.mean()
    p, q = wanted[..., 4:], given[..., 4:].clamp(1e-6, 1 - 1e-6)
    seen = p.amax(2)
    total, _ = processes.place_of(len(seen))
    most = processes.sum_of(seen.sum()).clamp_min(1.0) * len(seen) / total  # of all processes, this one's share of it
    scores = -(p * q.log() + (1 - p) * (1 - q).log()).sum() / most
    size = wanted[..., 2:4].mean(2, keepdim=True).clamp_min(1.0)
    boxes = (seen[..., None] * (given[..., :4] - wanted[..., :4]).abs() / size).sum() / most
    return scores + boxes
