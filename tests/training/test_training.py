"""One loop trains every method: it learns, stops and goes on as if it had not, and leaves weights that load."""

from __future__ import annotations

import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import semcodec
from semcodec.data.base import Dataset
from semcodec.errors import SemcodecError, UsageError, WeightsError
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training import train
from semcodec.training.checkpoint import Checkpoint, state_dict
from semcodec.training.loop import Job, Step, batches, fit, rate, varied
from semcodec_plugins.video_vit.video import VideoViT


class Brightness(Dataset):
    """Noisy clips, the second class brighter than the first; mirrored at random."""

    name, kind, classes, varies = "brightness", "video", ["dark", "bright"], True

    def __init__(self, count: int = 40) -> None:
        rng = np.random.default_rng(7)
        self.labels = np.arange(count) % 2
        self.pixels = rng.integers(0, 200, (count, 2, 4, 4, 3), dtype=np.uint8)
        self.pixels += (40 * self.labels).astype(np.uint8)[:, None, None, None, None]

    def __len__(self):
        return len(self.labels)

    def batch(self, indices):
        return self.pixels[indices], self.labels[indices]

    def ids(self, indices):
        return [str(i) for i in indices]


class Stop(Exception):
    pass


class Run:
    """A two-step training of two small modules; ``stops``: (step, call) pairs at which the loss raises."""

    def __init__(self, stops: tuple[tuple[int, int], ...] = ()) -> None:
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 2)
        self.job = Job({"encoder": self.stem, "backbone": self.head}, Brightness())
        self.stops, self.seen = set(stops), []
        self.steps = [
            Step("all", [self.stem, self.head], self.loss(0), samples=90, lr=1e-2, batch=8),
            Step("head", [self.head], self.loss(1), samples=60, lr=1e-2, batch=8),
        ]

    def loss(self, number):
        def compute(batch):
            place = number, sum(n == number for n, _ in self.seen)
            self.seen.append((number, batch.sequence[0]))
            if place in self.stops:
                self.stops.remove(place)
                raise Stop
            noise = torch.from_numpy(batch.rng.random(batch.pixels.shape, np.float32))
            logits = self.head(self.stem(batch.pixels + 0.02 * noise))
            top1 = (logits.argmax(1) == batch.labels).float().mean().item()
            return nn.functional.cross_entropy(logits, batch.labels), {"top1": top1}

        return compute

    def fit(self, out, **options):
        return fit(self.steps, self.job, out, seed=3, fingerprint="a run", half=False, **options)

    def state(self):
        return {name: value.clone() for name, value in state_dict(self.job.modules).items()}


pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_learns(tmp_path):
    run = Run()
    run.steps = [Step("all", [run.stem, run.head], run.loss(0), samples=600, lr=1e-2, batch=8)]
    (summary,) = run.fit(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [75]
    first = Run()
    with torch.no_grad():
        untrained, _ = first.loss(0)(next(iter(batches(first.job.dataset, run.steps[0], 3, 0, 0))))
    assert summary["loss"] < 0.7 * untrained
    assert summary["top1"] > 0.8
    assert summary["samples"] == 600
    assert not any(p.requires_grad or m.training for m in run.job.modules.values() for p in m.parameters())


def test_a_frozen_module_is_not_touched(tmp_path):
    run = Run()
    run.steps = run.steps[1:]
    before = run.state()
    run.fit(tmp_path)
    after = run.state()
    for name, value in before.items():  # running statistics too
        assert torch.equal(value, after[name]) == name.startswith("encoder."), name


@pytest.mark.parametrize("stops", [((0, 5),), ((0, 0),), ((1, 3),), ((0, 11), (1, 0), (1, 7))])
def test_a_stopped_run_ends_bit_for_bit_as_an_unbroken_one(tmp_path, stops):
    whole = Run()
    whole.fit(tmp_path / "whole")
    for _ in stops:
        broken = Run(stops)
        with pytest.raises(Stop):
            broken.fit(tmp_path / "broken", every_s=-1)
        stops = stops[1:]
    last = Run()
    resumed = (tmp_path / "broken" / "checkpoint.safetensors").exists()
    if resumed:  # nothing that a new process has made counts
        for p in last.stem.parameters():
            nn.init.ones_(p)
    last.fit(tmp_path / "broken", every_s=-1)
    assert (len(last.seen) < len(whole.seen)) == resumed
    for name, value in whole.state().items():
        assert torch.equal(value, last.state()[name]), name


def test_a_run_stopped_between_two_steps_goes_on(tmp_path, monkeypatch):
    whole = Run()
    summary = whole.fit(tmp_path / "whole")
    save = Checkpoint.save

    def stop_at_the_end_of_a_step(self, modules, optimiser, state):
        if optimiser is None:
            raise Stop
        save(self, modules, optimiser, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stop_at_the_end_of_a_step)
        with pytest.raises(Stop):
            Run().fit(tmp_path / "broken", every_s=-1)
    last = Run()
    resumed = last.fit(tmp_path / "broken")
    assert [line["step"] for line in resumed] == [line["step"] for line in summary] == ["all", "head"]
    for name, value in whole.state().items():
        assert torch.equal(value, last.state()[name]), name


def test_a_finished_run_is_not_repeated(tmp_path):
    first = Run()
    summary = first.fit(tmp_path)
    again = Run()
    assert again.fit(tmp_path) == summary
    assert not again.seen
    assert all(torch.equal(v, again.state()[k]) for k, v in first.state().items())


def test_a_step_where_nothing_learns_looks_and_finishes_and_begins_anew_when_stopped(tmp_path):
    run, looked, found = Run(), [], []

    def look(batch):
        assert not torch.is_grad_enabled()
        looked.append(batch.sequence[0])
        if len(looked) == 3:
            raise Stop
        return torch.zeros(()), {}

    run.steps = [Step("look", (), look, samples=32, lr=0, batch=8, finish=lambda: found.append(len(looked)))]
    before = run.state()
    with pytest.raises(Stop):
        run.fit(tmp_path, every_s=0)
    assert not found
    run.fit(tmp_path)
    assert looked == [0, 8, 16, 0, 8, 16, 24]
    assert found == [7]
    assert all(torch.equal(value, before[name]) for name, value in run.state().items())


@pytest.mark.parametrize(
    ("name", "value"), [("step", -1.0), ("step", float("nan")), ("exp_avg_sq", -1.0), ("exp_avg", float("inf"))]
)
def test_what_no_optimiser_can_know_is_a_damaged_checkpoint(tmp_path, name, value):
    with pytest.raises(Stop):
        Run(((0, 5),)).fit(tmp_path, every_s=-1)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for key in [key for key in tensors if key.startswith("optimiser.") and key.endswith(f".{name}")]:
        tensors[key] = torch.full_like(tensors[key], value)
    save_file(tensors, path, metadata)
    with pytest.raises(WeightsError, match=r"what its optimiser knows of parameter .* cannot be"):
        Run().fit(tmp_path)


def test_another_runs_checkpoint_is_refused(tmp_path):
    run = Run()
    run.fit(tmp_path)
    with pytest.raises(UsageError, match="checkpoint of another run; give another -o") as caught:
        fit(run.steps, run.job, tmp_path, fingerprint="another run")
    assert str(caught.value).isprintable()


def test_batches_are_the_same_wherever_they_start():
    data = Brightness()
    step = Step("s", [], lambda _: (torch.zeros(()), {}), samples=100, lr=1.0, batch=8)
    whole = list(batches(data, step, 1, 0, 0))
    later = list(batches(data, step, 1, 0, 7))
    assert len(whole) == 13
    assert len(later) == 6
    for a, b in zip(whole[7:], later, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
        assert list(a.sequence) == list(b.sequence)
        assert a.rng.random() == b.rng.random()
    numbers = [n for batch in whole for n in batch.sequence]
    assert len(numbers) == len(set(numbers))
    data.varies = False  # so that the first epoch can be told apart: every sample once
    seen = torch.cat([b.pixels for b in list(batches(data, step, 1, 0, 0))[:5]])
    original = torch.from_numpy(np.moveaxis(data.pixels, -1, -3).copy()).float() / 255
    match = (seen[:, None] == original[None]).flatten(2).all(-1)
    assert match.sum(1).tolist() == [1] * 40
    assert match.any(0).all()


def test_nothing_is_read_once_a_run_has_ended_by_an_error(tmp_path):
    run = Run()
    reading = []

    class Slow(Brightness):
        def batch(self, indices):
            reading.append(True)
            time.sleep(0.02)
            found = super().batch(indices)
            reading.pop()
            return found

    def stop(moment):
        raise SemcodecError("enough")

    run.job.dataset = Slow()
    threads = threading.active_count()
    for _ in range(5):
        with pytest.raises(SemcodecError, match="enough") as caught:  # which holds the frames that were left
            fit(run.steps, run.job, tmp_path, on_step=stop)
        assert not reading
        assert threading.active_count() == threads, caught


def test_samples_are_varied_by_mirroring_and_cropping():
    across, down = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy")
    clips = torch.stack([across, down, across * 0 + 7]).expand(400, 2, -1, -1, -1) / 64
    seen = varied(clips, np.random.default_rng(0))
    assert seen.shape == clips.shape
    assert torch.equal(seen[:, 0], seen[:, 1])  # all frames alike
    assert (seen[:, :, 2] - 7 / 64).abs().max() < 1e-6
    slope = {axis: (seen[:, 0, axis].diff(dim=2 - axis)).mean((1, 2)) * 64 for axis in (0, 1)}
    scale = slope[1]
    assert 0.69 < scale.min() < 0.75
    assert 0.95 < scale.max() < 1.001
    assert torch.allclose(slope[0].abs(), scale, atol=0.02)
    assert 0.4 < (slope[0] < 0).float().mean() < 0.6
    middle = seen[:, 0, 0].mean((1, 2))
    assert middle.std() > 0.02


def test_crops_of_larger_pictures_have_the_size_that_is_wanted():
    across = torch.arange(80.0).expand(50, 3, 80, 80) / 80
    seen = varied(across, np.random.default_rng(0), 0.5, size=(64, 64))
    assert seen.shape == (50, 3, 64, 64)
    step = seen.diff(dim=3).mean((1, 2, 3)).abs() * 80
    assert 0.5 * 80 / 64 * 0.98 < step.min() < 0.9  # finer than the picture where little of it is seen
    assert 1.0 < step.max() < 80 / 64 * 1.02


def test_a_sample_that_cannot_be_read_ends_the_run(tmp_path):
    run = Run()

    def broken(indices):
        raise SemcodecError("sample 3 cannot be read")

    run.job.dataset.batch = broken
    with pytest.raises(SemcodecError, match="sample 3"):
        run.fit(tmp_path)


def test_the_rate_warms_up_and_falls_to_nothing():
    step = Step("s", [], lambda _: (torch.zeros(()), {}), samples=100, lr=2.0)
    rates = [rate(step, i, 100) for i in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01
    assert rate(step, 0, 1) == pytest.approx(2.0)


# -- recipes, through the train -------------------------------------------------------------------------------------

SMALL = 1e-9  # of every step's samples: one batch


def quiet_evaluate(spec, out):
    pipeline = semcodec.compose(spec, weights=str(out))
    return pipeline, pipeline.evaluate("digits-motion", limit=4, batch=2)


def test_a_backbone_is_trained_by_its_recipe(tmp_path):
    out = tmp_path / "net"
    card = train.train("vit-nano:32", "digits-motion", out, scale=SMALL)
    assert sorted(os.listdir(out)) == ["card.json", "checkpoint.safetensors", "log.jsonl", "weights.safetensors"]
    assert json.loads((out / "card.json").read_text()) == json.loads(json.dumps(card))
    assert card["keys"] == {"backbone": "vit-nano:32"} or card["keys"] == {"backbone": "vit-nano:side=32"}
    assert [step["step"] for step in card["recipe"]] == ["whole clips", "fewer frames"]
    assert {"spec", "data", "data_digest", "seed", "recipe", "metrics", "license", "classes"} <= card.keys()
    assert [line["step"] for line in card["metrics"]] == ["whole clips", "fewer frames"]
    with safe_open(out / "weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["semcodec"])["keys"] == card["keys"]
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16, torch.int64}  # the count of BatchNorm's batches

    pipeline, record = quiet_evaluate("png+vit-nano:32", out)
    assert pipeline.classes == card["classes"]
    assert record["samples"] == 4
    assert record["bytes_total"] > 0
    # A second call with the same arguments goes on where the first was: at the end.
    before = (out / "weights.safetensors").read_bytes()
    train.train("vit-nano:32", "digits-motion", out, scale=SMALL)
    assert (out / "weights.safetensors").read_bytes() == before
    with pytest.raises(UsageError, match="another run"):
        train.train("vit-nano:32", "digits-motion", out, scale=SMALL, seed=1)


def test_stae_is_trained_step_by_step_from_a_trained_backbone(tmp_path):
    train.train("vit-nano:32", "digits-motion", tmp_path / "net", scale=SMALL)
    net = load_file(tmp_path / "net" / "weights.safetensors")
    out, spec = tmp_path / "stae", "stae+rans+vit-nano:32"
    request = WeightsRequest({"backbone": str(tmp_path / "net")})
    card = train.train(spec, "digits-motion", out, request=request, scale=SMALL)
    assert [line["step"] for line in card["metrics"]] == ["frame attention", "spatial attention", "recovery"]
    assert set(card["keys"]) == {"encoder", "recoverer", "backbone"}
    tensors = load_file(out / "weights.safetensors")
    assert {name.partition(".")[0] for name in tensors} == set(card["keys"])
    assert any(not torch.equal(net[name], tensors[name]) for name in net)  # fine-tuned

    pipeline, record = quiet_evaluate(spec, out)
    assert {s.origin for s in pipeline.sources.values()} == {str(out)}
    assert record["ratio_float32"] > 10
    for name, value in pipeline.stages.encoder.state_dict().items():
        assert torch.equal(value.half(), tensors[f"encoder.{name}"])
    # The same file serves other budgets, selectors and entropy stages.
    quiet_evaluate("stae:frames=1,pixels=0.9+random@frames+zstd+vit-nano:32", out)


def test_without_a_backbone_its_recipe_comes_first(tmp_path):
    card = train.train("stae+rans+vit-nano:32", "digits-motion", tmp_path, scale=SMALL)
    steps = [line["step"] for line in card["metrics"]]
    assert steps == ["whole clips", "fewer frames", "frame attention", "spatial attention", "recovery"]


@pytest.fixture
def planned(monkeypatch):
    """The steps and the job of ``train``, which then trains nothing."""

    def plan(spec, **options):
        caught = {}
        monkeypatch.setattr(train, "fit", lambda steps, job, out, **_: caught.update(steps=steps, job=job) or [])
        monkeypatch.setattr(train, "save", lambda *_: None)
        train.train(spec, "digits-motion", "nowhere", **options)
        return caught["job"], {step.name: step for step in caught["steps"]}

    return plan


def test_open_budgets_are_drawn_and_named_ones_are_fixed(planned):
    rng = np.random.default_rng(0)
    job, _ = planned("stae+rans+vit-nano:32")
    assert job.free == {"frames", "pixels"}
    draws = [job.draw(rng) for _ in range(100)]
    assert {keep["frames"][1] for keep in draws} == {1, 2, 4, 8, 16}
    assert {keep["pixels"][1] for keep in draws} == {1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4}
    assert {type(keep["frames"][1]) for keep in draws} == {int}

    job, _ = planned("stae:frames=4,pixels=0.4+rans+vit-nano:32")
    assert job.free == frozenset()
    assert {t: budget for t, (_, budget) in job.draw(rng).items()} == {"frames": 4, "pixels": 0.4}
    job, _ = planned("stae+top-k@frames:4+rans+vit-nano:32")
    assert job.free == {"pixels"}
    assert {job.draw(rng)["frames"][1] for _ in range(20)} == {4}


def test_what_selectors_without_attention_save_goes_to_the_last_step(planned):
    _, both = planned("stae+rans+vit-nano:32")
    total = both["frame attention"].samples + both["spatial attention"].samples + both["recovery"].samples
    for spec, steps in (
        ("stae+random@frames+random@pixels", ["recovery"]),
        ("stae+random@frames", ["spatial attention", "recovery"]),
        ("stae+random@pixels", ["frame attention", "recovery"]),
        ("stae:frames=16,pixels=0.4", ["spatial attention", "recovery"]),
        ("stae:frames=4,pixels=1.0", ["frame attention", "recovery"]),
    ):
        _, found = planned(f"{spec}+rans+vit-nano:32")
        assert [name for name in found if name not in ("whole clips", "fewer frames")] == steps
        assert sum(found[name].samples for name in steps) == total


def test_steps_freeze_what_the_algorithm_freezes(planned):
    job, steps = planned("stae+rans+vit-nano:32")
    stae, backbone, recoverer = (job.modules[slot] for slot in ("encoder", "backbone", "recoverer"))
    assert steps["frame attention"].learn == [stae.frame_attention]
    assert steps["spatial attention"].learn == [stae.spatial_attention]
    assert steps["recovery"].learn == [recoverer, backbone]
    _, steps = planned("stae+none+rans+vit-nano:32")
    assert [type(m) for m in steps["recovery"].learn] == [type(backbone)]


def image_vit(path):
    from foreign_checkpoints import image_vit as tensors

    save_file(tensors(), path)
    return str(path)


def test_a_backbone_starts_from_an_image_vit(planned, tmp_path, monkeypatch):
    init = image_vit(tmp_path / "deit.safetensors")
    job, steps = planned("vit-tiny:32", init=init)
    assert job.pretrained
    assert list(steps) == ["classifier", "whole clips", "fewer frames"]
    assert [step.lr for step in steps.values()] == [1e-3, 5e-5, 2.5e-5]
    assert [type(m) for m in steps["classifier"].learn] == [torch.nn.Linear]
    kernel = load_file(init)["patch_embed.proj.weight"]
    embedded = job.modules["backbone"].state_dict()["embed.proj.weight"]
    assert torch.allclose(embedded.sum(2), kernel)
    job, _ = planned("vit-tiny:32")
    assert not job.pretrained
    for path, word in ((init, "convolutional stem"), (str(tmp_path / "absent.safetensors"), "absent.safetensors")):
        with pytest.raises(WeightsError, match=word) as caught:
            planned("vit-nano:32", init=path)
        assert str(caught.value).isprintable()
    monkeypatch.delattr(VideoViT, "adapt_init")
    with pytest.raises(UsageError, match="leave out --init"):
        planned("vit-tiny:32", init=init)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("png+vit-nano:32", "nothing to train; for the backbone alone: semcodec train vit-nano"),
        ("vit-nano:33", "multiple"),
        ("stae+rans", "backbone"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, spec, words):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=words):
        train.train(spec, "digits-motion", out, scale=SMALL)
    with pytest.raises(SemcodecError, match="no such data set"):
        train.train("vit-nano:32", "digits-commotion", out, scale=SMALL)
    assert not out.exists()


def test_weights_too_large_for_half_precision_keep_their_own(tmp_path):
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1e6, 0.5]]))
    train.save({"encoder": module}, {"keys": {}}, tmp_path)
    saved = load_file(tmp_path / "weights.safetensors")
    assert saved["encoder.weight"].tolist() == [[1e6, 0.5]]
    assert saved["encoder.bias"].dtype == torch.float16


# -- a run that is watched ---------------------------------------------------------------------------------------------


def test_a_hook_is_told_of_every_iteration_and_changes_nothing(tmp_path):
    plain, watched, told = Run(), Run(), []
    fit(plain.steps, plain.job, tmp_path / "plain")
    fit(watched.steps, watched.job, tmp_path / "watched", on_step=told.append)
    for name, tensor in state_dict(plain.job.modules).items():
        assert torch.equal(tensor, state_dict(watched.job.modules)[name])
    steps = [step.iterations for step in watched.steps]
    assert len([moment for moment in told if not moment.finished]) == sum(steps)
    assert [moment.step for moment in told if moment.finished] == [step.name for step in watched.steps]
    assert [moment.before + moment.iteration for moment in told if not moment.finished] == list(
        range(1, sum(steps) + 1)
    )
    assert all("loss" in moment.means for moment in told)
    assert told[0].rate == pytest.approx(rate(watched.steps[0], 0, steps[0]))


def test_what_a_hook_raises_ends_the_run(tmp_path):
    def hook(moment):
        raise Stop

    run = Run()
    with pytest.raises(Stop):
        fit(run.steps, run.job, tmp_path, on_step=hook)


def test_tensorboard_has_curves_and_pictures_of_a_run(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard, of the extra watch")
    from click.testing import CliRunner
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from semcodec.cli import main

    command = ["train", "pca+resnet-nano@stem", "--data", "digits-scenes", "-o", str(tmp_path), "--tensorboard"]
    done = CliRunner().invoke(main, [*command, "--samples-scale", "0.05", "--format", "json"])
    assert done.exit_code == 0, done.output
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    steps = [step["step"] for step in json.loads(done.stdout)["metrics"]]
    assert f"{steps[0]}/loss" in tags["scalars"]
    assert any(tag.startswith(f"{steps[-1]}/") for tag in tags["images"])
    assert events.Scalars(f"{steps[0]}/loss")[-1].step > 0


def test_without_tensorboard_the_cure_is_named(monkeypatch, tmp_path):
    import sys

    from click.testing import CliRunner

    from semcodec.cli import main

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    command = ["train", "pca+resnet-nano@stem", "--data", "digits-scenes", "-o", str(tmp_path), "--tensorboard"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "pip install 'semcodec[watch]'" in done.stderr
