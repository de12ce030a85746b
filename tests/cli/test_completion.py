"""A shell completes specs, names, parameters, cuts and data sets, quickly and without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semcodec.cli.completion import complete_spec

BREAKS = " \t\n\"'><=;|&(:@"


def texts(begun: str) -> list[str]:
    return [text for text, _ in complete_spec(begun)]


def test_an_encoder_comes_first():
    found = texts("")
    assert "stae" in found and "jpeg" in found
    assert "vit-nano" not in found and "huffman" not in found
    assert texts("feature-v") == ["feature-video", "feature-video-pca"]


def test_then_what_fits_and_is_not_there_yet():
    found = texts("stae+rans+")
    assert "stae+rans+vit-nano" in found
    assert "stae+rans+vit-nano-server" not in found  # an image's, where stae sends clips
    assert "stae+rans+huffman" not in found
    assert "stae+rans+cnn-3d2d" in found


@pytest.mark.parametrize(
    ("begun", "some"),
    [
        ("stae:fr", ["stae:frames="]),
        ("stae:frames=1", ["stae:frames=1", "stae:frames=16"]),
        ("stae:frames=4,", ["stae:frames=4,pixels="]),
        ("jpeg:4", ["jpeg:40"]),
        ("jpeg:75+vit-nano@in", ["jpeg:75+vit-nano@input"]),
        ("layered+rans+vit-nano@", ["layered+rans+vit-nano@embed", "layered+rans+vit-nano@block4"]),
        ("stae+random@", ["stae+random@frames", "stae+random@pixels"]),
        ("jpeg+timm", ["jpeg+timm/"]),
    ],
)
def test_parameters_values_targets_and_cuts(begun: str, some: list[str]):
    assert set(some) <= set(texts(begun))


def test_a_parameter_is_not_offered_twice():
    assert "stae:frames=4,frames=" not in texts("stae:frames=4,")


@pytest.mark.parametrize("begun", ["nothing:", "nothing@", "stae:nothing=", "+", "stae++", "a b", "vit-nano@"])
def test_what_makes_no_sense_gives_nothing_or_something_and_no_error(begun: str):
    assert isinstance(texts(begun), list)


# --- through the program ---


def ask(line: str, breaks: str = BREAKS) -> list[str]:
    environment = os.environ | {
        "_SEMCODEC_COMPLETE": "bash_complete",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_WORDBREAKS": breaks,
    }
    program = [sys.executable, "-c", "from semcodec.cli import main; main(prog_name='semcodec')"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("semcodec ev", "plain,eval"),
        ("semcodec eval stae:fr", "plain,frames="),
        ("semcodec eval layered+rans+vit-nano@em", "plain,embed"),
        ("semcodec eval stae+rans+vit-nano --data digits-m", "plain,digits-motion"),
        ("semcodec eval stae+rans+vit-nano --sweep stae.fr", "plain,stae.frames="),
        ("semcodec plugins show vit-n", "plain,vit-nano"),
        ("semcodec data show digits-s", "plain,digits-scenes"),
        ("semcodec eval stae+rans+vit-nano --data some", "dir,some"),
    ],
)
def test_a_line_of_bash(line: str, some: str):
    assert some in ask(line)


def test_where_bash_does_not_break_words_there_are_whole_ones():
    assert ask("semcodec eval stae:fr", " \t\n") == ["plain,stae:frames="]


def test_it_imports_nothing_heavy():
    code = (
        "import sys, os; os.environ['_SEMCODEC_COMPLETE'] = 'x'; import semcodec.cli.completion as c;"
        "list(c.complete_spec('stae+rans+')); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "timm", "matplotlib", "scipy"} & set(loaded)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_gives_what_the_shell_reads(shell: str, tmp_path: Path):
    environment = os.environ | {"_SEMCODEC_COMPLETE": f"{shell}_source"}
    program = [sys.executable, "-c", "from semcodec.cli import main; main(prog_name='semcodec')"]
    source = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout
    assert "_SEMCODEC_COMPLETE" in source
    if shell == "bash" and (bash := shutil.which("bash")):
        words = tmp_path / "semcodec"
        words.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c \"from semcodec.cli import main; main(prog_name='semcodec')\"\n"
        )
        words.chmod(0o755)
        line = "semcodec eval stae+rans+vit-nano@e"
        script = (
            f"{source}\nCOMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDBREAKS=$' \\t\\n:=@'\ncompopt() {{ :; }}\n"
            f'_semcodec_completion {words}\necho "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["embed"], done.stderr
