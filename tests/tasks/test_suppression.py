"""Non-maximum suppression keeps the very boxes that it kept when it was done by hand, and takes less time."""

from __future__ import annotations

import time

import pytest
import torch

from semcodec.boxes import Boxes, centred, corners
from semcodec.tasks.detection import CANDIDATES, LIMIT, nms


def overlaps(first, second):
    """Intersection over union of boxes (n, 4) with boxes (m, 4), left, top, right, bottom: (n, m)."""
    low = first[:, None, :2].maximum(second[:, :2])
    high = first[:, None, 2:].minimum(second[:, 2:])
    common = (high - low).clamp_(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - common
    return common / union.clamp(min=1e-9)


def by_hand(output, confidence=0.001, iou=0.6, limit=LIMIT):
    """As it was before torchvision's: blocks of 1,024, each gone over until nothing changes."""
    rows, classes = (output[:, 4:] >= confidence).nonzero(as_tuple=True)
    usable = output[:, :4].isfinite().all(1)[rows] & output[rows, 4 + classes].isfinite()
    rows, classes = rows[usable], classes[usable]
    scores, order = output[rows, 4 + classes].sort(descending=True, stable=True)
    order = order[:CANDIDATES]
    found = Boxes(corners(output[rows[order], :4]), classes[order], scores[: len(order)])

    def suppresses(one, other):
        same = found.classes[one][:, None] == found.classes[other]
        return same & (overlaps(found.xyxy[one], found.xyxy[other]) > iou)

    kept = torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(found), 1024):
        block = torch.arange(start, min(start + 1024, len(found)))
        block = block[~suppresses(kept, block).any(0)]
        matrix = suppresses(block, block).triu(1)
        alive = torch.ones(len(block), dtype=torch.bool)
        while not torch.equal(alive, after := ~(matrix & alive[:, None]).any(0)):
            alive = after
        kept = torch.cat((kept, block[alive]))
        if len(kept) >= limit:
            break
    return found[kept[:limit]]


def some(seed, count, classes=3, side=100.0):
    """Boxes of 5 to 40 pixels at random places, most of them over others."""
    rng = torch.Generator().manual_seed(seed)
    middle, size = torch.rand(count, 2, generator=rng) * side, 5 + 35 * torch.rand(count, 2, generator=rng)
    return torch.cat((middle, size, torch.rand(count, classes, generator=rng)), 1)


def ties():
    """Scores of eight values alone, and boxes on a grid, many of them equal: overlaps are often just the limit's."""
    output = some(1, 600)
    output[:, :4] = (output[:, :4] / 5).round() * 5
    output[:, 4:] = (output[:, 4:] * 8).round() / 8
    return output


def just_the_limit():
    """Overlap of 3/5, of which float32 makes a little more than 0.6 is: it suppresses nothing."""
    xyxy = torch.tensor([[0.0, 0, 8, 10], [2, 0, 10, 10], [0, 20, 8, 30], [1.9, 20, 10, 30]])
    return torch.cat((centred(xyxy), torch.tensor([[0.9], [0.8], [0.7], [0.6]])), 1)


def degenerate():
    """Without area, inside out, of one point, and far too large, among usual ones."""
    output = some(2, 400)
    output[::7, 2:4] = 0
    output[1::7, 2] = 0
    output[2::7, 3] *= -1
    output[3::7, 2:4] *= -1
    output[::50, 2:4] = 1e30
    output[5::40] = output[6:400:40][: len(output[5::40])]
    return output


def not_finite():
    output = some(3, 400)
    output[::5, 0] = torch.nan
    output[1::5, 2] = torch.inf
    output[2::5, 4] = torch.nan
    output[3::5, 5] = torch.inf
    return output


@pytest.mark.parametrize(
    "output",
    [
        *(some(seed, count, classes) for seed, count, classes in [(4, 0, 3), (5, 1, 1), (6, 1500, 1), (7, 900, 20)]),
        some(8, 3000, 2, side=2000.0),
        ties(),
        just_the_limit(),
        degenerate(),
        not_finite(),
    ],
    ids=["none", "one", "one-class", "many-classes", "more-than-a-block", "ties", "limit", "degenerate", "not-finite"],
)
@pytest.mark.parametrize("iou", [0.3, 0.6])
def test_the_same_boxes_as_by_hand(output, iou):
    for limit in (LIMIT, 10_000):
        expected, found = by_hand(output, iou=iou, limit=limit), nms(output, iou=iou, limit=limit)
        assert torch.equal(found.xyxy, expected.xyxy)
        assert torch.equal(found.classes, expected.classes) and torch.equal(found.scores, expected.scores)


def test_the_limit_itself_suppresses_nothing():
    assert len(nms(just_the_limit())) == 3  # of the last two, a little more than 3/5 is common


@pytest.mark.parametrize("side", [60.0, 20_000.0], ids=["crowded", "apart"])
def test_thirty_thousand_candidates(side):
    output = some(9, CANDIDATES + 500, 1, side)
    start = time.perf_counter()
    found = nms(output)
    took = time.perf_counter() - start
    expected = by_hand(output)
    assert torch.equal(found.xyxy, expected.xyxy) and torch.equal(found.scores, expected.scores)
    assert took < 2  # some hundredths of a second; compared each with each it would be many


def test_a_detectors_image_takes_few_milliseconds():
    """As many candidates as the embedded detector has in one image; by hand it took sixteen milliseconds."""
    output = some(10, 144, 10, 96.0)
    nms(output)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        nms(output)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.008
