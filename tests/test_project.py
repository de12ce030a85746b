"""What the project says of itself holds: dependencies, packages, versions, sizes, links, documented names."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import semcodec
from semcodec.component import KINDS, Component, Param
from semcodec.composition.registry import get_registry, missing
from semcodec.hookspecs import Hooks

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DISTRIBUTION = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
    "yaml": "pyyaml",
    "prometheus_client": "prometheus-client",
}
OWN = {"semcodec", "semcodec_plugins"}
SERVED = {"semcodec/serving/app.py", "semcodec/serving/metrics.py", "semcodec/serving/page.py"}
"""What ``semcodec serve`` alone imports, once it has seen that the extra is there."""
MEGABYTE = 10**6


def required(extra: str | None = None) -> set[str]:
    """Names of the distributions in the dependencies, or in one extra."""
    project = PROJECT["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in lines}


def imported(folder: str, *, top: bool = False) -> dict[str, set[str]]:
    """Distributions that are imported below a folder, each with the files that do it; ``top``: outside functions."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "installed" in path.parts or path.is_relative_to(ROOT / "examples" / "semcodec-dct"):
            continue  # broken on purpose; a project of its own
        here = {p.stem for p in (ROOT / "tests" / "helpers").iterdir()} if folder == "tests" else set()
        tree = ast.parse(path.read_text())
        for node in tree.body if top else ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names} - OWN - here - set(sys.stdlib_module_names):
                found.setdefault(DISTRIBUTION.get(name, name), set()).add(str(path.relative_to(ROOT)))
    return found


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("folder", ["semcodec", "plugins", "tests", "examples"])
def test_every_import_is_declared(folder):
    """Extras only where they are used, inside functions; the kit for component authors is used under their pytest."""
    always = required() | required("torch") | required("video")
    always |= required("test") | required("export") if folder == "tests" else set()
    top = {name: files - SERVED for name, files in imported(folder, top=True).items() if name not in always}
    assert {name: files for name, files in top.items() if files} == {}
    more = ("yolo", "learned", "hub", "ray", "report", "device", "export", "serve", "datasets", "play", "watch")
    extras = always.union(*(required(extra) for extra in more))
    lazy = {name: files for name, files in imported(folder).items() if name not in extras}
    kit = {"pytest": {"semcodec/testing/__init__.py"}, "hypothesis": {"semcodec/testing/strategies.py"}}
    assert lazy in ({}, kit)


def test_every_dependency_is_imported():
    used = imported("semcodec").keys() | imported("plugins").keys()
    assert required() <= used


def test_all_is_every_extra_but_those_for_work_on_it():
    extras = PROJECT["project"]["optional-dependencies"]
    named = re.fullmatch(r"semcodec\[(.*)\]", extras["all"][0])
    assert named
    assert set(named[1].split(",")) == extras.keys() - {"all", "test", "docs"}


def test_every_plugin_has_an_entry_point_and_a_readme():
    folders = {init.parent.name for init in (ROOT / "plugins").glob("*/__init__.py")}
    points = PROJECT["project"]["entry-points"]["semcodec"]
    assert points == {name: f"semcodec_plugins.{name}" for name in folders}
    assert {readme.parent.name for readme in (ROOT / "plugins").glob("*/README.md")} == folders


def test_versions_agree():
    assert PROJECT["project"]["version"] == semcodec.__version__
    assert f"\n## {semcodec.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_tracked_files_are_small():
    """What lies in the zoo is there because it is too large to be installed."""
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    limits = {name: (8 if name.startswith("examples/zoo/") else 3) * MEGABYTE for name in sizes}
    assert {name: size for name, size in sizes.items() if size > limits[name]} == {}


def test_shipped_weights_are_small():
    assert sum(path.stat().st_size for path in ROOT.glob("plugins/*/weights/*")) < 25 * MEGABYTE


def test_components_point_at_what_exists():
    """Classes, spec functions and recipes can be imported, and each plugin's README names its components."""
    registry = get_registry()
    for component in registry:
        if registry.origin(component)[0] != "semcodec":
            continue
        assert component.kind in KINDS
        if missing(component):  # an extra or a program that is not installed: its plugin's own tests see to it
            continue
        assert inspect.isclass(registry.load(component)), component.name
        for path in filter(None, (component.spec, component.recipe)):
            module, _, name = path.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), path
        here = [path for path in (component.target, component.spec or "") if path.startswith("semcodec_plugins.")]
        plugin = here[0].split(".")[1]  # some share an Encoder of the core
        assert f"`{component.name}`" in (ROOT / "plugins" / plugin / "README.md").read_text(), component.name


def test_hooks_and_records_are_documented():
    text = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [f for _, f in inspect.getmembers(Hooks, inspect.isfunction) if hasattr(f, "semcodec_spec")]
    assert hooks
    for hook in hooks:
        arguments = [name for name in inspect.signature(hook).parameters if name != "self"]
        assert f"{hook.__name__}({', '.join(arguments)})" in text
    for field in (*dataclasses.fields(Component), *dataclasses.fields(Param)):
        assert f"| `{field.name}` |" in text, field.name


def test_traits_in_use_are_documented():
    text = (ROOT / "docs" / "plugins.md").read_text()
    for component in get_registry():
        for trait in component.traits:
            assert f"`{trait}`" in text, f"{component.name} has the trait {trait}"


def test_the_map_of_the_core_is_complete():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = text[text.index("semcodec/  ") : text.index("plugins/  ")]
    parts = {p.stem if p.is_file() else f"{p.name}/" for p in (ROOT / "semcodec").iterdir() if p.suffix in (".py", "")}
    parts -= {"__init__", "__main__", "__pycache__/"}
    assert parts <= set(re.findall(r"\w+/?", named))


def test_the_gallery_names_every_built_in_method():
    text = (ROOT / "docs" / "methods.md").read_text()
    registry = get_registry()
    absent = [c.name for c in registry if registry.origin(c)[0] == "semcodec" and f"`{c.name}`" not in text]
    assert not absent


def documents() -> list[Path]:
    names = ("*.md", "docs/**/*.md", "plugins/*/README.md", "examples/**/*.md")
    return sorted({path for name in names for path in ROOT.glob(name)})


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_files_that_documents_name_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for name in re.findall(r"`((?:semcodec|plugins|tests|examples|docs)/[\w./-]+\.(?:py|md))`", text):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name
