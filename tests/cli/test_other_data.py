"""A network that was trained on the built-in data says so of what is none of it, in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main

SPEC = "jpeg+vit-nano-server"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path, one_thread) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    return tmp_path


def call(*arguments: object):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("form", ["table", "json"])
def test_an_answer_on_other_data_comes_with_a_line(form):
    for arguments in (
        ("compose", SPEC, "--input", "a.png"),
        ("encode", SPEC, "a.png", "a.png", "-o", "a.sem", "--check"),
    ):
        result = call(*arguments, "--format", form)
        [line] = result.stderr.splitlines()
        assert line.startswith("note: shipped: vit-nano-server.safetensors was trained on digits-scenes alone")
        assert "one of its 10 classes (0, 1, 2, 3, ...) whatever a.png shows" in line
        assert "note" not in result.stdout


def test_nothing_is_said_of_its_own_data_of_other_weights_or_where_nobody_answers():
    assert call("compose", SPEC, "--input", "digits-scenes:0").stderr == ""
    assert call("compose", SPEC, "--input", "a.png", "--weights", "random").stderr == ""
    assert call("encode", SPEC, "a.png", "-o", "a.sem").stderr == ""
    assert call("decode", "a.sem").stderr == ""
