"""Checks of Recoverers, on every stand-in's features that they take.

Masks are of two sorts: one entry a place, with a channel axis (third from the end; of tokens, the last) of length one;
and, of maps, one entry a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.errors import SemcodecError
from semcodec.interfaces import Recoverer
from semcodec.specs import FeatureSpec, SpecMismatch, TensorSpec, describe
from semcodec.testing.side_effects import witness
from semcodec.testing.stand_ins import surroundings, with_stand_ins
from semcodec.testing.subject import Act, Subject, no_draws, require, settings, skip_unless
from semcodec.testing.tensors import (
    close,
    copied,
    has_parameters,
    octets,
    require_features,
    require_gradient,
    same,
    weighed,
)
from semcodec.types import Features, Partial

COLOURS = 3
"""Channels of pixels, which come together or not at all."""

Case = tuple[Recoverer, FeatureSpec, FeatureSpec]
"""The Recoverer, what it is given, what it says it gives."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of Recoverers, in the order in which a failure is best understood."""
    yield check_builds
    yield check_spec
    yield check_present_passes
    yield check_complete_unchanged
    yield check_batch
    yield check_repeatable
    yield check_gradient


def acts(subject: Subject) -> list[Act]:
    """What is recovered of features with gaps."""

    def act(recoverer: Recoverer, taken: FeatureSpec) -> Act:
        def do(who: Recoverer, number: int) -> bytes:
            given = partial(taken, number + 1, 0.4)
            return octets(_recover(who, Partial(_row(given.features, number), _row(given.present, number))))

        return Act(describe(taken), recoverer, do)

    return [act(recoverer, taken) for recoverer, taken, _ in cases(subject)]


def check_builds(subject: Subject) -> None:
    """Features of some backbone fit it."""
    cases(subject)


def check_spec(subject: Subject) -> None:
    """What comes out has the declared shapes and dtypes and is finite, whatever part is missing."""
    for recoverer, taken, given in cases(subject):
        for lacking in (partial(taken, 2, 0.0), partial(taken, 2, 1.0), *partials(taken, 2)):
            recovered = _recover(recoverer, lacking)
            require_features(recovered, given, f"what is recovered of {describe(taken)}", batch=2)


def check_present_passes(subject: Subject) -> None:
    """What was received comes out as it was received; only what is missing is filled. Not where shapes change."""
    for recoverer, taken, declared in cases(subject):
        for given in partials(taken, 2):
            recovered = _recover(recoverer, given)
            for name, mask in given.present.items():
                if declared.get(name) != taken[name]:
                    continue
                kept = mask.bool().expand_as(given.features[name])
                passes = close(recovered[name][kept], given.features[name][kept])
                require(passes, f"changes values of {name} that were received ({describe(taken)})")


def check_complete_unchanged(subject: Subject) -> None:
    """Features of which nothing is missing pass, marked as complete or not marked at all. Not where shapes change."""
    for recoverer, taken, declared in cases(subject):
        for what, given in (
            ("without masks", Partial(features(taken, 2))),
            ("with masks of ones", partial(taken, 2, 1.0)),
        ):
            recovered = _recover(recoverer, given)
            for name, tensor in given.features.items():
                same_shape = declared.get(name) == taken[name]
                require(
                    not same_shape or close(recovered[name], tensor),
                    f"changes complete {name} {what} ({describe(taken)})",
                )


def check_batch(subject: Subject) -> None:
    """A sample is recovered alike alone and beside others."""
    for recoverer, taken, _ in cases(subject):
        for given in partials(taken, 3):
            together = _recover(recoverer, given)
            for row in range(3):
                alone = _recover(recoverer, Partial(_row(given.features, row), _row(given.present, row)))
                for name, tensor in alone.items():
                    equal = close(tensor, together[name][row : row + 1])
                    require(equal, f"{name} of sample {row} depends on the samples beside it ({describe(taken)})")


def check_repeatable(subject: Subject) -> None:
    """The same input gives the same bits, is not altered, and nothing else in the process changes."""
    for recoverer, taken, _ in cases(subject):
        given = partial(taken, 2, 0.4)
        before = Partial(copied(given.features), copied(given.present))
        with no_draws():
            first = copied(_recover(recoverer, given))
            again = _recover(recoverer, given)
        require(same(first, again), f"the same features give other values the second time ({describe(taken)})")
        kept = _recover(recoverer, given)
        values = copied(kept)
        _recover(recoverer, partial(taken, 2, 0.7))
        require(same(kept, values), f"what was recovered changes when more is ({describe(taken)})")
        untouched = same(given.features, before.features) and same(given.present, before.present)
        require(untouched, f"alters its input ({describe(taken)})")
        require(not isinstance(recoverer, nn.Module) or not recoverer.training, "switches to training by itself")


def check_gradient(subject: Subject) -> None:
    """A gradient reaches every parameter from what is recovered."""
    recoverer, taken, _ = cases(subject)[0]
    skip_unless(has_parameters(recoverer), "has no parameters")
    assert isinstance(recoverer, nn.Module)

    def loss(learner: nn.Module) -> Tensor:
        assert isinstance(learner, Recoverer)
        return sum((weighed(learner.recover(given)) for given in partials(taken, 2)), torch.zeros(()))

    require_gradient(recoverer, loss)


def features(spec: FeatureSpec, count: int) -> Features:
    """Random features in [0, 1); integers count up, as indices do."""
    draw = torch.Generator().manual_seed(0)

    def one(t: TensorSpec) -> Tensor:
        shape = (count, *(n or 1 for n in t.shape))
        if t.dtype.startswith("float"):
            return torch.rand(shape, generator=draw).to(getattr(torch, t.dtype))
        return torch.arange(shape[-1]).expand(shape).to(getattr(torch, t.dtype)).clone()

    return {name: one(t) for name, t in spec.items()}


def partial(spec: FeatureSpec, count: int, share: float) -> Partial:
    """Features of which a ``share`` of the places was received; the rest is zero."""
    given, draw, present = features(spec, count), torch.Generator().manual_seed(1), {}
    for name, tensor in given.items():
        if tensor.is_floating_point():
            places = list(tensor.shape)
            places[-3 if len(places) > 3 else -1] = 1
            present[name] = (torch.rand(places, generator=draw) < share).to(tensor.dtype)
            given[name] = tensor * present[name]
    return Partial(given, present)


def partials(spec: FeatureSpec, count: int) -> list[Partial]:
    """Features that lack places; and of maps those that lack half of the channels, three of four, seven of eight."""
    floats = {name: t.shape[0] or 1 for name, t in spec.items() if len(t.shape) == 3 and t.dtype.startswith("float")}
    maps = {name: channels for name, channels in floats.items() if channels > COLOURS}
    found = [partial(spec, count, 0.4)]
    for kept in {tuple(max(1, channels // part) for channels in maps.values()) for part in (2, 4, 8)} if maps else ():
        given, draw, present = features(spec, count), torch.Generator().manual_seed(2), {}
        for name, keep in zip(maps, kept, strict=True):
            order = torch.rand((count, maps[name]), generator=draw).argsort(1)
            present[name] = (order < keep).to(given[name].dtype)[..., None, None]
            given[name] = given[name] * present[name]
        found.append(Partial(given, present))
    return found


@lru_cache(maxsize=1)
def cases(subject: Subject) -> tuple[Case, ...]:
    """The Recoverer at every setting, on all stand-ins' features that it takes, or on a registered backbone's."""
    function = subject.registry.spec_function(subject.component)
    require(function is not None, "needs a spec function: what it gives must be known before it is built")
    assert function is not None
    with witness(subject.heard):
        return _cases(subject, function)


def _cases(subject: Subject, function: Callable[..., FeatureSpec]) -> tuple[Case, ...]:
    refusals: list[str] = []
    for places in surroundings(with_stand_ins(subject.registry), subject.component):
        found: list[Case] = []
        for _, _, taken in places:
            for setting in settings([p for p in subject.component.params if p.when == "build"]):
                params = {p.name: p.default for p in subject.component.params} | setting
                try:
                    given = function(taken, params)
                except (SpecMismatch, SemcodecError) as reason:
                    refusals.append(str(reason))
                    continue
                found.append((_build(subject, taken, setting), taken, given))
        if found:
            return tuple(found)
    require(False, f"no backbone's features fit it: {'; '.join(dict.fromkeys(refusals))}")
    return ()


def _build(subject: Subject, taken: FeatureSpec, setting: dict[str, Any]) -> Recoverer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recoverer: Recoverer = subject.make(taken, **setting)
    if isinstance(recoverer, nn.Module):
        recoverer.requires_grad_(False).eval()
    return recoverer


@torch.inference_mode()
def _recover(recoverer: Recoverer, given: Partial) -> Features:
    return recoverer.recover(given)


def _row(tensors: Features, row: int) -> Features:
    return {name: tensor[row : row + 1] for name, tensor in tensors.items()}
