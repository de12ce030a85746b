"""Spec strings: ``item ("+" item)*`` with ``item = [kind "/"] name ["@" target] [":" argument ("," argument)*]``.

An argument is ``key=value``; the first may be a bare ``value``. A ``+`` separates items only before a letter, so
``lr=1e+3`` is one argument. A value is an integer, a float, ``true``, ``false``, a bare word or a quoted string.
The part of a name before ``/`` is a kind if it is one of ``KINDS``, else it belongs to the name (``timm/resnet50``).

This module knows form only; what names and arguments mean is settled in ``semcodec.composition.composition``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn, cast

from semcodec.component import KINDS, Kind
from semcodec.errors import SpecError

Value = bool | int | float | str
Span = tuple[int, int]

_PART = r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*"
NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_ITEM = re.compile(rf"(?:({'|'.join(KINDS)})/)?({NAME.pattern})")
_TARGET = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*")
_KEY = re.compile(r"([a-z][a-z0-9]*(?:[_-][a-z0-9]+)*)=")
_WORD = re.compile(r"(?:[A-Za-z0-9_./-]|\+(?=[0-9]))+")
_QUOTED = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\.)*)\1""", re.DOTALL)
_INT = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DIGITS = 18  # what fits an int64, and so a stream
MOST = 64
"""Items of a spec: a stranger's header may hold thousands, each of which would be looked up."""


@dataclass(frozen=True)
class Arg:
    """``key=value``, or a bare value where ``key`` is None. ``span``: where it stands in the spec."""

    key: str | None
    value: Value
    span: Span = field(default=(0, 0), compare=False)

    def __str__(self) -> str:
        return format_value(self.value) if self.key is None else f"{self.key}={format_value(self.value)}"


@dataclass(frozen=True)
class Item:
    """One component of a spec with its target and arguments, the arguments sorted, a bare value first."""

    name: str
    kind: Kind | None = None
    target: str | None = None
    args: tuple[Arg, ...] = ()
    span: Span = field(default=(0, 0), compare=False)
    target_span: Span = field(default=(0, 0), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(sorted(self.args, key=lambda arg: arg.key or "")))

    def at(self, span: Span) -> Item:
        """The same item with every position replaced: for defaults, that stand nowhere in the spec."""
        return replace(self, args=tuple(replace(a, span=span) for a in self.args), span=span, target_span=span)

    def __str__(self) -> str:
        kind = f"{self.kind}/" if self.kind else ""
        target = f"@{self.target}" if self.target else ""
        args = ":" + ",".join(map(str, self.args)) if self.args else ""
        return f"{kind}{self.name}{target}{args}"


@dataclass(frozen=True)
class Spec:
    """A parsed spec. ``str()`` is its canonical form, ``text`` what was written."""

    items: tuple[Item, ...]
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "+".join(map(str, self.items))


def read_word(text: str) -> Value:
    """The value that an unquoted word stands for. Raises ValueError for a number too large to carry."""
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        if len(text.lstrip("+-0")) > _DIGITS:
            raise ValueError(text)
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number + 0.0  # -0.0 becomes 0.0
    return text


def format_value(value: Value) -> str:
    """How a value is written in a canonical spec; the inverse of parsing it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if _WORD.fullmatch(value) and not _is_literal(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_literal(word: str) -> bool:
    return word in ("true", "false") or _FLOAT.fullmatch(word) is not None


def parse(text: str) -> Spec:
    """Parse a spec string. Raises SpecError with the position of the first character that does not fit."""
    return _Parser(text.strip()).spec()


def parse_item(text: str) -> Item:
    """Parse a spec string of exactly one item. Raises SpecError."""
    spec = parse(text)
    if len(spec.items) != 1:
        raise SpecError("expected a single component here", spec.text, spec.items[1].span)
    return spec.items[0]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.pos = text, 0

    def fail(self, message: str, start: int | None = None) -> NoReturn:
        start = self.pos if start is None else start
        raise SpecError(message, self.text, (start, max(self.pos, start + 1)))

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.pos)
        if match:
            self.pos = match.end()
        return match

    def skip(self, char: str) -> bool:
        found = self.text.startswith(char, self.pos)
        self.pos += found
        return found

    def spec(self) -> Spec:
        if not self.text:
            raise SpecError("the spec is empty: name an encoder and a backbone, as in 'stae+rans+vit-base'")
        items = [self.item()]
        while self.pos < len(self.text):
            if not self.skip("+"):
                self.fail(
                    f"unexpected {self.text[self.pos]!r}; components are joined by '+', values with odd "
                    "characters are quoted"
                )
            if len(items) == MOST:
                self.fail(f"a spec has at most {MOST} components")
            items.append(self.item())
        return Spec(tuple(items), self.text)

    def item(self) -> Item:
        start = self.pos
        match = self.take(_ITEM)
        if match is None:
            self.fail("a component's name is expected here: lower-case letters, digits and . _ - after a letter")
        kind = cast("Kind | None", match[1])
        target, target_span = None, (self.pos, self.pos)
        if self.skip("@"):
            at = self.pos
            found = self.take(_TARGET)
            if found is None:
                self.fail("'@' is followed by what it is about: a cut or something to select")
            target, target_span = found[0], (at, self.pos)
        args = tuple(self.arguments()) if self.skip(":") else ()
        return Item(match[2], kind, target, args, (start, self.pos), target_span)

    def arguments(self) -> Iterator[Arg]:
        seen: set[str] = set()
        first = True
        while first or self.skip(","):
            start = self.pos
            key = self.take(_KEY)
            if key is None and not first:
                self.fail("'key=value' is expected here; only the first argument may be a bare value")
            if key is not None and key[1] in seen:
                self.fail(f"{key[1]} is given twice", start)
            value = self.value()
            if key is not None:
                seen.add(key[1])
            yield Arg(key[1] if key else None, value, (start, self.pos))
            first = False

    def value(self) -> Value:
        start = self.pos
        quoted = self.take(_QUOTED)
        if quoted:
            return re.sub(r"\\(.)", r"\1", quoted[2], flags=re.DOTALL)
        if self.text.startswith(("'", '"'), start):
            self.pos = len(self.text)
            self.fail("this quote is not closed", start)
        word = self.take(_WORD)
        if word is None:
            self.fail("a value is expected here: a number, true, false, a word or a quoted string")
        try:
            return read_word(word[0])
        except ValueError:
            self.fail(f"{word[0]} is too large a number", start)
