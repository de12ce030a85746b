"""Files in folders: which count, how text files and lists are read, and what a listed name may mean."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from semcodec.errors import DataError, first_line

LARGEST_TEXT = 1 << 28
"""Bytes of a list, table or label file that is read."""


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files such as ``.git`` and macOS's ``._a.png``."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def printable(name: str) -> str:
    """A file's name that any terminal and file takes: bytes that are no UTF-8 as ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_text(path: Path, most: int = LARGEST_TEXT) -> str:
    """A UTF-8 file of at most ``most`` bytes, with or without a byte order mark. Raises DataError."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is a pipe, a device or a folder, and no text file")
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DataError(f"{path}: has more than the {most:,} bytes that are read")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({first_line(e)})") from e


def read_lines(path: Path) -> list[str]:
    """The lines of ``read_text``, without the white space around them."""
    return [line.strip() for line in read_text(path).splitlines()]


class Names:
    """Files by name, found also where a name was written in the other Unicode form (NFC, NFD).

    any_case: endings may differ in upper and lower case, too.
    """

    def __init__(self, names: Iterable[str], any_case: bool = False) -> None:
        self._any_case = any_case
        self._by_form: dict[str, list[str]] = {}
        self._names = set(names)
        for name in sorted(self._names):
            self._by_form.setdefault(self._form(name), []).append(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def find(self, name: str) -> str | None:
        """The file that ``name`` means, itself before any other. Raises DataError where it may mean several others."""
        if name in self._names:
            return name
        found = self._by_form.get(self._form(name), [])
        if len(found) > 1:
            several = " and ".join(repr(printable(one)) for one in found)
            raise DataError(f"{printable(name)!r} could be {several}; leave one of them")
        return found[0] if found else None

    def _form(self, name: str) -> str:
        stem, ending = os.path.splitext(unicodedata.normalize("NFC", name))
        return stem + (ending.lower() if self._any_case else ending)


class Tree:
    """The files under a folder by the paths that a list or a table names them with; Unicode forms do not matter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, Names] = {}

    def find(self, listed: str) -> str | None:
        """The path of a file relative to the folder, or None. Raises DataError for one that leads out of it."""
        path = inside(listed)
        if os.path.isfile(self.root / path):
            return path
        found = ""
        for part in path.split("/"):
            name = self._within(found).find(part)
            if name is None:
                return None
            found = f"{found}/{name}" if found else name
        return found if os.path.isfile(self.root / found) else None

    def _within(self, folder: str) -> Names:
        if folder not in self._names:
            path = self.root / folder
            self._names[folder] = Names(one.name for one in visible(path)) if path.is_dir() else Names(())
        return self._names[folder]


def inside(listed: str) -> str:
    """A path that a list or a table names, relative to its folder, in its shortest form with ``/``.

    Raises DataError where it leads out of the folder.
    """
    path = os.path.normpath(listed).replace(os.sep, "/")
    if os.path.isabs(listed) or os.path.splitdrive(listed)[0] or path == ".." or path.startswith("../"):
        raise DataError(f"{listed!r} leads out of the folder; name files by their path within it")
    return path


def read_list(path: Path, names: Sequence[str]) -> frozenset[str] | None:
    """Those of ``names`` that a file lists, one a line, or None where there is no such file; lines with ``#`` are none.

    Raises DataError for one that is not among them.
    """
    if not path.is_file():
        return None
    lines = [line for line in read_lines(path) if line and not line.startswith("#")]
    known = Names(names)
    try:
        paths = [inside(line) for line in lines]
        found = {one: known.find(one) for one in paths}
    except DataError as e:
        raise DataError(f"{path}: {e}") from e
    missing = [one for one in paths if found[one] is None]
    if missing:
        raise DataError(f"{path}: lists {missing[0]!r}, which is not there ({len(missing)} of {len(lines)} missing)")
    return frozenset(name for name in found.values() if name is not None)
