"""Bytes at equal accuracy, with curves whose answer is known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from semcodec.bench.equal import RESAMPLES, Method, at_equal_accuracy
from semcodec.bench.results import within
from semcodec.cli import main
from semcodec.errors import UsageError
from semcodec.tasks.average_precision import Matches


def record(size: float, right: int, share: float | None = None, samples: int = 10, **more: object) -> dict:
    """A record of ``eval`` with what reports use."""
    more = {**more, "device_share": share} if share is not None else more
    return {
        "record": 1, "spec": f"jpeg:{int(size)}+vit-nano-server", "task": "classification", "data": "digits-scenes",
        "split": "test", "samples": samples, "data_digest": "same", "top1": right / samples,
        "top1_interval": [0.0, 1.0], "bytes_total": size, "raw_uint8_bytes": 27648, "ratio_uint8": 27648 / size,
        "sent_ratio": 1.0, "stages_ms": {"encode": 1.0, "tail": 2.0}, "knobs": {"quality": int(size)},
        "correct": "1" * right + "0" * (samples - right), **more,
    }  # fmt: skip


def method(bytes_: list[float], accuracies: list[float], samples: int = 100, turned: bool = False) -> Method:
    """The first samples are right, or the last."""
    rows = [record(size, round(a * samples), samples=samples) for size, a in zip(bytes_, accuracies, strict=True)]
    return Method.of([{**row, "correct": row["correct"][:: -1 if turned else 1]} for row in rows])


def test_bytes_between_points_are_on_a_line_in_the_logarithm():
    found = at_equal_accuracy(method([100, 400], [0.6, 0.8]), {"other": method([1000], [0.9])}, [0.5, 0.6, 0.7, 0.8])
    assert [one.bytes for one in found] == pytest.approx([100, 100, 200, 400])
    assert [one.ratio for one in found] == pytest.approx([0.1, 0.1, 0.2, 0.4])


def test_the_hull_leaves_out_what_another_point_beats():
    wasteful = method([100, 150, 400], [0.6, 0.5, 0.8])
    [one] = at_equal_accuracy(wasteful, {"other": method([300], [0.9])}, [0.7])
    assert one.bytes == pytest.approx(200)


def test_the_best_rival_is_the_cheapest_that_gets_there():
    rivals = {"cheap": method([200], [0.7]), "sure": method([800], [0.9])}
    found = at_equal_accuracy(method([100], [0.95]), rivals, [0.7, 0.8, 0.92])
    assert [one.best for one in found] == ["cheap", "sure", None]
    assert [one.ratio for one in found] == pytest.approx([0.5, 0.125, 0.0])
    assert found[1].rivals == {"cheap": None, "sure": pytest.approx(800)}


def test_what_is_not_reached_has_no_ratio():
    [one] = at_equal_accuracy(method([100], [0.6]), {"other": method([1000], [0.9])}, [0.7])
    assert (one.bytes, one.ratio) == (None, None)


def test_the_bootstrap_is_paired():
    """Where both are right on the same samples a resample moves both alike, so that the ratio keeps its place."""
    ours, theirs = method([100, 1000], [0.5, 0.9]), method([1000, 10000], [0.5, 0.9])
    [one] = at_equal_accuracy(ours, {"same": theirs}, [0.7])
    assert (one.ratio, one.low, one.high) == pytest.approx((0.1, 0.1, 0.1))
    apart = method([1000, 10000], [0.5, 0.9], turned=True)
    [one] = at_equal_accuracy(ours, {"other": apart}, [0.7])
    assert one.low < 0.09 < 0.1 < 0.11 < one.high


def test_records_of_other_samples_are_refused():
    with pytest.raises(UsageError, match="one set of samples"):
        Method.of([record(100, 5), record(200, 6, data_digest="other")])
    with pytest.raises(UsageError, match="same samples"):
        at_equal_accuracy(method([1], [0.5], 10), {"more": method([1], [0.5], 20)}, [0.5])


def test_detectors_are_resampled_by_their_matches():
    images, rows = 40, []
    objects = np.array([[image, 0] for image in range(images)])
    for size, count in ((50, 8), (100, 22), (200, 36)):
        found = np.array([[0, image, 1] for image in range(count)])
        matches = Matches(images, objects, found).text()
        row = {**record(size, 0, samples=images), "task": "detection", "map50": count / images, "matches": matches}
        rows.append({key: value for key, value in row.items() if not key.startswith("top1")})
    ours = Method.of(rows)
    assert ours.reached.shape == (3, 1 + RESAMPLES)
    assert ours.reached[:, 0] == pytest.approx([0.2, 0.55, 0.9], abs=0.02)
    assert ours.reached[1, 1:].std() > 0.05
    with pytest.raises(UsageError, match="cannot be resampled"):
        Method.of([{**row, "matches": None} for row in rows])


def test_points_above_a_share_are_left_out_and_counted():
    notes: list[str] = []
    rows = [record(100, 5, 0.2), record(200, 6, 0.36), record(300, 7)]
    assert within(rows, 0.35, notes) == rows[:1]
    assert notes == ["points left out: 1 with a larger device's share than 0.35 and 1 that do not say what it is"]
    with pytest.raises(UsageError, match=r"the least is 0\.2"):
        within(rows, 0.1)


@pytest.fixture
def folder(tmp_path):
    rows = [record(100, 5, 0.2), record(200, 9, 0.36), record(300, 7, 0.3)]
    (tmp_path / "plan.json").write_text(json.dumps({"bench": 1, "data": "digits-scenes"}))
    lines = [json.dumps({**row, "cell": f"{i:016x}", "seed": 0}) for i, row in enumerate(rows)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_report_keeps_to_the_share(folder):
    run = CliRunner().invoke(main, ["report", str(folder), "--format", "csv", "--max-device-share", "0.35"])
    assert run.exit_code == 0, run.output
    rows = [line.split(",") for line in run.stdout.splitlines()]
    at = rows[0].index("device_share")
    assert [row[at] for row in rows[1:]] == ["0.2", "0.3"]
    assert [row[-1] for row in rows[1:]] == ["True", "True"]  # on the front, where 200 bytes are not allowed
    assert "1 with a larger device's share" in run.stderr


def test_an_impossible_share_is_refused(folder):
    for share in ("-1", "nan"):
        run = CliRunner().invoke(main, ["report", str(folder), "--max-device-share", share])
        assert (run.exit_code, run.stdout) == (2, "")
        assert "device's share" in run.stderr
