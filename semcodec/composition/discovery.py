"""Finds installed plugins and asks each for its components; one that fails is recorded, never fatal.

pluggy's own ``load_setuptools_entrypoints`` lets the first broken plugin end the program, so the loop is here.

Environment: ``SEMCODEC_DISABLE_PLUGINS=dist,dist`` leaves distributions out unimported;
``SEMCODEC_STRICT_PLUGINS=1`` raises the first failure, for plugin authors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import islice

import pluggy

from semcodec.component import API, KINDS, Component
from semcodec.composition.grammar import NAME
from semcodec.composition.supervision import COMPONENTS, TooSlow, supervised
from semcodec.errors import PluginError
from semcodec.hookspecs import GROUP, Hooks

_FIELD = re.compile(r"\b(Component|Param)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


class NewerApi(PluginError):
    """A component is made for a contract that this semcodec does not know yet."""


@dataclass(frozen=True)
class Plugin:
    """A loaded entry point and what it yielded."""

    distribution: str
    version: str
    entry_point: str
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Failure:
    """An entry point that could not be used: ``reason`` and ``remedy`` in one line each, ``error`` as raised."""

    distribution: str
    version: str
    entry_point: str
    reason: str
    error: BaseException
    remedy: str = ""


@dataclass(frozen=True)
class Loaded:
    """Everything that is installed, in order of distribution and entry point."""

    plugins: tuple[Plugin, ...]
    failures: tuple[Failure, ...]


@cache
def load_plugins() -> Loaded:
    """Load every installed plugin, once per process. Raises PluginError only in strict mode."""
    disabled = {_normal(name) for name in os.environ.get("SEMCODEC_DISABLE_PLUGINS", "").split(",")}
    strict = os.environ.get("SEMCODEC_STRICT_PLUGINS", "") not in ("", "0")
    found = sorted(entry_points(group=GROUP), key=lambda ep: (_origin(ep), ep.name))
    return load_entry_points((ep for ep in found if _normal(_origin(ep)[0]) not in disabled), strict=strict)


def load_entry_points(found: Iterable[EntryPoint], *, strict: bool = False) -> Loaded:
    """Load the given entry points. Raises PluginError at the first failure if ``strict``."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    plugins: list[Plugin] = []
    failures: list[Failure] = []
    for ep in found:
        distribution, version = _origin(ep)
        try:
            with supervised():
                components = _load(manager, ep, f"{distribution}:{ep.name}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() and panics of extension modules are a plugin's failure too
            newer = _newer(error)
            reason = newer or _one_line(error)
            if strict:
                raise PluginError(f"plugin {ep.name!r} of {distribution} {version}: {reason}") from error
            remedy = "pip install -U semcodec" if newer else f"pip install -U {distribution}"
            remedy += f", or set SEMCODEC_DISABLE_PLUGINS={distribution}"
            failures.append(Failure(distribution, version, ep.name, reason, error, remedy))
        else:
            plugins.append(Plugin(distribution, version, ep.name, components))
    return Loaded(tuple(plugins), tuple(failures))


def _load(manager: pluggy.PluginManager, ep: EntryPoint, name: str) -> tuple[Component, ...]:
    plugin = ep.load()
    known = manager.get_name(plugin)
    if known is not None:
        raise PluginError(f"{ep.value} is already loaded as {known}; name it once")
    try:
        manager.register(plugin, name=name)
        manager.check_pending()  # a misspelt hook would otherwise be ignored
        others = [p for p in manager.get_plugins() if p is not plugin]
        yielded = manager.subset_hook_caller("semcodec_components", others)()
        if not yielded:
            raise PluginError(f"{ep.value} implements no semcodec_components hook")
        components = tuple(islice((component for group in yielded for component in group), COMPONENTS + 1))
        if len(components) > COMPONENTS:
            raise PluginError(f"{ep.value} yields more than the {COMPONENTS:,} components that a plugin may have")
        for component in components:
            _check(component)
    except BaseException:
        if manager.has_plugin(name):
            manager.unregister(name=name)  # its hooks must not be blamed on the next
        raise
    return components


def _check(component: object) -> None:
    if not isinstance(component, Component):
        raise PluginError(f"semcodec_components yields Component records, not {type(component).__name__}")
    if component.api > API:
        raise NewerApi(f"{component.name} is made for plugin API {component.api}, this semcodec has {API}")
    if component.kind not in KINDS:
        raise PluginError(f"{component.name} is of unknown kind {component.kind!r}; kinds are {', '.join(KINDS)}")
    if not NAME.fullmatch(component.name.replace("/*", "/any")):  # a family, see semcodec.composition.registry
        raise PluginError(f"{component.name!r} is no name that a spec can hold: lower-case letters, digits, . _ - /")
    if component.positional is not None and component.param(component.positional) is None:
        raise PluginError(f"{component.name} takes its bare value as {component.positional}, which is no parameter")
    absent = [t for t in component.traits.get("targets", ()) if component.param(t) is None]
    if absent:
        raise PluginError(f"{component.name} has targets without a parameter of that name: {', '.join(absent)}")


def _newer(error: BaseException) -> str:
    """What in the error tells that the plugin is made for a newer semcodec, or "" if nothing does."""
    if isinstance(error, NewerApi):
        return str(error)
    field = _FIELD.search(str(error)) if isinstance(error, TypeError) else None
    if field:
        what = f"{field[1]} has no field {field[2]!r}"
    elif isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "semcodec":
        what = _one_line(error).partition(" (")[0]
    else:
        return ""
    return f"{what} in plugin API {API}, of this semcodec: misspelt, or made for a newer one"


def _origin(ep: EntryPoint) -> tuple[str, str]:
    return (ep.dist.name, ep.dist.version) if ep.dist else ("?", "?")


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower().strip()


def _one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, PluginError | TooSlow) else f"{type(error).__name__}: {first}".rstrip(": ")
