"""Looks components up by name and imports them when they are used.

A component named ``timm/*`` stands for every name that begins so; its record for ``timm/resnet50`` has that name and
one more build parameter, ``model``, which is "resnet50".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import Any, Literal

from semcodec.component import KINDS, Component, Kind, Param
from semcodec.composition.discovery import Failure, Loaded, Plugin, load_plugins
from semcodec.composition.supervision import prints_to_stderr
from semcodec.errors import PluginError, UsageError, cure, did_you_mean


@dataclass(frozen=True)
class Row:
    """One line of ``plugins list``. ``kind`` is None for a plugin that failed to load; ``remedy`` is "" if ok."""

    kind: Kind | None
    name: str
    status: Literal["ok", "broken", "clash", "missing"]
    distribution: str
    version: str
    license: str
    summary: str
    remedy: str


class Registry:
    """The components of the loaded plugins, by kind and name."""

    def __init__(self, loaded: Loaded) -> None:
        self.failures: tuple[Failure, ...] = loaded.failures
        self._claims: dict[tuple[Kind, str], list[tuple[Component, Plugin]]] = {}
        for plugin in loaded.plugins:
            for component in plugin.components:
                self._claims.setdefault((component.kind, component.name), []).append((component, plugin))

    @classmethod
    def of(cls, components: Iterable[Component]) -> Registry:
        """A registry of just these, not installed anywhere."""
        return cls(Loaded((Plugin("local", "0", "local", tuple(components)),), ()))

    def __iter__(self) -> Iterator[Component]:
        """Every component, by kind and then by name."""
        for key in self._keys():
            yield from (component for component, _ in self._claims[key])

    def names(self, kind: Kind | None = None) -> list[str]:
        """The known names of one kind, or of all, in order."""
        return sorted({name for k, name in self._claims if kind in (None, k)})

    def kinds(self, name: str) -> list[Kind]:
        """The kinds that have a component of this name."""
        return [kind for kind in KINDS if self._key(kind, name) in self._claims]

    def find(self, name: str, kind: Kind | None = None) -> Component:
        """The component of this name, of this kind if one is given.

        Raises UsageError where the name is unknown or stands for several kinds, PluginError where two
        plugins claim it.
        """
        kinds = [k for k in self.kinds(name) if kind in (None, k)]
        if not kinds:
            raise UsageError(self._unknown(name, kind))
        if len(kinds) > 1:
            raise UsageError(f"{name!r} is ambiguous: write {' or '.join(f'{k}/{name}' for k in kinds)}")
        key = self._key(kinds[0], name)
        claims = self._claims[key]
        if len(claims) > 1:
            raise PluginError(f"{kinds[0]} {name!r} is claimed by {_clash(claims)}")
        return claims[0][0] if key[1] == name else _one_of(claims[0][0], name)

    def origin(self, component: Component) -> tuple[str, str]:
        """Distribution and version that the component came with."""
        plugin = self._claims[self._key(component.kind, component.name)][0][1]
        return plugin.distribution, plugin.version

    def load(self, component: Component) -> Any:
        """Import the component's class. Raises PluginError with the remedy where that cannot be done."""
        if reason := lacking(component):
            raise PluginError(reason)
        return import_target(component.target, component.name)

    def spec_function(self, component: Component) -> Callable[..., Any] | None:
        """The component's torch-free spec function, or None if it has none. Raises PluginError."""
        return import_target(component.spec, component.name) if component.spec else None

    def rows(self) -> list[Row]:
        """What ``plugins list`` prints: every component, then every plugin that failed to load."""
        rows = []
        for key in self._keys():
            claims = self._claims[key]
            for c, plugin in claims:
                status: Literal["ok", "clash", "missing"] = "ok"
                remedy = missing(c)
                if len(claims) > 1:
                    status, remedy = "clash", f"claimed by {_clash(claims)}"
                elif remedy:
                    status = "missing"
                rows.append(Row(*key, status, plugin.distribution, plugin.version, c.license, c.summary, remedy))
        rows += [
            Row(None, f.entry_point, "broken", f.distribution, f.version, "", f.reason, f.remedy) for f in self.failures
        ]
        return rows

    def _key(self, kind: Kind, name: str) -> tuple[Kind, str]:
        """Under what a name is claimed: itself, or the family it belongs to."""
        family = f"{name.partition('/')[0]}/*"
        return (kind, family if "/" in name and (kind, name) not in self._claims else name)

    def _keys(self) -> list[tuple[Kind, str]]:
        return sorted(self._claims, key=lambda key: (KINDS.index(key[0]), key[1]))

    def _unknown(self, name: str, kind: Kind | None) -> str:
        names = self.names(kind)
        what = kind or "component"
        close = did_you_mean(name, names, most=3)
        elsewhere = self.kinds(name)
        if elsewhere:
            message = f"{name!r} is no {kind} but of kind {' and '.join(elsewhere)}"
        elif close:
            message = f"unknown {what} {name!r}: {close}"
        elif not names:
            message = f"unknown {what} {name!r}: no plugin that offers one is installed"
        else:
            more = ", ..." if len(names) > 12 else ""
            message = f"unknown {what} {name!r}: there are {', '.join(names[:12])}{more}"
        if self.failures:
            broken = ", ".join(sorted({f.distribution for f in self.failures}))
            message += f" (plugins failed to load: {broken}; see 'semcodec plugins list')"
        return message


@cache
def get_registry() -> Registry:
    """The registry of everything installed, made once per process."""
    return Registry(load_plugins())


def missing(component: Component) -> str:
    """What to install before the component can be imported, or "" if nothing. Imports nothing."""
    packages = [name.partition(".")[0] for name in component.requires]  # finding a submodule would import its parent
    absent = [name for name in packages if not _installed(name)]
    if absent and (told := component.traits.get("remedy")):
        return str(told)
    programs = [name for name in component.traits.get("programs", ()) if which(name) is None]
    if not absent:
        return f"install {' and '.join(programs)} so that it is on PATH" if programs else ""
    return f"pip install 'semcodec[{component.extra}]'" if component.extra else f"pip install {' '.join(absent)}"


def lacking(component: Component) -> str:
    """The same in a line that also says what for, or "" if nothing."""
    needs = ", ".join((*component.requires, *component.traits.get("programs", ())))
    remedy = missing(component)
    return f"{component.name} needs {needs}: {remedy}" if remedy else ""


def import_target(path: str, name: str) -> Any:
    """Import "package.module:attribute" for the component ``name``. Raises PluginError, the original chained."""
    module, _, attribute = path.partition(":")
    try:
        with prints_to_stderr():
            return getattr(import_module(module), attribute)
    except Exception as error:
        if isinstance(error, ImportError) and (remedy := cure(error)):
            raise PluginError(f"{name} needs what is not here: {remedy}") from error
        first = next(iter(str(error).splitlines()), "")
        raise PluginError(f"{name} cannot be loaded from {path}: {type(error).__name__}: {first}") from error


def _one_of(family: Component, name: str) -> Component:
    member = name.partition("/")[2]
    model = Param("model", str, member, "which of the family", values=(member,), when="build")
    traits = {trait: value for trait, value in family.traits.items() if trait != "example"}  # a family's alone
    return replace(family, name=name, params=(*family.params, model), traits=traits)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # imported, but by something that left no spec
        return True
    except ImportError:  # something that looks for modules will have none of it
        return False


def _clash(claims: list[tuple[Component, Plugin]]) -> str:
    owners = list(dict.fromkeys(p.distribution for _, p in claims))
    if len(owners) == 1:
        return f"{owners[0]} more than once: its author must rename one"
    return (
        f"{' and '.join(f'{p.distribution} {p.version}' for _, p in claims)}: uninstall one, or set "
        f"SEMCODEC_DISABLE_PLUGINS={owners[-1]}"
    )
