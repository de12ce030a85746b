"""A task that the core does not know works throughout, by one module and one entry in the table."""

from __future__ import annotations

import json

import mean_brightness
import numpy as np
import pytest
from click.testing import CliRunner

import semcodec.composition.composition
import semcodec.composition.registry
from semcodec.bench.cells import cell_of
from semcodec.bench.worker import Settings, Worker
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.data import datasets
from semcodec.data.base import Digest
from semcodec.data.datasets import open_dataset
from semcodec.errors import DataError, UsageError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.table import TASKS, compare, get_task, metric_of, metrics, task_of

SPEC = "bytes+zstd+mean"


@pytest.fixture(autouse=True)
def one_entry(monkeypatch, tmp_path, one_thread):
    """The task; beside it the components, as a plugin has them, and a data set."""
    monkeypatch.setitem(TASKS, "brightness", "mean_brightness:Brightness")
    registry = Registry.of([*get_registry(), *mean_brightness.COMPONENTS])
    for module in (semcodec.composition.composition, semcodec.composition.registry):
        monkeypatch.setattr(module, "get_registry", lambda: registry)
    greys = datasets.Named("mean_brightness:Greys", "image", 0, 12, 12, "even greys")
    monkeypatch.setitem(datasets.NAMED, "greys", greys)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


def call(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def found(*arguments):
    return json.loads(call(*arguments, "--format", "json"))


def test_compose_shows_what_the_task_says():
    for more in ((), ("--dry-run",)):
        assert "brightness float32[1]" in call("compose", SPEC, *more)
    told = found("compose", SPEC, "--input", "greys:6")
    assert told["task"] == "brightness" and told["label"] == pytest.approx(120 / 255)
    assert told["prediction"] == {"brightness": pytest.approx(120 / 255), "where": "server"}
    assert list(told["stages_ms"])[-1] == "clip"
    assert "brightness  0.471; it is 0.471" in " ".join(call("compose", SPEC, "--input", "greys:6").split(" " * 3))


def test_a_plot_says_it_too(tmp_path):
    call("compose", SPEC, "--input", "greys:6", "--save-plot", tmp_path / "plot.svg")
    assert "brightness 0.471" in (tmp_path / "plot.svg").read_text()


def test_a_stream_has_the_tasks_side_information_and_is_decoded_from_the_file_alone(tmp_path):
    file = tmp_path / "greys.sem"
    written = found("encode", SPEC, "greys:0", "greys:8", "-o", file, "--check")["records"]
    read = found("decode", file)["records"]
    assert [r["prediction"] for r in read] == [r["prediction"] for r in written]
    first = found("inspect", file)["records"][0]["chunks"][0]
    assert first["bytes"] == 2 and first["side"]
    assert "brightness" in call("decode", file)


def test_eval_scores_and_compares_as_the_task_does(tmp_path):
    out = tmp_path / "records.jsonl"
    table = call("eval", SPEC, "--data", "greys", "--batch", 5, "-o", out)
    assert "near %" in table and "mean error" in table and "of 0 to 1" in table
    record = json.loads(out.read_text())
    wrong = 2  # of 20, 40: black cannot be taken for darker
    assert record["near"] == pytest.approx(1 - wrong / 12) and record["task"] == "brightness"
    assert record["near_interval"][0] < record["near"] < record["near_interval"][1]
    assert "top1" not in record and metric_of(record) == "near" and task_of(record) is get_task("brightness")
    assert compare(record, {**record, "errors": [0.0] * 12})["difference"] == pytest.approx(-wrong / 12)
    assert "share of samples within 0.05, %" in call("report", out, "--format", "md")


def test_a_bench_gives_the_record_of_eval():
    worker = Worker(Settings("greys", batch=5, offline=True))
    cell = worker.measure(cell_of(compose_spec(SPEC), "greys", "test", None, 0))
    alone = Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True)).evaluate("greys", batch=5)
    assert cell["errors"] == alone["errors"] and cell["data_digest"] == alone["data_digest"]


def test_other_data_and_other_models_are_refused_in_one_line():
    request = compose_spec(SPEC).request
    assert request.labels == "brightness" and request.placed
    with pytest.raises(DataError, match="has no labels of the kind 'brightness', which the model's task needs"):
        open_dataset("digits-scenes", "test", request)
    with pytest.raises(DataError, match="'class'"):
        open_dataset("greys", "test", compose_spec("jpeg+vit-nano-server").request)
    with pytest.raises(UsageError, match="made for brightness"):
        compose_spec("bytes+zstd+vit-nano-server")


def test_digests_tell_labels_apart():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    digests = set()
    for labels in ([0.25, 0.5], [0.25, 0.75], [0, 0]):
        digest = Digest()
        digest.update(pixels, np.array(labels))
        digests.add(digest.hexdigest())
    assert len(digests) == 3


def test_nothing_to_learn_is_said_by_the_task():
    with pytest.raises(UsageError, match="of one brightness alone"):
        get_task("brightness").check_labels("greys", np.full(4, 0.5))


def test_a_task_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delitem(TASKS, "brightness")
    with pytest.raises(
        UsageError, match="no task 'brightness'; tasks are classification, video, detection, segmentation"
    ):
        Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True)).encode(np.zeros((32, 32, 3), np.uint8))
    assert list(metrics()) == ["top1", "map50", "miou", "recall1", "psnr", "weighted_mean"]
