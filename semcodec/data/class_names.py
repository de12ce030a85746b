"""The names of classes in a ``data.yaml`` or ``classes.yaml``: text as it stands there, within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semcodec.data.files import read_text
from semcodec.errors import DataError

MOST_BYTES, DEEPEST, MOST_ALIASES = 1 << 18, 16, 100
"""Of a ``data.yaml``: its size, how deep its values nest, and how often it refers to one of its own values."""


def read_class_names(path: Path) -> list[str]:
    """The classes under ``names``, listed or numbered from 0. Raises DataError.

    Every value is the text that is written: ``no`` is a name, not False, and ``010`` is not 8.
    """
    found = read_yaml(path)
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        names = [names[number] for number in numbers] if names.keys() == set(numbers) else None
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: has no list of names, as in names: [cat, dog], or of numbers from 0 with names")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: the name of class {number} is no text")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: names a class twice")
    return names


def read_yaml(path: Path) -> Any:
    """The file's value, whose parts are str, list and dict alone. Raises DataError."""
    import yaml

    text = read_text(path, MOST_BYTES)
    try:
        _check_bounds(path, text)
        return yaml.load(text, yaml.BaseLoader)  # which gives every scalar as its text
    except (yaml.YAMLError, ValueError) as e:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(e).split())})") from e


def _check_bounds(path: Path, text: str) -> None:
    """Raises DataError for what would take long or deep, before a value is made of it."""
    import yaml

    depth = aliases = 0
    for event in yaml.parse(text, yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise DataError(f"{path}: its values nest deeper than {DEEPEST}")
        if aliases > MOST_ALIASES:
            raise DataError(f"{path}: has more than {MOST_ALIASES} aliases")
