"""``semcodec plugins new``: a package with one component that installs, passes its tests and can be measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from semcodec._files import whole_folder
from semcodec._version import __version__
from semcodec.component import KINDS
from semcodec.errors import UsageError

TEMPLATES = "semcodec.templates"
TASKS = ("classification", "segmentation")
"""Of a backbone: the first is what every other template is made for too."""
WEIGHTS = "weights.safetensors"
WITH_WEIGHTS = '\n[tool.setuptools.package-data]\n{{module}} = ["weights/*.safetensors"]\n'


@click.command("new")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(KINDS), help="What the component is.")
@click.option("--task", default=TASKS[0], show_default=True, type=click.Choice(TASKS), help="What a backbone does.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="The folder to make. "
              "[default: semcodec-NAME]")  # fmt: skip
def command(name: str, kind: str, task: str, output: Path | None) -> None:
    """Make a package with a component NAME of your own.

    It has a small method that works, a test that runs every check, and all that is needed to install it: replace the
    method by yours. The folder is whole or not there.
    """
    if task != TASKS[0] and kind != "backbone":
        raise UsageError(f"--task is what a backbone does, and {name} is {'an' if kind[0] == 'e' else 'a'} {kind}")
    texts = names(name, kind, task)
    folder = output or Path(texts["distribution"])
    with_files = sorted(write(folder, texts))
    click.echo(f"{folder}: {kind} {name}, as the package {texts['distribution']}")
    for path in with_files:
        click.echo(f"  {path}")
    click.echo(f"\nNext, in {folder}:\n  pip install -e .\n  semcodec plugins check {name}\n  {texts['try']}")


def names(name: str, kind: str, task: str = TASKS[0]) -> dict[str, str]:
    """What the templates leave open. Raises UsageError for a name that cannot be, or that is taken."""
    from semcodec.composition.grammar import NAME
    from semcodec.composition.registry import get_registry

    if not NAME.fullmatch(name) or "/" in name:
        raise UsageError(f"{name!r} is no name for a component: lower-case letters and digits, then - . or _ between")
    registry = get_registry()
    for taken in registry.kinds(name):
        owner = registry.origin(registry.find(name, taken))[0]
        raise UsageError(f"{name} is taken: {owner} has {'an' if taken[0] == 'e' else 'a'} {taken} of that name")
    texts = {"name": name, "kind": kind, "distribution": f"semcodec-{name}".replace(".", "-").replace("_", "-")}
    texts["module"] = texts["distribution"].replace("-", "_")
    if find_spec(texts["module"]) is not None:
        raise UsageError(f"the package {texts['module']} that {name} would be in is there already: choose another name")
    texts["version"] = __version__
    texts["template"] = kind if task == TASKS[0] else f"{kind}-{task}"
    about = (files(TEMPLATES) / texts["template"] / "about.in").read_text("utf-8").strip()
    texts |= {"about": _filled(about, texts), "summary": " ".join(about.partition(".\n")[0].partition(". ")[0].split())}
    texts["try"] = _filled((files(TEMPLATES) / texts["template"] / "try.in").read_text("utf-8").strip(), texts)
    return texts


def write(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Write the package and return its files. Raises UsageError where the folder is there or cannot be made."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already: remove it, or name another folder with -o")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder.parent} is no folder to make {folder.name} in")
    written = list(_files(texts))
    with whole_folder(folder) as made:
        for path, content in written:
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(content)
    return [path for path, _ in written]


def _files(texts: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    kind, module = texts["kind"], texts["module"]
    common, own = files(TEMPLATES) / "common", files(TEMPLATES) / texts["template"]
    weights = own / WEIGHTS
    project = (common / "pyproject.toml.in").read_text("utf-8") + (WITH_WEIGHTS if weights.is_file() else "")
    yield "pyproject.toml", _filled(project, texts).encode()
    for path, template in (
        ("README.md", common / "README.md.in"),
        (".gitignore", common / "gitignore.in"),
        (".github/workflows/tests.yml", common / "ci.yml.in"),
        (f"{module}/__init__.py", own / "init.py.in"),
        (f"{module}/{kind}.py", own / "module.py.in"),
        (f"tests/test_{module}.py", own / "test.py.in"),
    ):
        yield path, _filled(template.read_text("utf-8"), texts).encode()
    if weights.is_file():
        yield f"{module}/weights/digits-scenes.safetensors", _renamed(weights.read_bytes(), texts)


def _filled(text: str, texts: Mapping[str, str]) -> str:
    for name, value in texts.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _renamed(weights: bytes, texts: Mapping[str, str]) -> bytes:
    """A safetensors file whose card names the component: a length, a header in JSON, the tensors."""
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    header["__metadata__"] = {key: _filled(value, texts) for key, value in header["__metadata__"].items()}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + weights[8 + size :]
