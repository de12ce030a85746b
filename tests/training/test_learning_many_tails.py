"""Distillation from several tails at once."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest
from safetensors.torch import load_file
from torch import nn

from semcodec.composition.composition import compose_spec
from semcodec.errors import UsageError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.distillation import tails_of
from semcodec.training.loop import Job
from semcodec.training.train import WEIGHTS, train

SPEC = "layered+cls-nano@d3+det-nano@d3"
OFFLINE = WeightsRequest(offline=True)


def run(spec, out, **options):
    return train(spec, "digits-scenes", out, request=OFFLINE, objective="distil", scale=1e-6, **options)


def test_a_codec_learns_from_all_tails_and_serves_each(tmp_path):
    with as_file(files("semcodec_plugins.layered") / "weights/layered-det-nano.safetensors") as start:
        card = run(SPEC, tmp_path, init=str(start), task_weights={"detection": 3.0})
        begun = load_file(start)
    assert card["keys"] == {"encoder": "layered+cls-nano@d3+det-nano@d3"}
    assert card["init"] == "layered-det-nano.safetensors"
    assert [(task, told["weight"]) for task, told in card["tasks"].items()] == [
        ("classification", 1.0), ("detection", 3.0)
    ]  # fmt: skip
    [learned] = [step for step in card["metrics"] if step["step"] == "distil"]
    weighted = (learned["answers of classification"] + 3 * learned["answers of detection"]) / 4
    rate = learned["loss"] - weighted - 0.1 * learned["features"]
    assert 0 < rate < learned["bytes"] / 1000 + 1e-3  # a kilobyte weighs 1 at the coarsest point, less at others
    written = load_file(tmp_path / WEIGHTS)
    assert not any(name.startswith(("backbone.", "det-nano.", "cls-nano.")) for name in written)
    assert any(not tensor.equal(begun[name]) for name, tensor in written.items())
    pipeline = Pipeline.load(compose_spec(SPEC), WeightsRequest({"": str(tmp_path)}, offline=True))
    assert pipeline.alone("detection").evaluate("digits-scenes", limit=2)["map50"] is not None
    again = run(SPEC, tmp_path / "again", init=str(tmp_path))  # the folder of a run
    assert again["init"] == tmp_path.name


def test_a_prefix_learns_from_the_tails_that_it_serves(tmp_path):
    """The one batch is at the base, which detection alone reads; all layers would have both tails as teachers."""
    spec = SPEC.replace("layered", "layered:serves=detection.1-classification.2")
    with as_file(files("semcodec_plugins.layered") / "weights/layered-det-nano.safetensors") as start:
        card = run(spec, tmp_path, init=str(start))
    assert {task: told["layers"] for task, told in card["tasks"].items()} == {"classification": 2, "detection": 1}
    [learned] = [step for step in card["metrics"] if step["step"] == "distil"]
    assert "answers of detection" in learned and "answers of classification" not in learned
    rate = learned["loss"] - learned["answers of detection"] - 0.1 * learned["features"]
    assert 0 < rate < learned["bytes"] / 1000 + 1e-3  # the one tail has all of the weight
    assert card["keys"] == {"encoder": "layered+cls-nano@d3+det-nano@d3"}
    assert card["init"] == "layered-det-nano.safetensors"


def test_tails_that_teach_at_so_many_layers():
    tails = {"classification": nn.Identity(), "detection": nn.Identity(), "retrieval": nn.Identity()}
    job = Job({}, None, tails=tails, task_weights={"detection": 3.0}, needs={"classification": 2, "retrieval": 3})
    assert [(task, weight) for task, weight, _ in tails_of(job, 1)] == [("detection", 1.0)]
    assert [(task, weight) for task, weight, _ in tails_of(job, 2)] == [("classification", 0.25), ("detection", 0.75)]
    assert [weight for _, weight, _ in tails_of(job)] == [0.2, 0.6, 0.2]


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        (SPEC, {"task_weights": {"video": 1.0}}, "the spec has the tasks classification, detection"),
        (SPEC, {"task_weights": {"detection": 0.0, "classification": 0.0}}, "all tasks weigh nothing"),
        ("layered+det-nano@d3", {"task_weights": {"detection": 1.0}}, "for a spec with several backbones"),
    ],
)
def test_weights_that_cannot_be_are_refused(spec, options, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        run(spec, tmp_path, **options)


def test_several_learn_by_distillation_alone(tmp_path):
    with pytest.raises(UsageError, match="--objective distil"):
        train(SPEC, "digits-scenes", tmp_path, request=OFFLINE)
