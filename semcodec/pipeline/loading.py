"""From a composition, or a stream's header, to models with their weights: both ends, or one without the other.

An end that stands alone builds and reads its half. What the header says of the other half's weights, and the names of
weights of which it holds a part, stand in the cards of the weights files. Where a file has no such card (another
library's, or of before cards said so), or weights are random, whole models are built and named as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial as given
from typing import Any, TypeVar

from torch import nn

from semcodec.coding.rounds import TwoRounds
from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.composition.resolution import INPUT
from semcodec.container.packets import StreamHeader, check_versions, check_weights
from semcodec.errors import UsageError, WeightsError
from semcodec.interfaces import Backbone, Encoder, Recoverer
from semcodec.pipeline import foreign, halves, shared_heads, weights
from semcodec.pipeline.stages import Builder, Stages, has_weights
from semcodec.pipeline.weights import Weights, WeightsRequest
from semcodec.tensors import single_precision

UNNAMED = 10
"""Classes of an untrained backbone whose data set is not known."""

T = TypeVar("T")


@dataclass(frozen=True)
class Half:
    """What one end is made of. The device's recoverer, and its backbone where the cut is the input, are not there.

    backbone: the device's, whose head runs. tails: by name, the server's that answer, of several those that are here.
    decoding: by slot, the digests of the weights that decoding uses, as the stream's header has them.
    """

    composition: Composition
    classes: Sequence[str]
    backbone: Backbone | None
    encoder: Encoder
    recoverer: Recoverer | None
    decoding: Mapping[str, str]
    sources: Mapping[str, Weights | None]
    digests: Mapping[str, str]
    tails: Mapping[str, Backbone] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """Both ends' models, and where their weights came from."""

    stages: Stages
    sources: Mapping[str, Weights | None]
    digests: Mapping[str, str]


@single_precision()
def load_whole(
    composition: Composition,
    request: WeightsRequest | None = None,
    *,
    classes: Sequence[str] | None = None,
    partial: bool = False,
) -> Whole:
    """Everything. partial: leave untrained what has no weights and download nothing. Raises WeightsError."""
    loader = _Loader(composition, request, classes, partial=partial)
    stages = loader.builder.build()
    loader.builder = replace(loader.builder, composition=stages.composition)
    for slot, module in stages.modules().items():
        loader.fill(slot, lambda module=module: module)  # type: ignore[misc]
    if not partial:
        shared_heads.compare(stages.composition, stages.tails)
        loader.check_encoder(stages.backbone)
    return Whole(stages, loader.sources, loader.digests)


@single_precision()
def load_device_half(
    composition: Composition,
    request: WeightsRequest | None = None,
    *,
    classes: Sequence[str] | None = None,
    replied: bool = False,
) -> Half:
    """Head, Encoder and its models. The Recoverer is built only where no card names its weights.

    replied: a server elsewhere answers first rounds, so that the Encoder's models have no memory here. Raises
    UsageError for an Encoder that has no second round.
    """
    if replied:
        return _load_replied(composition, request, classes)
    loader = _Loader(composition, request, classes, hub=False)
    c, builder = composition, loader.builder
    own = builder.own_models()
    asked = len(own) < len(c.models)  # by the Encoder, which is given the very backbone: sdt
    loader.hub = True
    backbone: Backbone | None = None
    if asked or c.cut != INPUT or c.source is None:
        backbone = loader.fill(c.head_slot, builder.backbone, None if asked else lambda m: m.head_state(c.cut))
    else:
        loader.name_only(c.head_slot)
    models = {name: loader.fill_model(name) for name in own}
    both = models if backbone is None else {c.head_slot: backbone, **models}
    loader.builder = builder = builder.informed(both)
    encoder = loader.fill_encoder(both, lambda m: m.device_state())
    if backbone is not None:
        loader.check_encoder(backbone)
    if not loader.name_only("recoverer"):
        loader.fill("recoverer", builder.recoverer)
    return loader.half(backbone, encoder, None)


def has_rounds(composition: Composition) -> bool:
    """Whether the Encoder asks its server back, so that device and server apart send two packets a sample."""
    return issubclass(composition.registry.load(composition.encoder.component), TwoRounds)


def _load_replied(composition: Composition, request: WeightsRequest | None, classes: Sequence[str] | None) -> Half:
    if not has_rounds(composition):
        raise UsageError(f"{composition.encoder.name} sends all in one round: load its device without a reply")
    loader = _Loader(composition, request, classes, hub=False)
    builder, shapes = loader.builder, dict[str, Backbone]()
    with halves.without_memory():
        shapes[composition.head_slot] = builder.backbone()
        shapes |= {name: builder.model(name) for name in builder.own_models()}
    for slot in shapes:
        loader.name_only(slot)
    loader.builder = builder = builder.informed(shapes)
    encoder = loader.fill_encoder(shapes)
    if not loader.name_only("recoverer"):
        loader.hub = True
        loader.fill("recoverer", builder.recoverer)
    return loader.half(shapes[composition.head_slot], encoder, None)


@single_precision()
def load_server_half(
    composition: Composition,
    request: WeightsRequest | None = None,
    *,
    classes: Sequence[str] | None = None,
    header: StreamHeader | None = None,
    replies: bool = False,
    tails: Collection[str] | None = None,
) -> Half:
    """Tails, Encoder and Recoverer. The Encoder's own models have no memory here: it is on the device that they run.

    tails: by name or task, those of several that are built; left out, all of them.
    header: of a stream that is to be decoded. Where what it asks for is not what is here, nothing is built.
    replies: the Encoder's own models are whole, since they answer first rounds.
    """
    loader = _Loader(composition, request, classes)
    if header is not None:
        check_versions(header, composition.reads)
        loader.compare(header)
    builder = loader.builder
    wanted = list(composition.tails) if tails is None else [composition.alone(one).backbone.name for one in tails]
    both: dict[str, Backbone] = {}
    for name, slot in zip(composition.tails, composition.slots, strict=True):
        if name in wanted:
            both[slot] = loader.fill(slot, given(builder.backbone, slot), lambda m: m.tail_state(composition.cut))
    answering = {name: both[slot] for name, slot in zip(composition.tails, composition.slots, strict=True)
                 if slot in both}  # fmt: skip
    shared_heads.compare_files(composition, answering, loader.sources)
    for name in builder.own_models():
        if replies:
            both[name] = loader.fill_model(name)
            continue
        loader.refuse_unknown(name)
        loader.sources[name] = None
        with halves.without_memory():
            both[name] = builder.model(name)
    loader.builder = builder = builder.informed(both)
    encoder = loader.fill_encoder(both, lambda m: m.server_state())
    first = next(iter(answering.values()))
    loader.check_encoder(first, next(iter(answering)))
    half = replace(loader.half(first, encoder, loader.fill("recoverer", builder.recoverer)), tails=answering)
    if header is not None:
        check_weights(header, half.decoding)
    return half


class _Loader:
    """Finds, builds and fills the models of one composition, slot by slot."""

    def __init__(
        self,
        composition: Composition,
        request: WeightsRequest | None,
        classes: Sequence[str] | None,
        *,
        partial: bool = False,
        hub: bool = True,
    ) -> None:
        self.request, self.partial, self.hub = request or WeightsRequest(), partial, hub and not partial
        self.request.check(composition)
        self.sources: dict[str, Weights | None] = {}
        self.digests: dict[str, str] = {}
        self.decoding: dict[str, str] = {}
        self.in_part: set[str] = set()
        self._found: dict[str, Weights | None] = {}
        self.builder = Builder(composition, (), self.request.given)
        named = {slot: class_names(composition, self.find(slot), classes, slot) for slot in composition.slots}
        self.builder = Builder(composition, named[composition.head_slot], self.request.given, named)
        if not hub:
            self._found.clear()

    @property
    def composition(self) -> Composition:
        return self.builder.composition

    def find(self, slot: str) -> Weights | None:
        """The weights of a slot, as far as they are here or may be downloaded."""
        if slot not in self._found:
            self._found[slot] = weights.find(self.composition, slot, self.request, hub=self.hub)
        return self._found[slot]

    def fill(self, slot: str, make: Callable[[], T], part: Callable[[T], Sequence[str] | None] | None = None) -> T:
        """A slot's model, built by ``make``, with its weights, or with those of them that ``part`` names.

        Raises WeightsError where it has some and none are found.
        """
        source = self.find(slot)
        named = source.digest if source else None
        if part is not None and source is not None and named:
            with halves.without_memory():
                model = make()
            if isinstance(model, nn.Module):
                weights.load(model, source, halves.part(list(model.state_dict()), part(model)))
                self.sources[slot], self.digests[slot] = source, named
                self.in_part.add(slot)
                return model
        if source is None and not self.partial:
            self._refuse_without_weights(slot, make)
        model = make()
        if isinstance(model, nn.Module) and has_weights(self.composition, slot, model):
            if source is not None:
                weights.load(model, source)
            self.sources[slot], self.digests[slot] = source, weights.digest(model.state_dict())
            _compare_with_card(source, named, self.digests[slot])
        return model

    def fill_model(self, name: str) -> Backbone:
        """One of the Encoder's models, whole."""
        return self.fill(name, lambda: self.builder.model(name))

    def fill_encoder(
        self, backbones: Mapping[str, Backbone], part: Callable[[Encoder], Sequence[str] | None] | None = None
    ) -> Encoder:
        """The Encoder, whose weights are those of its models where it has some; and what decoding uses of them."""
        if self.composition.models:
            return self.builder.encoder(backbones)
        encoder = self.fill("encoder", lambda: self.builder.encoder(backbones), part)
        if "encoder" in self.sources and (found := self._decoding_of(encoder)):
            self.decoding["encoder"] = found
        return encoder

    def check_encoder(self, backbone: Backbone, name: str | None = None) -> None:
        """Raise WeightsError for an Encoder that learned behind another head. name: of another than the first."""
        slots = dict(zip(self.composition.tails, self.composition.slots, strict=True))
        name = name or next(iter(slots))
        encoder, source = self.sources.get("encoder"), self.sources.get(slots[name])
        shared_heads.check_encoder(self.composition, encoder, name, backbone, source)

    def _decoding_of(self, encoder: Encoder) -> str:
        """The name of what decoding uses of the Encoder: as it is, or as the card says where not all of it is here."""
        source = self.sources["encoder"]
        named = source.decoding_digest if source else None
        if named is not None and "encoder" in self.in_part and type(encoder).decoder_state is Encoder.decoder_state:
            return named
        state = encoder.decoder_state()
        if named is not None and any(tensor.is_meta for tensor in state.values()):
            return named
        found = weights.digest(state) if state else ""
        _compare_with_card(source, named, found)
        return found

    def name_only(self, slot: str) -> bool:
        """Take a slot's name from its card, without building it; False where there is none."""
        source = weights.find(self.composition, slot, self.request, hub=False)
        if source is None or not source.digest:
            return False
        self.sources[slot], self.digests[slot] = source, source.digest
        return True

    def compare(self, header: StreamHeader) -> None:
        """Raise WeightsMismatch where the cards of the weights that are found name others than a header does."""
        here = dict(header.weights)
        for slot in header.weights:
            if slot not in ("encoder", "recoverer"):
                continue  # which check_weights tells of
            source = self.find(slot)
            named = source and (source.decoding_digest if slot == "encoder" else source.digest)
            if named:
                here[slot] = named
        check_weights(header, here)

    def refuse_unknown(self, name: str) -> None:
        """Raise WeightsError for a model of a whole family of which nothing is here: a header may name any."""
        if "/" in self.composition.models[name].name and self.find(name) is None:
            raise WeightsError(_no_weights(self.composition, name))

    def half(self, backbone: Backbone | None, encoder: Encoder, recoverer: Recoverer | None) -> Half:
        if "recoverer" in self.digests:
            self.decoding["recoverer"] = self.digests["recoverer"]
        sources, digests = self.ordered(self.sources), self.ordered(self.digests)
        classes = self.builder.classes if backbone is None else backbone.classes
        if self.composition.seen is not None:
            classes = self.builder.named[self.composition.slot]
        return Half(self.composition, classes, backbone, encoder, recoverer, self.decoding, sources, digests)

    def ordered(self, by_slot: Mapping[str, T]) -> dict[str, T]:
        """In the order in which records name slots."""
        slots = ("encoder", *self.composition.models, "recoverer", *self.composition.slots)
        return {slot: by_slot[slot] for slot in slots if slot in by_slot}

    def _refuse_without_weights(self, slot: str, make: Callable[[], Any]) -> None:
        """Raise WeightsError, at once where a component says it has weights, else without taking memory."""
        component = _bound(self.composition, slot).component
        says = slot != "encoder" and (component.weights or component.traits.get("hub"))
        if not says:  # an Encoder's may be its Recoverer's alone
            with halves.without_memory():
                model = make()
            if not (isinstance(model, nn.Module) and has_weights(self.composition, slot, model)):
                return
        raise WeightsError(_no_weights(self.composition, slot))


def _compare_with_card(source: Weights | None, named: str | None, found: str) -> None:
    if source is not None and named is not None and named != found:
        raise WeightsError(f"{source.origin} is damaged: its card names the weights {named}, and they are {found}")


def decoding_digests(stages: Stages, digests: Mapping[str, str]) -> dict[str, str]:
    """By slot, the digests of the weights that decoding uses, of models that are whole."""
    found: dict[str, str] = {}
    if "encoder" in digests and (state := stages.encoder.decoder_state()):
        found["encoder"] = weights.digest(state)
    if "recoverer" in digests:
        found["recoverer"] = digests["recoverer"]
    return found


def _bound(composition: Composition, slot: str) -> Bound:
    slots = {"encoder": composition.encoder, "recoverer": composition.recoverer, **composition.slots}
    return {**composition.models, **slots}[slot]


def _no_weights(composition: Composition, slot: str) -> str:
    message = (
        f"no weights for {composition.weights_key(slot)}: give --weights {slot}=PATH, "
        "train them with semcodec train, or say --weights random to run it untrained"
    )
    fallback = composition.recoverer.component.traits.get("fallback") if slot == "recoverer" else None
    return f"{message}; {fallback}, in its place in the spec, needs none" if fallback else message


def class_names(
    composition: Composition,
    found: weights.Weights | None,
    classes: Sequence[str] | None,
    slot: str | None = None,
) -> Sequence[str]:
    """Of a slot's Backbone: as the weights name them; else as those that are published do, then as the data does."""
    bound = composition.slots[slot or composition.head_slot]
    if found and found.classes:
        return found.classes
    published = composition.registry.load(bound.component).published_classes(**bound.build)
    if found and found.path:
        named = foreign.class_names(found.path)
        count = None if named else foreign.class_count(found.path)
        if count is not None:
            own = [f"class {i}" for i in range(count)]
            return next((names for names in (published, classes) if names and len(names) == count), own)
        return named or published or classes or _numbered(bound)
    return classes or published or _numbered(bound)


def _numbered(bound: Bound) -> list[str]:
    return [f"class {i}" for i in range(bound.component.traits.get("classes", UNNAMED))]
