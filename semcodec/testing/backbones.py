"""Checks of Backbones: the two halves agree with the spec, with each other and with any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.composition.composition import resolve_backbone
from semcodec.interfaces import Backbone
from semcodec.specs import BackboneSpec
from semcodec.tasks.table import get_task
from semcodec.tensors import from_eight_bits
from semcodec.testing.side_effects import witness
from semcodec.testing.stand_ins import smallest
from semcodec.testing.subject import Act, Subject, no_draws, require, skip_unless
from semcodec.testing.tensors import (
    close,
    copied,
    has_parameters,
    octets,
    pixels,
    require_features,
    require_gradient,
    same,
    spoiled,
)
from semcodec.types import Features

CLASSES = ("one", "two", "three")
SOME = 3
"""Cuts that are looked at where all of a deep model would take long: the first, one between, the last."""
EACH = 2
"""Samples at every cut."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of Backbones, in the order in which a failure is best understood."""
    yield check_builds
    yield check_spec
    yield check_cuts_agree
    yield check_advance
    yield check_narrowed
    yield check_batch
    yield check_part_of_the_input
    yield check_repeatable
    yield check_states
    yield check_gradient


def acts(subject: Subject) -> list[Act]:
    """The answer to one sample, through the last cut, and what its class token attends to."""
    backbone, spec = built(subject)
    last = list(spec.cuts)[-1]

    def answer(who: Backbone, number: int) -> bytes:
        return octets({"answer": _tail(who, _head(who, spec, last, 1, number), last)})

    def attend(who: Backbone, number: int) -> bytes:
        with torch.inference_mode():
            found = [who.attend(pixels_for(spec, 1, number), scores) for scores in ("mean", "rollout")]
        return octets(*({"answer": logits, "attention": row} for logits, row in found))

    attends = [] if spec.patch is None else [Act("attend", backbone, attend)]
    return [Act(f"cut at {last}", backbone, answer), *attends]


def check_builds(subject: Subject) -> None:
    """It is made untrained, with the class names that it is given; its first cut is the input."""
    backbone, spec = built(subject)
    require(next(iter(spec.cuts)) == "input", "its first cut is not 'input'")
    unknown = [cut for cut in spec.tail if cut not in spec.cuts]
    require(not unknown, f"declares what the tail takes at {unknown}, which are no cuts")
    require(list(backbone.classes) == list(CLASSES), "does not keep the class names it was given")


def check_spec(subject: Subject) -> None:
    """At every cut heads give what is declared, tails finite logits of every class, or boxes with their scores."""
    _, spec = built(subject)
    for cut, (given, answer) in through(subject).items():
        require_features(given, spec.cuts[cut], f"the head's output at {cut}", batch=EACH)
        _require_answer(answer, spec, EACH, f"the tail at {cut}")


def check_cuts_agree(subject: Subject) -> None:
    """Wherever the model is cut, both halves together are the same model."""
    found = through(subject)
    for cut, (_, answer) in found.items():
        require(close(answer, found["input"][1]), f"cut at {cut} it is another model")


def check_advance(subject: Subject) -> None:
    """From each cut to the next, ``advance`` gives what the head gives there."""
    backbone, spec = built(subject)
    skip_unless(type(backbone).advance is not Backbone.advance, "does not go from cut to cut")
    found = through(subject)
    cuts = list(spec.cuts)
    for cut, to in [*pairwise(cuts), (cuts[0], cuts[-1]), (cuts[-1], cuts[-1])]:
        with torch.inference_mode():
            there = backbone.advance(copied(found[cut][0]), cut, to)
        wanted = found[to][0]
        right = there.keys() == wanted.keys() and all(close(there[n], wanted[n]) for n in wanted)
        require(right, f"advance from {cut} to {to} gives other features than the head")


def check_narrowed(subject: Subject) -> None:
    """A head that is asked for some channels gives those that the whole head does, in order."""
    backbone, spec = built(subject)
    skip_unless(type(backbone).narrowed is not Backbone.narrowed, "computes all channels and picks")
    found = through(subject)
    for cut in some(spec)[1:]:
        whole = found[cut][0]
        sizes = {n: t.shape[1] for n, t in whole.items() if t.is_floating_point() and t.dim() == 4}
        channels = {n: torch.tensor(sorted({0, size // 2, size - 1})) for n, size in sizes.items()}
        if not channels:
            continue
        with torch.inference_mode():
            narrow = backbone.narrowed(cut, channels)(pixels_for(spec, EACH))
        for name, tensor in whole.items():
            wanted = tensor[:, channels[name]] if name in channels else tensor
            require(close(narrow[name], wanted), f"narrowed at {cut} gives {name} that is not the head's channels")


def check_batch(subject: Subject) -> None:
    """A sample's answer does not depend on the samples beside it, and ``collate`` loses none."""
    backbone, spec = built(subject)
    for cut in some(spec):
        features, together = through(subject)[cut]
        singles = [{name: t[row : row + 1] for name, t in features.items()} for row in range(EACH)]
        for row, single in enumerate(singles):
            equal = close(_tail(backbone, single, cut)[0], together[row])
            require(equal, f"the answer to sample {row} depends on the samples beside it, cut at {cut}")
        groups = backbone.collate(singles)
        require(sorted(row for rows, _ in groups for row in rows) == [*range(EACH)], "collate loses or repeats samples")
        for rows, batch in groups:
            equal = close(_tail(backbone, batch, cut), together[rows])
            require(equal, f"a collated batch has other answers than its samples, cut at {cut}")


def check_part_of_the_input(subject: Subject) -> None:
    """Where the tail leaves the first axis open (frames of a clip), it takes any part of it, in order."""
    backbone, spec = built(subject)
    forms = [(cut, form) for cut in spec.cuts for form in spec.accepts(cut)]
    for cut, wide in forms:
        if wide.keys() != spec.cuts[cut].keys():
            continue  # another form than the head gives
        names = [name for name, t in wide.items() if t.shape and t.shape[0] is None]
        total = min((spec.cuts[cut][name].shape[0] or 1 for name in names), default=0)
        features = through(subject)[cut][0]
        for kept in {(0,), (total - 1,), (0, total // 2), tuple(range(0, total, 3))} if names else ():
            part = {name: t[:, list(kept)] if name in names else t for name, t in features.items()}
            _require_answer(_tail(backbone, part, cut), spec, EACH, f"the tail at {cut} with {len(kept)} of {total}")


def check_repeatable(subject: Subject) -> None:
    """The same features give the same answer to the bit, are not altered, and nothing else changes."""
    backbone, spec = built(subject)
    for cut in some(spec):
        with no_draws():
            given = pixels_for(spec, EACH)
            with torch.inference_mode():
                features = backbone.head(given, cut)
            require(same(given, pixels_for(spec, EACH)), f"the head to {cut} alters its input")
            before = copied(features)
            answer = _tail(backbone, features, cut)
        require(same(features, before), f"the tail at {cut} alters its input")
        require(torch.equal(_tail(backbone, features, cut), answer), f"another answer the second time, cut at {cut}")
    require(not isinstance(backbone, nn.Module) or not backbone.training, "switches to training by itself")


def check_states(subject: Subject) -> None:
    """``head_state`` and ``tail_state`` name all weights that each half uses: any others may be there or not."""
    backbone, spec = built(subject)
    skip_unless(isinstance(backbone, nn.Module) and backbone.state_dict(), "has no weights")
    assert isinstance(backbone, nn.Module)
    for cut in some(spec):
        if (named := backbone.head_state(cut)) is not None:
            features, found = _head(backbone, spec, cut, EACH), _head(spoiled(backbone, named), spec, cut, EACH)
            require(same(found, features), f"the head to {cut} uses weights that head_state() does not name")
        if (named := backbone.tail_state(cut)) is not None:
            features, answer = through(subject)[cut]
            again = _tail(spoiled(backbone, named), copied(features), cut)
            require(torch.equal(again, answer), f"the tail from {cut} uses weights that tail_state() does not name")


def check_gradient(subject: Subject) -> None:
    """A gradient of the task's loss reaches every parameter."""
    backbone, spec = built(subject)
    skip_unless(has_parameters(backbone), "has no parameters")
    assert isinstance(backbone, nn.Module)
    labels = get_task(spec.task).example_labels(EACH)

    def loss(learner: nn.Module) -> Tensor:
        assert isinstance(learner, Backbone)
        return learner.task_loss(learner.head(pixels_for(spec, EACH), "input"), "input", labels)[0]

    require_gradient(backbone, loss)


def some(spec: BackboneSpec) -> list[str]:
    """The first cut, one between, the last."""
    cuts = list(spec.cuts)
    return list(dict.fromkeys(cuts[round(i * (len(cuts) - 1) / (SOME - 1))] for i in range(SOME)))


@lru_cache(maxsize=1)
def built(subject: Subject) -> tuple[Backbone, BackboneSpec]:
    """The backbone, untrained, for the smallest input it takes."""
    if subject.component.spec is not None:
        text = smallest(subject.component, subject.registry)[0]
    else:
        side = subject.component.param("side")
        least = f":side={side.low:g}" if side and side.low else ""
        text = f"backbone/{subject.component.name}{least}"
    resolved = resolve_backbone(text, subject.registry)
    with torch.random.fork_rng(devices=[]), witness(subject.heard):
        torch.manual_seed(0)
        backbone: Backbone = subject.registry.load(subject.component)(list(CLASSES), **resolved.bound.build)
    spec = resolved.spec or backbone.spec
    require(spec is not None, "has no spec function and sets no spec when it is built")
    assert spec is not None
    if isinstance(backbone, nn.Module):
        backbone.requires_grad_(False).eval()
    return backbone, spec


@lru_cache(maxsize=1)
def through(subject: Subject) -> dict[str, tuple[Features, Tensor]]:
    """By cut, what the head gives there and the tail's answer to it."""
    backbone, spec = built(subject)
    heads = {cut: _head(backbone, spec, cut, EACH) for cut in spec.cuts}
    return {cut: (features, _tail(backbone, copied(features), cut)) for cut, features in heads.items()}


def pixels_for(spec: BackboneSpec, count: int, first: int = 0) -> Features:
    """``count`` samples for the model, each different."""
    name = "frames" if "frames" in spec.input else "image"
    return {name: from_eight_bits(pixels(spec.input, first + count)[first:])}


@torch.inference_mode()
def _head(backbone: Backbone, spec: BackboneSpec, cut: str, count: int, first: int = 0) -> Features:
    return backbone.head(pixels_for(spec, count, first), cut)


@torch.inference_mode()
def _tail(backbone: Backbone, features: Features, cut: str) -> Tensor:
    return backbone.tail(features, cut)


def _require_answer(answer: Tensor, spec: BackboneSpec, count: int, what: str) -> None:
    """What the task says, as logits (B, classes); of a detector (B, N, 4 + classes) with scores from 0 to 1."""
    task = get_task(spec.task)
    require_features({"answer": answer}, {"answer": task.output(len(CLASSES))}, what, batch=count)
    fault = task.output_fault(answer)
    require(fault is None, f"{what} gives {fault}")
