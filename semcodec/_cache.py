"""The user's cache: clips that were decoded, digests of files, weights that were fetched."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from semcodec._files import TEMPORARY

_STILL_S = 60.0
"""Seconds that a file has not been written to before it is taken for abandoned."""


def cache_folder(kind: str) -> Path | None:
    """Where derived files of one kind ("clips", "digests", "weights") may be kept; it need not be there.

    In ``SEMCODEC_CACHE``, else in ``semcodec`` in ``XDG_CACHE_HOME``, else in ``~/.cache/semcodec``. None where
    ``SEMCODEC_CACHE`` is set to nothing, or there is no home. What processes that were killed left half-written there
    is removed, once in each process.
    """
    named = os.environ.get("SEMCODEC_CACHE")
    if named == "":
        return None
    try:
        root = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "semcodec"
    except RuntimeError:  # no home directory
        return None
    _tidy(root / kind)
    return root / kind


@cache
def _tidy(folder: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            made = re.fullmatch(TEMPORARY, entry.name)
            if made and not _runs(int(made[1])) and time.time() - entry.stat().st_mtime > _STILL_S:
                os.unlink(entry)


def _runs(process: int) -> bool:
    """Whether there is a process of that number here."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True
