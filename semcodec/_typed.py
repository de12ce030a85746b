"""What files hold, read into typed forms: what does not fit is a ``ValueError`` of one line that says what and where.

A form is anything that msgspec takes: a ``Struct``, or a type such as ``dict[str, Any]``.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, TypeVar

import msgspec

Form = TypeVar("Form")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""What may be half of a character beyond 16 bits, without the other half."""


def read_json(content: str | bytes, form: type[Form]) -> Form:
    """One JSON document. Raises ValueError."""
    try:
        value = json.loads(content)
        if _HALF.search(content if isinstance(content, bytes) else content.encode()):
            json.dumps(value, ensure_ascii=False).encode()
        return convert(value, form)
    except UnicodeEncodeError:
        raise ValueError("has half a character, which no file or terminal takes") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None


def read_toml(content: str, form: type[Form]) -> Form:
    """One TOML document. Raises ValueError."""
    try:
        return convert(tomllib.loads(content), form)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is no TOML: {error}") from None


def convert(value: Any, form: type[Form]) -> Form:
    """A document's value as a form. Raises ValueError, "bytes of point 1: expected ..."."""
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    except OverflowError:
        raise ValueError("has a number that is too large") from None


def _in_words(message: str) -> str:
    """msgspec's message: "bytes of point 1: expected ...", for "Expected ... - at `$.point[0].bytes`"."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").replace("[...]", "")
    numbered = re.sub(r"\[(\d+)\]", lambda found: f" {int(found[1]) + 1}", path)
    place = " of ".join(part for part in reversed(numbered.split(".")) if part)
    text = (text[:1].lower() + text[1:]).replace("object", "table")
    return f"{place}: {text}" if place else text
