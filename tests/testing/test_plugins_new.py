"""``semcodec plugins new`` makes packages that install, pass their tests, are listed and are measured at once."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from environments import install, new_environment, run

from semcodec.cli import main
from semcodec.component import KINDS

ROOT = Path(__file__).parents[2]


def new(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["plugins", "new", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One package of each kind, my-KIND, in one folder, and an environment that they are installed in."""
    folder = tmp_path_factory.mktemp("made")
    for kind in KINDS:
        new(f"my-{kind}", "--kind", kind, "-o", str(folder / kind))
    environment = new_environment(folder / "environment")
    install(environment, *(folder / kind for kind in KINDS))
    return folder, environment


@pytest.fixture(scope="module")
def tested(made):
    """By kind, how many tests of the packages had which outcome: all in one process, for torch is slow to start."""
    folder, environment = made
    command = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=found.xml"]
    run([*command, *(f"{kind}/tests" for kind in KINDS)], environment, folder)
    found = {kind: Counter[str]() for kind in KINDS}
    for case in ElementTree.parse(folder / "found.xml").iter("testcase"):
        kind = case.attrib["classname"].rpartition("test_semcodec_my_")[2]
        found[kind][case[0].tag if len(case) else "passed"] += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_packages_own_tests_pass(tested, kind):
    assert set(tested[kind]) <= {"passed", "skipped"}  # a check of what the component has none of
    assert tested[kind]["passed"] > 5


def test_they_are_listed(made):
    folder, environment = made
    rows = json.loads(run(["semcodec", "plugins", "list", "--format", "json"], environment, folder))
    found = {row["name"]: (row["kind"], row["status"], row["distribution"]) for row in rows}
    assert {name: row for name, row in found.items() if name.startswith("my-")} == {
        f"my-{kind}": (kind, "ok", f"semcodec-my-{kind}") for kind in KINDS
    }
    assert not [row for row in rows if row["status"] == "broken"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bench_that_the_readme_names_has_it(made, kind):
    folder, environment = made
    (command,) = [li for li in (folder / kind / "README.md").read_text().splitlines() if "semcodec bench" in li]
    cells = run([*shlex.split(command), "--dry-run"], environment, folder).split("\n\n")[0].splitlines()
    assert any(f"my-{kind}" in cell for cell in cells)
    assert any(f"my-{kind}" not in cell for cell in cells) or kind == "backbone"  # something to compare it with


def test_they_are_measured(made):
    folder, environment = made
    for data, spec in (
        ("digits-scenes", "my-encoder:3+my-entropy+my-backbone@conv2"),
        ("digits-motion", "stae:frames=4+my-selector@pixels+my-recoverer+vit-nano"),
    ):
        command = ["semcodec", "bench", spec, "--data", data, "--limit", "20", "--offline", "--out", data]
        (record,) = map(json.loads, run([*command, "--format", "json"], environment, folder).splitlines())
        assert record["top1"] >= 0.7
        assert record["ratio_uint8"] > 5


def test_a_backbone_that_segments_passes_its_tests(tmp_path):
    new("my-segmenter", "--kind", "backbone", "--task", "segmentation", "-o", str(tmp_path / "made"))
    made = tmp_path / "made"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    paths = os.pathsep.join([str(made), *sys.path])
    done = subprocess.run(command, cwd=made, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "--task segmentation" in (made / "README.md").read_text()


@pytest.mark.parametrize("kind", [*KINDS, "backbone --task segmentation"])
def test_what_is_made_is_in_good_form(tmp_path, kind):
    new("of.odd_name-2", "--kind", *kind.split(), "-o", str(tmp_path / "made"))
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select=E,F,I,B,RUF"], ["format", "--check"]):
        options = ["--isolated", "--no-cache", "--line-length=120", "."]
        done = subprocess.run([*ruff, *command, *options], cwd=tmp_path / "made", capture_output=True)
        assert done.returncode == 0, done.stdout.decode()
    files = [path for path in (tmp_path / "made").rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert len(files) == 7
    assert not [path for path in files if "{{" in path.read_text()]
    project = tomllib.loads((tmp_path / "made" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["semcodec"] == {"of.odd_name-2": "semcodec_of_odd_name_2"}
    tree = ast.parse((tmp_path / "made" / "semcodec_of_odd_name_2" / "__init__.py").read_text())
    assert {n.module.partition(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)} == {"semcodec"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Mine", "--kind", "encoder"), "'Mine' is no name for a component"),
        (("a/b", "--kind", "encoder"), "'a/b' is no name for a component"),
        (("2nd", "--kind", "encoder"), "'2nd' is no name for a component"),
        (("jpeg", "--kind", "encoder"), "jpeg is taken: semcodec has an encoder of that name"),
        (("top-k", "--kind", "entropy"), "top-k is taken: semcodec has a selector of that name"),
        (("plugins", "--kind", "encoder"), "the package semcodec_plugins that plugins would be in is there already"),
        (("mine", "--kind", "encoder", "-o", "here"), "here is there already"),
        (("mine", "--kind", "encoder", "-o", "file"), "file is there already"),
        (("mine", "--kind", "encoder", "-o", "no/such"), "no is no folder to make such in"),
        (("mine", "--kind", "codec"), "'codec' is not one of"),
        (("mine",), "missing option '--kind'"),
        (
            ("mine", "--kind", "encoder", "--task", "segmentation"),
            "--task is what a backbone does, and mine is an encoder",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_made_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["plugins", "new", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert len([line for line in done.output.splitlines() if line.lower().startswith("error")]) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "here"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def write_bytes(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    done = CliRunner().invoke(main, ["plugins", "new", "mine", "--kind", "encoder", "-o", str(tmp_path / "mine")])
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert list(tmp_path.iterdir()) == []


def session() -> list[tuple[str, list[str]]]:
    """Of the transcript in docs/plugins.md, each command and the lines that it prints."""
    text = (ROOT / "docs" / "plugins.md").read_text()
    (block,) = [b for b in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL) if "plugins new" in b]
    commands: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return commands


NUMBER = r"([\d,]+\.\d+)"


def pattern(lines: list[str]) -> str:
    """``...`` is any text, alone in a line any lines; numbers with a point are compared by value."""
    out = []
    for line in lines:
        if line == "...":
            out.append(r"(?:.*\n)*?")
        else:
            numbers = re.sub(r"[\d,]+\.\d+", "\0", line.replace("...", "\1"))
            spaced = re.sub(r" {2,}", "\2", numbers)
            out.append(re.escape(spaced).replace("\0", NUMBER).replace("\1", ".*").replace("\2", " +") + r"\n")
    return "".join(out)


def test_the_session_from_an_empty_folder_goes_as_shown(tmp_path):
    """pip builds with what is installed here, so that nothing is fetched."""
    environment, folder = new_environment(tmp_path / "environment"), tmp_path / "empty"
    folder.mkdir()
    assert [line.split()[0] for line, _ in session()] == ["semcodec", "cd", "pip", "semcodec", "semcodec"]
    for line, expected in session():
        words = shlex.split(line)
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        if words[0] == "pip":
            words = ["python", "-m", *words, "--no-build-isolation"]
        said = run(words, environment, folder)
        found = re.fullmatch(pattern(expected), said)
        assert found, f"{line}\n{said}"
        shown = re.findall(NUMBER, "\n".join(expected))
        for there, here in zip(shown, found.groups(), strict=True):
            assert float(here.replace(",", "")) == pytest.approx(float(there.replace(",", "")), rel=0.1), line


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_with_build_isolation_alone_in_its_environment(tmp_path, kind):
    """As an author does it: pip fetches what building takes."""
    new(f"my-{kind}", "--kind", kind, "-o", str(tmp_path / "made"))
    environment = new_environment(tmp_path / "environment")
    install(environment, tmp_path / "made", options=("--no-deps", "-e"))
    out = run(["python", "-m", "pytest", "-q"], environment, tmp_path / "made")
    assert " passed" in out
    assert "failed" not in out
