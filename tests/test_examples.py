"""What the documents show is true: specs, errors, the example plugin, the record's keys, the quickstart."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from environments import install, new_environment
from environments import run as run_in

import semcodec
from semcodec.cli import COMMANDS
from semcodec.composition.composition import compose_spec
from semcodec.composition.grammar import parse
from semcodec.composition.registry import get_registry
from semcodec.data.datasets import open_dataset
from semcodec.errors import SpecError

ROOT = Path(__file__).parents[1]
SPEC_LANGUAGE = (ROOT / "docs" / "spec-language.md").read_text()
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
MEASURING = (ROOT / "docs" / "measuring.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/tutorials/*.md"),
    *ROOT.glob("plugins/*/README.md"),
]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


ERRORS = blocks(SPEC_LANGUAGE, "error")
CANONICAL = re.findall(r"^\| `([^`|]+)` \| `([^`|]+)` \|$", SPEC_LANGUAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("block", ERRORS, ids=lambda block: block.splitlines()[1].strip())
def test_errors_are_as_shown(block):
    with pytest.raises(SpecError) as caught:
        compose_spec(block.splitlines()[1].strip())
    assert str(caught.value) == block.rstrip("\n")


@pytest.mark.parametrize(("written", "canonical"), CANONICAL)
def test_canonical_forms_are_as_shown(written, canonical):
    assert compose_spec(written).spec == canonical


def test_there_is_something_to_check():
    assert len(ERRORS) >= 10
    assert len(CANONICAL) >= 8


def commands() -> list[tuple[str, list[str]]]:
    """Command lines of the documents, by file."""
    return [
        (str(path.relative_to(ROOT)), re.split(r" {2,}", line)[0].split())
        for path in DOCUMENTS
        for line in re.findall(r"^(?: {4}|\$ )semcodec ([^\n#]+)$", path.read_text(), flags=re.MULTILINE)
    ]


@pytest.mark.parametrize(("path", "words"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_commands_and_their_specs_exist(path, words):
    assert words[0] in COMMANDS
    if words[0] not in ("compose", "encode", "eval", "train") or words[1].startswith("--"):
        return
    spec = words[1]
    known = set(get_registry().names())
    families = tuple(name[:-1] for name in known if name.endswith("/*"))
    if spec.endswith(".semdev"):  # what export wrote
        return
    unknown = [item.name for item in parse(spec).items if item.name not in known and not item.name.startswith(families)]
    if unknown:  # of the example plugin
        assert "downscale" in spec
    elif words[0] != "train" or "+" in spec:
        compose_spec(spec)


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"semcodec {name}" not in text] == []


@pytest.fixture(scope="module")
def record():
    """A small evaluation with untrained weights: only the keys matter."""
    classes = open_dataset("digits-motion").classes
    pipeline = semcodec.compose("stae:frames=2+vit-nano", weights="random", classes=classes)
    return pipeline.evaluate("digits-motion", limit=2)


def test_every_key_of_the_record_is_explained(record):
    assert [key for key in record if f"`{key}`" not in MEASURING] == []
    assert record["bytes_total"] == record["bytes_payload"] + record["bytes_side"] + record["bytes_header"]
    assert 0 <= record["top1_interval"][0] <= record["top1"] <= record["top1_interval"][1] <= 1


def test_every_stage_of_the_record_is_explained(record):
    assert [stage for stage in record["stages_ms"] if f"`{stage}`" not in MEASURING] == []


def test_every_key_of_one_input_is_explained(tmp_path):
    command = ["compose", "jpeg:40+vit-nano", "--input", "digits-motion:0", "--weights", "random", "--format", "json"]
    answer = subprocess.run(
        [sys.executable, "-m", "semcodec", *command], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    found = json.loads(answer.stdout)
    assert [key for key in found if f"`{key}`" not in MEASURING] == []
    assert found["file_bytes"] == found["bytes_stream_header"] + found["bytes_total"] + found["bytes_local"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The two files of docs/plugins.md as an installed distribution: a folder for the path."""
    folder = tmp_path_factory.mktemp("site")
    (text,) = blocks(PLUGINS, "toml")
    project = tomllib.loads(text)
    assert len(text.splitlines()) == 6
    code = next(block for block in blocks(PLUGINS, "python") if "@hookimpl" in block)
    name, version = project["project"]["name"], project["project"]["version"]
    points = project["project"]["entry-points"]["semcodec"]
    for module in points.values():
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[semcodec]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    (folder / "test_downscale.py").write_text(next(b for b in blocks(PLUGINS, "python") if "def test_component" in b))
    return folder


def run(installed: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_plugin_is_listed(installed):
    rows = json.loads(run(installed, "-m", "semcodec", "plugins", "list", "--format", "json"))
    (row,) = [row for row in rows if row["name"] == "downscale"]
    assert (row["kind"], row["status"], row["distribution"]) == ("encoder", "ok", "semcodec-downscale")


def test_the_example_plugin_encodes_in_one_process_and_decodes_in_another(installed):
    common = ("--weights", "random", "--format", "json")
    spec = "downscale:factor=4+vit-nano"
    sent = json.loads(
        run(installed, "-m", "semcodec", "encode", spec, "digits-motion:0", "-o", "clip.sem", "--check", *common)
    )
    got = json.loads(run(installed, "-m", "semcodec", "decode", "clip.sem", *common))
    assert sent["spec"] == got["spec"] == "downscale:4+rans+vit-nano"
    assert sent["logits"] == got["logits"]
    assert 0 < sent["bytes_total"] < sent["raw_uint8_bytes"] / 10  # a sixteenth of the pixels, entropy coded


def test_the_example_plugin_passes_the_checks(installed):
    out = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_downscale.py")
    passed = re.search(r"(\d+) passed", out)
    assert passed
    assert int(passed[1]) >= 5


def test_what_is_served_is_what_one_process_answers():
    command = [sys.executable, "examples/serve_and_send.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "20 of 20 answers are those of one process" in done.stdout


def test_the_quickstart_runs():
    out = subprocess.run(
        [sys.executable, "examples/quickstart.py", "4"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert re.search(r"^layered:level=2\+rans\+vit-nano@embed: \S+ \(\d+%\)$", out, flags=re.MULTILINE)
    rows = re.findall(r"^(\w+)\S*\+vit-nano\S* +[\d.]+ +[\d.]+ - +[\d.]+ +[\d,]+ +\d\.\d\d$", out, flags=re.MULTILINE)
    assert rows == ["layered", "jpeg", "avif", "h265"]


def test_the_sweep_file_runs(tmp_path):
    command = [sys.executable, "-m", "semcodec", "bench", "--cells", str(ROOT / "examples" / "sweep.toml")]
    options = ["--data", "digits-motion", "--limit", "2", "--out", "runs", "--offline", "--format", "json"]
    out = subprocess.run([*command, *options], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 12
    assert [record for record in records if "failed" in record] == []


@pytest.mark.slow
def test_the_search_file_is_trained_and_runs(tmp_path):
    file = str(ROOT / "examples" / "search.toml")
    few = ["--samples-scale", "0.001", "--format", "json"]
    train = ["train", "--cells", file, "--data", "digits-scenes", "-o", "runs", *few]
    bench = ["bench", "--cells", file, "--data", "digits-scenes", "--limit", "2", "--weights", "runs", "--out", "found"]
    for command in (train, bench):
        subprocess.run([sys.executable, "-m", "semcodec", *command], capture_output=True, check=True, cwd=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "found" / "records.jsonl").read_text().splitlines()]
    assert len(records) == 15
    assert [record for record in records if "failed" in record] == []
    learned = [record for record in records if record["spec"].startswith("feature-hyperprior")]
    assert len({record["weights"]["encoder"]["source"] for record in learned}) == 8


@pytest.fixture(scope="module")
def outsider(tmp_path_factory):
    """An environment in which the package of examples/ is installed, and a copy of its tests."""
    folder = tmp_path_factory.mktemp("outsider")
    package = folder / "semcodec-dct"
    shutil.copytree(ROOT / "examples" / "semcodec-dct", package, ignore=shutil.ignore_patterns("__pycache__", "build"))
    environment = new_environment(folder / "environment")
    install(environment, package)
    return environment, package


def test_the_third_party_package_passes_its_tests(outsider):
    environment, package = outsider
    found = run_in(["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], environment, package)
    passed = re.search(r"(\d+) passed", found)
    assert passed
    assert int(passed[1]) >= 20
    assert "failed" not in found


def test_the_third_party_package_is_worth_having(outsider):
    """At a cut it takes far fewer bytes than 8 bits a value, entropy coded, at the same answers."""
    environment, package = outsider
    specs = ["dct+rans+resnet-nano@layer1.0", "tensor8+rans+resnet-nano@layer1.0"]
    options = ["--data", "digits-scenes", "--limit", "64", "--out", "runs", "--offline", "--format", "json"]
    out = run_in(["semcodec", "bench", *specs, *options], environment, package)
    ours, plain = map(json.loads, out.splitlines())
    assert ours["bytes_total"] < 0.6 * plain["bytes_total"]
    assert ours["top1"] >= plain["top1"] - 0.05
