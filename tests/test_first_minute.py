"""From a clone to the picture of the win: README's first commands, as they stand there, offline on what ships."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser, shown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MINUTES = 2
"""Of computing, beside three for the install; a busy machine takes longer, which is not the commands' fault."""


def console() -> list[str]:
    block = re.search(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert block
    return [line.removeprefix("$ ") for line in block[1].splitlines()]


def test_the_install_comes_first():
    assert console()[0].endswith("pip install -e '.[torch]'")
    assert len(console()) == 4


@pytest.fixture(scope="module")
def transcript(tmp_path_factory) -> tuple[Path, list[str], float]:
    """What three commands printed, the folder that they wrote into, and the seconds of computing."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {
        "SEMCODEC_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "http_proxy": "http://0",
        "https_proxy": "http://0",
    }  # fmt: skip
    before, said = resource.getrusage(resource.RUSAGE_CHILDREN), []
    for line in console()[1:]:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said.append(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return folder, said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_it_takes_two_minutes_of_computing(transcript):
    assert transcript[2] < 60 * MINUTES


def test_what_is_sent_is_what_readme_says(transcript):
    assert re.search(r"recognised +right +92\.2 % +\(correct\)", transcript[1][0])
    assert re.search(r"bytes +59 = ", transcript[1][0])
    assert "from 59 bytes" in README


def test_the_records_have_the_win(transcript):
    rows = [json.loads(line) for line in (transcript[0] / "first" / "records.jsonl").read_text().splitlines()]
    ours = [row for row in rows if row["spec"].startswith("layered")]
    others = [row for row in rows if not row["spec"].startswith("layered")]
    assert (len(ours), len(others)) == (4, 12)
    assert max(row["bytes_total"] for row in ours) < min(row["bytes_total"] for row in others)
    assert min(row["top1"] for row in ours) >= 0.96
    assert {row["device_share"] for row in others} == {0.0}


def test_the_page_shows_it(transcript):
    with browser() as chromium, shown(chromium, transcript[0] / "first" / "report.html") as found:
        found.check()
        assert found.page.inner_text("#headline").startswith("layered+rans+vit-nano@embed needs 9")
        assert found.page.locator("#pictures figure").count() >= 6


def test_readme_says_what_its_records_say():
    """The figures of the first screen, from the records that its plot is drawn from."""
    from semcodec.bench.claims import claims
    from semcodec.bench.equal import Method, at_equal_accuracy
    from semcodec.bench.results import load

    (group,) = load(ROOT / "docs" / "results" / "first_minute.jsonl").groups
    methods = {name.partition("+")[0]: Method.of([p.record for p in rows]) for name, rows in group.curves.items()}
    [found] = at_equal_accuracy(methods.pop("layered"), methods, [0.99])
    rivals = {name: f"{round(size):,}" for name, size in found.rivals.items() if size}
    first = " ".join(README.partition("## What it is")[0].split())
    told = f"needs {found.bytes:.0f} bytes a clip, where H.265 takes {rivals['h265']}, H.264 {rivals['h264']}, "
    assert told + f"AVIF {rivals['avif']} and JPEG {rivals['jpeg']}" in first
    claim = next(c for c in claims(group, "h265+vit-nano") if c.curve.startswith("layered"))
    assert re.sub(r"^\S+ |than.*", "", str(claim)).strip() in first
