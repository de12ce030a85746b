"""What was passed over or taken for granted while data were read, said without stopping."""

from __future__ import annotations

import warnings


class DataNote(UserWarning):
    """One line on data that are used although something about them is not as expected."""


def note(text: str) -> None:
    """Say ``text`` once, as a ``DataNote``; the command line writes it on stderr."""
    warnings.warn(text, DataNote, stacklevel=3)
