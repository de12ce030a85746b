"""Coders' presets, groups and greatest effort: what they change in the bytes, and that every one decodes."""

from __future__ import annotations

import numpy as np
import pytest

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.data.video import encode_h264
from semcodec.errors import SpecError


@pytest.fixture(scope="module")
def clip():
    """Noise that moves, so that a group's frames are worth predicting."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    smooth = (noise.astype(np.float32) + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3
    return np.stack([np.roll(smooth, t, 1)[:, :64] for t in range(16)]).astype(np.uint8)


@pytest.fixture(scope="module")
def pipelines():
    made = {}

    def at(spec):
        name = spec.partition(":")[0].partition("+")[0]
        if name not in made:
            made[name] = semcodec.compose(f"{name}+vit-nano", offline=True)
        return made[name].replace(composition=compose_spec(spec))

    return at


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_groups_have_key_frames(pipelines, clip, codec):
    sizes = {}
    for group in (0, 1, 8):
        pipeline = pipelines(f"{codec}:group={group}+vit-nano")
        packet = pipeline.encode(clip)
        assert pipeline.decode(packet).probability > 0
        sizes[group] = packet.bytes_total
    assert sizes[0] < sizes[8] < sizes[1]


@pytest.mark.parametrize(
    ("codec", "fast", "slow"), [("h264", "ultrafast", "slower"), ("h265", "ultrafast", "slow"), ("av1", 13, 4)]
)
def test_presets_are_the_coders_own(pipelines, clip, codec, fast, slow):
    packets = [pipelines(f"{codec}:preset={preset}+vit-nano").encode(clip) for preset in (fast, slow)]
    assert packets[0].data != packets[1].data
    again = pipelines(f"{codec}:preset={slow}+vit-nano").encode(clip)
    assert again.data == packets[1].data


def test_what_is_not_named_is_as_it_was(clip):
    assert encode_h264(clip, 28) == encode_h264(clip, 28, "medium", 0)


@pytest.mark.parametrize("codec", ["webp", "avif", "isr:2,coding=avif"])
def test_the_greatest_effort_is_another_file_of_the_same_picture(codec):
    name, _, args = codec.partition(":")
    spec = f"{name}:{args + ',' * bool(args)}quality=30{{}}{'+bicubic' * (name == 'isr')}+vit-nano-server"
    usual = semcodec.compose(spec.format(""), offline=True)
    slow = usual.replace(composition=compose_spec(spec.format(",slow=true")))
    packets = [pipeline.encode("digits-scenes:0") for pipeline in (usual, slow)]
    assert packets[0].data != packets[1].data
    assert packets[1].bytes_total < 1.1 * packets[0].bytes_total
    assert slow.decode(packets[1]).index == usual.decode(packets[0]).index


@pytest.mark.parametrize("spec", ["h264:preset=warp+vit-nano", "av1:preset=14+vit-nano", "h265:group=-1+vit-nano"])
def test_settings_that_no_coder_has_are_refused(spec):
    with pytest.raises(SpecError):
        compose_spec(spec)
