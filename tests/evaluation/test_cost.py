"""Records carry what both ends compute, worked out by hand from the models' sizes: at cuts, of kept units and gates."""

from __future__ import annotations

import numpy as np
import pytest

import semcodec
from semcodec.coding.counting import Count, add_macs, at_server, counting
from semcodec.coding.integer_conv import Convolution

SAMPLES = 12


def block(tokens: int, width: int) -> int:
    """A transformer's block: 4 N D^2 of projections, 2 N^2 D of attention, 8 N D^2 of the network behind it."""
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def stem(first: int, width: int) -> int:
    """vit-nano-*'s, at 96x96: convolutions of 4x4 to 24x24 and of 2x2 to 12x12."""
    return 24 * 24 * first * 3 * 16 + 12 * 12 * width * first * 4


SERVER = stem(64, 96) + 5 * block(145, 96) + 96 * 10
# Attention as scores takes the class token's in the last block once more: one query, 145 keys of 64.
EDGE = stem(48, 64) + 3 * block(145, 64) + 64 * 10 + 145 * 64


def seen(kept: int) -> int:
    """The server's work on so many of the 144 patches: of the stem their part, in the blocks the class token beside."""
    return stem(64, 96) * kept // 144 + 5 * block(kept + 1, 96) + 96 * 10


def measured(spec: str, data: str = "digits-scenes", **options: object) -> dict:
    return semcodec.compose(spec, offline=True).evaluate(data, limit=SAMPLES, **options)


def macs(spec: str, data: str = "digits-scenes") -> tuple[float, float, float]:
    record = measured(spec, data)
    assert record["device_share"] == record["macs_device"] / (record["macs_device"] + record["macs_server"])
    return record["macs_device"], record["macs_server"], record["macs_whole"]


@pytest.mark.parametrize(
    ("spec", "device", "server"),
    [
        ("jpeg+vit-nano-server", 0, SERVER),
        ("local+vit-nano-server", SERVER, 0),
        ("tensor8+rans+vit-nano-server@block2", stem(64, 96) + 2 * block(145, 96), 3 * block(145, 96) + 960),
        # The server attends to the first round and answers the whole, in whatever process it is asked.
        ("sdt+vit-nano-server", 0, 2 * SERVER + 145 * 96),
    ],
)
def test_both_ends_together_compute_the_model(one_thread, spec, device, server):
    assert macs(spec) == (device, server, SERVER)


@pytest.mark.parametrize("kept", [36, 100])
def test_patches_that_are_not_sent_are_not_computed(one_thread, kept):
    device, server, whole = macs(f"cls-attn:keep={kept},scores=mean+top-k+rans+vit-nano-server")
    assert (device, whole) == (EDGE, SERVER)
    assert server == seen(kept)


def test_frames_that_are_not_sent_are_not_computed(one_thread):
    def clip(frames: int) -> int:
        return round(macs(f"stae:coding=webp,frames={frames},pixels=1.0+none+rans+vit-nano", "digits-motion")[1])

    # Two frames make a step of 4x4 tokens of width 128, of which the stem costs as much for each.
    steps = {frames: 4 * block(8 * frames, 128) + 128 * 10 for frames in (4, 8, 16)}
    stems = {frames: clip(frames) - rest for frames, rest in steps.items()}
    assert stems[16] == 2 * stems[8] == 4 * stems[4] > 0


def test_a_sample_that_stays_on_the_device_costs_what_it_costs(one_thread):
    never = measured("local+vit-nano-server")
    assert (never["sent_ratio"], never["macs_server"]) == (0, 0)
    gated = measured("cls-attn:keep=36,scores=mean+top-k+min-entropy:0.4+rans+vit-nano-server")
    assert 0 < gated["sent_ratio"] < 1
    assert gated["macs_device"] == EDGE
    assert gated["macs_server"] == pytest.approx(gated["sent_ratio"] * seen(36))


def test_memory_holds_weights_and_what_is_computed(one_thread):
    record = measured("jpeg+vit-nano-server")
    parameters = 4 * sum(p.numel() for p in semcodec.compose("jpeg+vit-nano-server").stages.backbone.model.parameters())
    # At the widest, a block holds what its two linear layers take and give: 145 x 384 before and behind GELU.
    widest = 4 * 145 * (2 * 384 + 96)
    assert parameters + widest < record["memory_server"] < parameters + 4 * widest
    picture = 4 * 3 * 96 * 96
    assert picture <= record["memory_device"] < 4 * picture


def test_batches_and_sharing_change_nothing(one_thread):
    spec = "cls-attn+attention-sum:0.9+rans+vit-nano-server"
    one, many = (measured(spec, batch=batch) for batch in (1, SAMPLES))
    keys = ("macs_device", "macs_server", "macs_whole", "memory_device", "memory_server")
    assert {key: one[key] for key in keys} == {key: many[key] for key in keys}


def test_networks_in_integers_count_too():
    layer = Convolution(np.ones((4, 3, 3, 3), np.int32), np.zeros(4, np.int64), padding=1)
    with counting(Count()) as count:
        layer.exact(np.ones((2, 3, 5, 5)))
    assert count.total == 2 * 5 * 5 * 4 * 27


def test_what_the_server_is_asked_is_the_servers():
    with counting(Count()) as count:
        add_macs(5)
        with at_server():
            assert count.away
            add_macs(7)
    assert (count.total, count.server, count.away) == (12, 7, False)
    add_macs(1)  # nobody counts
    with at_server():
        pass
    assert count.total == 12
