"""The one hook that a plugin implements.

A distribution offers components by naming a module in the ``semcodec`` entry-point group ::

    [project.entry-points.semcodec]
    mine = "my_package.semcodec_plugin"

and that module yields light records ::

    from semcodec.component import Component
    from semcodec.hookspecs import hookimpl

    @hookimpl
    def semcodec_components():
        yield Component("encoder", "mine", "my_package.encoder:Mine", "what it does in one line")

Listing imports every plugin's module, so it must import nothing heavy: a record names its class, its spec
function and its recipe as strings, and these are imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pluggy

from semcodec.component import Component

GROUP = "semcodec"
"""Entry-point group and pluggy project name."""

_Hook = TypeVar("_Hook", bound=Callable[..., Any])

hookspec = cast("Callable[[_Hook], _Hook]", pluggy.HookspecMarker(GROUP))
hookimpl = cast("Callable[[_Hook], _Hook]", pluggy.HookimplMarker(GROUP))


class Hooks:
    """What plugins may implement."""

    @hookspec
    def semcodec_components(self) -> Iterable[Component]:
        """The components of this plugin, an iterable or generator of ``Component`` records.

        Called once per process, on its own: an exception here marks this plugin as broken and touches no other.
        """
        raise NotImplementedError  # a specification: pluggy calls the implementations only
