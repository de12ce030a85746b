"""``semcodec plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from semcodec.cli import options, plugins_check, plugins_new
from semcodec.cli.output import echo_fields, echo_json, echo_table

if TYPE_CHECKING:
    from semcodec.component import Component, Param


@click.group()
def command() -> None:
    """List, describe, check and begin components."""


command.add_command(plugins_check.command)
command.add_command(plugins_new.command)


@command.command("list")
@click.option("--kind", help="Only encoders, selectors, recoverers, entropy stages or backbones (encoder, ...).")
@options.as_json
def listing(kind: str | None, form: str) -> None:
    """Every component of every plugin, and every plugin that could not be loaded."""
    from dataclasses import asdict

    from semcodec.component import KINDS
    from semcodec.composition.registry import get_registry
    from semcodec.errors import UsageError

    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind is one of {', '.join(KINDS)}, not {kind!r}")
    rows = [row for row in get_registry().rows() if kind in (None, row.kind)]
    if form == "json":
        echo_json([{**asdict(row), "cure": row.remedy} for row in rows])
        return
    headers = ("kind", "name", "status", "package", "licence", "summary")
    echo_table(
        headers,
        [
            (row.kind, row.name, row.status, f"{row.distribution} {row.version}", row.license or None, row.summary)
            for row in rows
        ],
    )
    for row in rows:
        if row.remedy:
            click.echo(f"{row.name}: {row.remedy}")


@command.command()
@click.argument("name")
@options.as_json
def show(name: str, form: str) -> None:
    """One component by NAME, or KIND/NAME: its parameters, traits, licence and package."""
    from semcodec.component import KINDS
    from semcodec.composition.registry import get_registry, missing

    registry = get_registry()
    kind = next((k for k in KINDS if name.startswith(f"{k}/")), None)
    component = registry.find(name.removeprefix(f"{kind}/"), kind)
    distribution, version = registry.origin(component)
    found = {
        "kind": component.kind,
        "name": component.name,
        "summary": component.summary,
        "package": f"{distribution} {version}",
        "license": component.license,
        "needs": missing(component) or None,
        "class": component.target,
        "stream_version": component.stream_version,
        "reads": list(component.reads),
        "weights": list(component.weights),
        "trained_by": component.recipe,
        "traits": {key: list(v) if isinstance(v, tuple) else v for key, v in component.traits.items()},
        "params": [_param(component, param) for param in component.params],
    }
    if component.kind == "backbone":
        found["cuts"] = _cuts(component.name)
    if form == "json":
        echo_json(found)
        return
    params = found.pop("params")
    if component.kind == "backbone" and found["cuts"] is None:
        found["cuts"] = "known once it is built: semcodec compose shows them"
    echo_fields((key, _text(value)) for key, value in found.items())
    click.echo()
    if component.params:
        headers = ("parameter", "type", "default", "values", "when", "help")
        echo_table(headers, [_row(param) for param in component.params])
        if component.positional:
            click.echo(f"\n{component.name}:VALUE sets {component.positional}")
    else:
        click.echo("no parameters" if not params else "")


def _cuts(name: str) -> list[str] | None:
    """Where a Backbone can be cut, with its parameters at their defaults; None where only building it tells."""
    from semcodec.composition.composition import resolve_backbone
    from semcodec.errors import SemcodecError

    try:
        spec = resolve_backbone(name).spec
    except SemcodecError:  # as of a family, of which a member is asked
        return None
    return list(spec.cuts) if spec else None


def _param(component: Component, param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "type": param.type.__name__,
        "default": param.default,
        "values": list(param.values),
        "open": param.open,
        "low": param.low,
        "high": param.high,
        "when": param.when,
        "positional": param.name == component.positional,
        "help": param.help,
    }


def _row(param: Param) -> tuple[Any, ...]:
    values = ", ".join(map(str, param.values))
    if param.low is not None or param.high is not None:
        bounds = f"{'' if param.low is None else f'{param.low:g}'}..{'' if param.high is None else f'{param.high:g}'}"
        values = f"{bounds}, as {values}" if values else bounds
    default = None if param.default is None else str(param.default)
    return param.name, param.type.__name__, default, values or "any", param.when, param.help


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(v)}" for key, v in value.items()) or None
    return (" ".join(map(str, value)) or None) if isinstance(value, list) else value
