"""Files and folders that are complete or not there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from semcodec.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when it is complete, and leaves no trace otherwise.

    It is on the disk before it takes that place. What is there and is no regular file, such as a pipe, is written to as
    it is. Raises UsageError where ``path`` is a folder, OSError that names ``path``.
    """
    with whole_path(path) as written, open(written, "wb") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """``whole_file`` for writers that take a name: the name to write to."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    regular = target.is_file() or not target.exists()
    own = f"{os.getpid()}-{threading.get_native_id()}"  # two processes or threads may write the same file
    written = target.with_name(f".{target.name}.{own}.tmp") if regular else target
    try:
        yield written
        if regular:
            _sync(written)
            os.replace(written, target)
            _sync_folder(target.parent)
    except OSError as error:
        if error.filename in (None, str(written)):
            error.filename = str(path)
        raise
    finally:
        if regular:
            with suppress(OSError):
                written.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path``, which is not there yet, when it is complete; no trace otherwise."""
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield made
        made.chmod(0o755)
        for file in made.rglob("*"):
            _sync_folder(file) if file.is_dir() else _sync(file)
        made.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def read_regular(path: Path, most: int) -> bytes:
    """A regular file's content. Raises OSError, with a word for pipes and devices, which would be waited for, and where
    it has more than ``most`` bytes."""
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "is a pipe, a device or a folder, and no file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than the {most:,} bytes that are read", str(path))
    return content


def refuse_overwrite(output: Path, read: Iterable[str | os.PathLike[str]]) -> None:
    """Raise UsageError where ``output`` is one of the files ``read``, whatever links and names lead to it."""
    if not output.is_file():  # a new file, or a pipe or device, which loses nothing
        return
    there = output.stat()
    for path in read:
        with suppress(OSError, ValueError):  # what is not there is not lost either
            if os.path.samestat(os.stat(path), there):
                raise UsageError(f"{output} is read by this very command, as {path}: name another file to write")


def _sync(file: Path) -> None:
    """Return once what was written to a file is on the disk."""
    opened = os.open(file, os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sync_folder(folder: Path) -> None:
    """The names in a folder, where the system lets one: without it a renamed file may be lost, but is never half."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
