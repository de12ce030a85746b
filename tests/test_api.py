"""The Python API: what can be encoded, what a file gives back, and that it is as light as the command line."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import semcodec
from semcodec.data.datasets import open_dataset


@pytest.fixture(scope="module")
def pipeline():
    return semcodec.compose("cls-attn+min-entropy:0.3+vit-nano-server", offline=True)


@pytest.fixture(scope="module")
def pixels(pipeline):
    return semcodec.open_dataset("digits-scenes", "test", pipeline.request).batch([3])[0][0]


def test_every_form_of_a_sample_gives_the_same_bytes(pipeline, pixels, tmp_path):
    expected = pipeline.encode("digits-scenes:3").data
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    transparent = Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "turned.png", exif=exif)
    for source in (
        pixels,
        torch.from_numpy(pixels.copy()),
        Image.fromarray(pixels),
        transparent,
        Image.open(tmp_path / "turned.png"),
        tmp_path / "scene.png",
        str(tmp_path / "scene.png"),
    ):
        assert pipeline.encode(source).data == expected


def test_a_picture_is_fitted_and_left_as_it_is(pipeline):
    picture = Image.new("CMYK", (333, 200))
    before = picture.tobytes()
    assert pipeline.decode(pipeline.encode(picture)).name in pipeline.classes
    assert (picture.mode, picture.size, picture.tobytes()) == ("CMYK", (333, 200), before)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "encode takes uint8 pixels, a Pillow image, a path or 'DATASET:INDEX', not builtins.int"),
        (None, "not builtins.NoneType"),
        (np.zeros((96, 96, 3)), "an array is one sample of uint8 [96, 96, 3], not"),
        (np.zeros((64, 96, 3), np.uint8), "an array is one sample of uint8 [96, 96, 3], not"),
        ("no-such-file.png", "no such file or data set: no-such-file.png"),
        (Image.new("F", (9, 9)), "floating-point pixels"),
    ],
    ids=["number", "nothing", "floats", "another size", "no file", "floating-point picture"],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(pipeline, source, said):
    with pytest.raises(semcodec.SemcodecError) as caught:
        pipeline.encode(source)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_is_no_clip():
    clips = semcodec.compose("jpeg+vit-nano", offline=True)
    with pytest.raises(semcodec.SemcodecError, match="clips of 16 frames, not one image"):
        clips.encode(Image.new("RGB", (64, 64)))


def test_a_file_gives_what_was_decoded_at_once(pipeline, tmp_path):
    packets = [pipeline.encode(f"digits-scenes:{i}", sequence=i) for i in range(6)]
    expected = [(p.index, p.where) for p in map(pipeline.decode, packets)]
    assert {where for _, where in expected} == {"server", "device"}
    stream = pipeline.stream(packets)
    (tmp_path / "scenes.sem").write_bytes(stream)
    for source in (stream, tmp_path / "scenes.sem", str(tmp_path / "scenes.sem")):
        assert [(p.index, p.where) for p in semcodec.decode(source, offline=True)] == expected


def test_what_comes_before_damage_is_given(pipeline):
    stream = pipeline.stream([pipeline.encode("digits-scenes:0"), pipeline.encode("digits-scenes:1", sequence=1)])
    answers = semcodec.decode(stream[:-1], offline=True)
    assert next(answers).name in pipeline.classes
    with pytest.raises(semcodec.SemcodecError):
        next(answers)


def test_sweep_gives_the_records_of_evaluate():
    records = list(semcodec.sweep("jpeg+vit-nano-server", {"jpeg.quality": [20, 80]}, "digits-scenes", limit=4))
    alone = semcodec.compose("jpeg:20+vit-nano-server", offline=True).evaluate("digits-scenes", limit=4)
    assert [record["spec"] for record in records] == ["jpeg:20+vit-nano-server", "jpeg:80+vit-nano-server"]
    assert [records[0][key] for key in ("key", "correct", "bytes_total")] == [
        alone[key] for key in ("key", "correct", "bytes_total")
    ]


def test_components_are_those_of_a_kind():
    assert {component.kind for component in semcodec.components("entropy")} == {"entropy"}
    assert len(semcodec.components()) > len(semcodec.components("entropy"))


def test_open_dataset_is_that_of_the_commands():
    assert len(semcodec.open_dataset("digits-scenes", "train")) == len(open_dataset("digits-scenes", "train"))


def test_the_names_are_typed_and_documented():
    for name in semcodec.__all__:
        found = getattr(semcodec, name)
        if inspect.isfunction(found):
            assert inspect.getdoc(found), name
            parameters = inspect.signature(found).parameters.values()
            assert all(p.annotation is not p.empty for p in parameters), name
            assert inspect.signature(found).return_annotation is not inspect.Signature.empty, name


def test_importing_and_listing_is_light():
    code = (
        "import sys, semcodec; semcodec.components(); "
        "print([name for name in ('torch', 'torchvision', 'timm', 'PIL') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
