"""A pipeline that is proven to fit before any of its stages is built.

A ``Composition`` resolves itself when it is made and raises where it cannot, so a wrong one does not exist.
Nothing here imports a method: stages are known by their records and their torch-free spec functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from semcodec.component import Component
from semcodec.composition.binding import Binder, Bound
from semcodec.composition.grammar import Arg, Item, Spec, parse, parse_item
from semcodec.composition.prefixes import SERVES
from semcodec.composition.registry import Registry, get_registry
from semcodec.composition.resolution import INPUT, ResolvedBackbone, StageSpecs, backbone_of, resolve
from semcodec.errors import UsageError, did_you_mean
from semcodec.specs import EXPORTED, BackboneSpec, InputRequest


def _port(port: Mapping[str, Any] | None) -> str | None:
    """What goes in or out of a stage, a tensor a line."""
    return None if port is None else "\n".join(f"{name} {spec}" for name, spec in port.items()) or None


@dataclass(frozen=True)
class Composition:
    """A pipeline whose every slot is filled and whose stages fit; equal to another of the same ``spec``.

    spec: canonical: encoder, selectors, recoverer, entropy, backbones by their names; defaults left out, the entropy
    stage never.
    given: the Encoder's parameters that the spec itself sets, be it to their default.
    call: the Encoder's call parameters in declared order, what a packet carries.
    keep: by target, in the Encoder's order, the Selector and its budget (None: the Selector decides by itself).
    tails: by name, the Backbones that answer: several share head and stream, and have a task each.
    needs: by name of these, how many layers of a packet it needs, from the first on.
    backbone: the one that this is seen with: of several the first, or the one ``alone`` names (``seen``).
    task: that Backbone's, or None if that is known only once it is built.
    source: the Backbone's spec, or None likewise. models: by parameter of the Encoder, the Backbones it is given.
    known: by item, specs of Backbones that only their being built told.

    Made by ``compose_spec``. Raises SpecError with a caret under the guilty item, or PluginError where a plugin
    is at fault.
    """

    parsed: Spec = field(repr=False, compare=False)
    registry: Registry = field(repr=False, compare=False)
    known: Mapping[str, BackboneSpec] = field(default_factory=dict, repr=False, compare=False)
    seen: str | None = None
    spec: str = field(init=False)
    encoder: Bound = field(init=False, repr=False, compare=False)
    given: frozenset[str] = field(init=False, repr=False, compare=False)
    keep: Mapping[str, tuple[Bound, int | float | None]] = field(init=False, repr=False, compare=False)
    gate: Bound | None = field(init=False, repr=False, compare=False)
    point: Bound | None = field(init=False, repr=False, compare=False)
    recoverer: Bound = field(init=False, repr=False, compare=False)
    entropy: Bound | None = field(init=False, repr=False, compare=False)
    backbone: Bound = field(init=False, repr=False, compare=False)
    cut: str = field(init=False, repr=False, compare=False)
    tails: Mapping[str, ResolvedBackbone] = field(init=False, repr=False, compare=False)
    needs: Mapping[str, int] = field(init=False, repr=False, compare=False)
    models: Mapping[str, Bound] = field(init=False, repr=False, compare=False)
    source: BackboneSpec | None = field(init=False, repr=False, compare=False)
    task: str | None = field(init=False, repr=False, compare=False)
    stages: StageSpecs = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        binder = Binder(self.registry, self.parsed.text)
        for name, value in resolve(self.parsed, binder, self.known, self.seen).items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return self.spec

    def _repr_html_(self) -> str:
        """For notebooks: every stage, where it runs, and what passes from it to the next."""
        from semcodec import _html

        passed = self.stages
        rows = [
            ("head", "device", self.backbone, passed.input, passed.features),
            *(("select", "device", bound, None, None) for bound in self.selectors),
            ("encode", "device", self.encoder, passed.features, passed.latent),
            ("entropy", "both", self.entropy, None, None),
            ("restore", "server", self.encoder, passed.latent, passed.restored),
            ("recover", "server", self.recoverer, passed.restored, passed.recovered),
            *(("tail", "server", tail.bound, passed.recovered, None) for tail in self.tails.values()),
        ]
        shown = [
            (stage, where, str(bound.item), _port(takes), _port(gives), bound.component.license)
            for stage, where, bound, takes, gives in rows
            if bound is not None
        ]
        headers = ("stage", "where", "component", "in", "out", "licence")
        return f"<p>{_html.code(self.spec)}</p>{_html.table(headers, shown)}"

    @property
    def call(self) -> Mapping[str, Any]:
        """The Encoder's call parameters by name, in declared order."""
        return self.encoder.call

    @property
    def request(self) -> InputRequest | None:
        """The pixels that the Backbone wants; None where that is known only once it is built."""
        if self.source is None:
            return None
        wanted = [InputRequest.of(tail.spec) for tail in self.tails.values() if tail.spec]
        sized = len(wanted) > 1 and any(one.placed for one in wanted)
        return replace(InputRequest.of(self.source), sized=sized)

    @property
    def tasks(self) -> tuple[str | None, ...]:
        """The tasks of all Backbones that answer, in their order."""
        return tuple(tail.task for tail in self.tails.values())

    @property
    def slots(self) -> dict[str, Bound]:
        """By slot, the Backbones that answer: "backbone", or of several the names."""
        several = len(self.tails) > 1
        return {name if several else "backbone": tail.bound for name, tail in self.tails.items()}

    @property
    def head_slot(self) -> str:
        """The slot of the Backbone whose head runs: the first."""
        return next(iter(self.slots))

    @property
    def slot(self) -> str:
        """The slot of the Backbone that this is seen with."""
        return self.head_slot if len(self.tails) == 1 else self.backbone.name

    def check_one(self) -> None:
        """Raise UsageError where several Backbones answer and this is seen with none of them."""
        if self.seen is None and len(self.tails) > 1:
            raise UsageError(f"{self.spec} is for several tasks: name one of {', '.join(map(str, self.tasks))}")

    def alone(self, name: str) -> Composition:
        """The same composition seen with one of its Backbones, by its name or its task. Raises UsageError."""
        found = [tail for tail, task in zip(self.tails, self.tasks, strict=True) if name in (tail, task)]
        if not found:
            tasks = ", ".join(str(task) for task in self.tasks)
            raise UsageError(f"{self.spec} has no task {name!r}; it has {tasks}")
        return replace(self, seen=found[0] if len(self.tails) > 1 else None)

    @property
    def layered_tasks(self) -> dict[str, int]:
        """By task, how many layers it needs; empty where the spec does not say."""
        name, _ = self._layer_parameters
        if not self.encoder.build.get(name):
            return {}
        return {str(task): self.needs[tail] for tail, task in zip(self.tails, self.tasks, strict=True)}

    @property
    def _layer_parameters(self) -> tuple[str, str]:
        """Of the Encoder: what says which tasks need how many layers, and how many are sent; "" where it has none."""
        names: tuple[str, str] = self.encoder.component.traits.get(SERVES, ("", ""))
        return names

    def served(self, layers: int) -> list[str]:
        """The tasks that so many layers of a packet serve."""
        return [str(t) for tail, t in zip(self.tails, self.tasks, strict=True) if self.needs[tail] <= layers]

    def lacks_layers(self, layers: int | None = None) -> str | None:
        """Why so many layers do not serve the task that this is seen with, in words; None where they do.

        layers: those that are there; left out, those that the call parameters send.
        """
        if layers is None:
            layers = int(self.call.get(self._layer_parameters[1], 0)) or None
        need = self.needs[self.backbone.name]
        if layers is None or layers >= need or (self.seen is None and len(self.tails) > 1):
            return None
        serve = " and ".join(self.served(layers)) or "no task"
        return f"{layers} layer{'s' * (layers > 1)} serve{'s' * (layers == 1)} {serve}, and {self.task} needs {need}"

    def for_tasks(self, names: Sequence[str]) -> Composition:
        """This composition where it sends only the layers that some of its tasks need, seen with the task if it is one.

        Layers that the spec itself names stay. Raises UsageError for a task that is not there, and for layers that do
        not serve it.
        """
        views = [self.alone(name) for name in names]
        _, knob = self._layer_parameters
        if knob in self.given:
            for view in views:
                if reason := view.lacks_layers():
                    raise UsageError(f"{knob}={self.call[knob]}: {reason}")
        elif views and self.layered_tasks:
            sent = self.with_call(**{knob: max(self.needs[view.backbone.name] for view in views)})
            return sent.alone(names[0]) if len(names) == 1 else sent
        return views[0] if len(views) == 1 else self

    @property
    def selectors(self) -> list[Bound]:
        """Every Selector once, those that keep in the order of their targets, then the gate, then the point."""
        return [*(bound for bound, _ in self.keep.values()), *filter(None, (self.gate, self.point))]

    @property
    def bounds(self) -> list[Bound]:
        """Every component of the pipeline in canonical order."""
        entropy = [self.entropy] if self.entropy else []
        return [self.encoder, *self.selectors, self.recoverer, *entropy, *self.slots.values()]

    @property
    def coding(self) -> list[Bound]:
        """The components whose versions a stream's header names: those that make its bytes."""
        return [self.encoder, self.recoverer, *([self.entropy] if self.entropy else [])]

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        """The stream versions that each of ``coding`` reads, by kind and name."""
        return {bound.key: bound.component.reads for bound in self.coding}

    def decoding_signature(self) -> str:
        """What two streams have in common that one server decodes: they may differ in what their packets tell."""
        backbones = [f"{bound.weights_item}@{self.cut}" for bound in self.slots.values()]
        return "+".join([*(bound.weights_item for bound in self.coding), *backbones])

    def weights_key(self, slot: str) -> str:
        """What weights of a slot are looked up by: call parameters and the entropy stage do not count.

        An Encoder's and a Recoverer's depend on where they sit: "stae+vit-nano@input".
        """
        model = self.slots.get(slot) or self.models.get(slot)
        if model is not None:
            return model.weights_item
        bound = {"encoder": self.encoder, "recoverer": self.recoverer, "entropy": self.entropy}.get(slot)
        if bound is None:
            raise UsageError(f"{self.spec} has no single {slot} with weights")
        if slot == "entropy":
            return bound.weights_item
        backbones = (parse_item(tail.weights_item) for tail in self.slots.values())
        return "+".join([bound.weights_item, *(str(replace(item, target=self.cut)) for item in backbones)])

    def with_call(self, **overrides: Any) -> Composition:
        """The same pipeline at other call parameters of the Encoder, checked anew."""
        for name in overrides:
            if name not in self.call:
                hint = did_you_mean(name, self.call, f"there are: {', '.join(self.call) or 'none'}")
                raise UsageError(f"{self.encoder.name} has no call parameter {name!r}; {hint}")
        return self._with(list(parse(self.spec).items), 0, self.encoder.component, overrides)

    def weights_signature(self) -> str:
        """What two pipelines have in common that differ in call parameters of the Encoder alone; no spec."""
        bounds = [bound for bound in self.bounds if bound not in (self.encoder, self.point)]
        return "+".join([self.encoder.weights_item, *(str(bound.item) for bound in bounds), self.cut])

    def with_args(self, name: str, **overrides: Any) -> Composition:
        """The same pipeline with other arguments of one component, checked anew: what a sweep varies.

        ``name``: as in the spec, ``top-k@frames`` where it stands there twice.
        """
        shown = list(parse(self.spec).items)
        found = [b for b in self.bounds if name in (b.name, f"{b.name}@{b.item.target}")]
        if len(found) > 1:
            options = " or ".join(f"{b.name}@{b.item.target}" for b in found)
            raise UsageError(f"{name!r} is there more than once: write {options}")
        if not found:
            names = ", ".join(dict.fromkeys(b.name for b in self.bounds))
            raise UsageError(f"{self.spec} has no component {name!r}; there are {names}")
        if found[0].item not in shown:  # a default, that the spec leaves out
            shown.append(found[0].item)
        return self._with(shown, shown.index(found[0].item), found[0].component, overrides)

    def _with(self, items: list[Item], at: int, component: Component, overrides: Mapping[str, Any]) -> Composition:
        for key, value in overrides.items():
            if not isinstance(value, bool | int | float | str):
                raise UsageError(f"{key} takes a number, a word or true or false, not {value!r}")
        positional = component.positional
        args = [a for a in items[at].args if (a.key or positional) not in overrides]
        args += [Arg(None if key == positional else key, value) for key, value in overrides.items()]
        items = [*items[:at], replace(items[at], args=tuple(args)), *items[at + 1 :]]
        return Composition(parse(str(Spec(tuple(items)))), self.registry, self.known, self.seen)

    def with_built_specs(self, built: Mapping[str, BackboneSpec]) -> Composition:
        """The same pipeline, checked anew with what building its Backbones told. ``built``: specs by weights item."""
        return replace(self, known={**self.known, **built})

    def licenses(self) -> dict[str, str]:
        """SPDX name of the licence by component name."""
        return {bound.name: bound.component.license for bound in self.bounds}


def compose_spec(text: str, registry: Registry | None = None) -> Composition:
    """Parse, fill the slots and check that the stages fit. Raises SpecError, PluginError, UsageError for a file."""
    if text.endswith(EXPORTED):
        raise UsageError(
            f"{text} is a device's file, which encode, send, inspect and Device.load take; name a spec here"
        )
    return Composition(parse(text), registry or get_registry())


def resolve_backbone(text: str, registry: Registry | None = None) -> ResolvedBackbone:
    """A spec that names a Backbone alone, as for training it. Raises SpecError, PluginError."""
    item = parse_item(text)
    binder = Binder(registry or get_registry(), text.strip())
    component = binder.find(item)
    if component.kind != "backbone":
        binder.fail(f"a backbone is expected here, and {component.name} is of kind {component.kind}", item.span)
    return backbone_of(binder, item, component, INPUT, item, {})
