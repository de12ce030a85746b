"""Run as a process of its own: what listing plugins and calling spec functions imports that is heavy.

Reads {"heavy": [names], "specs": ["package.module:function"]} and writes {"plugins": {"kind/name": [names]},
"failures": [lines], "specs": {path: [lines]}}, both JSON. A heavy import is refused and reported by name, also where
the plugin would live without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from semcodec.errors import PluginError
from semcodec.hookspecs import GROUP
from semcodec.manager import load_entry_points
from semcodec.registry import import_target


class Refuser:
    """A finder that refuses top-level packages and remembers who was asked for."""

    def __init__(self, heavy: Sequence[str]) -> None:
        self.heavy = frozenset(heavy)
        self.met: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.heavy:
            self.met.append(name)
            raise ImportError(f"{name} is heavy: import it when it is used")


def probe(heavy: Sequence[str], specs: Sequence[str]) -> dict[str, Any]:
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
    for path in specs:
        refuser.met.clear()
        try:
            import_target(path, path)
        except PluginError as error:
            found[path] = [str(error)]
        else:
            found[path] = list(refuser.met)
    return {"plugins": plugins, "failures": failures, "specs": found}


if __name__ == "__main__":
    json.dump(probe(**json.load(sys.stdin)), sys.stdout)
