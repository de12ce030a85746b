"""Steps that recipes of codecs at a backbone's cut are made of: match, end to end, observe.

A codec is an Encoder with ``forward_train`` and the composition's Recoverer. ``match`` needs no labels: what is
recovered shall be what the backbone had. ``end_to_end`` trains for the task, the backbone too where it is among those
that learn.
``observe`` learns nothing: it shows features to something that counts, a covariance or a range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.specs import FeatureSpec
from semcodec.tensors import from_eight_bits
from semcodec.training import processes
from semcodec.training.loop import Batch, Job, Step, top1
from semcodec.types import Features

CALIBRATION = 512
"""Samples that ranges and histograms are taken from."""
MOST = 100_000
"""Samples that a step takes at most, however large the data set."""
FEW = 5000
"""Images, below which a data set is small."""


def match(
    job: Job,
    learn: Sequence[nn.Module],
    samples: int,
    *,
    to: Sequence[str] = (),
    rate: float = 0.0,
    name: str = "match",
    lr: float = 2e-3,
    batch: int = 32,
    **others: Any,
) -> Step:
    """Recovered features against those of the uncompressed model: squared error over the variance of the target.

    to: later cuts where they are compared too. rate: weight of the bits, per pixel of the input.
    """
    reference = _reference(job)

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        x, backbone = model_input(b), _backbone(job)
        features = _head(job, x)
        with torch.no_grad():
            at_cut = features if reference is backbone else reference.head(x, job.cut)
            later = {cut: reference.advance(at_cut, job.cut, cut) for cut in to}
        errors, bits = [], []
        for recovered, cost in _coded(job, features, b):
            error = distance(recovered, at_cut)
            for cut, wanted in later.items():
                error = error + distance(backbone.advance(recovered, job.cut, cut), wanted)
            errors.append(error)
            bits.append(cost)
        return _with_rate(torch.stack(errors).mean(), bits, rate, b, {})

    return Step(name, learn, loss, samples, lr, batch, **others)


def end_to_end(
    job: Job,
    learn: Sequence[nn.Module],
    samples: int,
    *,
    distil: float = 1.0,
    rate: float = 0.0,
    name: str = "end to end",
    lr: float = 3e-4,
    batch: int = 32,
    **others: Any,
) -> Step:
    """The task's loss through the codec.

    distil: weight of what the uncompressed model answers (KL divergence of classifiers' logits: Hinton et al., 2015).
    rate: weight of the bits, per pixel of the input: L = task loss + rate * bpp.
    """
    reference = _reference(job) if distil else None

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        x, backbone = model_input(b), _backbone(job)
        features = _head(job, x)
        answers = None
        if reference is not None and torch.is_tensor(b.labels):
            with torch.no_grad():
                answers = reference.tail(x, "input").log_softmax(1)
        losses, bits, figures = [], [], dict[str, float]()
        for recovered, cost in _coded(job, features, b):
            if answers is None:
                task, figures = backbone.task_loss(recovered, job.cut, b.labels)
            else:
                logits = backbone.tail(recovered, job.cut)
                task = F.cross_entropy(logits, b.labels)
                task = task + distil * F.kl_div(logits.log_softmax(1), answers, reduction="batchmean", log_target=True)
                figures = {"top1": top1(logits, b.labels)}
            losses.append(task)
            bits.append(cost)
        return _with_rate(torch.stack(losses).mean(), bits, rate, b, figures)

    return Step(name, learn, loss, samples, lr, batch, **others)


def rate_alone(job: Job, learn: Sequence[nn.Module], samples: int, *, name: str, lr: float, **others: Any) -> Step:
    """Densities learn what is sent, which stays as it is: bits a pixel of the input."""

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        coded = _coded(job, _head(job, model_input(b)), b)
        return _with_rate(torch.zeros(()), [bits for _, bits in coded], 1.0, b, {})

    return Step(name, learn, loss, samples, lr, **others)


def fine_tuning(job: Job, codec: Sequence[nn.Module], more: float = 0.0) -> list[Step]:
    """Codec and backbone learn together: to agree with the uncompressed model at a later cut, then for the task.

    The same for every codec, so that they compare: three passes over the data and ``more`` without labels, then two
    with them. What learns of the backbone is the device's last layer and what follows it, first up to where the two
    are compared, then up to the answer. Batch norms keep their statistics, which small data sets would spoil.
    """
    before, after = around(job.cuts, job.cut)
    near, rest = layers(job, before, after), layers(job, after)
    learn, size = [*codec, *near], batch_size(job)
    return [
        match(job, learn, passes(job, 3 + more), to=(after,), name="fine-tune", lr=1e-3, batch=size, statistics=False),
        end_to_end(job, [*learn, *rest], passes(job, 2), lr=1e-4, batch=max(16, size), statistics=False),
    ]


def batch_size(job: Job) -> int:
    """Of steps without labels, whose maps have many places each to learn from: few images are seen in small batches."""
    return 8 if len(job.dataset) < FEW else 32


def passes(job: Job, count: float) -> int:
    """Samples of so many passes over the data, at most ``MOST``."""
    return min(MOST, round(count * len(job.dataset)))


def observe(
    job: Job,
    see: Callable[[Features], None],
    finish: Callable[[], None],
    samples: int = CALIBRATION,
    *,
    name: str = "observe",
    batch: int = 32,
) -> Step:
    """Shows ``see`` the features at the cut of so many samples, at most all, then calls ``finish``."""

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        see(_backbone(job).head(model_input(b), job.cut))
        return torch.zeros(()), {}

    return Step(name, (), loss, min(samples, len(job.dataset)), 0.0, batch, finish=finish)


def backbone_first(job: Job, copies: Sequence[str] = ("reference",)) -> list[Step]:
    """The backbone's own recipe, if it comes without weights.

    Call it last: ``copies`` of it among the auxiliary modules that later steps use then start from what it has learned.
    """
    steps = [] if "backbone" in job.ready or job.backbone_recipe is None else job.backbone_recipe(job)

    def renew() -> None:
        for name in copies:
            if name in job.auxiliary:
                job.auxiliary[name].load_state_dict(_backbone(job).state_dict())

    if steps:
        steps[-1].finish = renew
    return steps


def put_channels_last(model: nn.Module) -> None:
    """Its convolutions of two dimensions, which are faster so on CPUs; those of clips have no such form."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def model_input(b: Batch) -> Features:
    """The pixels of a batch as the model takes them."""
    return _named(b.pixels)


def layers(job: Job, cut: str, to: str | None = None) -> list[nn.Module]:
    """Those of the backbone's modules with parameters of their own that lead from one cut to another, or to the answer.

    Found by running it on one sample, so that a recipe can say what learns without knowing the backbone's insides.
    """
    backbone = _backbone(job)
    used: dict[nn.Module, None] = {}
    with torch.no_grad():
        features = backbone.head(job.accelerator.put(_named(from_eight_bits(job.dataset.batch([0])[0]))), cut)
        hooks = [
            module.register_forward_hook(lambda module, *_: used.update({module: None}))
            for module in backbone.modules()
            if next(module.parameters(recurse=False), None) is not None
        ]
        try:
            _ = backbone.tail(features, cut) if to is None else backbone.advance(features, cut, to)
        finally:
            for hook in hooks:
                hook.remove()
    return list(used)


def around(cuts: Mapping[str, FeatureSpec], cut: str) -> tuple[str, str]:
    """The cut before this one, and one after it where a codec's features can be compared with what they should be.

    That is the last whose maps are as large as at this cut, or else the next, or else the cut itself.
    """
    names = list(cuts)
    place = names.index(cut)
    sizes = [next(iter(cuts[name].values())).shape[-2:] for name in names]
    alike = [i for i in range(place + 1, len(names)) if sizes[i] == sizes[place]]
    after = max(alike, default=min(place + 1, len(names) - 1))
    return names[max(0, place - 1)], names[after]


def _named(pixels: Tensor) -> Features:
    if pixels.ndim == 5:
        return {"frames": pixels}
    # Channels last in memory: convolutions, whose results then are so too, are a quarter faster on CPUs.
    return {"image": pixels.contiguous(memory_format=torch.channels_last)}


def distance(given: Features, wanted: Features) -> Tensor:
    """Squared error over the variance of what is wanted, summed over its tensors."""
    errors = []
    for name, t in wanted.items():
        spread = processes.variance(t.float().flatten(), [0])[0]
        errors.append((given[name].float() - t.float()).square().mean() / spread.clamp_min(1e-6))
    return torch.stack(errors).sum()


def _backbone(job: Job) -> Any:
    return job.modules["backbone"]


def _reference(job: Job) -> Any:
    """The uncompressed model: a copy where the backbone learns too, which only the loop knows, so always one."""
    if "reference" not in job.auxiliary:
        job.auxiliary["reference"] = deepcopy(job.modules["backbone"])
    return job.auxiliary["reference"]


def _head(job: Job, x: Features) -> Features:
    backbone = _backbone(job)
    with torch.set_grad_enabled(any(p.requires_grad for p in backbone.parameters())):
        features: Features = backbone.head(x, job.cut)
    return features


def _coded(job: Job, features: Features, b: Batch) -> list[tuple[Features, Tensor | None]]:
    assert job.recover is not None
    encoder: Any = job.modules["encoder"]
    return [(job.recover(partial), bits) for partial, bits in encoder.forward_train(features, b.rng)]


def _with_rate(
    loss: Tensor, bits: Sequence[Tensor | None], rate: float, b: Batch, figures: dict[str, float]
) -> tuple[Tensor, dict[str, float]]:
    """Adds the rate of those operating points that tell theirs."""
    told = [cost.mean() for cost in bits if cost is not None]
    if told:
        bpp = torch.stack(told).mean() / (b.pixels.shape[-1] * b.pixels.shape[-2])
        loss, figures = loss + rate * bpp, {**figures, "bpp": bpp.item()}
    return loss, figures
