"""Run as a process of its own: what listing plugins and calling spec functions imports that is heavy.

Reads two pickles, the names of heavy packages and ("package.module:function", kind, parameters) of spec functions, the
kind "device" of the classes that devices without torch import, and writes {"plugins": {"kind/name": [names]},
"failures": [lines], "specs": {path: [lines]}} as JSON. A heavy import is refused and reported by name, also where the
plugin would live without it.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from semcodec.composition.discovery import load_entry_points
from semcodec.composition.registry import import_target
from semcodec.errors import PluginError
from semcodec.hookspecs import GROUP
from semcodec.pipeline.exported import DEVICE
from semcodec.specs import BackboneSpec
from semcodec.testing.stand_ins import STAND_INS


class Refuser:
    """A finder that refuses top-level packages and remembers who was asked for."""

    def __init__(self, heavy: Sequence[str]) -> None:
        self.heavy = frozenset(heavy)
        self.met: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.heavy:
            self.met.append(name)
            raise ImportError(f"{name} is heavy: import it when it is used")


def probe(heavy: Sequence[str], specs: Sequence[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    """What plugins and spec functions import of ``heavy`` packages, each in turn, in this process."""
    refuser = Refuser(heavy)
    sys.meta_path.insert(0, refuser)
    plugins: dict[str, list[str]] = {}
    failures: list[str] = []
    for entry_point in entry_points(group=GROUP):
        refuser.met.clear()
        loaded = load_entry_points([entry_point])
        failures += [f"{failure.entry_point}: {failure.reason}" for failure in loaded.failures]
        for plugin in loaded.plugins:
            plugins |= {f"{c.kind}/{c.name}": list(refuser.met) for c in plugin.components}
    found: dict[str, list[str]] = {}
    for path, kind, params in specs:
        refuser.met.clear()
        try:
            function = import_target(path, path)
        except PluginError as error:
            found[path] = [str(error)]
            continue
        for arguments in _places(kind):
            with suppress(Exception):  # what it says is not looked at here, and it may refuse
                function(*arguments, params)
        found.setdefault(path, []).extend(dict.fromkeys(refuser.met))
    return {"plugins": plugins, "failures": failures, "specs": found}


def _places(kind: str) -> list[tuple[Any, ...]]:
    """What a spec function of a kind is given before the parameters: for stages, features at every stand-in's cuts."""
    if kind == DEVICE:  # of a device without torch, which is imported and not made
        return []
    if kind == "backbone":
        return [()]
    functions: list[Callable[..., BackboneSpec]] = [import_target(str(c.spec), c.name) for c in STAND_INS]
    return [(features,) for function in functions for features in function({}).cuts.values()]


if __name__ == "__main__":
    names, functions = (pickle.load(sys.stdin.buffer) for _ in range(2))
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # what plugins print is none of it
        json.dump(probe(names, functions), answer)
