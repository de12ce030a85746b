"""One record of several tasks: which are asked for, the weighted mean of their scores, and its paired interval."""

from __future__ import annotations

import numpy as np
import pytest

from semcodec.errors import UsageError
from semcodec.tasks.statistics import Bootstrap, resampled
from semcodec.tasks.table import MEAN, get_task, metric_of, scores_of
from semcodec.tasks.weighted import Asked, chosen, mean_of

SPEC = "layered+rans+cls-nano@d3+embed-nano@d3"
RIGHT = "1101" * 25


def record(task: str, right: str, **more) -> dict:
    name, key = {"classification": ("top1", "correct"), "retrieval": ("recall1", "hits")}[task]
    return {
        "record": 1, "key": task, "spec": SPEC, "task": task, "knobs": {}, "data": "d", "split": "test",
        "samples": len(right), "data_digest": f"of {task}", name: right.count("1") / len(right), key: right,
        "bytes_total": 100.0, "sent_ratio": 1.0, "macs_device": 10, "macs_server": 7, "macs_shared": 4,
        "stages_ms": {"head": 2.0, "recover": 1.0, "tail": 3.0}, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["classification=0"], "a weight is a number above 0"),
        (["classification=-1"], "a weight is a number above 0"),
        (["classification=nan"], "a weight is a number above 0"),
        (["classification=inf"], "a weight is a number above 0"),
        (["classification=two"], "a weight is a number above 0"),
        (["classification=1,detection"], "--task detection has no weight beside others"),
        (["classification", "detection=2"], "--task classification has no weight"),
        (["classification,classification"], "names classification twice"),
        (["classification=1,"], "expects NAME"),
        (["=1"], "expects NAME"),
    ],
)
def test_what_cannot_be_asked_for(texts, says):
    with pytest.raises(UsageError, match=says):
        Asked.parse(texts)


def test_tasks_stand_in_one_option_or_in_several():
    assert Asked.parse(["a=1,b=2.5"]) == Asked.parse(["a=1", "b=2.5"]) == Asked(("a", "b"), {"a": 1.0, "b": 2.5})
    assert Asked.parse(["a", "b"]) == Asked(("a", "b"))
    assert Asked.parse([]) == Asked()


def test_a_mean_by_hand():
    parts = {"classification": record("classification", RIGHT), "retrieval": record("retrieval", "1" * 100)}
    found = mean_of(parts, {"classification": 3, "retrieval": 1})
    assert found[MEAN.key] == pytest.approx((3 * 0.75 + 1) / 4)
    assert metric_of(found) == MEAN.key
    assert found["stages_ms"] == {"head": 2.0, "recover": 1.0, "tail": 6.0}  # two tails after one recovering
    assert (found["macs_server"], found["device_share"]) == (4 + 3 + 3, 0.5)
    low, high = found[f"{MEAN.key}_interval"]
    alone = Bootstrap(0.75, scores_of(parts["classification"], resampled(100))).interval()
    assert (low, high) == pytest.approx(tuple((3 * bound + 1) / 4 for bound in alone))


def test_the_interval_draws_the_same_samples_for_all_tasks():
    """One task is right where the other is wrong: each is uncertain, and their mean is not."""
    wrong = RIGHT.translate(str.maketrans("01", "10"))
    parts = {"classification": record("classification", RIGHT), "retrieval": record("retrieval", wrong)}
    found = mean_of(parts, {"classification": 1, "retrieval": 1})
    assert found[f"{MEAN.key}_interval"] == pytest.approx([0.5, 0.5])


def test_a_record_that_does_not_say_how_each_sample_fared_leaves_no_interval():
    parts = {
        "classification": record("classification", RIGHT, correct=None),
        "retrieval": record("retrieval", "1" * 100),
    }
    found = mean_of(parts, {"classification": 1, "retrieval": 1})
    assert found[MEAN.key] == 0.875 and f"{MEAN.key}_interval" not in found


def test_queries_are_placed_among_the_samples():
    """Samples that are alone of their class are drawn, and count for no recall."""
    task = get_task("retrieval")
    weights = np.array([[1.0, 1, 1, 1], [5, 0, 1, 2]])
    found = task.scores({"hits": "10", "queried": "0101"}, weights)
    assert found == pytest.approx(np.array([0.5, 0.0]))
    assert task.scores({"hits": "10"}, weights) is None


def test_points_are_those_of_equal_packets():
    rows = [
        record("classification", RIGHT),
        record("retrieval", "1" * 100),
        record("classification", RIGHT, spec="webp+cls-nano", bytes_total=300.0),
        record("classification", RIGHT, bytes_total=101.0),
    ]
    notes: list[str] = []
    found = chosen(rows, Asked.parse(["classification=1,retrieval=1"]), "here", notes)
    assert [metric_of(one) for one in found] == [MEAN.key, "top1", "recall1", "top1", "top1"]
    assert notes == ["points left out of the weighted mean: 2 that were not measured for all tasks"]
    assert chosen(rows, Asked(("retrieval",)), "here") == [rows[1]]
    assert chosen(rows, Asked(), "here") == rows
    with pytest.raises(UsageError, match="here has no task 'detection'; it has classification, retrieval"):
        chosen(rows, Asked(("detection",)), "here")
    with pytest.raises(UsageError, match="no point was measured for classification and retrieval"):
        chosen(rows[1:], Asked.parse(["classification=1,retrieval=1"]), "here")
