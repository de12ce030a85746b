"""What commands are given and where they write: looked at first, streams as ``-``, parts and windows of long files."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import av
import numpy as np
import pytest
from click.testing import CliRunner

from semcodec.cli import main
from semcodec.data.inputs import open_input, open_windows
from semcodec.data.notes import DataNote
from semcodec.data.parts import Part
from semcodec.data.video import sample_frame_indices
from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

SPEC = "stae:frames=2+rans+vit-nano"
CLIPS = InputRequest(16, 32, 32)


def write_video(path, frames: int, rate: int = 25):
    """A clip whose frames tell their number: grey rises by one a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "g": "30"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((32, 32, 3), 20 + number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 200)


def numbers(pixels) -> list[int]:
    return (pixels[0].mean((1, 2, 3)).round().astype(int) - 20).tolist()


def call(*arguments: object, **more):
    return CliRunner().invoke(main, [str(one) for one in arguments], **more)


# -- windows and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride"), [(64, None), (64, 32), (16, 50), (40, 7), (200, None), (500, None)])
def test_windows_are_the_frames_that_they_say(video, window, stride):
    found = list(open_windows(str(video), CLIPS, Part(window=window, stride=stride)))
    length = min(window, 200)
    starts = list(range(0, 200 - length + 1, stride or length))
    assert [one.name for one in found] == [f"{video}@{start / 25:.2f}s" for start in starts]
    picks = sample_frame_indices(length, 16, length)
    for one, start in zip(found, starts, strict=True):
        assert np.abs(np.array(numbers(one.pixels)) - (start + picks)).max() <= 2
        assert one.pixels.shape == (1, 16, 32, 32, 3)


def test_a_part_begins_and_ends_where_it_says(video):
    [one] = open_windows(str(video), CLIPS, Part(start=2.0, duration=1.6))
    assert one.name == f"{video}@2.00s"
    assert abs(numbers(one.pixels)[0] - 50) <= 2 and 86 <= numbers(one.pixels)[-1] <= 91
    found = list(open_windows(str(video), CLIPS, Part(start=4.0, window=25)))
    assert [one.name.rpartition("@")[2] for one in found] == ["4.00s", "5.00s", "6.00s", "7.00s"]
    with pytest.raises(DataError, match=r"its last frame is shown at 8\.0 s, before the start at 9 s"):
        list(open_windows(str(video), CLIPS, Part(start=9)))


def test_parts_that_are_none_are_refused(video):
    for wrong in ({"start": -1}, {"duration": 0}, {"window": 0}, {"window": 4, "stride": 0}, {"stride": 4}):
        with pytest.raises(UsageError):
            Part(**wrong)
    with pytest.raises(UsageError, match="sample of a data set"):
        list(open_windows("digits-motion:0", CLIPS, Part()))
    with pytest.raises(DataError, match="is a video where the model takes images"):
        list(open_windows(str(video), InputRequest(None, 32, 32), Part()))


def test_windows_take_memory_for_one_at_a_time(tmp_path):
    path = write_video(tmp_path / "long.mp4", 1500)
    list(open_windows(str(path), CLIPS, Part(window=20, stride=10, duration=2)))
    tracemalloc.start()
    count = sum(1 for _ in open_windows(str(path), InputRequest(16, 96, 96), Part(window=20, stride=10)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 149
    assert peak < 6 * 16 * 96 * 96 * 3 + 2_000_000


def test_one_clip_of_a_long_file_is_told(video):
    with pytest.warns(DataNote, match="one clip of 16 frames stands for all of its 200, from its middle"):
        open_input(str(video), CLIPS)
    told = call("encode", SPEC, video, "-o", "-")
    assert told.stderr.count("note: ") == 1


def test_each_window_is_a_record(video, tmp_path):
    out = tmp_path / "a.sem"
    options = ("--window", 64, "--stride", 64, "--format", "json")
    told = call("encode", SPEC, video, "-o", out, *options)
    assert told.exit_code == 0, told.output
    assert told.stderr == ""
    names = [record["input"] for record in json.loads(told.stdout)["records"]]
    assert names == [f"{video}@{at}s" for at in ("0.00", "2.56", "5.12")]
    shown = json.loads(call("decode", out, "--format", "json").stdout)
    assert [record["sequence"] for record in shown["records"]] == [0, 1, 2]
    composed = json.loads(call("compose", SPEC, "--input", video, *options).stdout)
    assert [record["input"] for record in composed["records"]] == names
    assert [r["bytes_total"] for r in composed["records"]] == [r["bytes_total"] for r in shown["records"]]
    assert call("compose", SPEC, "--input", video, "--window", 64).exit_code == 0
    told = call("encode", "png+resnet-nano", "digits-scenes:0", "-o", out, "--window", 4)
    assert (told.exit_code, "sample of a data set" in told.stderr) == (2, True)


# -- looked at first ---------------------------------------------------------------------------------------------------

FIRST = """
import sys
from click.testing import CliRunner
from semcodec.cli import main
told = CliRunner().invoke(main, sys.argv[1:])
assert "torch" not in sys.modules
print(told.exit_code, told.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["encode", SPEC, "no.mp4", "-o", "a.sem"], 1, "no such file or data set: no.mp4"),
        (["encode", SPEC, "digits-motion:0", "-o", "no/where.sem"], 1, "no/where.sem: No such file"),
        (["encode", SPEC, "digits-motion:0", "-o", "."], 2, ". is a folder"),
        (["encode", SPEC, "picture.png", "-o", "a.sem"], 1, "is an image where the model takes clips"),
        (["encode", SPEC, "digits-motion:99999", "-o", "a.sem"], 1, "has samples 0 to 999"),
        (["compose", SPEC, "--input", "no.mp4"], 1, "no such file or data set: no.mp4"),
        (["compose", "png+resnet-nano", "--input", "clip.mp4"], 1, "is a video where the model takes images"),
        (["compose", SPEC, "--input", "digits-motion:0", "--save-plot", "no/a.png"], 1, "no/a.png: No such file"),
        (["compose", SPEC, "--window", "4"], 2, "add --input FILE"),
        (["eval", SPEC, "--data", "no"], 1, "no such data set or folder: no"),
        (["eval", SPEC, "--data", "digits-motion", "-o", "no/r.jsonl"], 1, "no/r.jsonl: No such file"),
        (["train", SPEC, "--data", "no", "-o", "out"], 1, "no such data set or folder: no"),
        (["train", SPEC, "--data", "digits-motion", "-o", "clip.mp4"], 2, "clip.mp4 is a file"),
        (["bench", SPEC, "--data", "no", "--out", "out"], 1, "no such data set or folder: no"),
        (["decode", "no.sem"], 1, "no.sem: No such file"),
    ],
)
def test_what_is_wrong_with_files_is_said_before_torch_is_imported(tmp_path, arguments, code, words):
    (tmp_path / "picture.png").touch()
    (tmp_path / "clip.mp4").touch()
    command = [sys.executable, "-c", FIRST, *arguments]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"{code} error: ") and words in told.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "picture.png"]


# -- streams -----------------------------------------------------------------------------------------------------------


def test_streams_go_through_pipes(tmp_path):
    path = tmp_path / "a.sem"
    samples = ("digits-scenes:0", "digits-scenes:1")
    spec = "layered:channels=2x8-3x4,low=1+vit-nano-server"
    random = ("--weights", "encoder=random")
    assert call("encode", spec, *samples, "-o", path, *random).exit_code == 0
    told = call("encode", spec, *samples, "-o", "-", *random)
    data = path.read_bytes()
    assert told.stdout_bytes == data
    assert "digits-scenes/test/1" in told.stderr
    for name, *options in (("decode", *random), ("inspect",)):
        found = []
        for one in ("-", path):
            shown = json.loads(call(name, one, *options, "--format", "json", input=data).stdout)
            for record in shown["records"]:
                record.pop("stages_ms", None)
            found.append(shown)
        assert found[0] == found[1]
    told = call("cut", "-", "--layers", 1, "-o", "-", input=data)
    assert call("cut", path, "--layers", 1, "-o", tmp_path / "b.sem").exit_code == 0
    assert told.stdout_bytes == (tmp_path / "b.sem").read_bytes()
    assert "2, of which 2 were cut" in told.stderr
    assert call("cut", "-", "--layers", 1, input=data).exit_code == 2
    told = call("encode", spec, "digits-scenes:0", "no.png", "-o", "-", *random)
    assert (told.exit_code, told.stdout_bytes) == (1, b"")


def test_a_bad_input_is_passed_over_where_that_is_wanted(tmp_path):
    out = tmp_path / "a.sem"
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    inputs = (tmp_path / "broken.mp4", "digits-motion:0", "no.mp4", "digits-motion:1")
    told = call("encode", SPEC, *inputs, "-o", out, "--format", "json")
    assert told.exit_code == 1 and not out.exists()
    told = call("encode", SPEC, *inputs, "-o", out, "--format", "json", "--keep-going")
    assert told.exit_code == 1
    assert [line.split(":")[0] for line in told.stderr.splitlines()] == [
        "passed over no.mp4", f"passed over {tmp_path / 'broken.mp4'}"
    ]  # fmt: skip
    assert [record["input"] for record in json.loads(told.stdout)["records"]] == [
        "digits-motion/test/0", "digits-motion/test/1"
    ]  # fmt: skip
    assert len(json.loads(call("decode", out, "--format", "json").stdout)["records"]) == 2
    told = call("encode", SPEC, "no\x1b[2J.mp4", "-o", tmp_path / "b.sem", "--keep-going")
    assert r"passed over no\x1b[2J.mp4: " in told.stderr
    assert told.exit_code == 1 and "none of the 1 inputs can be encoded" in told.stderr
    assert not (tmp_path / "b.sem").exists()
