"""What commands read and write: files, and stdin and stdout as ``-``; looked at before anything heavy is imported."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import IO, BinaryIO

from semcodec._files import whole_file
from semcodec.errors import UsageError

DASH = Path("-")
_SPOOLED = 1 << 24
"""Bytes of a stream up to which it is kept in memory rather than in a temporary file."""


@contextmanager
def reading(file: Path) -> Iterator[BinaryIO]:
    """A file, or all of stdin, at its beginning; one may seek in either."""
    if file != DASH:
        with file.open("rb") as opened:
            yield opened
        return
    with tempfile.SpooledTemporaryFile(_SPOOLED) as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.seek(0)
        yield kept  # type: ignore[misc]


@contextmanager
def writing(file: Path) -> Iterator[IO[bytes]]:
    """``whole_file``, or stdout, which gets everything when it is complete and nothing otherwise."""
    if file != DASH:
        with whole_file(file) as opened:
            yield opened
        return
    with tempfile.SpooledTemporaryFile(_SPOOLED) as kept:
        yield kept
        kept.seek(0)
        shutil.copyfileobj(kept, sys.stdout.buffer)
        sys.stdout.flush()


def telling(file: Path | None) -> AbstractContextManager[object]:
    """Where results are printed: on stderr while stdout carries the bytes of ``file``."""
    return redirect_stdout(sys.stderr) if file == DASH else nullcontext()


def check_output(file: Path, *, stdout: bool = True) -> None:
    """Raise for a file that could not be written: OSError for a folder that is not there, UsageError for a folder.

    stdout: whether - may stand for it, where no such file is meant either.
    """
    if file == DASH:
        if not stdout:
            raise UsageError(
                "- would be stdout, and this is written to a file alone: name one, or ./- for that very name"
            )
        if sys.stdout.isatty():
            raise UsageError("-o - writes bytes, and stdout is a terminal: add > FILE or | COMMAND")
        return
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file in it")
    if not Path(os.path.realpath(file)).parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
