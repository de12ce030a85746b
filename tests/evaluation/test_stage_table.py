"""What ``compose`` says that a Selector keeps is what it keeps of the input that is given."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from semcodec.cli import main

SPEC = "cls-attn+attention-sum:0.9+rans+vit-nano-server"


def kept(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["compose", SPEC, "--format", "json", *arguments])
    found = json.loads(result.stdout)
    [row] = [row for row in found["stages"] if row["stage"] == "select_keep"]
    return row["gives"]["mask"]


def test_what_is_kept_is_of_the_input(one_thread):
    counts = {kept("--input", f"digits-scenes:{index}") for index in range(3)}
    assert len(counts) > 1
    assert all(count.endswith(" kept") for count in counts)


def test_without_an_input_nobody_knows(one_thread):
    assert kept() == kept("--dry-run") == "as scored"


@pytest.mark.parametrize("arguments", [(), ("--input", "digits-scenes:1")])
def test_a_budget_is_kept_whatever_comes(one_thread, arguments):
    result = CliRunner().invoke(main, ["compose", "cls-attn:keep=54+top-k+rans+vit-nano-server", *arguments])
    assert "54 kept" in result.stdout
