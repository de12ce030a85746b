"""Weights by name: pushed to a server of the hub's interface on this machine, and pulled by another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hub_server import TOKEN, Hub
from safetensors import safe_open

from semcodec.cli import main
from semcodec.errors import UsageError
from semcodec.pipeline.repositories import Repository

pytestmark = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs huggingface_hub, of the extra hub")
PLUGINS = Path(__file__).parents[2] / "plugins"
SPEC, NAME = "pca+rans+resnet-nano@stem", "someone/pca-nano"


@pytest.fixture
def hub() -> Iterator[Hub]:
    held = Hub()
    yield held
    held.close()


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder as training leaves it, of a codec that ships."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(PLUGINS / "pca/weights/pca-resnet-nano.safetensors", folder / "weights.safetensors")
    shutil.copy(PLUGINS / "pca/weights/pca-resnet-nano.json", folder / "card.json")
    (folder / "log.jsonl").write_text("{}\n")
    return folder


def environment(hub: Hub | str, home: Path, token: str | None) -> dict[str, str]:
    """Of a user whose cache is in ``home``."""
    url = hub if isinstance(hub, str) else hub.url
    found = {"HF_ENDPOINT": url, "HF_HOME": str(home), "SEMCODEC_CACHE": str(home / "semcodec")}
    return found | {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1", "HF_TOKEN": token or ""}


def semcodec(hub: Hub | str, home: Path, *arguments: str, token: str | None = TOKEN):
    """A process of its own."""
    command = [sys.executable, "-m", "semcodec", *arguments]
    own = {**os.environ, **environment(hub, home, token)}
    return subprocess.run(command, capture_output=True, text=True, env=own, check=False, timeout=120)


@pytest.fixture
def here(monkeypatch):
    """The same in this process, for what need not be another's."""

    def run(hub: Hub | str, home: Path, *arguments: str, token: str | None = TOKEN, **more: str):
        from huggingface_hub import constants

        for name, value in {**environment(hub, home, token), **more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        done = CliRunner().invoke(main, arguments)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


def told(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


def test_what_one_process_pushes_another_pulls_with_the_same_digests(hub, run, tmp_path):
    pushed = told(semcodec(hub, tmp_path / "a", "push", str(run), NAME, "--format", "json"))
    assert set(pushed["files"]) == {"weights.safetensors", "card.json", "README.md", "SHA256SUMS"}
    assert any("/objects/" in asked for asked in hub.asked)  # the weights went by LFS
    out = tmp_path / "out"
    pulled = told(semcodec(hub, tmp_path / "b", "pull", NAME, "-o", str(out), "--format", "json", token=None))
    card = json.loads((run / "card.json").read_text())
    assert pulled["digests"] == card["digests"]
    assert pulled["commit"] == pushed["commit"]
    assert pulled["spec"] == SPEC
    assert (out / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    with safe_open(out / "weights.safetensors", "np") as file:
        assert json.loads(file.metadata()["semcodec"])["digests"] == card["digests"]
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, check=False)
    assert checked.returncode == 0


def test_a_repository_stands_wherever_weights_are_named(hub, here, run, tmp_path):
    told(here(hub, tmp_path, "push", str(run), NAME, "--format", "json"))
    again = ("compose", SPEC, "--weights", f"encoder=hf:{NAME}@main", "--input", "digits-scenes:0", "--format", "json")
    card = json.loads((run / "card.json").read_text())
    online = told(here(hub, tmp_path, *again))
    assert online["weights"]["encoder"]["digest"] == card["digests"]["encoder"]
    assert online["weights"]["encoder"]["source"] == f"hf:{NAME}@main"
    offline = told(here("http://127.0.0.1:9", tmp_path, *again, "--offline"))
    assert offline["bytes_total"] == online["bytes_total"]
    listed = json.loads(here("http://127.0.0.1:9", tmp_path, "zoo", "--format", "json").stdout)
    [mine] = [row for row in listed if row["name"].startswith(f"hf:{NAME}@")]
    assert mine["spec"] == SPEC
    assert mine["task"] == "classification"


def test_a_revision_is_what_it_was_though_the_branch_moves_on(hub, here, run, tmp_path):
    first = told(here(hub, tmp_path, "push", str(run), f"{NAME}@tried", "--format", "json"))
    hub.commit(NAME, {"weights.safetensors": b"other"}, "tried")
    pulled = here(hub, tmp_path / "b", "pull", f"{NAME}@{first['commit']}", "--format", "json")
    assert told(pulled)["digests"] == json.loads((run / "card.json").read_text())["digests"]
    refused(here(hub, tmp_path / "c", "pull", f"{NAME}@tried"), "weights.safetensors is damaged", "SHA256SUMS")


def test_what_is_wrong_is_one_line(hub, here, run, tmp_path):
    told(here(hub, tmp_path, "push", str(run), NAME, "--format", "json"))
    refused(here(hub, tmp_path / "b", "pull", f"{NAME}@v9"), "has no revision 'v9'")
    refused(here(hub, tmp_path / "b", "pull", "someone/else"), "there is no someone/else")
    refused(here(hub, tmp_path / "b", "pull", NAME, token="hf_wrong"), "the token is not accepted")
    refused(here(hub, tmp_path / "b", "push", str(run), NAME, token="hf_wrong"), "the token is not accepted")
    refused(here(hub, tmp_path / "b", "push", str(run), NAME, token=None), "without a token", "HF_TOKEN")
    refused(here(hub, tmp_path / "b", "pull", "no-owner"), "OWNER/NAME", code=2)
    hub.commit("someone/empty", {"README.md": b"# nothing"})
    refused(here(hub, tmp_path / "b", "pull", "someone/empty"), "holds neither weights.safetensors")
    damaged = (run / "weights.safetensors").read_bytes().replace(b'\\"keys\\"', b'\\"kegs\\"', 1)
    assert damaged != (run / "weights.safetensors").read_bytes()
    hub.commit("someone/damaged", {"weights.safetensors": damaged})
    refused(here(hub, tmp_path / "b", "pull", "someone/damaged"), "its card is damaged")


def test_without_a_network_that_is_said_at_once(here, run, tmp_path):
    began = time.monotonic()
    nowhere = "http://127.0.0.1:9"
    refused(here(nowhere, tmp_path, "pull", NAME), "127.0.0.1 cannot be reached: Connection refused")
    refused(here(nowhere, tmp_path, "push", str(run), NAME), "127.0.0.1 cannot be reached")
    refused(here(nowhere, tmp_path, "pull", NAME, "--offline"), "was not fetched yet")
    refused(here(nowhere, tmp_path, "push", str(run), NAME, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE", code=2)
    assert time.monotonic() - began < 30


def test_a_folder_whose_parts_do_not_belong_together_is_not_pushed(here, run, tmp_path):
    def dry(*more: str):
        return here("http://127.0.0.1:9", tmp_path, "push", str(run), NAME, "--dry-run", *more)

    record = {"record": 1, "spec": SPEC, "samples": 10, "top1": 0.9, "weights": {"encoder": {"digest": "0" * 16}}}
    (tmp_path / "other.json").write_text(json.dumps(record))
    refused(dry("--results", str(tmp_path / "other.json")), "measured with other weights")
    (tmp_path / "none.json").write_text("[]")
    refused(dry("--results", str(tmp_path / "none.json")), "holds no record")
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps({**card, "spec": "pca+rans+vit-nano"}))
    refused(dry(), "card.json says another spec than weights.safetensors")
    (run / "card.json").write_text('{"spec": ')
    refused(dry(), "card.json is damaged")
    (run / "card.json").unlink()
    refused(dry(), "has no card.json")


def test_the_model_card_tells_data_figures_licence_and_how_to_run(here, run, tmp_path):
    card = json.loads((run / "card.json").read_text())
    record = {
        "record": 1, "spec": SPEC, "task": "classification", "data": "digits-scenes", "samples": 1000, "top1": 0.9,
        "top1_interval": [0.88, 0.92], "bytes_total": 125.25,
        "weights": {"encoder": {"source": "x", "digest": card["digests"]["encoder"]}},
    }  # fmt: skip
    results = tmp_path / "records.jsonl"
    results.write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    options = ("push", str(run), NAME, "--dry-run", "--results", str(results))
    done = here("http://127.0.0.1:9", tmp_path, *options, token=None)
    assert done.returncode == 0, done.stderr
    _, head, text = done.stdout.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "semcodec"
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert yaml.safe_load(head)["pipeline_tag"] == "image-classification"
    for part in ("digits-scenes", "90.0 % (88.0-92.0)", "125.2", f"--weights hf:{NAME}", card["digests"]["encoder"]):
        assert part in text


@pytest.mark.parametrize("text", ["a", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a b/c", "hf:", "a--b/c"])
def test_names_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="names no"):
        Repository.parse(text)
