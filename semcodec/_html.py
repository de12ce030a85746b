"""Tables as HTML for notebooks: every cell is text and is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

ABSENT = "-"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers stand to the right, lines of a cell stay lines."""
    head = "".join(f'<th style="text-align:left">{escape(header)}</th>' for header in headers)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def fields(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values, a pair a line."""
    body = "".join(f'<tr><th style="text-align:left">{escape(name)}</th>{_cell(value)}</tr>' for name, value in pairs)
    return f"<table><tbody>{body}</tbody></table>"


def code(text: str) -> str:
    """Text as code, such as a spec."""
    return f"<code>{escape(text)}</code>"


def bar(share: float, text: str) -> str:
    """A share as a bar with text beside it."""
    return (
        f'<div style="display:flex;gap:6px;align-items:center"><div style="background:#2f6fde;height:11px;'
        f'width:{max(1, round(160 * min(1.0, max(0.0, share))))}px"></div>{escape(text)}</div>'
    )


def _cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}</td>"
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:
        text = ABSENT
    elif numeric:
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    else:
        text = escape(str(value)).replace("\n", "<br>")
    return f'<td style="text-align:{"right" if numeric else "left"}">{text}</td>'


class Raw(str):
    """HTML that this module made, which is not escaped again."""
