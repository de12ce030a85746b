"""No command takes what it reads for its output, whatever links and names lead to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec._files import refuse_overwrite
from semcodec.cli import main
from semcodec.errors import UsageError

SHIPPED = Path(__file__).parents[2] / "plugins/timm_models/weights/vit-nano-server.safetensors"
IMAGES = "jpeg+vit-nano-server"


def same(path: Path, other: Path) -> None:
    assert path == other


def symbolic(path: Path, other: Path) -> None:
    other.symlink_to(path.resolve())


def hard(path: Path, other: Path) -> None:
    os.link(path, other)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a picture, a data set, weights, cells, a trace and measurements."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    for name in ("a.png", "data/one/b.png", "data/two/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(name)
    Path("data/train.txt").write_text("one/b.png")
    shutil.copy(SHIPPED, "w.safetensors")
    Path("run").mkdir()
    shutil.copy(SHIPPED, "run/weights.safetensors")
    shutil.copy(SHIPPED, "run/device.safetensors")
    Path("cells.toml").write_text('[[cell]]\nspec = "jpeg:40+vit-nano-server"\n')
    Path("trace.csv").write_text("0, 5\n1, 2\n")
    Path("records.html").write_text(json.dumps({"record": 1, "spec": "a+b"}) + "\n")


CASES: list[tuple[str, str, Callable[[str], list[str]]]] = [
    ("encode", "a.png", lambda out: ["encode", IMAGES, "a.png", "-o", out]),
    ("encode of a data set", "data/two/c.png", lambda out: ["encode", IMAGES, "data:0", "-o", out]),
    ("encode's weights", "w.safetensors",
     lambda out: ["encode", IMAGES, "a.png", "-o", out, "--weights", "w.safetensors"]),
    ("compose", "a.png", lambda out: ["compose", IMAGES, "--input", "a.png", "--save-plot", out]),
    ("eval", "data/train.txt", lambda out: ["eval", IMAGES, "--data", "data", "--split", "all", "-o", out]),
    ("eval's weights", "run/weights.safetensors",
     lambda out: ["eval", IMAGES, "--data", "data", "--weights", "backbone=run", "-o", out]),
    ("report", "records.html", lambda out: ["report", "records.html", "-o", out]),
    ("plan", "trace.csv",
     lambda out: ["plan", "--profile", "stae", "--deadline-ms", "100", "--trace", "trace.csv", "--save-trace", out]),
    ("cut", "a.png", lambda out: ["cut", "a.png", "--layers", "1", "-o", out]),
]  # fmt: skip


@pytest.mark.parametrize("link", [same, symbolic, hard])
@pytest.mark.parametrize(("read", "command"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_output_is_no_input(read, command, link):
    path = Path(read)
    out = path if link is same else Path("out" + path.suffix)
    link(path, out)
    before = path.read_bytes()
    result = CliRunner().invoke(main, command(str(out)))
    assert result.exit_code == 2, result.output
    assert f"error: {out} is read by this very command, as " in result.output
    assert path.read_bytes() == before


@pytest.mark.parametrize("link", [symbolic, hard])
def test_what_is_written_into_a_folder_is_no_input(link):
    """Halves, runs and measurements go by names of their own, that may lead elsewhere."""
    for name in ("split/device.safetensors", "trained/weights.safetensors", "bench/plan.json"):
        Path(name).parent.mkdir()
    link(Path("w.safetensors"), Path("split/server.safetensors"))
    link(Path("a.png"), Path("trained/card.json"))
    shutil.copy("a.png", "data/one/d.png")
    link(Path("data/one/d.png"), Path("trained/log.jsonl"))
    link(Path("cells.toml"), Path("bench/skips.jsonl"))
    for command in (
        ["split", IMAGES, "-o", "split", "--weights", "w.safetensors"],
        ["split", IMAGES, "-o", "run", "--weights", "run/device.safetensors"],
        ["train", "vit-nano-server", "--data", "data", "-o", "trained"],
        ["bench", "--data", "data", "--cells", "cells.toml", "--out", "bench"],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2, (command, result.output)
        assert "is read by this very command, as " in result.output
    assert Path("w.safetensors").read_bytes() == Path("run/device.safetensors").read_bytes() == SHIPPED.read_bytes()


def test_a_report_takes_no_page_for_the_records_beside_which_it_would_be():
    before = Path("records.html").read_bytes()
    result = CliRunner().invoke(main, ["report", "records.html"])
    assert (result.exit_code, Path("records.html").read_bytes()) == (2, before)


def test_records_go_on_only_where_there_are_records():
    """A file without a line's end is no half record, unless it begins as one."""
    Path("labels").write_bytes(b"image,label")
    result = CliRunner().invoke(main, ["eval", IMAGES, "--data", "data", "-o", "labels"])
    assert result.exit_code == 1 and "labels is no file of records" in result.output
    assert Path("labels").read_bytes() == b"image,label"


def test_links_that_lead_back_end(tmp_path):
    Path("data/again").symlink_to(tmp_path / "data")
    result = CliRunner().invoke(main, ["encode", IMAGES, "data:0", "-o", "data/train.txt"])
    assert result.exit_code == 2, result.output


def test_new_files_pipes_and_devices_are_written(tmp_path):
    refuse_overwrite(tmp_path / "new", [tmp_path / "a.png"])
    refuse_overwrite(Path(os.devnull), [os.devnull, "a\0b"])
    with pytest.raises(UsageError):
        refuse_overwrite(tmp_path / "a.png", ["a.png"])
