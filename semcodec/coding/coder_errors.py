"""What entropy coders of ``constriction`` raise on bytes that they did not write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from semcodec.errors import CorruptStream, first_line


@contextmanager
def only_corrupt() -> Iterator[None]:
    """Whatever constriction raises on words that it did not write is a CorruptStream, its panics included."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        raise CorruptStream(f"coded symbols: {first_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # derives from BaseException and cannot be imported
            raise
        raise CorruptStream("coded symbols are damaged") from error
