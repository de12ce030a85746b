"""What was measured is known by its content: samples, labels, weights and formats, never by a path as it was typed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.contents import file_digests
from semcodec.data.datasets import open_dataset
from semcodec.errors import DataError, UsageError
from semcodec.evaluation import evaluate, records
from semcodec.evaluation.keys import Known
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import InputRequest

SPEC = "jpeg:30+vit-nano-server"
REQUEST = InputRequest(None, 96, 96)


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Pictures that the shipped network knows, with a table of labels of which every one is wrong."""
    root = tmp_path_factory.mktemp("scenes") / "scenes"
    (root / "images").mkdir(parents=True)
    pixels, labels = open_dataset("digits-scenes", "test", REQUEST).batch(range(6))
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(root / "images" / f"{i}.png")
    write_labels(root, [(label + 1) % 10 for label in labels])
    (root / "right.json").write_text(json.dumps(labels.tolist()))
    return root


@pytest.fixture
def data(scenes, tmp_path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "scenes"))


def write_labels(root: Path, labels) -> None:
    rows = [f"{i}.png,{label}" for i, label in enumerate(labels)]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")


def right(root: Path) -> list[int]:
    return list(json.loads((root / "right.json").read_text()))


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def measured(path: Path | str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_corrected_labels_are_never_nothing_to_run(data):
    options = ("eval", SPEC, "--data", data, "-o", "out.jsonl", "--offline")
    assert run(*options).exit_code == 0
    [wrong] = measured("out.jsonl")
    assert wrong["top1"] == 0
    assert "has every point" in run(*options).stderr

    write_labels(data, right(data))
    refused = run(*options)
    assert refused.exit_code == 2
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert f"files or labels of {data}" in line
    assert "--remeasure" in line
    assert measured("out.jsonl") == [wrong]

    anew = run(*options, "--remeasure")
    assert anew.exit_code == 0, anew.stderr
    assert f"{SPEC} is measured anew after a change of: files or labels" in anew.stderr
    [true] = measured("out.jsonl")  # in the place of the other
    assert true["top1"] > 0.6
    assert true["key"] != wrong["key"]
    assert "has every point" in run(*options, "--remeasure").stderr


def test_the_same_samples_under_another_path_are_not_measured_again(data, tmp_path):
    options = (SPEC, "-o", "out.jsonl", "--offline", "--limit", 2, "--data")
    assert run("eval", *options, data).exit_code == 0
    other = shutil.copytree(data, tmp_path / "elsewhere" / "copy")
    for path in (f"{data}/", "scenes", "./scenes", other):
        assert "has every point" in run("eval", *options, path).stderr
    # A picture of other bytes, or fewer samples, is another matter; under another name it is other data.
    Image.new("RGB", (96, 96)).save(other / "images" / "0.png")
    assert run("eval", *options, other).exit_code == 0
    assert len(measured("out.jsonl")) == 2


def test_keys_tell_apart_what_counts(data):
    pipeline = Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True))
    dataset = open_dataset(str(data), "test", pipeline.request)
    this = evaluate.identity(pipeline, dataset, 2)
    others = [
        evaluate.identity(pipeline, dataset, 3),
        replace(this, spec="png+vit-nano-server"),
        replace(this, knobs={"quality": 31}),
        replace(this, split="train"),
        replace(this, content="other"),
        replace(this, classes=["1"]),
        replace(this, weights={"backbone": {"source": "x", "digest": "other"}}),
        replace(this, formats={**this.formats, "encoder/jpeg": 2}),
    ]
    assert len({this.key, *(other.key for other in others)}) == len(others) + 1
    assert replace(this, data="elsewhere", pixels=lambda: "").key == this.key
    record = evaluate.evaluate(pipeline, dataset, limit=2)
    assert (record["key"], record["content"], record["formats"]) == (this.key, this.content, this.formats)

    known = Known([record], "r.jsonl")
    assert known.has(this)
    # The same by name, and no longer what it was: refused, and what changed is named.
    for other, what in (
        (others[2], "defaults of its parameters"),
        (others[4], "files or labels of"),
        (others[7], "format of encoder/jpeg"),
        (replace(this, weights={"backbone": {**this.weights["backbone"], "digest": "other"}}), "weights of backbone"),
    ):
        with pytest.raises(UsageError, match=rf"r\.jsonl has .* a change of: {what}"):
            known.has(other)
    # Of other weights, other samples and other specs there may be more in one file.
    assert not any(known.has(others[i]) for i in (0, 1, 3, 5, 6))


def test_records_of_earlier_versions_are_known_by_their_pixels(data):
    pipeline = Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True))
    dataset = open_dataset(str(data), "test", pipeline.request)
    this = evaluate.identity(pipeline, dataset, 2)
    record = evaluate.evaluate(pipeline, dataset, limit=2)
    early = {k: v for k, v in record.items() if k not in ("content", "formats", "split")} | {"key": "of then"}
    early["data"] = data.name
    assert Known([early]).has(this)
    assert Known([early | {"data": "elsewhere"}]).has(this)
    assert not Known([early | {"data": "elsewhere", "data_digest": "other"}]).has(this)
    with pytest.raises(UsageError, match="files or labels"):
        Known([early | {"data_digest": "other"}]).has(this)
    with pytest.raises(UsageError, match="format of encoder/jpeg"):
        Known([early]).has(replace(this, formats={**this.formats, "encoder/jpeg": 2}))
    for wrong in ({"record": 9}, {"knobs": []}, {"weights": {"backbone": 1}}, {"data": 1}, {"spec": []}):
        with pytest.raises(DataError):
            Known([early | wrong])
    for name in ("key", "spec", "samples", "data", "data_digest"):
        with pytest.raises(DataError, match=f"without {name}"):
            Known([{k: v for k, v in early.items() if k != name}])
    assert records.migrate(record, "") == record


def test_digests_of_files_follow_their_bytes(data):
    names = ["0.png", "1.png"]
    first = file_digests(data / "images", names)
    assert len(set(first)) == 2
    path = data / "images" / "0.png"
    past = path.stat().st_mtime_ns - 10**12
    os.utime(path, ns=(past, past))
    other = bytearray(path.read_bytes())
    other[-1] ^= 1
    path.write_bytes(other)  # as long, and as old
    os.utime(path, ns=(past, past))
    assert file_digests(data / "images", names) == [file_digests(data / "images", ["0.png"])[0], first[1]]
    assert file_digests(data / "images", names)[0] != first[0]
    for kept in Path(os.environ["SEMCODEC_CACHE"]).rglob("*.json"):
        kept.write_text("[" * 100_000)
    assert file_digests(data / "images", names)[1] == first[1]
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        file_digests(data / "labels", ["2.png"])


@pytest.mark.parametrize("form", ["classes", "table", "boxes"])
def test_labels_and_pictures_count_in_every_form_of_data(form, data, tmp_path):
    root, images = tmp_path / form, data / "images"
    request = REQUEST
    if form == "classes":
        for i in range(2):
            (root / f"{i}").mkdir(parents=True)
            shutil.copy(images / f"{i}.png", root / f"{i}")
        change = lambda: (root / "1").rename(root / "2")  # noqa: E731
    elif form == "table":
        shutil.copytree(data, root)
        change = lambda: write_labels(root, right(root))  # noqa: E731
    else:
        request = replace(REQUEST, fit="letterbox", labels="boxes")
        shutil.copytree(images, root / "images" / "val")
        (root / "labels" / "val").mkdir(parents=True)
        (root / "labels" / "val" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        change = lambda: (root / "labels" / "val" / "0.txt").write_text("1 0.5 0.5 0.2 0.2\n")  # noqa: E731
    content = lambda count=2: open_dataset(str(root), "all", request).content(count)  # noqa: E731
    before = content()
    moved = shutil.copytree(root, tmp_path / "moved")
    assert open_dataset(str(moved), "all", request).content(2) == before != content(1)
    change()
    assert content() != before


def test_bench_goes_on_with_the_same_samples_alone(data, tmp_path):
    options = ("bench", SPEC, "--out", "r", "--offline", "--limit", 6, "--data")
    assert run(*options, data).exit_code == 0
    [wrong] = measured("r/records.jsonl")
    other = shutil.copytree(data, tmp_path / "elsewhere" / "copy")
    for path in (data, other, "./scenes"):
        assert run(*options, path, "--resume").exit_code == 0
    assert measured("r/records.jsonl") == [wrong]

    write_labels(data, right(data))
    refused = run(*options, data, "--resume")
    assert refused.exit_code == 2
    assert f"a change of: files or labels of {data}" in refused.stderr
    assert measured("r/records.jsonl") == [wrong]
    assert run(*options, data, "--remeasure").exit_code == 2  # which is for --resume
    anew = run(*options, data, "--resume", "--remeasure")
    assert anew.exit_code == 0, anew.stderr
    [true] = records.read(Path("r"))
    assert (wrong["top1"], true["cell"]) == (0, wrong["cell"])
    assert true["top1"] > 0.6
