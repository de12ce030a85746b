"""Checks of the record itself, for every kind: what ``plugins list`` and the grammar rely on."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from io import BytesIO
from typing import Any

from semcodec.component import API, KINDS, TRAITS, Component, Kind, Param
from semcodec.composition.binding import Binder
from semcodec.composition.grammar import NAME, format_value, parse_item
from semcodec.composition.registry import Registry, get_registry, import_target
from semcodec.composition.resolution import DEFAULT_RECOVERER
from semcodec.container.header import StreamHeader, read_header, write_header
from semcodec.errors import UsageError, did_you_mean
from semcodec.interfaces import Backbone, Coding, Encoder, EntropyStage, Recoverer, Selector
from semcodec.pipeline.exported import DEVICE
from semcodec.tasks.table import TASKS
from semcodec.testing.side_effects import witness
from semcodec.testing.subject import Subject, extremes, require

HEAVY = ("torch", "torchvision", "timm", "compressai", "ultralytics", "matplotlib", "transformers")
INTERFACES: dict[str, type] = {
    "backbone": Backbone,
    "encoder": Encoder,
    "entropy": EntropyStage,
    "recoverer": Recoverer,
    "selector": Selector,
}
_MODULE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_TARGET = re.compile(rf"{_MODULE}:[A-Za-z_]\w*")
_FILE = re.compile(rf"{_MODULE}:[^/\s]\S*")
_PLAIN = bool | int | float | str | None


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of records, in the order in which a failure is best understood."""
    yield check_record
    yield check_config
    yield check_bounds
    yield check_traits
    yield check_light_imports
    yield check_target


def check_record(subject: Subject) -> None:
    """Fields hold what ``Component`` says, and every default is a value that the parameter itself allows."""
    c = subject.component
    require(c.kind in KINDS, f"unknown kind {c.kind!r}; kinds are {', '.join(KINDS)}")
    require(NAME.fullmatch(c.name.replace("/*", "/any")), f"{c.name!r} is no name that a spec can hold")
    require(c.api <= API, f"made for plugin API {c.api}, here is {API}")
    for field in ("target", "spec", "recipe", "coding"):
        path = getattr(c, field)
        optional = field != "target" and path is None
        require(optional or _TARGET.fullmatch(path), f"{field} is 'package.module:name', not {path!r}")
    for file in c.weights:
        require(_FILE.fullmatch(file), f"weights are 'package:path/inside.safetensors', not {file!r}")
    for field in ("summary", "license"):
        text = getattr(c, field)
        require(isinstance(text, str) and text.strip() and text.isprintable(), f"{field} is one line, not {text!r}")
    require(c.stream_version >= 1, f"stream_version counts from 1, not {c.stream_version}")
    require(c.stream_version in c.reads, f"writes stream version {c.stream_version} and reads only {c.reads}")
    for field in ("params", "requires", "reads", "weights"):
        held = getattr(c, field)
        require(isinstance(held, tuple), f"{field} is a tuple, not {type(held).__name__}")
    names = [p.name for p in c.params]
    require(len(set(names)) == len(names), f"two parameters of one name among {', '.join(names)}")
    require(c.positional is None or c.positional in names, f"positional {c.positional!r} is no parameter")
    for param in c.params:
        _check_param(param)
    try:
        alike = copy.deepcopy(c) == c == pickle.loads(pickle.dumps(c))
    except Exception as error:
        require(False, f"the record is no plain data: {type(error).__name__}: {error}")
    require(alike, "copies of the record are not equal to it")


def check_config(subject: Subject) -> None:
    """Every parameter, at its default and its extremes, reads back as the same value from a spec and a stream."""
    c = subject.component
    for param in c.params:
        for value in (param.default, *extremes(param)):
            if value is None:  # not given
                continue
            name = f"{c.name}:{param.name}={format_value(value)}"
            item = parse_item(f"{c.kind}/{name}")
            bound = Binder(subject.registry, name).bind(c, item)
            read = bound.params[param.name]
            require(type(read) is type(value) and read == value, f"{name} reads back as {read!r}")
            again = Binder(subject.registry, name).bind(c, parse_item(str(bound.item)))
            require(again.params == bound.params, f"{name} has the canonical form {bound.item}, which is another")
            header = StreamHeader(str(bound.item), {}, {}, {}, dict(bound.call))
            require(read_header(BytesIO(write_header(header))) == header, f"{name} is another in a stream's header")


def check_bounds(subject: Subject) -> None:
    """Every integer that decides what is built has an upper bound or few values: a stranger's header may hold any."""
    for p in subject.component.params:
        closed = bool(p.values) and not p.open
        bounded = p.type is not int or p.when != "build" or closed or p.high is not None
        require(bounded, f"the build parameter {p.name} is an integer without an upper bound: give it a high")


def _check_param(p: Param) -> None:
    require(p.name.isidentifier(), f"parameter {p.name!r} is no identifier")
    require(p.type in (bool, int, float, str), f"{p.name} has the type {p.type!r}")
    require(p.when in ("build", "call"), f"{p.name} has when={p.when!r}")
    require(p.help.strip() and p.help.isprintable(), f"{p.name} needs one line of help")
    bounded = p.low is not None or p.high is not None
    require(not bounded or p.type in (int, float), f"{p.name} has bounds and is no number")
    # None is no word of a spec or a packet, so only a build parameter may stand for "not given".
    if p.default is None:
        require(p.when == "build", f"{p.name} is a call parameter without a default")
    else:
        _check_value(p, p.default, "the default")
        allowed = not p.values or p.open or p.default in p.values
        require(allowed, f"the default {p.default!r} of {p.name} is not among its values")
    require(isinstance(p.values, tuple), f"values of {p.name} are a tuple, not {type(p.values).__name__}")
    for value in p.values:
        _check_value(p, value, "a value")


def _check_value(p: Param, value: Any, what: str) -> None:
    require(type(value) is p.type, f"{what} of {p.name} is {value!r}, not of type {p.type.__name__}")
    inside = (p.low is None or value >= p.low) and (p.high is None or value <= p.high)
    require(inside, f"{what} of {p.name} is {value!r}, outside {p.low} to {p.high}")


def check_traits(subject: Subject) -> None:
    """Traits are plain data, of names that core reads and values that it knows."""
    c, traits = subject.component, subject.component.traits
    require(_plain(traits), f"traits are not plain data: {traits!r}")
    _require_known(c, subject.registry)
    if c.kind == "encoder":
        require(traits.get("entropy", "required") in ("required", "mixed", "none"), "unknown value of trait entropy")
        device = traits.get(DEVICE)
        named_class = device is None or (isinstance(device, str) and _TARGET.fullmatch(device))
        require(named_class, f"device is 'package.module:Class', not {device!r}")
        for target in traits.get("targets", ()):
            p = c.param(target)
            require(p is not None and p.when == "call", f"target {target!r} is no call parameter")
        named: list[tuple[Kind, str]] = [("selector", text) for text in traits.get("selectors", ())]
        recoverer = traits.get("recoverer", DEFAULT_RECOVERER).format(**{p.name: p.default for p in c.params})
        for kind, text in [*named, ("recoverer", recoverer)]:
            try:
                subject.registry.find(parse_item(text).name, kind)
            except UsageError as error:
                require(False, f"the default {kind} {text!r} is not there: {error}")
        unknown = [task for task in traits.get("tasks", ()) if task not in TASKS]
        require(not unknown, f"unknown tasks {unknown}; tasks are {', '.join(TASKS)}")
    if c.kind == "selector":
        abilities = traits.get("abilities")
        known = (("keep",), ("gate",), ("point",))
        require(abilities in known, f"abilities are ('keep',), ('gate',) or ('point',), not {abilities!r}")
        require(abilities != ("point",) or "example" in traits, "a point names a spec that it is for by trait example")
        require(not traits.get("budget") or c.param("budget"), "obeys a budget and has no parameter of that name")
    if c.kind == "entropy" and "excess" in traits:
        excess = traits["excess"]
        pair = isinstance(excess, tuple) and len(excess) == 2 and all(isinstance(x, int | float) for x in excess)
        require(pair and min(excess) >= 0, f"excess is (bits a symbol, bytes), not {excess!r}")
    for bound in ("error", "max_bytes") if c.kind == "encoder" else ():
        value = traits.get(bound, 0)
        function = isinstance(value, str) and _TARGET.fullmatch(value)
        number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        require(function or number, f"{bound} is a number or 'package.module:function', not {value!r}")
    reasons = traits.get("expected_failures", {})
    said = isinstance(reasons, Mapping) and all(isinstance(r, str) and r.strip() for r in reasons.values())
    require(said, "expected_failures gives a reason for each check that it names")


def _require_known(c: Component, registry: Registry) -> None:
    """Nobody reads a trait of another name, as of one that is misspelt."""
    known = set(TRAITS[c.kind])
    if c.kind == "backbone":
        known.update(name for other in registry for name in other.traits.get("models", ()))
    for name in sorted(c.traits.keys() - known):
        hint = did_you_mean(name, known)
        require(False, f"no {c.kind} has a trait {name!r}" + (f": {hint}" if hint else ""))


def _plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and _plain(inner) for key, inner in value.items())
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return isinstance(value, _PLAIN)


def check_light_imports(subject: Subject) -> None:
    """Listing the plugin and calling its spec function imports no torch and no other heavy package; importing what the
    trait ``device`` names imports no torch.
    """
    c = subject.component
    installed = any(one is c for one in get_registry())
    looked_at = list(get_registry()) if installed else [c]
    named: list[tuple[str, str, dict[str, Any]]] = [
        (one.spec, one.kind, {p.name: p.default for p in one.params}) for one in looked_at if one.spec
    ]
    named += [(one.traits[DEVICE], DEVICE, {}) for one in looked_at if one.traits.get(DEVICE)]
    found = _probe(pickle.dumps(named))
    if installed:
        met = found["plugins"].get(f"{c.kind}/{c.name}")
        require(met is not None, f"its plugin cannot be listed without heavy imports: {'; '.join(found['failures'])}")
        require(not met, f"listing it imports {', '.join(met or ())}")
    if c.traits.get(DEVICE):
        met = found["specs"][c.traits[DEVICE]]
        require(not met, f"what runs on a device without torch imports {', '.join(met)}")
    if c.spec:
        require(not found["specs"][c.spec], f"its spec function imports {', '.join(found['specs'][c.spec])}")


@cache
def _probe(specs: bytes) -> dict[str, Any]:
    """One process for all that is installed: importing cannot be undone in this one."""
    done = subprocess.run(
        [sys.executable, "-m", "semcodec.testing.import_probe"],
        input=pickle.dumps(HEAVY) + specs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace").strip()
    require(done.returncode == 0, f"importing plugins in a fresh process fails: {said[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check_target(subject: Subject) -> None:
    """What the record names is there: a complete class of its kind's interface, and functions."""
    c = subject.component
    with witness(subject.heard):
        target = subject.registry.load(c)
    interface = INTERFACES[c.kind]
    complete = inspect.isclass(target) and issubclass(target, interface)
    require(complete, f"{c.target} is no subclass of {interface.__name__}")
    absent = sorted(getattr(target, "__abstractmethods__", ()))
    require(not absent, f"{c.target} lacks {', '.join(absent)}")
    for ability in c.traits.get("abilities", ()) if c.kind == "selector" else ():
        forms = [form for form in (ability, f"{ability}_array") if hasattr(Selector, form)]
        own = any(getattr(target, form, None) is not getattr(Selector, form) for form in forms)
        require(own, f"{c.target} lacks {' or '.join(forms)}")
    require(c.spec is None or callable(subject.registry.spec_function(c)), f"{c.spec} is no function")
    if c.coding is not None:
        coding = import_target(c.coding, c.name)
        apart = inspect.isclass(coding) and issubclass(coding, Coding) and not coding.__abstractmethods__
        require(c.kind == "encoder" and apart, f"{c.coding} is no complete Coding of an Encoder")
    named = [path for path in (c.recipe, c.traits.get("error"), c.traits.get("max_bytes")) if isinstance(path, str)]
    for path in filter(_TARGET.fullmatch, named):
        require(callable(import_target(path, c.name)), f"{path} is no function")
