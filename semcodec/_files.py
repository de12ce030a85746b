"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from semcodec.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when it is complete, and leaves no trace otherwise.

    What is there and is no regular file, such as a pipe, is written to as it is.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    regular = target.is_file() or not target.exists()
    written = target.with_name(f".{target.name}.{os.getpid()}.tmp") if regular else target
    try:
        with open(written, "wb") as file:
            yield file
        if regular:
            os.replace(written, target)
    except OSError as error:
        if error.filename in (None, str(written)):
            error.filename = str(path)
        raise
    finally:
        if regular:
            with suppress(OSError):
                written.unlink()
