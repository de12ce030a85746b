"""Specs as streams and records have them: they mean what they meant when they were written, whatever defaults are now.

A component whose defaults change raises its ``stream_version``, which every stream's header and every record names, and
its parameters keep the ``earlier`` ones. Selectors that an Encoder had anyway are its trait ``earlier_selectors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from semcodec.component import Component
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.grammar import Arg, Item, Spec, parse
from semcodec.composition.registry import Registry, get_registry
from semcodec.errors import SemcodecError


@dataclass(frozen=True)
class Restated:
    """spec: as it is to be written today. versions: by "kind/name", the stream versions from which it means that."""

    spec: str
    versions: Mapping[str, int]


def restate(text: str, versions: Mapping[str, Any], registry: Registry | None = None) -> Restated:
    """A stored spec as it is to be written today: what it means by defaults that have changed is named.

    versions: stream versions by "kind/name", as of a header's ``components``; one that is not there is 1. Components
    that are not installed stay as they are. Raises SpecError for text that is no spec.
    """
    registry = registry or get_registry()
    parsed = parse(text).items
    components = [_component(registry, item) for item in parsed]
    selects = any(component and component.kind == "selector" for component in components)
    items: list[Item] = []
    since: dict[str, int] = {}
    for item, component in zip(parsed, components, strict=True):
        if component is None:
            items.append(item)
            continue
        key = f"{component.kind}/{component.name}"
        version = versions.get(key, 1)
        named = {arg.key or component.positional for arg in item.args}
        old = {p.name: value for p in component.params if (value := _of(p.earlier, version)) is not None}
        more = [Arg(name, value) for name, value in old.items() if name not in named]
        selectors = _of(component.traits.get("earlier_selectors", {}), version) or ()
        items.append(replace(item, args=(*item.args, *more)) if more else item)
        items += [] if selects else [one for written in selectors for one in parse(written).items]
        if old or selectors:
            since[key] = 1 + max(last for p in component.params for last in p.earlier)
    return Restated(str(Spec(tuple(items))) if list(parsed) != items else text, since)


def compose_stored(text: str, versions: Mapping[str, Any], registry: Registry | None = None) -> Composition:
    """What a stored spec composes: see ``restate`` and ``compose_spec``."""
    return compose_spec(restate(text, versions, registry).spec, registry)


def _component(registry: Registry, item: Item) -> Component | None:
    kinds = registry.kinds(item.name)
    if not kinds or item.kind not in (None, *kinds):  # without asking what was meant
        return None
    try:
        return registry.find(item.name, item.kind or (kinds[0] if len(kinds) == 1 else None))
    except SemcodecError:
        return None


def _of(earlier: Mapping[int, Any], version: Any) -> Any:
    """The default of a version, where it is not today's: the first of the ``earlier`` ones that still held then."""
    return next((earlier[last] for last in sorted(earlier) if isinstance(version, int) and version <= last), None)
