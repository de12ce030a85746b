"""What one line of ours says of an error."""

from __future__ import annotations

import pytest

from semcodec.errors import CorruptStream, SpecError, first_line


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SpecError("no such encoder", "steae+rans", (0, 5)), "no such encoder"),
        (CorruptStream(), "CorruptStream"),
        (KeyError("a"), "'a'"),
    ],
)
def test_first_line(error, says):
    assert first_line(error) == says
