"""What Python callers give that cannot be is refused in one line, and what they may give does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semcodec
from semcodec.data.base import Dataset
from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.training.distillation import Settings

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return semcodec.compose("jpeg:40+vit-nano-server", offline=True)


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2, 3], []])
def test_every_sample_of_a_batch_has_its_number(pipeline, numbers):
    with pytest.raises(UsageError, match="each of 3 samples has a number"):
        pipeline.encode_batch(PIXELS, numbers)
    with pytest.raises(UsageError, match="each of 3 samples"):
        pipeline.encode_batch(PIXELS, [0, 1, 2], sizes=[(96, 96)])


def test_a_batch_has_a_batch_axis_and_may_be_of_nothing(pipeline):
    with pytest.raises(DataError, match="with a batch axis"):
        pipeline.encode_batch(PIXELS[0], range(96))
    assert pipeline.encode_batch(PIXELS[:0], []) == []


def test_an_array_of_another_form_is_told_what_it_is_and_should_be(pipeline):
    with pytest.raises(DataError, match=r"uint8 \[96, 96, 3\], not uint8 \[1, 96, 96, 3\] \(a Pillow image is resized"):
        pipeline.encode(PIXELS[:1])


def test_call_parameters_are_for_one_sample(pipeline):
    usual, better = pipeline.encode(PIXELS[0]), pipeline.encode(PIXELS[0], quality=90)
    assert better.bytes_total > 2 * usual.bytes_total
    assert pipeline.encode(PIXELS[0]) == usual
    assert pipeline.decode(better).probability > 0
    with pytest.raises(UsageError, match="did you mean quality"):
        pipeline.encode(PIXELS[0], qualty=90)


def test_packets_and_answers_are_equal_where_all_they_hold_is_and_may_be_keys():
    guessing = semcodec.compose("cls-attn+vit-nano-server", offline=True)
    first, again, other = (guessing.encode(PIXELS[i]) for i in (0, 0, 1))
    assert first == again and hash(first) == hash(again) and first != other
    answers = [guessing.decode(one) for one in (first, again, other)]
    assert answers[0] == answers[1] and answers[0] != answers[2]
    assert len({first, again, other}) == 2
    assert len(set(semcodec.components())) == len(semcodec.components())


def test_one_record_is_decoded_and_several_are_not_dropped(pipeline):
    first, second = pipeline.encode_batch(PIXELS[:2], [0, 1])
    with pytest.raises(UsageError, match="these bytes are 2 records"):
        pipeline.decode(first.data + second.data)
    for wrong in ("clip.sem", None, 3):
        with pytest.raises(UsageError, match="a record is bytes"):
            pipeline.server.decode(wrong)
    assert pipeline.decode(bytearray(first.data)) == pipeline.decode(first)


def test_a_stream_of_any_bytes_is_decoded_and_offline_is_no_other_word_than_fetch(pipeline):
    stream = pipeline.stream([pipeline.encode(PIXELS[0])])
    answers = [next(semcodec.decode(kind(stream))) for kind in (bytes, bytearray, memoryview)]
    assert answers[0] == answers[1] == answers[2]
    assert next(semcodec.decode(stream, offline=True)) == answers[0]
    for contradiction in ({"fetch": True, "offline": True}, {"offline": False}):
        with pytest.raises(UsageError, match="unless fetch=True"):
            next(semcodec.decode(stream, **contradiction))


def test_weights_are_paths_of_any_sort(pipeline):
    shipped = Path(str(pipeline.sources["backbone"].path))
    for weights in (shipped, {"backbone": shipped}):
        again = semcodec.compose("jpeg:40+vit-nano-server", weights, offline=True)
        assert again.digests == pipeline.digests
    with pytest.raises(UsageError, match="weights are a path, or paths by slot"):
        semcodec.compose("jpeg:40+vit-nano-server", 3)


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -1}, {"batch": 0}, {"batch": -1}])
def test_nothing_is_not_evaluated(pipeline, options):
    with pytest.raises(SemcodecError, match=r"at least one sample is evaluated|no samples to evaluate"):
        pipeline.evaluate("digits-scenes", **options)


class Darker(Dataset):
    """Somebody's own data set: built-in scenes at half their brightness."""

    name, kind, tasks = "darker", "image", ("classification",)

    def __init__(self, request):
        self.scenes = semcodec.open_dataset("digits-scenes", "test", request)
        self.classes = self.scenes.classes

    def __len__(self):
        return 12

    def batch(self, indices):
        pixels, labels = self.scenes.batch(indices)
        return pixels // 2, labels

    def ids(self, indices):
        return [f"darker:{index}" for index in indices]


def test_data_are_a_name_a_path_or_a_data_set_of_ones_own(pipeline, tmp_path):
    record = pipeline.evaluate(Darker(pipeline.request), batch=5)
    assert (record["data"], record["split"], record["samples"]) == ("darker", None, 12)
    assert record["data_digest"] != pipeline.evaluate("digits-scenes", limit=12)["data_digest"]
    with pytest.raises(UsageError, match="darker is opened already"):
        pipeline.evaluate(Darker(pipeline.request), split="train")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            Image.fromarray(PIXELS[number]).save(tmp_path / folder / f"{number}.png")
    assert len(semcodec.open_dataset(tmp_path, "all", pipeline.request)) == 4
    with pytest.raises(UsageError, match="named by a text or a path, not by int"):
        pipeline.evaluate(3)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_samples_are_multiplied_by_more_than_nothing(tmp_path, scale):
    with pytest.raises(UsageError, match="more than 0"):
        semcodec.train("vit-nano-server", "digits-scenes", tmp_path, scale=scale)
    assert not list(tmp_path.iterdir())


def test_words_that_there_are_not_are_named():
    with pytest.raises(UsageError, match="there is no kind 'coder'; there are encoder"):
        semcodec.components("coder")
    with pytest.raises(UsageError, match="distillation has no rate; it has features, lr"):
        Settings.of({"rate": 1})
    assert Settings.of({"lr": 1e-4}).lr == 1e-4


def test_a_device_file_that_is_not_there_is_one_line():
    with pytest.raises((SemcodecError, OSError), match="no\\.semdev"):
        semcodec.Device.load("no.semdev")


def test_the_two_ends_are_listed():
    assert {"Device", "Server", "compose"} <= set(dir(semcodec))
