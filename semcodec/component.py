"""The light records that plugins yield: what exists, without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["encoder", "selector", "recoverer", "entropy", "backbone"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ANY = "expected_failures", "programs", "remedy"
TRAITS: Mapping[Kind, frozenset[str]] = {
    "encoder": frozenset(
        (*_ANY, "baseline", "cut", "device", "earlier_selectors", "entropy", "error", "example", "hub", "max_bytes",
         "models", "needs_torch", "predicts", "recoverer", "selectors", "serves", "targets", "tasks", "units")
    ),
    "selector": frozenset((*_ANY, "abilities", "budget", "example")),
    "recoverer": frozenset((*_ANY, "example", "fallback", "tasks")),
    "entropy": frozenset((*_ANY, "excess")),
    "backbone": frozenset((*_ANY, "classes", "example", "hub", "known", "shares", "task")),
}  # fmt: skip
"""Names of the traits that are read, by kind, which docs/plugins.md explains. A backbone may also have one by the name
of each model of an Encoder."""

API = 1
"""Version of the contract between core and plugins; a plugin for a newer one is refused."""


@dataclass(frozen=True)
class Param:
    """One argument of a component, declared once for parsing, help, sweeps and streams.

    name: as written in a spec.
    type: ``int``, ``float``, ``str`` or ``bool``.
    values: the allowed values (a choice) or, with ``open=True``, only the usual sweep.
    default: used when the spec says nothing.
    help: one line.
    when: "build" (selects weights, sits in the stream header) or "call" (may differ per packet).
    low, high: inclusive bounds for numbers.
    weighs: whether each value has weights of its own, of a build parameter; not of one that says how a stream is used.
    earlier: defaults that it had, by the last of the component's stream versions that had them: what is written of
    those versions, in streams and records, means these where it names none.
    """

    name: str
    type: type
    default: Any
    help: str
    values: tuple[Any, ...] = ()
    when: Literal["build", "call"] = "call"
    open: bool = False
    low: float | None = None
    high: float | None = None
    earlier: Mapping[int, Any] = field(default_factory=dict, hash=False)
    weighs: bool = True


@dataclass(frozen=True)
class Component:
    """One method. Yielding it must import nothing heavy.

    kind, name: together the key; built-in names are unique over kinds.
    target: "package.module:Class", imported on first use.
    summary: one line for ``plugins list``.
    spec: "package.module:function", torch-free, see ``semcodec.interfaces``; None if it cannot be known unbuilt.
    params: in the order streams carry them; ``positional`` names the one that takes a bare value (``top-k:4``).
    requires: import names that must be there; ``extra``: what installs them.
    stream_version: raised only when the bytes, or specs that name no default, change meaning; ``reads``: the ones
    decoded here.
    license: SPDX name of what is loaded, shown wherever the component is.
    traits: declared abilities, of those in ``TRAITS``.
    weights: checkpoints that ship in the wheel, as "package:path/inside.safetensors".
    recipe: "package.module:function" that trains it, see ``semcodec.training.loop``.
    coding: of an Encoder, "package.module:Class" of its ``Coding``, torch-free; None where it is not apart.
    """

    kind: Kind
    name: str
    target: str
    summary: str
    spec: str | None = None
    params: tuple[Param, ...] = ()
    positional: str | None = None
    requires: tuple[str, ...] = ()
    extra: str | None = None
    stream_version: int = 1
    reads: tuple[int, ...] = (1,)
    license: str = "Apache-2.0"
    traits: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: tuple[str, ...] = ()
    recipe: str | None = None
    api: int = API
    coding: str | None = None

    def param(self, name: str) -> Param | None:
        """The parameter of this name, or None."""
        return next((p for p in self.params if p.name == name), None)
