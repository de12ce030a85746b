"""Which weights there are: those that ship with plugins, those in the user's cache, and what was fetched of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from semcodec._cache import cache_folder
from semcodec.composition.composition import compose_spec, resolve_backbone
from semcodec.composition.grammar import parse
from semcodec.composition.registry import get_registry
from semcodec.errors import SemcodecError
from semcodec.pipeline.repositories import PREFIX, WEIGHTS, cached_repositories
from semcodec.pipeline.weights import read_card


def rows() -> list[dict[str, Any]]:
    """One for each file: name, where, spec, task, keys and digests by slot, data, figures, bytes, license, problem.

    figures: of the last step of training that has any, as its card tells them. problem: why a file cannot be used.
    What the card does not say is None.
    """
    with ExitStack() as stack:
        return [_row(name, where, path) for name, where, path in _files(stack)]


def _files(stack: ExitStack) -> Iterator[tuple[str, str, Path]]:
    registry = get_registry()
    resources: dict[str, str] = {}
    for component in registry:
        for resource in component.weights:
            resources.setdefault(resource, registry.origin(component)[0])
    for resource, distribution in sorted(resources.items()):
        package, _, inside = resource.partition(":")
        path = stack.enter_context(as_file(files(package) / inside))
        if path.exists():
            yield path.name, f"ships with {distribution}", path
    folder = cache_folder("weights")
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        yield path.name, "cache", path
    for name, commit, folder in cached_repositories():
        path = next(folder / one for one in WEIGHTS if (folder / one).is_file())
        yield f"{PREFIX}{name}@{commit[:12]}", "hub, fetched", path


def _row(name: str, where: str, path: Path) -> dict[str, Any]:
    card: dict[str, Any] = {}
    problem = None
    try:
        card = read_card(path)
    except SemcodecError as error:
        problem = str(error)
    spec = card.get("spec")
    return {
        "name": name,
        "where": where,
        "spec": spec,
        "task": task_of(spec) if isinstance(spec, str) else None,
        "keys": card.get("keys", {}),
        "digests": card.get("digests", {}),
        "data": card.get("data"),
        "figures": _figures(card),
        "bytes": path.stat().st_size,
        "license": card.get("license"),
        "problem": problem,
    }


def task_of(spec: str) -> str | None:
    """The task of a pipeline or of a backbone alone; None where it does not compose here."""
    try:
        if len(parse(spec).items) > 1:
            return compose_spec(spec).task
        resolved = resolve_backbone(spec).spec
    except SemcodecError:
        return None
    return resolved.task if resolved else None


def _figures(card: dict[str, Any]) -> dict[str, float]:
    """Of the last step that learned something."""
    steps = card.get("metrics")
    for step in reversed(steps if isinstance(steps, list) else []):
        found = {n: v for n, v in step.items() if n not in ("step", "samples") and isinstance(v, int | float)}
        if any(found.values()):
            return found
    return {}
