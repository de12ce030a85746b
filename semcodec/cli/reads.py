"""Which files a command reads, so that nothing that it writes takes the place of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from semcodec._files import refuse_overwrite

BESIDE = frozenset((".txt", ".csv", ".yaml", ".yml"))
"""Endings of lists, tables and labels, that data sets have beside pictures and clips."""


def spare(outputs: Iterable[Path], *, data: Iterable[str] = (), weights: Iterable[str] = (),
          files: Iterable[str | os.PathLike[str] | None] = ()) -> None:  # fmt: skip
    """Raise UsageError where an output is a file that is read.

    data: inputs and data sets, as they are named. weights: as ``--weights`` names them, slots and all. files: others.
    """
    there = [output for output in outputs if output.is_file()]
    if there:  # looking through folders is for those alone that would replace something
        read = [*(path for path in files if path is not None), *_data_files(data), *_weights_files(weights)]
        for output in there:
            refuse_overwrite(output, read)


def _data_files(named: Iterable[str]) -> Iterator[str]:
    from semcodec.data.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    endings, seen = IMAGE_SUFFIXES | VIDEO_SUFFIXES | BESIDE, set[str]()
    for text in named:
        folder = text if os.path.exists(text) else text.rpartition(":")[0]
        if not _is_new(folder, seen):
            continue
        if os.path.isfile(folder):
            yield folder
        for place, folders, names in os.walk(folder, followlinks=True):
            folders[:] = [one for one in folders if _is_new(os.path.join(place, one), seen)]
            yield from (os.path.join(place, name) for name in names if os.path.splitext(name)[1].lower() in endings)


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder was not gone through yet, so that links that lead back to it end."""
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return not known


def _weights_files(named: Iterable[str]) -> Iterator[str | Path]:
    for text in named:
        path = text if os.path.exists(text) else text.partition("=")[2]
        if os.path.isdir(path):  # of a run, or of several
            yield from (file for depth in ("*", "*/*") for file in Path(path).glob(depth))
        elif path:
            yield path
