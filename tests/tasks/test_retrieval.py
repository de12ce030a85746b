"""Embeddings are ranked as they should be, travel through packets and answers, and are told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.serving.answers import to_message, to_prediction
from semcodec.tasks.retrieval import pair_loss, rank
from semcodec.tasks.table import compare, get_task, metric_of, task_of

SPEC = "jpeg+embed-nano"
TASK = get_task("retrieval")


@pytest.fixture(autouse=True)
def _one_thread(one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(compose_spec(SPEC), WeightsRequest(offline=True))


def call(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ranks_by_hand():
    angles = np.radians([0, 10, 50, 70, 200])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[1], [5], [1], [2], [1]])
    hits, precisions = rank(embeddings, np.array([0, 1, 0, 1, 2]))
    assert hits.tolist() == [False, False, False, False]  # the fifth is alone of its class, and no query
    # 0: 1, 2, 3; 1: 0, 2, 3; 2: 3, 1, 0; 3: 2, 1, 0
    assert precisions.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2])
    hits, precisions = rank(embeddings, np.array([0, 0, 1, 1, 1]))
    assert hits.tolist() == [True, True, True, True, True] and precisions[0] == 1
    with pytest.raises(DataError, match="a second one to be found"):
        rank(embeddings, np.arange(5))


def test_average_precision_is_scikit_learns():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 8)), rng.integers(0, 4, 60)
    _, precisions = rank(embeddings, labels)
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for query in range(60):
        others = np.arange(60) != query
        scores = (directions @ directions[query])[others]
        expected = average_precision_score((labels == labels[query])[others], scores)
        assert precisions[query] == pytest.approx(expected)


def test_the_loss_brings_classes_together():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(24, 8, requires_grad=True), torch.arange(24) % 3
    optimiser = torch.optim.Adam([embeddings], lr=0.1)
    first = pair_loss(embeddings, labels)[0].item()
    for _ in range(60):
        optimiser.zero_grad()
        loss, figures = pair_loss(embeddings, labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < first / 4 and figures["recall1"] == 1
    assert torch.isfinite(pair_loss(torch.randn(1, 4), torch.tensor([0]))[0])


def test_what_ships_finds_the_digit(pipeline):
    data = open_dataset("digits-scenes", "test", pipeline.request)
    record = evaluate(pipeline, data, limit=120)
    assert record["recall1"] > 0.85 and record["map"] > 0.7 and record["queries"] == 120
    assert record["recall1_interval"][0] < record["recall1"] < record["recall1_interval"][1]
    assert record["map_interval"][0] < record["map"] < record["map_interval"][1]
    assert metric_of(record) == "recall1" and task_of(record) is TASK and record["bpp"] > 0
    worse = evaluate(pipeline.replace(composition=compose_spec("jpeg:5+embed-nano")), data, limit=120)
    assert compare(record, worse)["difference"] > 0
    assert compare(record, record)["p"] == 1


def test_a_stream_is_decoded_to_embeddings(tmp_path):
    file = tmp_path / "scenes.sem"
    written = json.loads(call("encode", SPEC, "digits-scenes:0", "-o", file, "--check", "--format", "json"))
    read = json.loads(call("decode", file, "--format", "json"))
    assert read["prediction"] == written["prediction"] and len(read["prediction"]["embedding"]) == 64
    assert written["label"] in "0123456789"
    assert "64 numbers of length 1.000" in call("decode", file)
    assert "recall@1 %" in call("eval", SPEC, "--data", "digits-scenes", "--limit", 30)


def test_an_answer_goes_over_the_network_whole(pipeline):
    [prediction] = pipeline.decode_batch(pipeline.records([pipeline.encode("digits-scenes:0")]))
    message = to_message(3, prediction, (0, 0, 0, 0), logits=False, task="retrieval")
    found = to_prediction(message, pipeline.classes, "retrieval")
    assert (found.embedding == prediction.embedding).all() and found.index == -1
    for wrong in (b"", b"123", np.array([np.nan], "<f4").tobytes()):
        with pytest.raises(CorruptStream):
            TASK.from_bytes(prediction, wrong, pipeline.classes)


def test_class_folders_and_tables_serve_it(tmp_path):
    request = compose_spec(SPEC).request
    for name in ("cat/a", "cat/b", "dog/a", "dog/b"):
        path = tmp_path / "folders" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    data = open_dataset(str(tmp_path / "folders"), "all", request)
    assert "retrieval" in data.tasks and data.sizes([0, 1]) == [(30, 20)] * 2
    assert data.batch([0, 1])[1].tolist() == [0, 1]
    with pytest.raises(UsageError, match="a single class"):
        TASK.check_labels("these", np.zeros(4, np.int64))


def test_timms_models_without_their_classifiers():
    composition = compose_spec("jpeg+timm-embed/test_vit")
    made = Pipeline.load(composition, WeightsRequest({"": "random"}, offline=True))
    backbone = made.stages.backbone
    assert made.composition.task == "retrieval" and "block1" in backbone.spec.cuts
    image = torch.rand(2, 3, *made.request.shape[:2])
    whole = backbone.tail({"image": image}, "input")
    assert whole.shape == (2, 64)
    expected = backbone.model.forward_head(backbone.model.forward_features(backbone.normalised(image)), pre_logits=True)
    assert torch.equal(whole, expected)
    assert torch.equal(backbone.tail(backbone.head({"image": image}, "block1"), "block1"), whole)
    import timm

    state = timm.create_model("test_vit", num_classes=5).state_dict()
    assert backbone.adapt(state).keys() == backbone.state_dict().keys()
