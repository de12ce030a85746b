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

from semcodec._files import LineFile, whole_file, whole_folder
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


# -- a disk that is full, streams that are closed, two at once ---------------------------------------------------------


def run(cwd: Path, *arguments: object, most: int | None = None, closed: int | None = None):
    """A command, where no file may become larger than ``most`` bytes, as on a full disk, or with a stream closed."""

    def prepare() -> None:
        if most is not None:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        if closed is not None:
            os.close(closed)

    command = [sys.executable, "-m", "semcodec", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=prepare, timeout=180)


POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits and signals")
TRAIN = ("train", "vit-nano:32", "--data", "digits-motion", "--samples-scale", "0.001", "-o", "out")
BENCH = ("bench", "png+resnet-nano", "--data", "digits-scenes", "--limit", "1", "--out", "out")


@POSIX
@pytest.mark.parametrize("most", [100, 2000])
def test_a_full_disk_ends_training_in_one_line(tmp_path, most):
    told = run(tmp_path, *TRAIN, most=most)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith("error: out/") and "File too large" in told.stderr
    assert "Traceback" not in told.stderr
    assert set(names(tmp_path / "out")) <= {"log.jsonl"}
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert not log or log.endswith("\n")


@POSIX
def test_a_bench_folder_that_cannot_be_made_leaves_nothing_that_stops_the_next(tmp_path):
    told = run(tmp_path, *BENCH, most=10)
    assert (told.returncode, "Traceback" in told.stderr) == (1, False)
    assert told.stderr == "error: out/plan.json: File too large; nothing was measured\n"
    assert names(tmp_path) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records.jsonl").touch()  # as a run that was killed here leaves it
    told = run(tmp_path, *BENCH)
    assert told.returncode == 0, told.stderr
    assert "plan.json" in names(tmp_path / "out")


@POSIX
def test_a_line_that_does_not_fit_is_not_there(tmp_path):
    options = ("eval", "png+resnet-nano", "--data", "digits-scenes", "--limit", "1", "-o", "r.jsonl")
    told = run(tmp_path, *options, most=100)
    assert (told.returncode, told.stderr) == (1, "error: r.jsonl: File too large\n")
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_two_do_not_write_one_file(tmp_path):
    from click.testing import CliRunner

    from semcodec.cli import main

    pytest.importorskip("fcntl")
    path = tmp_path / "r.jsonl"
    options = ["eval", "png+resnet-nano", "--data", "digits-scenes", "--limit", "1", "-o", str(path)]
    with LineFile(path) as file:
        told = CliRunner().invoke(main, options)
        assert (told.exit_code, told.stderr) == (
            2, f"error: {path} is being written to by another run; wait for it or name another\n"
        )  # fmt: skip
        file.append("whole")
    assert path.read_bytes() == b"whole\n"
    with LineFile(path) as file:
        file.append("again")
    assert path.read_bytes() == b"whole\nagain\n"


@POSIX
@pytest.mark.parametrize("closed", [1, 2])
@pytest.mark.parametrize("command", ["plugins list", "data list", "compose png+vit-nano --dry-run", "--help"])
def test_a_closed_stream_is_one_line_or_silence(tmp_path, command, closed):
    told = run(tmp_path, *command.split(), closed=closed)
    assert told.returncode == 0
    assert told.stderr == ""


@POSIX
def test_sigterm_saves_the_checkpoint_of_a_training(tmp_path):
    command = [sys.executable, "-m", "semcodec", *TRAIN]
    command[command.index("0.001")] = "1"
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if (tmp_path / "out" / "log.jsonl").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert said == "out has a checkpoint: the same command goes on from there\nstopped\n"
    assert "checkpoint.safetensors" in names(tmp_path / "out")
