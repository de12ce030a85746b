"""Binds items of a spec to components: finds the component, checks its arguments against its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from shutil import which
from typing import Any, NoReturn

from semcodec.component import Component, Kind, Param
from semcodec.composition.grammar import Arg, Item, Span, format_value
from semcodec.composition.registry import Registry, import_target
from semcodec.errors import PluginError, SpecError, UsageError, did_you_mean

_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}


@dataclass(frozen=True)
class Bound:
    """A component with its arguments settled.

    item: canonical: only what differs from the defaults.
    build, call: every parameter with its value, in declared order.
    """

    component: Component
    item: Item
    build: Mapping[str, Any]
    call: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The component's name."""
        return self.component.name

    @property
    def key(self) -> str:
        """Kind and name, as a stream's header has them."""
        return f"{self.component.kind}/{self.name}"

    @property
    def params(self) -> dict[str, Any]:
        """Build and call parameters together, in declared order."""
        both = {**self.build, **self.call}
        return {p.name: both[p.name] for p in self.component.params}

    @property
    def weights_item(self) -> str:
        """The item with its build parameters only, without kind and target: what selects weights."""
        positional = self.component.positional
        weighing = {param.name for param in self.component.params if param.when == "build" and param.weighs}
        build = tuple(a for a in self.item.args if (a.key or positional) in weighing)
        return str(replace(self.item, kind=None, target=None, args=build))


@dataclass(frozen=True)
class Binder:
    """Binds the items of the spec ``text`` to the components of a registry."""

    registry: Registry
    text: str

    def fail(self, message: str, span: Span | None = None) -> NoReturn:
        """Raise SpecError about a span, or about the spec as a whole."""
        raise SpecError(message, self.text, span or (0, len(self.text)))

    def find(self, item: Item, kind: Kind | None = None) -> Component:
        """The item's component. Raises SpecError for an unknown name, PluginError for one claimed twice."""
        try:
            return self.registry.find(item.name, item.kind or kind)
        except UsageError as error:
            raise SpecError(str(error), self.text, item.span) from None

    def by_key(self, component: Component, item: Item) -> dict[str, Arg]:
        """The item's arguments by parameter name, a bare value under the positional one.

        Raises SpecError for an unknown parameter, a bare value that is not taken, a parameter given twice.
        """
        found: dict[str, Arg] = {}
        for arg in item.args:
            key = arg.key or component.positional
            if key is None:
                self.fail(f"{component.name} takes no bare value; {_known(component)}", arg.span)
            if component.param(key) is None:
                hint = did_you_mean(key, [p.name for p in component.params], _known(component))
                self.fail(f"{component.name} has no parameter {key!r}; {hint}", arg.span)
            if key in found:
                self.fail(f"{key} of {component.name} is given twice", arg.span)
            found[key] = replace(arg, key=key)
        return found

    def bind(self, component: Component, item: Item, args: Mapping[str, Arg] | None = None) -> Bound:
        """Settle every parameter, from ``args`` if given, else from the item. Raises SpecError."""
        args = self.by_key(component, item) if args is None else args
        values: dict[str, Any] = {}
        kept = []
        for param in component.params:
            arg = args.get(param.name)
            values[param.name] = param.default if arg is None else self._checked(component, param, arg)
            if arg is not None and values[param.name] != param.default:
                key = None if param.name == component.positional else param.name
                kept.append(Arg(key, values[param.name], arg.span))
        build = {p.name: values[p.name] for p in component.params if p.when == "build"}
        call = {p.name: values[p.name] for p in component.params if p.when == "call"}
        kind = component.kind if len(self.registry.kinds(component.name)) > 1 else None
        return Bound(component, replace(item, kind=kind, args=tuple(kept)), build, call)

    def _checked(self, component: Component, param: Param, arg: Arg) -> Any:
        name = f"{param.name} of {component.name}"
        value, given = _coerced(param.type, arg.value), format_value(arg.value)
        if value is None:
            self.fail(f"{name} takes {_TYPES[param.type]}, not {given}", arg.span)
        if param.values and not param.open and value not in param.values:
            allowed = ", ".join(format_value(v) for v in param.values)
            self.fail(f"{name} is one of {allowed}, not {given}", arg.span)
        if (param.low is not None and value < param.low) or (param.high is not None and value > param.high):
            self.fail(f"{name} must be {_bounds(param)}, not {given}", arg.span)
        return value


def _coerced(kind: type, value: Any) -> Any:
    """The value as ``kind``, or None where it is none. A number may stand for a word, never the other way round."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return value if isinstance(value, str) else format_value(value)
    if not isinstance(value, int | float) or not isfinite(value):
        return None
    if kind is float:
        return float(value)
    return int(value) if value == int(value) else None


def _bounds(param: Param) -> str:
    if param.low is None or param.high is None:
        return f"at most {param.high:g}" if param.low is None else f"at least {param.low:g}"
    return f"from {param.low:g} to {param.high:g}"


def _known(component: Component) -> str:
    names = [p.name for p in component.params]
    return f"its parameters are {', '.join(names)}" if names else "it has no parameters"


def check_possible(bounds: Iterable[Bound]) -> None:
    """Raise for components that cannot run here, whatever is downloaded: PluginError for a program that is not on PATH,

    UsageError for a member that its family has not, where the trait ``known`` can tell. Imports no model.
    """
    for bound in bounds:
        absent = [program for program in bound.component.traits.get("programs", ()) if which(program) is None]
        if absent:
            raise PluginError(f"{bound.name} needs {' and '.join(absent)}: install it so that it is on PATH")
        if known := bound.component.traits.get("known"):
            import_target(known, bound.name)(**bound.build)
