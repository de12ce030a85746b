"""One line on a terminal, rewritten; nothing elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from semcodec._progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stderr", [Terminal, io.StringIO])
def test_one_line_that_is_gone_in_the_end(monkeypatch, stderr):
    at = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: at[0])
    monkeypatch.setattr("sys.stderr", stderr())
    progress = Progress()
    progress.show("building")
    at[0] += 60
    progress.share("all 1/2  loss 0.3", 0.25)
    progress.count("stae+rans+vit-nano", 1, 2)
    progress.count("stae+rans+vit-nano", 2, 2)
    clear = "\r\033[K"
    timed, counted = "all 1/2  loss 0.3  25 %, 3.0 min left", "stae+rans+vit-nano  "
    lines = ["building", timed, counted + "1/2", counted + "2/2", ""]
    assert sys.stderr.getvalue() == ("".join(clear + line for line in lines) if stderr is Terminal else "")
