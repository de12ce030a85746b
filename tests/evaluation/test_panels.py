"""The picture of a sample shows what was sent, at its place, and nothing else; the file is whole or not there."""

from __future__ import annotations

import io
import json
import sys

import cli_toys
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import semcodec
import semcodec.composition.composition
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry, missing
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError, UsageError
from semcodec.evaluation import drawing
from semcodec.evaluation.drawing import draw
from semcodec.evaluation.sample_panels import make_panels
from semcodec.interfaces import Partial
from semcodec.panels import MISSING, Panel, maps, side_by_side, usual
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import build
from semcodec.testing.cases import cases
from semcodec.testing.stand_ins import with_stand_ins
from semcodec.testing.subject import Subject

GREY = [MISSING] * 3


@pytest.fixture(scope="module")
def pipeline():
    return semcodec.compose("stae:coding=raw,frames=3,pixels=0.5+rans+vit-nano:32", weights="random")


@pytest.fixture(scope="module")
def clip(pipeline):
    return open_dataset("digits-motion", "test", pipeline.request).batch([3])[0]


def cells(strip, count):
    """The frames of a strip, without the gaps."""
    height = strip.shape[0]
    gap = max(1, height // 24)  # frames here are square
    return [strip[:, i * (height + gap) :][:, :height] for i in range(count)]


def random_image(height=8, width=12):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, height, width))).float() / 255


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_missing_pixels_of_an_image_are_grey_and_the_others_as_sent():
    image, present = random_image(), torch.ones(1, 1, 8, 12)
    present[..., 2:5, 3:] = 0
    source, received = usual({"image": image}, Partial({"image": image}, {"image": present}))
    assert source.image.shape == (8, 12, 3)
    there = present[0, 0].bool().numpy()
    assert (received.image[there] == source.image[there]).all()
    assert (received.image[~there] == GREY).all()
    assert received.title == "received: 72 % of the pixels"
    assert usual({"image": image}, Partial({"image": image}))[1].title == "received"


def test_frames_stand_where_they_were_in_the_clip():
    frames = torch.rand(1, 5, 3, 24, 24).mul(255).round() / 255
    kept = Partial({"frames": frames[:, [1, 4]], "index": torch.tensor([[1, 4]])})
    source, received = usual({"frames": frames, "index": torch.arange(5)[None]}, kept)
    assert received.image.shape == source.image.shape
    for i, (sent, shown) in enumerate(zip(cells(source.image, 5), cells(received.image, 5), strict=True)):
        assert (shown == (sent if i in (1, 4) else GREY)).all()
    assert received.title == "received: 2 of 5 frames"


def test_patches_are_pasted_at_their_raster_places():
    image = random_image(8, 12)
    tiles = image.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(1, 6, 3, 4, 4)
    index = torch.tensor([[5, 1, 3]])  # 2 rows of 3
    source, received = usual({"image": image}, Partial({"patches": tiles[:, index[0]], "index": index}))
    there = np.kron(np.array([[0, 1, 0], [1, 0, 1]]), np.ones((4, 4))).astype(bool)
    assert (received.image[there] == source.image[there]).all()
    assert (received.image[~there] == GREY).all()
    assert received.title == "received: 3 of 6 patches"


def test_channels_are_scaled_each_alone_and_the_missing_are_marked():
    values = torch.stack([torch.arange(24.0).view(4, 6) * scale for scale in range(20)])[None]
    present = torch.ones(1, 20, 1, 1)
    present[:, 2] = 0
    found = maps(values, present)
    assert found.shape == (4 * 5 - 1, 4 * 7 - 1)  # sixteen maps of 4 x 6 with a gap of one
    inside = [found[y * 5 :, x * 7 :][:4, :6] for y in range(4) for x in range(4)]
    assert np.isnan(inside[2]).all()
    assert (inside[0] == 0.5).all()
    for i in (1, *range(3, 16)):
        assert inside[i] == pytest.approx(np.arange(24).reshape(4, 6) / 23)
    assert np.isinf(found[4]).all()
    assert maps(torch.rand(1, 5, 7)).shape == (5, 7)
    assert maps(torch.rand(1, 9)).shape == (1, 9)


def test_features_that_are_no_pixels_are_shown_at_both_ends():
    features = {"fine": torch.rand(1, 6, 4, 4), "length": torch.zeros(1, 2, dtype=torch.int64)}
    shown = usual(features, Partial(features))
    assert [panel.title for panel in shown] == ["fine at the cut", "fine, received"]
    assert all(panel.image is None for panel in shown)


def test_a_panel_of_nothing_is_refused():
    for panel in ({}, {"image": np.zeros((0, 4, 3), np.uint8)}, {"heat": np.zeros((3, 0))}):
        with pytest.raises(UsageError, match="'empty' has nothing to show"):
            Panel("empty", **panel)


# -- through bytes -----------------------------------------------------------------------------------------------------


def test_stae_shows_its_scores_and_what_it_kept(pipeline, clip):
    source, over_frames, over_pixels, received = make_panels(pipeline, clip)
    assert received.title == "received: 3 of 16 frames, 50 % of their pixels"
    assert (source.image == side_by_side(clip[0])).all()
    kept = [i for i, cell in enumerate(cells(received.image, 16)) if (cell != MISSING).any()]
    assert len(kept) == 3
    scores = [float(cell.max()) for cell in cells(over_frames.heat, 16)]
    assert sorted(np.argsort(scores)[-3:].tolist()) == kept
    for i, (cell, sent, heat) in enumerate(
        zip(cells(received.image, 16), clip[0], cells(over_pixels.heat, 16), strict=True)
    ):
        there = ~(cell == MISSING).all(-1)
        assert np.isnan(heat).all() == (i not in kept)
        if i in kept:
            assert (cell[there] == sent[there]).all()
            assert there.mean() == pytest.approx(0.5, abs=0.01)
            assert heat[there].min() >= heat[~there].max()


def test_stae_shows_no_scores_that_nothing_was_chosen_by(pipeline, clip):
    everything = pipeline.replace(composition=compose_spec("stae:coding=raw,frames=16,pixels=1.0+rans+vit-nano:32"))
    source, received = make_panels(everything, clip)
    assert (source.image == received.image).all()
    some = pipeline.replace(composition=compose_spec("stae:coding=raw,frames=16,pixels=0.5+rans+vit-nano:32"))
    assert [panel.title.partition(",")[0] for panel in make_panels(some, clip)] == [
        "source: 16 frames",
        "spatial attention on kept frames",
        "received: 16 of 16 frames",
    ]


def test_behind_a_cut_the_source_comes_first():
    composition = compose_spec("tensor8+stand-in-images@pyramid", with_stand_ins(get_registry()))
    made = Pipeline.of(build(composition, ["a", "b"]))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    source, *others = make_panels(made, image)
    assert (source.image == image[0]).all()
    titles = [panel.title for panel in others]
    assert titles == ["fine at the cut", "fine, received", "coarse at the cut", "coarse, received"]
    assert others[1].heat == pytest.approx(others[0].heat, abs=0.1)


@pytest.mark.parametrize("name", get_registry().names("encoder"))
def test_every_encoder_has_a_picture(name):
    registry = with_stand_ins(get_registry())
    component = next(one for one in registry if (one.kind, one.name) == ("encoder", name))
    if missing(component):
        pytest.skip(f"{name} is not installed whole")
    if name.endswith("/*"):
        component = registry.find(name.replace("*", component.traits["example"]), "encoder")
    for case in cases(Subject(component, registry)):
        shown = make_panels(case.pipeline, case.pixels(1))
        assert len(shown) >= 2
        assert shown[0].title.startswith("source")
        assert len({panel.title for panel in shown}) == len(shown)


@pytest.fixture
def toys(monkeypatch):
    registry = Registry.of([*get_registry(), *cli_toys.COMPONENTS])
    monkeypatch.setattr(semcodec.composition.composition, "get_registry", lambda: registry)


def test_what_the_gate_keeps_is_shown_all_the_same(toys):
    made = semcodec.compose("nibbles+doubtful:0.9+pack+brightness")
    image = np.full((1, 24, 24, 3), 255, np.uint8)
    assert made.encode_batch(image, [0])[0].bytes_total == 0
    source, received = make_panels(made, image)
    assert (received.image == source.image).all()


# -- as a file ---------------------------------------------------------------------------------------------------------


def drawn(shown, title="spec\nanswer", form="png"):
    file = io.BytesIO()
    draw(shown, title, file, form)
    return file.getvalue()


def solid(colour, height=20, width=20):
    return np.full((height, width, 3), colour, np.uint8)


def share(picture, colour):
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    return float((abs(pixels - colour).max(-1) <= 2).mean())


def test_panels_are_drawn_in_their_colours_and_keep_their_shape():
    pytest.importorskip("matplotlib")
    red, blue = (200, 10, 10), (10, 10, 200)
    picture = drawn([Panel("a", solid(red)), Panel("b", solid(blue, 20, 40))])
    assert share(picture, red) > 0.1
    assert share(picture, blue) == pytest.approx(2 * share(picture, red), rel=0.05)
    assert drawn([Panel("a", solid(red))]) == drawn([Panel("a", solid(red))])


def test_maps_are_drawn_with_grey_for_what_is_missing():
    pytest.importorskip("matplotlib")
    heat = np.array([[0.0, 1.0], [np.nan, np.inf]])
    alone = drawn([Panel("map", heat=heat)])
    grey = share(alone, GREY)
    assert grey > 0.03
    assert share(alone, (0, 0, 4)) == pytest.approx(grey, rel=0.1)  # the least of inferno
    assert share(alone, (252, 255, 164)) == pytest.approx(grey, rel=0.1)  # the greatest
    over = drawn([Panel("map", solid((0, 0, 0)), heat)])
    assert share(over, GREY) < 0.01
    assert share(over, (102, 102, 102)) == pytest.approx(2 * grey, rel=0.1)  # black, lightened under no colour


def test_many_panels_go_below_each_other():
    pytest.importorskip("matplotlib")
    heights = [Image.open(io.BytesIO(drawn([Panel("p", solid(0))] * n))).height for n in (1, 3, 5, 9)]
    assert heights[0] == heights[1] < heights[2] < heights[3]
    long = drawn([Panel("p", solid(0))], title="x" * 400 + "\nanswer")
    assert Image.open(io.BytesIO(long)).height > heights[0]


@pytest.mark.parametrize(
    ("form", "magic"),
    [(".PNG", b"\x89PNG"), ("jpg", b"\xff\xd8"), (".webp", b"RIFF"), ("pdf", b"%PDF"), ("svg", b"<?x")],
)
def test_formats(form, magic):
    pytest.importorskip("matplotlib")
    assert drawn([Panel("map", heat=np.eye(3))], form=form).startswith(magic)


def call(*arguments):
    return CliRunner().invoke(main, ["compose", *(str(a) for a in arguments)])


CLIP = ("stae:frames=2+rans+vit-nano:32", "--weights", "random", "--input", "digits-motion:3")


def test_the_command_draws_and_prints_as_without(tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    result = call(*CLIP, "--save-plot", plot, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["bytes_total"] > 0
    assert Image.open(plot).width == 1650
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]


def test_the_title_tells_of_an_answer_by_the_device(toys, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(drawing, "draw", lambda shown, title, file, form: titles.append(title))
    monkeypatch.setattr(drawing, "check", lambda form: None)
    Image.new("RGB", (24, 24), "white").save(tmp_path / "white.png")
    for gate in ("min-entropy", "always"):
        spec = f"nibbles+{gate}+pack+brightness"
        assert not call(spec, "--input", tmp_path / "white.png", "--save-plot", tmp_path / "p.png").exit_code
    (kept, local), (sent, remote) = (title.split("\n") for title in titles)
    assert kept == "nibbles+min-entropy+pack+brightness"
    assert sent == "nibbles+always+pack+brightness"
    assert local.endswith("white.png: bright 100.0 %, by the device itself; shown is what would be sent")
    assert remote.endswith(" bytes")


def test_wrong_requests_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "load", None)
    for arguments, says in (
        ((CLIP[0], "--save-plot", tmp_path / "p.png"), "add --input"),
        ((CLIP[0], "--dry-run", "--save-plot", tmp_path / "p.png"), "add --input"),
        ((*CLIP, "--save-plot", tmp_path / "p.txt"), "a plot cannot be written as .txt; use .png, .jpg"),
        ((*CLIP, "--save-plot", tmp_path / "plot"), "a file without a suffix"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        [line] = result.stderr.splitlines()
        assert says in line
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call(*CLIP, "--save-plot", tmp_path / "p.png")
    assert result.exit_code == 1
    assert result.stderr == "error: a plot needs matplotlib: pip install 'semcodec[report]'\n"
    with pytest.raises(SemcodecError, match="report"):
        drawn([Panel("map", heat=np.eye(3))])


def test_a_plot_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"old")

    def fails(panels, title, file, form):
        file.write(b"half")
        raise SemcodecError("no more")

    monkeypatch.setattr(drawing, "draw", fails)
    result = call(*CLIP, "--save-plot", plot)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: no more\n")
    assert plot.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]
