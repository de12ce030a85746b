"""cls-attn sends the patches that its scores name, whole or as a picture, or lets the device answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tape import Tape

import semcodec
import semcodec.coding.pictures
from semcodec.cli import main
from semcodec.coding.patch_encoder import Patches
from semcodec.coding.patches import box, fill, join, split, whole
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import LocalRecord
from semcodec.container.sinks import PacketSource
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, SpecError
from semcodec.evaluation.evaluate import evaluate
from semcodec.evaluation.sample_panels import make_panels
from semcodec.interfaces import Analysis, Partial
from semcodec.panels import MISSING
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import BackboneSpec, SpecMismatch, TensorSpec
from semcodec_plugins.cls_attn import spec
from semcodec_plugins.recoverers.fill import MeanFill, SmoothFill

SERVER = "vit-nano-server"
UNITS, SIDE = 144, 8
CODINGS = ("raw", "jpeg", "webp", "avif")
IMAGE = {"image": TensorSpec((3, 96, 96))}


@pytest.fixture(scope="module")
def scenes():
    return open_dataset("digits-scenes", "test", compose_spec(f"cls-attn+{SERVER}").request)


@pytest.fixture(scope="module")
def pixels(scenes):
    return scenes.batch(range(6))[0]


@pytest.fixture(scope="module")
def pipeline():
    composition = compose_spec(f"cls-attn+{SERVER}")
    made = Pipeline.load(composition, WeightsRequest({"": "random"}), classes=[str(digit) for digit in range(10)])
    torch.manual_seed(3)
    for p in made.stages.encoder.parameters():  # so that attention and answers differ from place to place
        p.copy_(torch.randn_like(p) * 0.2)
    return made


def at(pipeline: Pipeline, encoder: str) -> Pipeline:
    return pipeline.replace(composition=compose_spec(f"{encoder}+{SERVER}"))


def attention(pipeline: Pipeline, pixels: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return pipeline.stages.encoder.analyse(pipeline.features(pixels)).scores["keep"]


def restored(pipeline: Pipeline, pixels: np.ndarray) -> list[Partial]:
    """What the server has after the bytes were read."""
    out = []
    for packet in pipeline.records(pipeline.encode_batch(pixels, range(len(pixels)))):
        source = PacketSource(packet, pipeline.stages.entropy)
        latent = pipeline.stages.encoder.read(source)
        source.finish()
        out.append(pipeline.stages.encoder.restore(latent))
    return out


def true_patches(image: np.ndarray, index: torch.Tensor) -> np.ndarray:
    return np.stack([split(image, SIDE).reshape(-1, SIDE, SIDE, 3)[i] for i in index.tolist()])


def as_bytes(patches: torch.Tensor) -> np.ndarray:
    return (patches * 255).round().byte().permute(0, 2, 3, 1).numpy()


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 7, 98, UNITS])
def test_raw_patches_come_back_bit_for_bit(pipeline, pixels, keep):
    scores = attention(pipeline, pixels)
    for image, row, got in zip(
        pixels, scores, restored(at(pipeline, f"cls-attn:keep={keep},patches=raw"), pixels), strict=True
    ):
        index = got.features["index"][0]
        assert index.tolist() == sorted(row.topk(keep).indices.tolist())
        np.testing.assert_array_equal(as_bytes(got.features["patches"][0]), true_patches(image, index))
        assert got.features["grid"].flatten().nonzero().flatten().tolist() == index.tolist()
        assert got.present == {}


@pytest.mark.parametrize("coding", CODINGS[1:])
def test_pictures_are_smaller_and_closer_at_higher_quality(pipeline, pixels, coding):
    raw = [e.bytes_total for e in at(pipeline, "cls-attn:keep=60,patches=raw").encode_batch(pixels, range(6))]
    error, size = [], []
    for quality in (10, 90):
        here = at(pipeline, f"cls-attn:keep=60,patches={coding},quality={quality}")
        size.append(np.mean([e.bytes_total for e in here.encode_batch(pixels, range(6))]))
        found = restored(here, pixels)
        assert all(got.features["patches"].shape == (1, 60, 3, SIDE, SIDE) for got in found)
        error.append(
            np.mean(
                [
                    (as_bytes(got.features["patches"][0]).astype(int) - true_patches(image, got.features["index"][0]))
                    ** 2.0
                    for image, got in zip(pixels, found, strict=True)
                ]
            )
        )
    assert size[0] < size[1] < np.mean(raw)
    assert error[1] < error[0] < 600
    assert error[1] < 60


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_decodes_at_every_rule(pipeline, pixels, coding):
    for rule in ("attention-sum:0.9", "attention-threshold:0.02", "top-k:30", "random:30"):
        here = at(pipeline, f"cls-attn:patches={coding}+{rule}")
        encoded = here.encode_batch(pixels, range(6))
        assert all(e.bytes_total == e.bytes_payload + e.bytes_side + e.bytes_header for e in encoded)
        assert all(e.kept["keep"] >= 1 for e in encoded)
        again = here.decode_batch(here.records(encoded))
        alone = [here.decode_batch(here.records([e]))[0] for e in encoded]
        for one, other in zip(again, alone, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_one_patch_is_kept_where_nothing_reaches_the_threshold(pipeline, pixels):
    here = at(pipeline, "cls-attn+attention-threshold:2.0")
    encoded = here.encode_batch(pixels, range(6))
    assert [e.kept for e in encoded] == [{"keep": 1}] * 6
    best = attention(pipeline, pixels).argmax(1).tolist()
    assert [got.features["index"].tolist() for got in restored(here, pixels)] == [[[i]] for i in best]


def test_all_patches_are_the_whole_image_to_the_server(pipeline, pixels):
    here = at(pipeline, f"cls-attn:keep={UNITS},patches=raw")
    sent = here.decode_batch(here.records(here.encode_batch(pixels, range(6))))
    with torch.inference_mode():
        whole_image = pipeline.stages.backbone.tail(pipeline.features(pixels), "input").numpy()
    np.testing.assert_allclose(np.stack([p.logits for p in sent]), whole_image, atol=1e-4)


def test_the_mask_is_side_information_and_patches_are_not(pipeline, pixels):
    for coding in CODINGS:
        [encoded] = at(pipeline, f"cls-attn:keep=40,patches={coding}").encode_batch(pixels[:1], [0])
        masks = [row for row in encoded.rows if row.name.startswith("mask")]
        assert 0 < sum(row.side_bytes for row in masks) == sum(row.bytes for row in masks) <= 40
        assert encoded.bytes_payload > 100


def test_dropped_patches_cost_next_to_nothing():
    y, x = np.mgrid[:96, :96]
    noise = np.random.default_rng(0).normal(0, 25, (96, 96, 1))
    image = (128 + 60 * np.sin(x / 9)[..., None] + 40 * np.cos(y / 7)[..., None] + noise).clip(0, 255).astype(np.uint8)
    mask = np.zeros((12, 12), bool)
    mask[::11, ::11] = True  # the corners, so that the box is the whole image
    patches = split(image.repeat(3, 2), SIDE)
    filled = fill(patches, mask)
    np.testing.assert_array_equal(filled[mask], patches[mask])
    sizes = [len(semcodec.coding.pictures.encode_picture(join(p), "webp", 50)) for p in (filled, patches)]
    assert sizes[0] < 0.25 * sizes[1]


def test_fill_takes_the_edges_above_and_to_the_left():
    patches = np.zeros((2, 2, 4, 4, 3), np.uint8)
    patches[0, 0], patches[1, 0] = 10, 20
    mask = np.array([[True, False], [True, False]])
    filled = fill(patches, mask)
    assert (filled[0, 1] == 10).all()
    assert (filled[1, 1] == 15).all()
    assert (fill(patches, np.zeros((2, 2), bool)) == 128).all()


def test_split_join_and_box():
    image = np.arange(2 * 3 * 16 * 3, dtype=np.uint8).reshape(8, 12, 3)
    np.testing.assert_array_equal(join(split(image, 4)), image)
    np.testing.assert_array_equal(split(image, 4)[1, 2], image[4:, 8:])
    mask = np.zeros((5, 6), bool)
    mask[2, 1] = mask[3, 4] = True
    assert box(mask) == (slice(2, 4), slice(1, 5))


# -- the device answers ------------------------------------------------------------------------------------------------


def test_the_edge_runs_once_for_its_answer_and_for_the_scores(pipeline, pixels, monkeypatch):
    edge, calls = pipeline.stages.encoder.edge, []
    attend = edge.attend
    monkeypatch.setattr(edge, "attend", lambda *given: calls.append(given) or attend(*given))
    at(pipeline, "cls-attn+min-entropy:0.0").encode_batch(pixels, range(6))
    assert len(calls) == 1
    assert calls[0][1] == "rollout"


def test_gates_leave_local_records_of_the_edges_own_answer(pipeline, pixels):
    with torch.inference_mode():
        answers = pipeline.stages.encoder.analyse(pipeline.features(pixels)).prediction
    p, index = answers.softmax(1).max(1)
    bits = -p.log2()
    middle = float(bits.sort().values[2:4].mean())
    assert bits.min() < middle < bits.max()
    for gate, sent in (
        (f"min-entropy:{middle:.6f}", (bits >= middle).tolist()),
        ("always", [True] * 6),
        ("never", [False] * 6),
    ):
        here = at(pipeline, f"cls-attn+{gate}")
        encoded = here.encode_batch(pixels, range(6))
        assert [e.bytes_total > 0 for e in encoded] == sent
        records = here.records(encoded)
        assert [isinstance(r, LocalRecord) for r in records] == [not s for s in sent]
        for i, (answer, was) in enumerate(zip(here.decode_batch(records), sent, strict=True)):
            assert answer.where == ("server" if was else "device")
            if not was:
                assert answer.index == int(index[i])
                assert answer.probability == pytest.approx(float(p[i]), abs=1e-4)


def test_eval_counts_patches_of_sent_images_and_of_all(pipeline, scenes):
    samples = 6
    bits = -torch.log2(
        pipeline.stages.encoder.analyse(pipeline.features(scenes.batch(range(samples))[0]))
        .prediction.softmax(1)
        .amax(1)
    )
    middle = float(bits.sort().values[2:4].mean())
    gated = evaluate(at(pipeline, f"cls-attn+attention-sum:0.9+min-entropy:{middle:.6f}"), scenes, limit=samples)
    free = evaluate(at(pipeline, "cls-attn+attention-sum:0.9"), scenes, limit=samples)
    assert gated["sent_ratio"] == 0.5
    assert free["sent_ratio"] == 1
    assert free["patches_mean"] == free["patches_mean_all"] > 1
    assert gated["patches_mean_all"] == pytest.approx(gated["sent_ratio"] * gated["patches_mean"])
    assert gated["patch_cost"] == pytest.approx(gated["patches_mean_all"] / UNITS)
    assert gated["bytes_total"] < free["bytes_total"]
    none = evaluate(at(pipeline, "cls-attn+never"), scenes, limit=2)
    assert (none["patches_mean"], none["patches_mean_all"], none["bytes_total"]) == (None, 0, 0)


def test_another_process_decodes_to_the_same_answers(tmp_path):
    text, stream = f"cls-attn:keep=20,patches=webp+always+{SERVER}", tmp_path / "a.sem"
    options = ["--weights", "random", "--format", "json"]
    done = CliRunner().invoke(main, ["encode", text, "digits-scenes:3", "-o", str(stream), "--check", *options])
    assert done.exit_code == 0, done.output
    command = [sys.executable, "-m", "semcodec", "decode", str(stream), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    other = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert other.returncode == 0, other.stderr
    np.testing.assert_allclose(json.loads(other.stdout)["logits"], json.loads(done.stdout)["logits"], atol=1e-4)


def test_a_server_decodes_without_the_devices_weights(tmp_path):
    stream, runner = str(tmp_path / "a.sem"), CliRunner()
    text, both = "cls-attn:keep=20+top-k+timm/vit_tiny_patch16_224", ("--weights", "backbone=random")
    refused = runner.invoke(main, ["encode", text, "digits-scenes:3", "-o", stream, *both, "--offline"])
    assert refused.exit_code == 1
    assert "no weights for deit-tiny: give --weights edge=PATH" in refused.stderr
    sent = runner.invoke(main, ["encode", text, "digits-scenes:3", "-o", stream, *both, "--weights", "edge=random"])
    assert sent.exit_code == 0, sent.output
    received = runner.invoke(main, ["decode", stream, *both, "--offline", "--format", "json"])
    assert received.exit_code == 0, received.output
    assert json.loads(received.stdout)["weights"]["edge"]["source"] == "none"


def test_what_the_gate_keeps_is_printed_by_decode(tmp_path):
    stream = str(tmp_path / "a.sem")
    runner, random = CliRunner(), ("--weights", "random")
    assert (
        runner.invoke(main, ["encode", f"cls-attn+never+{SERVER}", "digits-scenes:3", "-o", stream, *random]).exit_code
        == 0
    )
    assert "by the device itself" in runner.invoke(main, ["decode", stream, *random]).stdout


def test_panels_are_the_papers_figure(pipeline, pixels):
    source, scores, received = make_panels(at(pipeline, "cls-attn:keep=30"), pixels[:1])
    assert source.heat is None
    np.testing.assert_allclose(scores.heat.ravel(), attention(pipeline, pixels[:1])[0], rtol=1e-5)
    assert "30 of 144 patches" in received.title
    grey = (received.image == MISSING).all(-1).mean()
    assert grey == pytest.approx(1 - 30 / 144, abs=0.02)


# -- without a model on the device -------------------------------------------------------------------------------------


def test_random_patches_need_no_edge_and_can_be_filled_for_any_server(pipeline, pixels):
    made = semcodec.compose(f"patches:keep=36+mean-fill+{SERVER}", weights="random")
    assert set(made.stages.modules()) == {"backbone"}
    encoded = made.encode_batch(pixels, range(6))
    assert [e.kept["keep"] for e in encoded] == [36] * 6
    assert all(p.logits.shape == (10,) for p in made.decode_batch(made.records(encoded)))
    indexes = {tuple(got.features["index"][0].tolist()) for got in restored(made, pixels)}
    assert len(indexes) == 6


def test_fills_keep_what_was_received(pipeline, pixels):
    [got] = restored(at(pipeline, "cls-attn:keep=50,patches=raw"), pixels[:1])
    placed = whole(got)
    mask = placed.present["image"].bool().expand(1, 3, 96, 96)
    truth = torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2) / 255
    assert mask.float().mean() == pytest.approx(50 / 144)
    for recoverer in (MeanFill({}), SmoothFill({})):
        image = recoverer.recover(got)["image"]
        assert torch.equal(image[mask], truth[mask])
        assert image.isfinite().all()
    image = MeanFill({}).recover(got)["image"]
    for channel in range(3):
        missing = image[0, channel][~mask[0, channel]]
        assert torch.allclose(missing, truth[0, channel][mask[0, channel]].mean().expand_as(missing), atol=1e-6)


# -- refusals and damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"cls-attn:edge=deit-tiny+{SERVER}", "the device's model takes .*224x224.*, the server's .*96x96"),
        (f"cls-attn:patches=png+{SERVER}", "patches"),
        (f"cls-attn:keep=0+{SERVER}", "keep"),
        (f"cls-attn:edge=stae+{SERVER}", "backbone"),
        (f"patches:side=7+{SERVER}", "96x96 are not made of patches of 7x7"),
        (f"patches:side=16+{SERVER}", "patches"),
        (f"patches:side=8+min-entropy+{SERVER}", "makes none"),
        ("cls-attn+vit-nano", "classification"),
    ],
)
def test_a_wrong_composition_is_one_clear_line(text, says):
    with pytest.raises(SpecError, match=says):
        compose_spec(text)


def test_a_model_without_a_class_token_cannot_be_the_edge():
    with pytest.raises(SpecMismatch, match="name one that has, as edge=deit-tiny"):
        spec.cls_attn(IMAGE, {"edge": BackboneSpec("classification", IMAGE, {"input": IMAGE})})
    open_axes = spec.cls_attn(IMAGE, {"edge": None}).restored["patches"]
    assert open_axes == TensorSpec((None, 3, None, None))


def sent(coding: str) -> tuple[Patches, Tape]:
    encoder = Patches(IMAGE, side=SIDE)
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, UNITS, dtype=torch.bool)
    mask[0, [13, 14, 40]] = True
    params = {"patches": coding, "quality": 50, "keep": 98}
    [latent] = encoder.encode({"image": image}, Analysis({"image": image}), {"keep": mask}, params)
    tape = Tape(params)
    encoder.write(latent, tape)
    return encoder, tape


@pytest.mark.parametrize("coding", CODINGS)
def test_a_packet_of_no_patch_is_damaged(coding):
    encoder, tape = sent(coding)
    tape.chunks = [["mask", b"\x00", True, 1], tape.chunks[-1]]
    with pytest.raises(CorruptStream, match="keeps no patch"):
        encoder.read(tape.rewind())


@pytest.mark.parametrize("coding", CODINGS[1:])
def test_a_picture_of_another_size_or_form_is_damaged(coding):
    encoder, tape = sent(coding)
    for size, form in (((24, 24), coding), ((16, 32), coding), ((32, 24), "png")):
        forged = semcodec.coding.pictures.encode_picture(np.full((*size, 3), 90, np.uint8), form)
        tape.chunks[-1][1] = forged
        with pytest.raises(CorruptStream, match="picture"):
            encoder.restore(encoder.read(tape.rewind()))
