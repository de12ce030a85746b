"""Checks of Backbones: the two halves agree with the spec, with each other and with any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.composition import resolve_backbone
from semcodec.interfaces import Backbone, Features
from semcodec.pixels import from_eight_bits
from semcodec.specs import BackboneSpec, FeatureSpec
from semcodec.testing.stand_ins import smallest
from semcodec.testing.subject import Subject, no_draws, require
from semcodec.testing.tensors import close, copied, pixels, require_features, same

CLASSES = ("one", "two", "three")


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    yield check_spec
    yield check_cuts_agree
    yield check_batch
    yield check_part_of_the_input
    yield check_repeatable


def check_spec(subject: Subject) -> None:
    """The first cut is the input; heads give what is declared, tails finite logits of every class."""
    backbone, spec = built(subject)
    require(next(iter(spec.cuts)) == "input", "its first cut is not 'input'")
    unknown = [cut for cut in spec.tail if cut not in spec.cuts]
    require(not unknown, f"declares what the tail takes at {unknown}, which are no cuts")
    require(list(backbone.classes) == list(CLASSES), "does not keep the class names it was given")
    for cut, features in spec.cuts.items():
        given = _head(backbone, spec, cut, 2)
        require_features(given, features, f"the head's output at {cut}", batch=2)
        _require_logits(_tail(backbone, given, cut), 2, f"the tail at {cut}")


def check_cuts_agree(subject: Subject) -> None:
    """Wherever the model is cut, both halves together are the same model."""
    backbone, spec = built(subject)
    whole = _tail(backbone, _head(backbone, spec, "input", 2), "input")
    for cut in spec.cuts:
        require(close(_tail(backbone, _head(backbone, spec, cut, 2), cut), whole), f"cut at {cut} it is another model")


def check_batch(subject: Subject) -> None:
    """A sample's logits do not depend on the samples beside it, and ``collate`` loses none."""
    backbone, spec = built(subject)
    for cut in spec.cuts:
        features = _head(backbone, spec, cut, 3)
        together = _tail(backbone, features, cut)
        singles = [{name: t[row : row + 1] for name, t in features.items()} for row in range(3)]
        for row, single in enumerate(singles):
            equal = close(_tail(backbone, single, cut)[0], together[row])
            require(equal, f"logits of sample {row} depend on the samples beside it, cut at {cut}")
        groups = backbone.collate(singles)
        require(sorted(row for rows, _ in groups for row in rows) == [0, 1, 2], "collate loses or repeats samples")
        for rows, batch in groups:
            equal = close(_tail(backbone, batch, cut), together[rows])
            require(equal, f"a collated batch has other logits than its samples, cut at {cut}")


def check_part_of_the_input(subject: Subject) -> None:
    """Where the tail leaves the first axis open (frames of a clip), it takes any part of it, in order."""
    backbone, spec = built(subject)
    forms = [(cut, form) for cut in spec.cuts for form in spec.accepts(cut)]
    for cut, wide in forms:
        if wide.keys() != spec.cuts[cut].keys():
            continue  # another form than the head gives
        names = [name for name, t in wide.items() if t.shape and t.shape[0] is None]
        total = min((spec.cuts[cut][name].shape[0] or 1 for name in names), default=0)
        features = _head(backbone, spec, cut, 2)
        for kept in {(0,), (total - 1,), (0, total // 2), tuple(range(0, total, 3))} if names else ():
            part = {name: t[:, list(kept)] if name in names else t for name, t in features.items()}
            _require_logits(_tail(backbone, part, cut), 2, f"the tail at {cut} with {len(kept)} of {total}")


def check_repeatable(subject: Subject) -> None:
    """The same features give the same logits to the bit, are not altered, and nothing else changes."""
    backbone, spec = built(subject)
    for cut in spec.cuts:
        with no_draws():
            features = _head(backbone, spec, cut, 2)
            before = copied(features)
            logits = _tail(backbone, features, cut)
        require(same(features, before), f"the tail at {cut} alters its input")
        require(torch.equal(_tail(backbone, features, cut), logits), f"other logits the second time, cut at {cut}")
    require(not isinstance(backbone, nn.Module) or not backbone.training, "switches to training by itself")


@lru_cache(maxsize=1)
def built(subject: Subject) -> tuple[Backbone, BackboneSpec]:
    """The backbone, untrained, for the smallest input it takes."""
    known = subject.component.spec is not None
    text = smallest(subject.component, subject.registry)[0] if known else f"backbone/{subject.component.name}"
    resolved = resolve_backbone(text, subject.registry)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone: Backbone = subject.registry.load(subject.component)(list(CLASSES), **resolved.bound.build)
    spec = resolved.spec or backbone.spec
    require(spec is not None, "has no spec function and sets no spec when it is built")
    assert spec is not None
    if isinstance(backbone, nn.Module):
        backbone.requires_grad_(False).eval()
    return backbone, spec


@torch.inference_mode()
def _head(backbone: Backbone, spec: BackboneSpec, cut: str, count: int) -> Features:
    given: FeatureSpec = spec.input
    name = "frames" if "frames" in given else "image"
    x = from_eight_bits(pixels(given, count))
    return backbone.head({name: x}, cut)


@torch.inference_mode()
def _tail(backbone: Backbone, features: Features, cut: str) -> Tensor:
    return backbone.tail(features, cut)


def _require_logits(logits: Tensor, count: int, what: str) -> None:
    right = logits.dtype == torch.float32 and logits.shape == (count, len(CLASSES))
    require(right, f"{what} gives {logits.dtype}{tuple(logits.shape)}, not float32 logits ({count}, {len(CLASSES)})")
    require(bool(torch.isfinite(logits).all()), f"{what} gives NaN or infinity")
