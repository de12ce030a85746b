"""One cache: where it is, and what killed processes leave in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from semcodec import _cache
from semcodec._cache import cache_folder
from semcodec.errors import WeightsError
from semcodec.pipeline import hub

KILLED = """
import sys
from pathlib import Path
from semcodec._files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_every_kind_is_in_one_place(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named, xdg, due in (
        (None, None, tmp_path / "home/.cache/semcodec"),
        (None, str(tmp_path / "xdg"), tmp_path / "xdg/semcodec"),
        (str(tmp_path / "own"), str(tmp_path / "xdg"), tmp_path / "own"),
        ("", str(tmp_path / "xdg"), None),
    ):
        for name, value in (("SEMCODEC_CACHE", named), ("XDG_CACHE_HOME", xdg)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        for kind in ("clips", "digests", "weights"):
            assert cache_folder(kind) == (due / kind if due else None)


def test_without_a_cache_nothing_is_fetched(monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", "")
    with pytest.raises(WeightsError, match="SEMCODEC_CACHE is set to nothing"):
        hub.download("https://example.invalid/model-0123abcd.safetensors")


def test_what_a_killed_process_left_is_removed_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path))
    clips = tmp_path / "clips"
    clips.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, clips / f"{i}.npy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    other = clips / ".mine.tmp"
    other.touch()
    before = list(clips.iterdir())
    assert len(before) == 3
    cache_folder("clips")
    assert set(clips.iterdir()) == set(before)  # written to a moment ago, perhaps from another machine
    for path in before:
        os.utime(path, (time.time() - 3600,) * 2)
    _cache._tidy.cache_clear()
    cache_folder("clips")
    left = {path.name for path in clips.iterdir()}
    assert len(left) == 2 and ".mine.tmp" in left and any(name.startswith(".1.npy.") for name in left)
    writers[1].communicate()
    assert {path.name for path in clips.iterdir()} == {".mine.tmp", "1.npy"}
