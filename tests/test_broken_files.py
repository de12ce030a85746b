"""Cards, records, checkpoints, caches and TOML of any content: one line, or what they are a copy of is made anew."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from semcodec._files import read_regular
from semcodec._typed import read_json
from semcodec.bench.sweeps import read_cells
from semcodec.cli import main
from semcodec.data import video
from semcodec.errors import DataError, SemcodecError, UsageError, WeightsError
from semcodec.evaluation.record_form import check_record
from semcodec.evaluation.records import Folder
from semcodec.pipeline import hub
from semcodec.pipeline.weights import METADATA, read_card, read_tensors
from semcodec.planning.operating_points import open_points
from semcodec.specs import InputRequest
from semcodec.training.checkpoint import Checkpoint, State

SHIPPED = Path(__file__).parents[1] / "plugins/pca/weights/pca-resnet-nano.safetensors"
VALUES: list[Any] = [None, True, -1, 1.5, 10**400, 1e308, "x", "", [], {}, [1], {"a": 1}, {"a": {"b": [1]}}, [None]]
TEXTS = ["", "[", "null", "1", '"x"', "[" * 100_000, '{"a":' * 50_000, '{"a": "\\ud800"}']
RECORD = {
    "record": 1, "key": "k", "cell": "c", "spec": "png+vit-nano", "task": "video", "knobs": {"frames": 2}, "data": "d",
    "split": "test", "data_digest": "d", "samples": 8, "top1": 0.75, "top1_interval": [0.4, 0.9], "bytes_total": 1000.0,
    "bytes_payload": 900.0, "bytes_side": 50.0, "bytes_header": 50.0, "raw_uint8_bytes": 50_000, "ratio_uint8": 50.0,
    "sent_ratio": 1.0, "stages_ms": {"head": 1.0, "tail": 5.0}, "versions": {"torch": "2"}, "machine": {"threads": 1},
    "weights": {"backbone": {"source": "x", "digest": "y"}}, "batch": 8,
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, by keys and indices."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def variants(document: dict[str, Any]) -> Iterator[Any]:
    """The document with another value at each of its places."""
    for path in places(document):
        for value in VALUES:
            if not path:
                yield value
                continue
            changed = copy.deepcopy(document)
            inner: Any = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            yield changed


def refusal(act: Callable[[], Any], kind: type[SemcodecError]) -> str | None:
    """What is said where something is refused, None where it is not; any other exception fails the test."""
    try:
        act()
    except kind as error:
        return str(error)
    return None


def one_line(result) -> None:
    """A command that ended well, or with one line."""
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 0 or sum("error: " in line for line in result.stderr.splitlines()) == 1, result.stderr


def test_cards(tmp_path):
    """A file of ours whose card is of another form is told from another library's, and from one that is whole."""
    tensors = load_file(SHIPPED)
    with safe_open(SHIPPED, "np") as file:
        card = json.loads(file.metadata()[METADATA])
    named = {"digests": {"encoder": "a" * 16}, "decoding": {"encoder": ""}, "end": "device"}
    used = {key: card[key] for key in ("keys", "classes")} | named
    path, refused = tmp_path / "w.safetensors", 0
    for text in [*TEXTS, *map(json.dumps, variants(used))]:
        save_file(tensors, path, {METADATA: text})
        said = refusal(lambda: read_card(path), WeightsError)
        refused += said is not None
        assert said is None or ("its card is damaged: take another copy" in said and said.isprintable())
    assert refused > 150
    for wrong in ({"keys": {"encoder": 1}}, {"keys": {"encoder": None}}):
        save_file(tensors, path, {METADATA: json.dumps(used | wrong)})
        for option in (f"encoder={path}", str(path)):
            result = CliRunner().invoke(main, ["compose", "pca+rans+resnet-nano@layer1.0", "--weights", option])
            one_line(result)
            assert result.exit_code == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for act in (read_card, read_tensors):
            with pytest.raises(WeightsError, match="is a pipe, a device or a folder"):
                act(path)
        with pytest.raises(DataError, match="is a pipe, a device or a folder"):
            read_cells(path)
        with pytest.raises(OSError, match="is a pipe, a device or a folder"):
            read_regular(path, 10)
    (tmp_path / "cache/weights").mkdir(parents=True)
    os.mkfifo(tmp_path / "cache/weights/a.safetensors")
    one_line(CliRunner().invoke(main, ["compose", "png+vit-nano", "--dry-run"]))
    one_line(CliRunner().invoke(main, ["train", "--cells", str(pipe), "--data", "digits-scenes", "-o", str(tmp_path)]))
    os.mkfifo(tmp_path / "plan.json")
    one_line(CliRunner().invoke(main, ["report", str(tmp_path)]))


def test_records(tmp_path):
    """Each is used or refused in one line, by everything that reads some."""
    check_record(RECORD, "here")
    refused = 0
    for record in variants(RECORD):
        if isinstance(record, dict):
            said = refusal(partial(check_record, record, "here"), DataError)
            refused += said is not None
            assert said is None or (said.startswith("here: ") and said.isprintable())
    assert refused > 250
    (tmp_path / "plan.json").write_text(json.dumps({"bench": 1}))
    wrong = ({"cell": []}, {"knobs": None}, {"stages_ms": {"head": 1e308, "tail": 1e308}}, {"weights": {"a": 1}},
             {"record": 2}, {"record": True}, {"samples": "x"}, {"top1_interval": 3}, {"spec": "a++"})  # fmt: skip
    for changed in wrong:
        (tmp_path / "records.jsonl").write_text(json.dumps(RECORD | changed) + "\n")
        for command in (["report", str(tmp_path), "--format", "html"], ["report", str(tmp_path), "--format", "csv"],
                        ["plan", "--results", str(tmp_path), "--rate-mbps", "1", "--deadline-ms", "9"]):  # fmt: skip
            result = CliRunner().invoke(main, command)
            one_line(result)
            assert result.exit_code == 1, (changed, command)
        with pytest.raises(DataError):
            Folder(tmp_path, {}, resume=True)
    for text in TEXTS:
        (tmp_path / "records.jsonl").write_text(text + "\n" + json.dumps(RECORD) + "\n")
        one_line(CliRunner().invoke(main, ["report", str(tmp_path)]))
        (tmp_path / "plan.json").write_text(text)
        one_line(CliRunner().invoke(main, ["report", str(tmp_path)]))
        (tmp_path / "plan.json").write_text(json.dumps({"bench": 1}))


def test_checkpoints(tmp_path):
    """Damaged ones say so and what to do; another run's are another matter."""
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint = Checkpoint(tmp_path, "print")
    state = State(1, 2, [{"step": "first", "samples": 3, "loss": 0.5}])
    checkpoint.save({"backbone": model}, optimiser, state)
    good = checkpoint.path.read_bytes()
    _, slots, found = checkpoint.load([5, 5])
    assert found == state
    checkpoint.resume(optimiser, slots)
    for steps in ([5, 1], [5], []):
        with pytest.raises(WeightsError, match="no readable checkpoint"):
            checkpoint.load(steps)
    with pytest.raises(UsageError, match="checkpoint of another run"):
        Checkpoint(tmp_path, "other").load([5, 5])
    for content in (b"", good[:5], good[:100], good[:-1], b"\xff" * 3000, good[50:]):
        checkpoint.path.write_bytes(content)
        with pytest.raises(WeightsError, match="remove it to begin the run anew"):
            checkpoint.load([5, 5])
    told = {"step": 1, "iteration": 2, "summary": [{"step": "first", "samples": 3, "loss": 0.5}]}
    tensors = {"model.backbone.weight": torch.zeros(2, 3)}
    for text in [*TEXTS, *map(json.dumps, variants(told)), None]:
        save_file(tensors, checkpoint.path, {"fingerprint": "print"} | ({} if text is None else {"state": text}))
        assert (refusal(lambda: checkpoint.load([5, 5]), WeightsError) or "read").isprintable()
    for key in ("optimiser.x.step", "optimiser.9.step", "optimiser.0", "optimiser.0.exp_avg"):
        save_file({**tensors, key: torch.zeros(4)}, checkpoint.path,
                  {"fingerprint": "print", "state": json.dumps(told)})  # fmt: skip
        with pytest.raises(WeightsError, match="no readable checkpoint"):
            checkpoint.resume(optimiser, checkpoint.load([5, 5])[1])


WRONG_TOML = {
    "deep": "a = " + "[" * 5000,
    "deep by dots": "a." * 5000 + "b = 1",
    "a sweep of one": "[[cell]]\nspec = 'a'\nsweep = 1",
    "a deep sweep": "[[cell]]\nspec = 'a'\nsweep." + "a." * 3000 + "b = [1]",
    "a number for a table": "cell = [1]",
    "a zero byte": "\0",
    "a number of many digits": "x = " + "9" * 5000,
    "a number beyond all floats": "[[point]]\nlabel = 'a'\nbytes = 1" + "0" * 400,
    "one table for several": "[cell]\na = 1",
}


@pytest.mark.parametrize("text", WRONG_TOML.values(), ids=WRONG_TOML)
def test_toml(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    for act in (lambda: read_cells(path), lambda: open_points(str(path))):
        with pytest.raises(DataError) as caught:
            act()
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    for act in (lambda: read_cells(path), lambda: open_points(str(path))):
        with pytest.raises(DataError):
            act()


def test_a_kept_clip_that_cannot_be_read_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    clip = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    read: list[int] = []
    monkeypatch.setattr(video, "_read_clip", lambda path, request: (read.append(1) or clip, 0, 2))
    (tmp_path / "a.mp4").write_bytes(b"x")
    request = InputRequest(2, 4, 4)
    assert (video.cached_clip(tmp_path / "a.mp4", request) == clip).all()
    kept = next((tmp_path / "cache/clips").iterdir())
    good = kept.read_bytes()
    found = video.cached_clip(tmp_path / "a.mp4", request)
    assert (found == clip).all() and found.flags.writeable and len(read) == 1
    header = good[:-96]
    other = header.replace(b"(2, 4, 4, 3)", b"(9**9, 4, 3)"), header.replace(b"|u1", b"|O8") + good[-96:]
    wrong = (b"", good[:-1], good + b"x", b"PK\3\4" + good, b"\x93NUMPY", *other)
    for number, content in enumerate(wrong, 2):
        kept.write_bytes(content)
        assert (video.cached_clip(tmp_path / "a.mp4", request) == clip).all()
        assert len(read) == number and kept.read_bytes() == good
    kept.unlink()
    kept.mkdir()
    assert (video.cached_clip(tmp_path / "a.mp4", request) == clip).all()
    if hasattr(os, "mkfifo"):
        kept.rmdir()
        os.mkfifo(kept)
        assert (video.cached_clip(tmp_path / "a.mp4", request) == clip).all()


def test_fetched_weights_that_were_damaged_since_are_fetched_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path))
    asked: list[str] = []
    net = tmp_path / "net"
    monkeypatch.setattr(hub, "unreachable", lambda address: None)
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: asked.append(url) or net.open("rb"))
    net.write_bytes(b"weights")
    url = "https://example.org/a-9c3a21c8.pth.tar"
    monkeypatch.setattr(hub, "_is_whole", lambda data, due: data == b"weights" and due == "9c3a21c8")
    kept = hub.download(url)
    assert hub.download(url) == kept and len(asked) == 1
    kept.write_bytes(b"weigh")
    assert hub.download(url).read_bytes() == b"weights" and len(asked) == 2
    shutil.rmtree(kept.parent)


def test_json_is_whole_characters():
    assert read_json('{"a": "\\ud83d\\ude00"}', dict[str, str]) == {"a": "\U0001f600"}
    with pytest.raises(ValueError, match="half a character"):
        read_json('{"a": "\\ud83d"}', dict[str, str])
    assert issubclass(WeightsError, SemcodecError)
