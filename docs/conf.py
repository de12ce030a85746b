"""The documentation as a site: ``make docs``. Its pages are the Markdown files of the repository, where they lie."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "Begin": ["README", "docs/methods", "docs/tutorials/*"],
    "Use": [
        "docs/commands",
        "docs/spec-language",
        "docs/api",
        "docs/serving",
        "docs/gpu",
        "docs/device",
        "docs/training-on-your-own-images",
        "docs/hub",
        "docs/playground",
    ],
    "Measure": [
        "docs/measuring",
        "docs/bench",
        "docs/report",
        "docs/latency",
        "docs/scale",
        "docs/speed",
        "docs/data",
        "docs/results/*",
    ],
    "Extend": [
        "docs/plugins",
        "docs/tasks",
        "docs/testing",
        "docs/traps",
        "docs/stability",
        "CONTRIBUTING",
        "examples/*",
        "examples/*/*",
        "examples/zoo/*/*",
    ],
    "Inside": ["docs/architecture", "docs/container", "docs/protocol", "CHANGELOG"],
    "Methods": ["plugins/*/README"],
}

project = "semcodec"
root_doc = "docs/index"
source_suffix = {".md": "markdown"}
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/tutorials/*.md",
    "docs/results/*.md",
    "plugins/*/README.md",
    "examples/*.md",
    "examples/*/*.md",
    "examples/zoo/*/*.md",
]
exclude_patterns = [".*", "build", "dist", "tests", "semcodec", "**/.*", "**/node_modules"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
highlight_language = "text"
html_theme = "alabaster"
html_title = "semcodec"
html_copy_source = False
html_static_path = ["site"]
html_css_files = ["site.css"]


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The sections below the index, which stays plain Markdown. A page that no section names is an error."""
    if page == root_doc:
        for caption, patterns in SECTIONS.items():
            pages = "\n".join(f"/{pattern}" for pattern in patterns)
            source[0] += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n{pages}\n```\n"


PICTURES = ("docs/figures", "docs/screenshots")
"""What pages show by HTML, for light and for dark, and so is no link that Sphinx copies for."""


def add_pictures(app: Sphinx, failure: Exception | None) -> None:
    """Beside the pages, so that their addresses hold; one that a page names and that is not there is a warning."""
    if failure or app.builder.format != "html":
        return
    for folder in PICTURES:
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, Path(app.outdir) / folder, dirs_exist_ok=True)
    for page in app.env.found_docs:
        text = Path(app.env.doc2path(page)).read_text("utf-8")
        for name in re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text):
            if not (Path(app.outdir) / Path(page).parent / name).is_file():
                logger.warning("picture not found: %s", name, location=page)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("error", TextLexer)
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_pictures)
    return {"parallel_read_safe": True}
