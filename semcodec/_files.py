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

TEMPORARY = r"\..*\.(\d+)-\d+\.tmp"
"""Name of a file that is being written, with the number of the process that writes it."""


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
    regular = _regular(target)
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


class LineFile:
    """A file of lines that one process at a time adds to, each of which is on the disk whole, or not there.

    What is there and is no regular file, such as a pipe, is written to as it is. called: what messages name.
    Raises UsageError where another process has it, OSError that names it.
    """

    def __init__(self, path: Path, called: Path | None = None) -> None:
        self.path = path
        self._opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666) if _regular(path) else -1
        if self._opened < 0:
            self._opened = os.open(path, os.O_WRONLY | os.O_APPEND)
            self.regular = False
            return
        self.regular = True
        try:
            self._lock(called or path)
        except BaseException:
            os.close(self._opened)
            raise

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._opened)

    def truncate(self, size: int) -> None:
        """Cut off what is behind the first ``size`` bytes: half a line, of a process that was killed."""
        if self.regular:
            os.ftruncate(self._opened, size)

    def append(self, text: str) -> None:
        """Add one line. Raises OSError, and leaves no half of it, where that fails."""
        left = (text + "\n").encode()
        begun = os.fstat(self._opened).st_size if self.regular else 0
        try:
            while left:
                left = left[os.write(self._opened, left) :]
            if self.regular:
                os.fsync(self._opened)
        except BaseException as error:
            with suppress(OSError):
                self.truncate(begun)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.path)
            raise

    def _lock(self, called: Path) -> None:
        try:
            import fcntl
        except ImportError:  # not on this system, where two at once are the user's to avoid
            return
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{called} is being written to by another run; wait for it or name another") from None


def _regular(path: Path) -> bool:
    return path.is_file() or not path.exists()


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
