"""Any codec at a cut learns without labels to leave the uncompressed model's answers as they are."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from feature_jobs import images, job_of
from PIL import Image
from safetensors.torch import load_file

import semcodec
from semcodec.data.datasets import open_unlabelled
from semcodec.data.unlabelled import Unlabelled
from semcodec.errors import DataError, UsageError, WeightsError
from semcodec.pipeline import weights
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import InputRequest
from semcodec.training import distillation, loop, train
from semcodec.training.augmentation import cut_mix, mosaic
from semcodec.training.averaging import Average

SPEC = "layered:blocks=1,levels=2+vit-nano-server@block2"
SMALL = 1 / 1600  # of the samples: about a batch or two a step


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path, one_thread):
    torch.manual_seed(0)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """A folder without classes, in folders of any depth."""
    root = tmp_path / "pictures"
    (root / "deep" / "er").mkdir(parents=True)
    for i, pixels in enumerate(images(12)):
        Image.fromarray(pixels).save(root / ("deep/er" if i % 2 else ".") / f"{i:02}.png")
    return root


def distil(data, out, spec=SPEC, scale=SMALL, **options):
    request = options.pop("request", WeightsRequest({}, True))
    return train.train(spec, str(data), out, request=request, objective="distil", scale=scale, **options)


def test_a_folder_of_pictures_is_enough(pictures, tmp_path):
    """Weights of the encoder alone, and a card that names the backbone's; what is used of both gives answers."""
    card = distil(pictures, tmp_path / "run")
    backbone = semcodec.compose("png+vit-nano-server").stages.backbone
    assert card["teacher"] == weights.digest(backbone.state_dict())
    assert card["keys"] == {"encoder": SPEC}
    assert card["data"] == pictures.name  # and not where it is on this machine
    assert {name.split(".")[0] for name in load_file(tmp_path / "run" / "weights.safetensors")} == {"encoder"}
    assert card["classes"] == list(backbone.classes)
    assert [step["step"] for step in card["recipe"]] == ["start", "match", "distil"]
    assert json.loads((tmp_path / "run" / "card.json").read_text())["objective"] == "distil"
    pipeline = semcodec.compose(SPEC, weights=str(tmp_path / "run"))
    for level in (1, 2):
        there = pipeline.replace(composition=pipeline.composition.with_call(level=level))
        encoded = there.encode_batch(images(2), [0, 1])
        assert len(pipeline.decode_batch(there.records(encoded))) == 2
    assert weights.digest(pipeline.stages.backbone.state_dict()) == card["teacher"]


def test_its_settings_and_samples_are_chosen(pictures, tmp_path, monkeypatch):
    """A step without samples is left out, a card has what is not as usual, and what is said is what learns."""
    drawn = []
    varied = loop.varied
    monkeypatch.setattr(
        loop, "varied", lambda x, rng, smallest, *rest: drawn.append(smallest) or varied(x, rng, smallest, *rest)
    )
    monkeypatch.setattr(distillation, "cut_mix", lambda *_: pytest.fail("pictures are mixed"))
    settings = distillation.Settings(features=0.0, lr=1e-4, crop=0.9, mix=False)
    card = distil(
        pictures,
        tmp_path / "run",
        scale=1.0,
        samples={"match": 0, "distil": 40},
        rate_weight=0.0,
        distillation=settings,
    )
    assert [(step["step"], step["samples"]) for step in card["recipe"]] == [("start", 32), ("distil", 40)]
    assert card["distillation"] == {"features": 0.0, "lr": 1e-4, "crop": 0.9, "mix": False}
    assert card["recipe"][-1]["lr"] == 1e-4
    assert drawn[-1] == 0.9
    last = card["metrics"][-1]
    assert last["loss"] == pytest.approx(last["answers"], abs=1e-3) and last["features"] > 0.1  # these weigh nothing
    with pytest.raises(UsageError, match="no step 'learn'; its steps are start, match, distil"):
        distil(pictures, tmp_path / "other", samples={"learn": 10})
    with pytest.raises(UsageError, match="nothing is left to train"):
        distil(pictures, tmp_path / "other", samples={"start": 0, "match": 0, "distil": 0})
    with pytest.raises(UsageError, match="are of --objective distil"):
        train.train(SPEC, str(pictures), tmp_path / "other", distillation=settings)


@pytest.mark.parametrize("words", [{"mix": "maybe"}, {"crop": "x"}, {"crop": "0"}, {"crop": "nan"}, {"features": "-1"},
                                   {"features": "inf"}, {"lr": "0"}, {"rate": "1"}])  # fmt: skip
def test_other_settings_are_refused(words):
    with pytest.raises(UsageError, match="distillation"):
        distillation.Settings.parse(words)


def test_settings_are_read():
    named = {"features": "0.2", "lr": "2e-4", "crop": "0.6", "mix": "no"}
    assert distillation.Settings.parse(named) == distillation.Settings(0.2, 2e-4, 0.6, False)
    assert distillation.Settings.parse({}) == distillation.USUAL


def test_crops_are_taken_from_larger_pictures(pictures, tmp_path, monkeypatch):
    """So that what is seen of a part is no blurred enlargement; a codec's cards and tests see the input's own size."""
    read, drawn = [], []
    batch, varied = Unlabelled.batch, loop.varied
    monkeypatch.setattr(Unlabelled, "batch", lambda self, rows: read.append(self.request) or batch(self, rows))
    monkeypatch.setattr(loop, "varied", lambda x, *rest: drawn.append((x.shape, varied(x, *rest))) or drawn[-1][1])
    distil(pictures, tmp_path / "run", until="match")
    assert {(request.height, request.crop) for request in read} == {(96, 1.0), (120, 1.0)}
    assert all(before[-2:] == (120, 120) and seen.shape[-2:] == (96, 96) for before, seen in drawn)


def test_given_weights_learn_on_from_where_they_are(pictures, tmp_path):
    distil(pictures, tmp_path / "run", until="match")
    card = distil(pictures, tmp_path / "more", request=WeightsRequest({"encoder": str(tmp_path / "run")}, True))
    assert [step["step"] for step in card["recipe"]] == ["distil"]


def test_a_stopped_run_goes_on_as_if_it_had_not(pictures, tmp_path, monkeypatch):
    whole = distil(pictures, tmp_path / "whole", scale=3 * SMALL)
    calls, learn = [], loop._learn

    def stopping(*arguments):
        calls.append(0)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(loop, "_learn", stopping)
    with pytest.raises(KeyboardInterrupt):
        distil(pictures, tmp_path / "cut", scale=3 * SMALL)
    monkeypatch.setattr(loop, "_learn", learn)
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    again = distil(pictures, tmp_path / "cut", scale=3 * SMALL)
    assert again["digests"] == whole["digests"]


def test_it_learns_what_the_teacher_says():
    """Both losses fall on one batch that is repeated."""
    job = job_of(SPEC)
    job.dataset.kind = "image"
    pixels = torch.from_numpy(images(32)).movedim(-1, 1).float() / 255
    for step in distillation.steps(job, 0.1):
        optimiser = loop._optimiser(step, {**job.modules, **job.auxiliary})
        losses = []
        for i in range(12):
            loss, _ = step.loss(loop.Batch(pixels, None, np.random.default_rng(0), range(32 * 2 * i, 32 * 2 * i + 32)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    assert all(p.grad is None for p in job.modules["backbone"].parameters())


def test_codecs_of_maps_learn_too(pictures, tmp_path):
    pytest.importorskip("compressai")
    for spec in ("layered:channels=2x4-2+det-nano@d3", "bottlenetpp+resnet-nano"):
        card = distil(pictures, tmp_path / spec, spec)
        assert "distil" in [step["step"] for step in card["recipe"]]
        semcodec.compose(spec, weights=str(tmp_path / spec))


def test_what_cannot_learn_is_told(pictures, tmp_path):
    with pytest.raises(UsageError, match="does not learn by distillation"):
        distil(pictures, tmp_path / "run", "jpeg+vit-nano-server")
    with pytest.raises(WeightsError, match="which teaches here"):
        distil(pictures, tmp_path / "run", "layered+timm/test_vit@block1", request=WeightsRequest({}, True))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError):
        distil(tmp_path / "none", tmp_path / "run")


def test_a_test_set_is_never_learned(pictures):
    request = InputRequest(None, 32, 32)
    assert len(open_unlabelled(str(pictures), request)) == 12
    (pictures / "test.txt").write_text("00.png\ndeep/er/01.png\n")
    assert set(open_unlabelled(str(pictures), request).ids(range(10))).isdisjoint({"00.png", "deep/er/01.png"})
    boxed = InputRequest(None, 32, 32, fit="letterbox", labels="boxes")
    assert len(open_unlabelled(str(pictures), boxed)) == 10


def test_weights_of_the_rate_fall_in_equal_ratios():
    found = distillation.weights_of(2.0, 3)
    assert found == pytest.approx([2.0, 2 / 40**0.5, 2 / 40])
    assert distillation.weights_of(2.0, 1) == [2.0]
    assert distillation.weights_of((9, 1, 0.5), 3) == [9, 1, 0.5]
    with pytest.raises(UsageError, match="3 operating points, and there are 2 weights"):
        distillation.weights_of((9, 1), 3)


def test_features_are_measured_channel_by_channel():
    wanted = {"tokens": torch.randn(4, 9, 2) * torch.tensor([1.0, 100.0]), "prefix": torch.randn(4, 1, 2)}
    given = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    assert 0.5 < distillation.feature_distance(given, wanted).item() < 2
    assert distillation.feature_distance(wanted, wanted).item() == 0
    maps = {"maps": torch.randn(4, 2, 5, 5) * torch.tensor([1.0, 100.0]).view(2, 1, 1)}
    assert 0.8 < distillation.feature_distance({"maps": torch.zeros(4, 2, 5, 5)}, maps).item() < 1.2


def test_boxes_count_where_the_teacher_sees_something():
    wanted = torch.rand(2, 5, 7)
    wanted[..., 4:] = 0.01
    wanted[0, 2, 5] = 0.9
    off, beside = wanted.clone(), wanted.clone()
    off[0, 2, :4] += 5
    beside[0, 3, :4] += 5
    same = distillation.answer_distance(wanted, wanted)
    assert distillation.answer_distance(off, wanted) - same > 20 * (distillation.answer_distance(beside, wanted) - same)


def test_an_average_follows_slowly_and_is_given_back():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.zero_()
    average = Average(module)
    for _ in range(5):
        module.weight.data += 1
        average.see()
    average.give()
    assert 3 < module.weight.item() < 5
    assert average.count == 0


def test_features_behind_the_cut_are_weighed(pictures, tmp_path):
    """Half-way to the answer; a model that is cut nowhere behind, or several models, are refused before training."""
    distil(pictures, tmp_path / "run", distillation=distillation.Settings(behind=0.5), samples={"match": 0})
    [line] = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1:])
    assert line["behind"] > 0
    job = job_of(SPEC)
    assert distillation.half_way(job) == "block4"
    several = replace(job, tails={"classification": job.modules["backbone"], "other": job.modules["backbone"]})
    for refused in (replace(job, cut=list(job.cuts)[-1]), several):
        with pytest.raises(UsageError, match=r"of one model that has a cut there: behind=0"):
            distillation.half_way(refused)


def test_mosaics_hold_four_of_a_batch():
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8) / 4
    found = mosaic(pixels, np.random.default_rng(0), share=1.0)
    assert found.shape == pixels.shape
    assert set(found.unique().tolist()) <= set(pixels.unique().tolist())
    assert torch.equal(mosaic(pixels, np.random.default_rng(0), share=0.0), pixels)


def test_rectangles_of_others_are_put_into_pictures():
    """One rectangle each, of one other picture, in about half of the batch; the rest stays as it is."""
    numbers = torch.arange(64.0).view(64, 1, 1, 1).expand(-1, 3, 24, 32)
    mixed = cut_mix(numbers, np.random.default_rng(0))
    changed = 0
    for i, picture in enumerate(mixed):
        foreign = picture[0] != i
        assert (picture == picture[:1]).all() and len(picture[0][foreign].unique()) <= 1
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns)
        changed += bool(foreign.any())
    assert 16 < changed < 44
    assert torch.equal(cut_mix(numbers, np.random.default_rng(0), share=0), numbers)


def test_rectangles_of_other_clips_stand_still():
    """Of clips they are the same in all frames, and what a picture of the same draws has."""
    numbers = torch.arange(64.0).view(64, 1, 1, 1).expand(-1, 3, 24, 32)
    clips = cut_mix(numbers[:, None].expand(-1, 5, -1, -1, -1), np.random.default_rng(0))
    assert torch.equal(clips, cut_mix(numbers, np.random.default_rng(0))[:, None].expand_as(clips))


def test_what_may_be_varied_is_mixed(monkeypatch):
    """Other data are not; detectors learn from mosaics."""
    job = job_of(SPEC)
    assert distillation._mixing(job) is not cut_mix
    monkeypatch.setattr(type(job.dataset), "varies", True)
    assert distillation._mixing(job) is cut_mix
    assert distillation._mixing(job_of("layered+det-nano@d3")) is mosaic


def test_detectors_see_parts_of_large_inputs(monkeypatch):
    """At several scales, and answer them place by place; small inputs are seen whole."""
    pytest.importorskip("ultralytics")
    job, small = job_of("layered:channels=2x4-2+yolov5n@5"), job_of("layered+det-nano@d3")
    monkeypatch.setattr(type(job.dataset), "varies", True)
    (step,) = distillation.steps(job, 1.0, ["distil"])
    assert step.size == (distillation.WINDOW, distillation.WINDOW) and step.smallest_crop == 0.35
    pixels = torch.rand(2, 3, *step.size, generator=torch.Generator().manual_seed(0))
    loss, told = step.loss(loop.Batch(pixels, None, np.random.default_rng(0), [0, 1]))
    assert loss.isfinite() and set(told) == {"features", "answers", "bytes"}
    (whole,) = distillation.steps(small, 1.0, ["distil"])
    assert whole.size is None and whole.smallest_crop == distillation.SMALLEST_CROP


def test_video_models_teach():
    """Also one whose first kernel has three axes."""
    job = job_of("layered:blocks=1,levels=2+vit-tiny@block1:32")
    clips = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32, 3), np.uint8)
    job.dataset.pixels, job.dataset.labels = clips, np.zeros(2, np.int64)
    (step,) = distillation.steps(job, 1.0, ["distil"])
    pixels = torch.from_numpy(clips).movedim(-1, -3) / 255
    loss, told = step.loss(loop.Batch(pixels, None, np.random.default_rng(0), [0, 1]))
    assert loss.isfinite() and set(told) == {"features", "answers", "bytes"}
