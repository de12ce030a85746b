"""What samples hold, named by digests of files and labels: nothing is decoded, and no path takes part."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from semcodec._cache import cache_folder
from semcodec._files import whole_file
from semcodec._json import to_json
from semcodec.errors import DataError

SETTLED_NS = 2_000_000_000
"""How long ago a file must have changed for its digest to be kept: a later change may bear the same time."""
_VERSION = 1


def digest_of(parts: Iterable[Any]) -> str:
    """16 hexadecimal digits over what ``repr`` says of each part, the same on every machine."""
    state = hashlib.sha256()
    for part in parts:
        state.update(repr(part).encode() + b"\n")
    return state.hexdigest()[:16]


def file_digests(root: Path, files: Iterable[str]) -> list[str]:
    """SHA-256 of each file's bytes; ``files`` are paths relative to ``root``.

    Digests are kept in the user's cache with time, size and number of each file, so what has not changed is read once.
    A cache that cannot be read or written is done without. Raises DataError for a file that cannot be read.
    """
    folder = cache_folder("digests")
    kept_at = folder and folder / f"{digest_of([str(os.path.realpath(root))])}.json"
    kept = _read(kept_at) if kept_at else {}
    found, added = [], False
    for name in files:
        path = root / name
        try:
            stat = os.stat(path)
            state = [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]
            entry = kept.get(os.fsencode(name).hex())
            if isinstance(entry, list) and len(entry) == 5 and entry[:4] == state and isinstance(entry[4], str):
                found.append(entry[4])
                continue
            with open(path, "rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS:
            kept[os.fsencode(name).hex()] = [*state, found[-1]]
            added = True
    if kept_at and added:
        with suppress(OSError):
            kept_at.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept_at) as file:
                file.write(to_json({"version": _VERSION, "files": kept}).encode())
    return found


def _read(path: Path) -> dict[str, Any]:
    """What was kept; nothing where there is none, or it is damaged or of another version."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and found.get("version") == _VERSION and isinstance(found.get("files"), dict):
            return dict(found["files"])
    return {}
