"""Any codec learns for the task with any backbone, and any backbone learns to read what a codec decodes."""

from __future__ import annotations

import functools
import json
from io import BytesIO

import learned_toy
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

import semcodec
from semcodec.boxes import Boxes
from semcodec.cli import main
from semcodec.composition.registry import Registry, get_registry
from semcodec.errors import UsageError, WeightsError
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training import loop, train
from semcodec.training.loop import Batch

PIPELINE = "blocks+tiny"


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path, one_thread):
    registry = Registry.of([*get_registry(), *learned_toy.COMPONENTS])
    for module in (semcodec.composition.composition, train):
        monkeypatch.setattr(module, "get_registry", lambda: registry)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Noise, the second class brighter on the left."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(60):
            pixels = rng.integers(60, 160, (16, 16, 3), dtype=np.uint8)
            pixels[:, :8] += np.uint8(90 * label)
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")
    return str(root)


@pytest.fixture(scope="module")
def pixels(data, tmp_path_factory):
    """Weights of the codec, trained for pixels, and of an untrained backbone."""
    out = tmp_path_factory.mktemp("runs") / "pixels"
    registry = Registry.of([*get_registry(), *learned_toy.COMPONENTS])
    with pytest.MonkeyPatch.context() as patch:
        for module in (semcodec.composition.composition, train):
            patch.setattr(module, "get_registry", lambda: registry)
        train.train(PIPELINE, data, out, scale=0.5)
    return out


def learn(data, out, pixels, spec=PIPELINE, **options):
    return train.train(spec, data, out, request=WeightsRequest({"": str(pixels)} if pixels else {}, True), **options)


def tensors(folder):
    return load_file(folder / "weights.safetensors")


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# -- together ---------------------------------------------------------------------------------------------------------


def test_encoder_and_backbone_learn_and_tables_are_made_anew(data, pixels, tmp_path):
    card = learn(data, tmp_path / "task", pixels, objective="task", rate_weight=0.5, scale=1.5)
    assert [step["step"] for step in card["metrics"]] == ["densities", "task-aware", "tables"]
    assert card["metrics"][1]["top1"] > 0.7
    moved = changed(tensors(pixels), tensors(tmp_path / "task"))
    learned = {name for name in moved if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert learned == moved  # statistics stay as they were
    assert {"encoder.gain", "encoder.counts", "backbone.net.0.weight", "backbone.net.4.bias"} <= learned
    # What is sent is decoded under the new tables, which cost about what training said.
    pipeline = semcodec.compose(PIPELINE, weights=str(tmp_path / "task"))
    source = semcodec.open_dataset(data, "test", pipeline.request).batch(range(8))[0]
    encoded = pipeline.encode_batch(source, range(8))
    x = pipeline.features(source)
    latents = pipeline.stages.encoder.encode(x, None, {}, {})
    for record, latent in zip(pipeline.records(encoded), latents, strict=True):
        assert np.array_equal(pipeline.server.read(pipeline.server.source(record)).symbols["q"], latent.symbols["q"])
    bpp = 8 * np.mean([e.bytes_payload for e in encoded]) / 256
    assert bpp == pytest.approx(card["metrics"][-1]["bpp"], abs=0.15)


def test_a_heavier_rate_sends_fewer_bytes(data, pixels, tmp_path):
    sizes = []
    for weight in (0.0, 5.0):
        learn(data, tmp_path / str(weight), pixels, objective="task", rate_weight=weight, scale=2.5)
        record = semcodec.compose(PIPELINE, weights=str(tmp_path / str(weight))).evaluate(data)
        assert record["weights"]["encoder"]["source"] == str(tmp_path / str(weight))
        sizes.append(record["bytes_payload"])
    assert sizes[1] < 0.85 * sizes[0]


def test_one_command_does_all_where_there_are_no_weights(data, tmp_path):
    card = learn(data, tmp_path / "out", None, objective="task", scale=0.01)
    assert [step["step"] for step in card["metrics"]] == ["pixels", "task-aware", "tables"]
    assert card["rate_weight"] == 1.0


def test_a_codec_without_a_rate_of_its_own_learns_for_the_task_alone(data, pixels, tmp_path):
    spec = "fixed-blocks+tiny"
    card = learn(data, tmp_path / "out", None, spec, objective="task", scale=0.01)
    assert [step["step"] for step in card["metrics"]] == ["pixels", "task-aware"]
    assert "bpp" not in card["metrics"][-1]
    assert "rate_weight" not in card
    with pytest.raises(UsageError, match="leave out --rate-weight"):
        learn(data, tmp_path / "other", None, spec, objective="task", rate_weight=0.5)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ("feature-hyperprior+det-nano@d3", ["densities", "task-aware", "tables"]),
        ("bottlenetpp+resnet-nano@stem", ["task-aware", "settle"]),
        ("learned/bmshj2018-hyperprior:size=4-8+det-nano", ["pixels", "task-aware", "tables"]),
    ],
)
def test_codecs_at_a_cut_and_detectors(spec, steps, tmp_path):
    pytest.importorskip("compressai", reason="pip install 'semcodec[learned]'")
    card = learn("digits-scenes", tmp_path, None, spec, objective="task", scale=1e-9)
    assert [step["step"] for step in card["metrics"]] == steps
    after = semcodec.compose(spec, weights=str(tmp_path)).stages.modules()
    before = semcodec.compose(spec, weights={"encoder": "random"} if "pixels" in steps else None)
    for slot, module in before.stages.modules().items():
        assert changed(module.state_dict(), after[slot].state_dict()), slot


# -- the backbone alone -----------------------------------------------------------------------------------------------


@pytest.fixture
def planned(monkeypatch, data):
    """The one step of ``refine``, which is not run, and its job."""

    def plan(spec, data=data):
        caught = {}
        monkeypatch.setattr(train, "fit", lambda steps, job, out, **_: caught.update(steps=steps, job=job) or [])
        monkeypatch.setattr(train, "save", lambda *_: None)
        train.train(spec, data, "nowhere", objective="refine", request=WeightsRequest({"": "random"}, True))
        step = caught["steps"][-1]
        torch.nn.ModuleList(step.learn).requires_grad_(True)  # as the loop does
        return caught["job"], step

    return plan


@pytest.mark.parametrize(("spec", "qualities"), [("jpeg", {10, 25, 40, 60, 75, 90}), ("jpeg:quality=5", {5})])
def test_it_learns_from_what_is_really_decoded_at_what_the_spec_leaves_open(planned, monkeypatch, spec, qualities):
    job, step = planned(f"{spec}+tiny")
    backbone, seen = job.modules["backbone"], []
    task_loss = backbone.task_loss
    monkeypatch.setattr(backbone, "task_loss", lambda f, *rest: seen.append(f["image"].clone()) or task_loss(f, *rest))
    source, labels = job.dataset.batch([0, 3])
    x = torch.from_numpy(source).movedim(-1, 1) / 255
    rng = np.random.default_rng(0)
    for _ in range(40 if len(qualities) > 1 else 3):
        loss, figures = step.loss(Batch(x, torch.from_numpy(labels), rng, [0, 1]))
    assert loss.requires_grad
    assert set(figures) == {"top1"}

    def by_pillow(quality):
        decoded = []
        for pixels in source:
            file = BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            decoded.append(np.asarray(Image.open(file).convert("RGB")))
        return torch.from_numpy(np.stack(decoded)).movedim(-1, 1) / 255

    known = {quality: by_pillow(quality) for quality in qualities}
    found = [next(quality for quality, image in known.items() if torch.equal(image, images)) for images in seen]
    assert set(found) == qualities


def test_a_learned_codec_stays_and_the_backbone_learns(data, pixels, tmp_path):
    card = learn(data, tmp_path / "refined", pixels, objective="refine", scale=2.0)
    assert [step["step"] for step in card["metrics"]] == ["refine"]
    assert card["metrics"][0]["top1"] > 0.7
    moved = changed(tensors(pixels), tensors(tmp_path / "refined"))
    assert moved == {f"backbone.net.{layer}.{kind}" for layer in (0, 1, 4) for kind in ("weight", "bias")}


def test_what_precedes_the_cut_stays(planned):
    job, step = planned("tensor8+resnet-nano@layer2", "digits-scenes")
    learned = {id(p) for module in step.learn for p in module.parameters()}
    backbone = dict(job.modules["backbone"].named_parameters())
    names = {name for name, p in backbone.items() if id(p) in learned}
    assert names
    assert all("layer3" in name or "layer4" in name or "fc" in name for name in names), names
    assert {name for name in backbone if "layer3" in name} <= names


def test_selected_parts_boxes_and_clips(planned):
    for spec, data in (("roi-jpeg+det-nano", "digits-scenes"), ("jpeg+vit-nano:32", "digits-motion")):
        job, step = planned(spec, data)
        pixels, labels = job.dataset.batch([0, 1])
        x = torch.from_numpy(pixels).movedim(-1, -3) / 255
        labels = labels if isinstance(labels, list) else torch.from_numpy(labels)
        for i in range(3):
            loss, _ = step.loss(Batch(x, labels, np.random.default_rng(i), [0, 1]))
            loss.backward()
            assert loss.isfinite()


# -- weights, messages, going on --------------------------------------------------------------------------------------


def test_what_is_written_is_found_and_says_what_it_is(data, tmp_path):
    out = tmp_path / "refined"
    card = learn(data, out, None, "jpeg:quality=10+tiny", objective="refine", scale=0.01)
    assert card == json.loads((out / "card.json").read_text())
    assert card["objective"] == "refine"
    assert "rate_weight" not in card
    # It belongs to this codec, which has no weights itself: no other takes it unasked.
    assert card["keys"] == {"encoder": "jpeg+tiny@input", "backbone": "tiny"}
    cache = tmp_path / "cache" / "weights"
    cache.mkdir(parents=True)
    (cache / "x.safetensors").write_bytes((out / "weights.safetensors").read_bytes())
    assert semcodec.compose("jpeg:50+tiny").sources["backbone"].origin == "cache: x.safetensors"
    with pytest.raises(WeightsError, match="no weights for tiny"):
        semcodec.compose("webp+tiny")
    done = CliRunner().invoke(main, ["eval", "jpeg:10+tiny", "--data", data, "--weights", str(out), "--limit", "2"])
    assert done.exit_code == 0, done.output


def test_the_card_of_a_task_has_its_weight_and_all_licences(data, pixels, tmp_path):
    arguments = [PIPELINE, "--data", data, "-o", str(tmp_path / "o"), "--weights", str(pixels), "--format", "json"]
    more = ["--objective", "task", "--rate-weight", "0.25", "--samples-scale", "1e-9", "--until", "task-aware"]
    done = CliRunner().invoke(main, ["train", *arguments, *more])
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "o" / "card.json").read_text())
    assert (card["objective"], card["rate_weight"], card["license"]) == ("task", 0.25, "Apache-2.0 AND MIT")
    assert set(card["keys"]) == {"encoder", "backbone"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["jpeg+tiny"], "on what jpeg decodes: --objective refine"),
        (["jpeg+tiny", "--objective", "task"], "--objective refine"),
        (["stae+vit-nano:32", "--objective", "task"], "stae cannot learn for a task together with the backbone"),
        (["blocks+tiny", "--objective", "refine"], "no weights for blocks+tiny@input"),
        (["tiny", "--objective", "task"], "name an encoder too, as in jpeg+tiny"),
        (["jpeg+tiny", "--objective", "refine", "--rate-weight", "1"], "leave it out"),
        (["blocks+tiny", "--rate-weight", "1"], "leave it out"),
        (["blocks+tiny", "--objective", "task", "--rate-weight", "nan"], "at least 0"),
        (["blocks+tiny", "--objective", "task", "--rate-weight", "2,1"], "give --rate-weight one number"),
        (["blocks+tiny", "--objective", "distil", "--rate-weight", "2,-1"], "at least 0"),
        (["blocks+tiny", "--objective", "distil", "--rate-weight", "2;1"], "several with commas between, not 2;1"),
        (["blocks+tiny", "--objective", "task", "--until", "pixel"], "its steps are pixels, task-aware, tables"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(data, tmp_path, arguments, words):
    data = "digits-motion" if "stae+vit-nano:32" in arguments else data
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["train", *arguments, "--data", data, "-o", str(out), "--offline"])
    assert done.exit_code == (1 if "no weights" in words else 2), done.output
    [line] = done.output.strip().splitlines()
    assert words in line
    assert not out.exists()


def test_without_labels_there_is_no_task(tmp_path, monkeypatch):
    monkeypatch.setattr(Boxes, "__len__", lambda self: 0)
    with pytest.raises(UsageError, match="no boxes in its first 64 samples"):
        learn("digits-scenes", tmp_path / "out", None, "jpeg+det-nano", objective="refine")


def test_an_objective_that_is_none_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match="recipe, task, refine, distil, not 'tasks'"):
        semcodec.train(PIPELINE, data, tmp_path, objective="tasks")


@pytest.mark.parametrize("objective", ["task", "refine"])
def test_a_stopped_run_goes_on_to_the_same_weights(data, pixels, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(train, "fit", functools.partial(loop.fit, every_s=-1))
    options = {"objective": objective, "scale": 0.2}
    calls, task_loss, last = [], learned_toy.Tiny.task_loss, 0

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == last:
            raise KeyboardInterrupt
        return task_loss(*arguments)

    monkeypatch.setattr(learned_toy.Tiny, "task_loss", counted)
    learn(data, tmp_path / "whole", pixels, **options)
    whole, last = len(calls), len(calls) + 5
    with pytest.raises(KeyboardInterrupt):
        learn(data, tmp_path / "broken", pixels, **options)
    learn(data, tmp_path / "broken", pixels, **options)
    assert len(calls) == 2 * whole + 1
    assert not changed(tensors(tmp_path / "whole"), tensors(tmp_path / "broken"))
