"""The wheel, installed in a clean environment outside the checkout, does what the checkout does."""

from __future__ import annotations

import json
import shutil
import venv
import zipfile
from pathlib import Path

import pytest
from environments import install, new_environment, run

import semcodec

ROOT = Path(__file__).parents[1]
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made of a copy, for building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("semcodec", "plugins"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=UNWANTED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    builder = new_environment(folder / "builder")
    run(["python", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "./source"], builder, folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """An environment with the wheel and what it depends on, and a folder that is nowhere near the checkout."""
    environment = new_environment(tmp_path_factory.mktemp("clean"), editable=False)
    install(environment, wheel)
    return environment, tmp_path_factory.mktemp("elsewhere")


def test_the_wheel_holds_what_is_needed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"semcodec-{semcodec.__version__}.dist-info/METADATA").decode()
    expected = {"semcodec/py.typed"}
    for package, folder, patterns in (
        (
            "semcodec",
            ROOT / "semcodec",
            ("**/*.py", "templates/*/*", "planning/profiles/*.toml", "bench/page.*", "data/*.npz"),
        ),
        ("semcodec_plugins", ROOT / "plugins", ("**/*.py", "*/weights/*", "*/README.md")),
    ):
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            expected.add(f"{package}/{path.relative_to(folder).as_posix()}")
    assert sorted(expected - names) == []
    assert not [name for name in names if name.startswith(("tests", "docs", "examples"))]
    assert "License-Expression: Apache-2.0" in metadata
    assert "# semcodec" in metadata


def test_it_is_the_wheel_that_runs(clean):
    environment, folder = clean
    for package in ("semcodec", "semcodec_plugins"):
        where = run(["python", "-c", f"import {package}; print({package}.__file__)"], environment, folder)
        assert Path(where.strip()).is_relative_to(environment.parent)


def test_nothing_is_broken(clean):
    environment, folder = clean
    rows = json.loads(run(["semcodec", "plugins", "list", "--format", "json"], environment, folder))
    assert {row["status"] for row in rows} <= {"ok", "missing"}
    here = {row["name"] for row in rows if row["distribution"] == "semcodec"}
    assert here >= {component.name for component in semcodec.components() if component.target.startswith("semcodec")}


def test_compose_runs_with_the_weights_inside(clean):
    environment, folder = clean
    command = ["semcodec", "compose", "cls-attn+vit-nano-server", "--input", "digits-scenes:3", "--offline"]
    found = json.loads(run([*command, "--format", "json"], environment, folder))
    assert all(slot["source"].startswith("shipped") for slot in found["weights"].values())
    assert found["top1"] in (0.0, 1.0)


def test_bench_runs_on_the_embedded_data(clean):
    environment, folder = clean
    command = ["semcodec", "bench", "jpeg+vit-nano-server", "tensor8+resnet-nano@layer1.0", "--data", "digits-scenes"]
    out = run([*command, "--limit", "8", "--offline", "--out", "runs", "--format", "json"], environment, folder)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["samples"] for record in records] == [8, 8]
    run(["semcodec", "report", "runs", "-o", "page.html"], environment, folder)
    assert (folder / "page.html").stat().st_size > 10_000


def test_profiles_are_inside(clean):
    environment, folder = clean
    command = ["semcodec", "plan", "--profile", "stae", "--rate-mbps", "100", "--deadline-ms", "100"]
    assert run(command, environment, folder)


def test_plugins_check_runs(clean):
    environment, folder = clean
    found = json.loads(run(["semcodec", "plugins", "check", "never", "--format", "json"], environment, folder))
    assert found["failed"] == 0
    assert found["passed"] > 5


def test_plugins_new_has_its_templates(clean):
    environment, folder = clean
    run(["semcodec", "plugins", "new", "mine", "--kind", "backbone"], environment, folder)
    assert (folder / "semcodec-mine" / "semcodec_mine" / "weights" / "digits-scenes.safetensors").exists()


@pytest.mark.slow
def test_a_device_runs_where_there_is_no_torch(wheel, tmp_path):
    """The wheel with the extra ``device`` from the package index, in an environment that sees nothing of this one."""
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.export import export_device
    from semcodec.pipeline.weights import WeightsRequest

    venv.create(tmp_path / "bare", with_pip=True, symlinks=True)
    environment = tmp_path / "bare" / "bin"
    try:
        install(environment, Path(f"{wheel}[device]"), options=())
    except AssertionError as error:
        pytest.skip(f"no package index here: {str(error).splitlines()[-1]}")
    absent = "import importlib.util as u; print([n for n in ('torch', 'timm', 'scipy', 'av') if u.find_spec(n)])"
    assert run(["python", "-c", absent], environment, tmp_path).strip() == "[]"
    for spec, sample in {
        "layered+det-nano@d3": "digits-scenes:1",
        "cls-attn+vit-nano-server": "digits-scenes:1",
        "stae+vit-nano": "digits-motion:1",
        "aecnn+resnet-nano": "digits-scenes:1",
    }.items():
        path, stream = tmp_path / "device.semdev", tmp_path / "sent.sem"
        export_device(compose_spec(spec), path, WeightsRequest(offline=True))
        run(["semcodec", "encode", str(path), sample, "-o", str(stream)], environment, tmp_path)
        [found] = semcodec.decode(stream)
        pipeline = semcodec.compose(spec, offline=True)
        assert found.name == pipeline.decode(pipeline.encode(sample)).name
    listed = json.loads(run(["semcodec", "plugins", "list", "--format", "json"], environment, tmp_path))
    assert {row["status"] for row in listed} <= {"ok", "missing"}
    run(["semcodec", "compose", "stae+vit-nano", "--dry-run"], environment, tmp_path)
