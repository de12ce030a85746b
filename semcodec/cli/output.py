"""How results are shown: tables, JSON, and files that are whole or not there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from semcodec._json import to_json
from semcodec.errors import printable

ABSENT = "-"


def tamed(text: str) -> str:
    """Lines as a terminal may have them, see ``printable``."""
    return printable(text, "\n\t")


def echo_json(value: Any) -> None:
    """One JSON document, indented."""
    click.echo(to_json(value, indent=2))


def echo_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], expendable: Sequence[str] = ()) -> None:
    """Columns of equal width, two spaces apart; numbers to the right; a cell may have several lines.

    expendable: columns to leave out, one after the other, where a terminal is too narrow.
    """
    body = list(rows)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for name in (None, *expendable):
        if name:
            shown = [i for i, header in enumerate(headers) if header != name]
            headers, body = [headers[i] for i in shown], [[row[i] for i in shown] for row in body]
        text = _table(headers, body)
        if width is None or max(map(len, text.splitlines())) <= width:
            break
    click.echo(text)


def _table(headers: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    right = [any(isinstance(row[i], int | float) for row in body) for i in range(len(headers))]
    cells = [[str(header)] for header in headers], *([_cell(value).split("\n") for value in row] for row in body)
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(headers))]
    lines = []
    for row in cells:
        for i in range(max(map(len, row))):
            parts = [cell[i] if i < len(cell) else "" for cell in row]
            aligned = [
                p.rjust(w) if to_right else p.ljust(w) for p, w, to_right in zip(parts, widths, right, strict=True)
            ]
            lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def echo_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    pairs = [(name, _cell(value)) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  " + value.replace("\n", "\n" + " " * (width + 2)))


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.2f}" if isinstance(value, float) else tamed(str(value))
