"""The documents are a site without a broken link, and what they show runs: code, commands, help."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from browser import SIZES, browser, shown
from click.testing import CliRunner

from semcodec.cli import main
from semcodec.component import TRAITS
from semcodec.interfaces import Backbone, Encoder, EntropyStage, Recoverer, Selector

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/tutorials/*.md",
        "plugins/*/README.md",
        "examples/*.md",
        "examples/*/*.md",
    )
    for path in ROOT.glob(pattern)
)
NOT_RUN = {
    r"first_minute|report first\b": "test_first_minute runs README's first commands whole",
    r"\b(PATH|FOLDER|DIR|NAME|FILE|BASE|SPEC)\b": "stands for something of the reader's",
    r"^semcodec train (?!.*--samples-scale 0\.001)": "takes minutes to hours; test_training runs every recipe",
    r"(deit-|vit-base|vit-tiny|timm/|resnet(18|34|50))(?!.*--dry-run)": "weights from the network",
    r"^semcodec (serve|send)\b|semcodec\.connect\(": "two processes; tests/serving runs both ends",
    r"^semcodec play\b": "a page in a browser, which tests/play opens",
    r"yolo": "weights from the network, and an extra",
    r"caltech101|coco128|nips2017|activities|fights": "data that the package does not have",
    r"(\b|_)box\b": "test_plugins_new runs the session whole",
    r"runs/(search|found)": "what was trained; test_examples does it with little",
    r"results\.jsonl": "records of a run of the reader's",
    r"downscale": "the example plugin, which test_examples installs and runs",
    r"\bdct\b": "the package in examples, which test_examples installs and runs",
    r"^def (panels|recipe)\(": "part of a class",
}
"""Commands and first lines of code that are not run here, and why."""
FEW = {"eval": ["--limit", "2"], "bench": ["--limit", "2", "-j", "1"]}
"""What is added so that a command is quick: what is shown is that it works, not its figures."""
MATRIX = ["--encoder", "jpeg", "--max-cells", "40"]
"""And to a bench of all there is."""
KINDS = ("python", "command")


def reason(text: str) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, text)), None)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """("python", code) and ("command", line) in the order of the page."""
    block = r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$|^ {4}(?P<line>semcodec [^\n]+)$"
    for found in re.finditer(block, text, flags=re.DOTALL | re.MULTILINE):
        if found["line"]:
            yield "command", found["line"]
        elif found["language"] == "python":
            yield "python", found["body"]
        elif found["language"] in ("console", "sh", ""):
            prompt = "$ " if found["language"] == "console" else ""
            for line in found["body"].splitlines():
                if line.startswith(f"{prompt}semcodec "):
                    yield "command", line.removeprefix(prompt)


def command(line: str) -> list[str]:
    """The words of a command line without the remark behind it, file patterns resolved."""
    words = shlex.split(re.split(r" {2,}| # ", line)[0])[1:]
    words = [name for word in words for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if "--dry-run" not in words:
        words += FEW.get(words[0], [])
    if words[0] == "bench" and words[1].startswith("-"):
        words += MATRIX
    return words


def runnable(path: Path) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in steps(path.read_text()) if not reason(text)]


def write_clip(name: str) -> None:
    """One second of a square that moves."""
    with av.open(name, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for at in range(25):
            picture = np.full((64, 96, 3), 90, np.uint8)
            picture[20:40, 2 * at : 2 * at + 20] = 220, 40, 40
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("path", [p for p in PAGES if runnable(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_shows_runs(path, tmp_path, monkeypatch):
    """All of a page in its order, in one folder, where a clip lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    write_clip("clip.mp4")
    names: dict[str, object] = {"__name__": path.stem}
    for kind, text in runnable(path):
        if kind == "python":
            exec(compile(text, f"{path.relative_to(ROOT)}", "exec"), names)
        else:
            done = CliRunner().invoke(main, command(text))
            said = f"{text}\n{done.output}"
            assert done.exit_code == 0, said if isinstance(done.exception, SystemExit) else f"{said}{done.exception!r}"


def test_each_reason_not_to_run_something_is_needed():
    texts = [text for path in PAGES for _, text in steps(path.read_text())]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, text) for text in texts)] == []


def test_most_is_run():
    """So that a pattern that fits everything is seen."""
    found = {kind: [reason(t) for path in PAGES for k, t in steps(path.read_text()) if k == kind] for kind in KINDS}
    assert found["python"].count(None) >= 8
    assert found["command"].count(None) >= 20


def test_the_help_texts_are_those_of_the_commands():
    spec = importlib.util.spec_from_file_location("commands_page", ROOT / "docs" / "commands.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "commands.md").read_text() == module.page(), "out of date: run python docs/commands.py"


@pytest.mark.parametrize("interface", [Backbone, Encoder, EntropyStage, Recoverer, Selector], ids=lambda i: i.__name__)
def test_every_method_of_an_interface_is_documented_with_its_arguments(interface):
    text = (ROOT / "docs" / "plugins.md").read_text()
    for name, method in inspect.getmembers(interface, callable):
        if not name.startswith("_"):
            arguments = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
            shown = ", ".join(f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in arguments)
            assert f"`{name}({shown})" in text, name


def test_every_trait_is_documented_and_no_other():
    table = (ROOT / "docs" / "plugins.md").read_text().partition("### Traits")[2].partition("\n## ")[0]
    documented: dict[str, set[str]] = {kind: set() for kind in TRAITS}
    for kinds, names in re.findall(r"^\| ([a-z, ]+) \| (`.*?`) \|", table, re.M):
        for kind in TRAITS if kinds == "any" else kinds.split(", "):
            documented[kind].update(re.findall(r"`(\w+)`", names))
    assert documented["backbone"] - TRAITS["backbone"] == {"edge"}, "the name of an Encoder's model"
    assert {**documented, "backbone": documented["backbone"] - {"edge"}} == TRAITS


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", "html", ".", str(out)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True)


def test_the_site_builds_without_a_warning(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for path in PAGES:
        assert (tmp_path / "site" / path.relative_to(ROOT).with_suffix(".html")).exists()
    assert "README" in (tmp_path / "site" / "searchindex.js").read_text()
    with browser() as chromium:
        for name in ("README", "docs/index", "docs/methods", "docs/report", "docs/tutorials/researcher"):
            for size in SIZES:
                with shown(chromium, tmp_path / "site" / f"{name}.html", size) as found:
                    found.check()
                    lost = "[...document.images].filter(i => !i.naturalWidth && i.loading != 'lazy').map(i => i.src)"
                    assert found.page.evaluate(lost) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[page](nowhere.md)", "cross-reference target not found"),
        ("[part](index.md#no-such-part)", "local id not found"),
        ("```no-such-language\nx\n```", "Pygments lexer name"),
        ('<img src="nowhere.png">', "picture not found"),
    ],
    ids=["page", "part", "language", "picture"],
)
def test_a_broken_link_is_an_error(tmp_path, text, said):
    """In a site of one page with our settings; it has no other pages to list either."""
    (tmp_path / "docs" / "site").mkdir(parents=True)
    settings = (ROOT / "docs" / "conf.py").read_text()
    (tmp_path / "docs" / "conf.py").write_text(settings + "\nSECTIONS = {}\n")
    (tmp_path / "docs" / "site" / "site.css").touch()
    (tmp_path / "docs" / "index.md").write_text("# Title\n")
    assert build(tmp_path, tmp_path / "good").returncode == 0
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    done = build(tmp_path, tmp_path / "bad")
    assert done.returncode != 0
    assert said in done.stderr
