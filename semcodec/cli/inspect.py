"""``semcodec inspect``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json, echo_table
from semcodec.cli.streams import reading
from semcodec.specs import EXPORTED


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
def command(file: Path, form: str) -> None:
    """Show the stream header of FILE (- is stdin) and the sizes of its records. Needs no plugin and no weights.

    Where the spec says which tasks need how many layers, and its plugins are here, each record says which it serves.
    Heads are checked; the chunks' own checksums are tested by 'decode'. Of a file of 'semcodec export', which ends in
    .semdev, show what it holds.
    """
    if file.suffix == EXPORTED:
        _show_device(file, form)
        return
    from semcodec.container.summary import summarise

    with reading(file) as stream:
        found = summarise(stream)
    serves = serving(found["spec"], found["components"])
    if serves is not None:
        for record in found["records"]:
            if record["kind"] == "packet":
                record["serves"] = serves(record["layers_present"])
    if form == "json":
        echo_json(found)
        return
    pairs = {name: " ".join(f"{k}={v}" for k, v in found[name].items()) for name in ("components", "weights", "params")}
    inputs = "; ".join(f"{name} {dtype}{shape}" for name, (shape, dtype) in found["input"].items())
    echo_fields(
        [
            ("spec", found["spec"]),
            ("format", found["format"]),
            ("components", pairs["components"] or None),
            ("weights", pairs["weights"] or "none"),
            ("input", inputs),
            ("knobs", pairs["params"] or None),
            ("package", found["package"] or None),
            ("header", f"{found['bytes_stream_header']:,} bytes, id {found['id']}"),
            ("file", f"{found['file_bytes']:,} bytes in {len(found['records']):,} records"),
        ]
    )
    click.echo()
    headers = ["record", "kind", "bytes", "head and CRCs", "chunks", "in side", "in others", "layers", "in each",
               "own knobs"]  # fmt: skip
    rows = [_row(record, found["params"]) for record in found["records"]]
    if serves is not None:
        headers.append("serves")
        rows = [(*row, ", ".join(r.get("serves", ())) or None) for row, r in zip(rows, found["records"], strict=True)]
    echo_table(headers, rows)


def serving(spec: str, components: Mapping[str, int]) -> Callable[[int], list[str]] | None:
    """What tells the tasks that so many layers serve; None where the spec does not say, or its plugins are not here."""
    from semcodec.composition.stored import compose_stored
    from semcodec.errors import SemcodecError

    try:
        composition = compose_stored(spec, components)
    except SemcodecError:
        return None
    return composition.served if composition.layered_tasks else None


def _show_device(file: Path, form: str) -> None:
    from semcodec.pipeline.exported import describe_exported

    found = describe_exported(file)
    if form == "json":
        echo_json(found)
    else:
        show_device(found)


def show_device(found: Mapping[str, Any]) -> None:
    """Print what ``describe_exported`` gives."""
    echo_fields(_fields(found))
    if found["graphs"]:
        click.echo()
        echo_table(("graph", "takes", "gives", "bytes"), [_graph(name, one) for name, one in found["graphs"].items()])


def _fields(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    weights = {slot: f"{one['source'] or 'random'} ({one['digest']})" for slot, one in found["weights"].items()}
    return [
        ("spec", found["spec"]),
        ("format", found["format"]),
        ("components", " ".join(f"{k}={v}" for k, v in found["components"].items())),
        ("weights", "; ".join(f"{slot} {told}" for slot, told in weights.items()) or "none"),
        ("classes", found["classes"]),
        ("licences", ", ".join(f"{name} {spdx}" for name, spdx in found["licenses"].items())),
        ("int8", _eight_bits(found["int8"]) if found["int8"] else None),
        ("package", found["package"]),
        ("arrays", f"{found['array_bytes']:,} bytes"),
        ("file", f"{found['file_bytes']:,} bytes"),
    ]


def _eight_bits(told: Mapping[str, Any]) -> str:
    """How each graph is quantised, and what it cost."""
    ways = ", ".join(f"{name} {way}" for name, way in told["graphs"].items())
    before, after = told["float32"], told["int8"]
    costs = [
        f"{key} {before[key]:,.1f} to {after[key]:,.1f}"
        if key == "bytes_total"
        else f"{key} {100 * before[key]:.1f} % to {100 * after[key]:.1f} %"
        for key in before
    ]
    return f"{ways}; {', '.join(costs)} of {told['samples']} samples of {told['calibrated_on']}"


def _graph(name: str, graph: dict[str, Any]) -> tuple[Any, ...]:
    takes, gives = (", ".join(f"{n} {t}" for n, t in graph[side].items()) for side in ("inputs", "outputs"))
    return name, takes, gives, graph["bytes"]


def _row(record: dict[str, Any], params: dict[str, Any]) -> tuple[Any, ...]:
    number = str(record["sequence"])
    if record["kind"] == "local":
        answer = f"class {record['index']}, {100 * record['probability']:.1f} %"
        return number, f"local: {answer}", record["bytes_local"], *[None] * 7
    sizes = {side: sum(c["bytes"] for c in record["chunks"] if c["side"] is side) for side in (True, False)}
    own = " ".join(f"{name}={value}" for name, value in record["params"].items() if params[name] != value)
    layers = f"{record['layers_present']}/{record['layers_total']}"
    numbers = record["bytes_total"], record["bytes_header"], len(record["chunks"]), sizes[True], sizes[False]
    each = " + ".join(f"{size:,}" for size in record["layer_bytes"]) if record["layers_total"] > 1 else None
    return number, "packet", *numbers, layers, each, own or None
