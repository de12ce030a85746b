"""Files and folders are complete or not there, whatever ends the writing: an exception, a signal, a full disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch

from semcodec._files import whole_file, whole_folder
from semcodec._progress import Terminated, terminable
from semcodec.training.checkpoint import write_tensors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    synced, replaced = os.fsync, os.replace

    def fsync(opened: int) -> None:
        done.append(stat.S_IFMT(os.fstat(opened).st_mode))
        synced(opened)

    def replace(*pair: Path) -> None:
        done.append("replace")
        replaced(*pair)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with whole_file(tmp_path / "a") as file:
        file.write(b"after")
        assert not done
    assert done[:2] == [stat.S_IFREG, "replace"]
    assert done[2:] in ([stat.S_IFDIR], [])  # a system may not let a folder be synced
    assert (tmp_path / "a").read_bytes() == b"after"


def test_new_files_have_the_permissions_that_the_mask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a") as file:
            file.write(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    write_tensors(tmp_path / "b", {"x": torch.ones(3)}, {})
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Terminated, OSError])
def test_a_file_or_folder_that_is_not_complete_leaves_nothing(tmp_path, error):
    def begin() -> None:
        with whole_folder(tmp_path / "b") as made, whole_file(tmp_path / "a"):
            (made / "in").mkdir()
            (made / "in" / "it").touch()
            raise error

    with pytest.raises(error):
        begin()
    assert names(tmp_path) == []
    with whole_folder(tmp_path / "b") as made:
        (made / "in").mkdir()
        (made / "in" / "it").write_bytes(b"1")
    assert (tmp_path / "b" / "in" / "it").read_bytes() == b"1"
    assert names(tmp_path) == ["b"]


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    failed, start = [], Barrier(4)

    def write(number: int) -> None:
        try:
            start.wait()
            for _ in range(20):
                with whole_file(tmp_path / "a") as file:
                    file.write(bytes([number]) * 1000)
        except OSError as error:
            failed.append(error)

    threads = [Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_as_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with whole_file(tmp_path / "pipe") as file:
        file.write(b"through")
    reader.join()
    assert got == [b"through"]
    assert names(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_sigterm_ends_a_command_without_a_trace(tmp_path):
    """A real process, in the middle of writing."""
    (tmp_path / "a.sem").write_bytes(b"before")
    samples = [f"digits-motion:{number}" for number in range(300)]
    command = [sys.executable, "-m", "semcodec", "encode", "stae:frames=2+rans+vit-nano:32", *samples]
    process = subprocess.Popen(
        [*command, "-o", "a.sem", "--weights", "random"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    for _ in range(1000):
        if len(names(tmp_path)) == 2 or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None and names(tmp_path)[0].startswith(".a.sem.")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "stopped\n")
    assert names(tmp_path) == ["a.sem"]
    assert (tmp_path / "a.sem").read_bytes() == b"before"


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_what_else_handles_sigterm_stays():
    for before in (signal.SIG_IGN, signal.default_int_handler):
        own = signal.signal(signal.SIGTERM, before)
        try:
            with terminable():
                assert signal.getsignal(signal.SIGTERM) == before
        finally:
            signal.signal(signal.SIGTERM, own)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_a_second_sigterm_lets_the_first_one_end_what_it_began():
    ended = []

    def work() -> None:
        with terminable():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                ended.append(True)

    own = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Terminated):
            work()
        assert ended and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, own)
