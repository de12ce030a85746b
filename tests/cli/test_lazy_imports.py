"""Listing, help and dry runs are quick: they import nothing heavy, and help not even a plugin."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "compressai", "ultralytics", "matplotlib", "transformers", "sklearn", "av",
         "gradio", "huggingface_hub", "datasets"}  # fmt: skip
COMMANDS = (
    "compose",
    "encode",
    "decode",
    "inspect",
    "eval",
    "train",
    "bench",
    "plan",
    "plugins",
    "data",
    "env",
    "serve",
    "send",
    "play",
    "push",
    "pull",
    "zoo",
)
RUN = """
import json, sys
from semcodec.cli import main
try:
    main(sys.argv[1:], prog_name="semcodec")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """Modules that a command leaves imported in a process of its own."""
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_probe_sees_what_is_imported():
    code = RUN.replace("from semcodec.cli", "import semcodec.pipeline.pipeline\nfrom semcodec.cli")
    done = subprocess.run([sys.executable, "-c", code, "env"], capture_output=True, text=True, check=True)
    assert "torch" in json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("plugins", "list"),
        ("plugins", "show", "stae"),
        ("data", "list"),
        ("env",),
        ("zoo",),
        ("compose", "--dry-run", "stae+rans+vit-base"),
        ("compose", "--dry-run", "tensor8+vit-nano", "--weights", "random", "--format", "json"),
    ],
    ids=" ".join,
)
def test_imports_nothing_heavy(arguments: tuple[str, ...]):
    assert not HEAVY & imported(*arguments)


def test_the_groups_help_imports_no_command():
    found = imported("--help")
    assert not {f"semcodec.cli.{name}" for name in COMMANDS} & found
    assert not {name for name in found if name.startswith(("semcodec_plugins", "pluggy"))}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_loads_no_plugin(command: str):
    found = imported(command, "--help")
    assert f"semcodec.cli.{command}" in found
    assert not {"semcodec.composition.registry", "semcodec.composition.discovery", "pluggy", "numpy"} & found
    assert not {name for name in found if name.startswith("semcodec_plugins")}
