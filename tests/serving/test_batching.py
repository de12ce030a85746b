"""Batches across streams: oldest deadline first, no waiting for nobody, and what is over is not computed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from semcodec.serving.batching import PATIENCE_S, Batcher, Job
from semcodec.serving.limits import Limits
from semcodec.serving.statistics import _percentiles


@dataclass(eq=False)
class Stream:
    open: int = 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def job(stream: Stream, sequence: int, arrived: float = 100.0, deadline: float = float("inf")) -> Job:
    return Job(stream, None, sequence, b"", arrived, deadline)


def taken(batcher: Batcher) -> tuple[list[int], list[int]]:
    found = batcher.take()
    assert found is not None
    return [one.sequence for one in found[0]], [one.sequence for one in found[1]]


def test_the_nearest_deadline_is_first_whoever_came_first():
    batcher, stream = Batcher(2, 0.0, Clock()), Stream()
    for sequence, deadline in enumerate((101.0, 100.5, 100.9, float("inf"))):
        batcher.put(job(stream, sequence, deadline=deadline))
    assert taken(batcher) == ([1, 2], [])
    assert taken(batcher) == ([0, 3], [])


def test_what_is_over_is_given_back_apart_and_takes_no_place():
    clock, stream = Clock(), Stream()
    batcher = Batcher(2, 0.0, clock)
    for sequence, deadline in enumerate((100.1, 105.0, 106.0)):
        batcher.put(job(stream, sequence, deadline=deadline))
    clock.now = 100.1
    assert taken(batcher) == ([1, 2], [0])
    assert len(batcher) == 0


def test_work_of_an_owner_that_is_gone_is_forgotten():
    batcher, first, second = Batcher(8, 0.0, Clock()), Stream(), Stream()
    here, gone = object(), object()
    for sequence, (stream, owner) in enumerate(((first, gone), (second, here), (second, gone), (second, here))):
        batcher.put(Job(stream, owner, sequence, b"", 100.0))
    batcher.discard(gone)
    assert len(batcher) == 2
    assert taken(batcher) == ([1, 3], [])


def test_a_batch_is_of_one_header_that_of_the_nearest_deadline():
    batcher, first, second = Batcher(8, 0.0, Clock()), Stream(), Stream()
    batcher.put(job(first, 0, deadline=102.0))
    batcher.put(job(second, 1, deadline=101.0))
    batcher.put(job(first, 2, deadline=103.0))
    assert taken(batcher) == ([1], [])
    assert taken(batcher) == ([0, 2], [])


def test_work_without_a_deadline_is_not_put_off_for_ever():
    batcher, stream = Batcher(1, 0.0, Clock()), Stream()
    batcher.put(job(stream, 0, arrived=100.0))
    batcher.put(job(stream, 1, arrived=101.0, deadline=101.0 + PATIENCE_S - 0.5))
    batcher.put(job(stream, 2, arrived=101.0, deadline=100.0 + PATIENCE_S - 0.5))
    assert [taken(batcher)[0] for _ in range(3)] == [[2], [0], [1]]


@pytest.mark.parametrize(("streams", "waits"), [(1, False), (2, True)])
def test_a_batch_waits_only_while_another_stream_may_join(streams, waits):
    batcher, stream = Batcher(16, 0.3), Stream(streams)
    batcher.put(job(stream, 0, arrived=batcher.now()))
    began = time.monotonic()
    assert taken(batcher) == ([0], [])
    assert (time.monotonic() - began >= 0.29) == waits


def test_a_batch_waits_no_longer_once_every_stream_is_in_it():
    batcher, stream = Batcher(16, 20.0), Stream(2)
    batcher.put(job(stream, 0, arrived=batcher.now()))
    threading.Timer(0.05, batcher.put, [job(stream, 1, arrived=batcher.now())]).start()
    began = time.monotonic()
    assert taken(batcher) == ([0, 1], [])
    assert time.monotonic() - began < 10


def test_a_closed_batcher_gives_what_there_is_then_nothing():
    batcher, stream = Batcher(16, 20.0), Stream(5)
    batcher.put(job(stream, 0, arrived=batcher.now()))
    batcher.close()
    assert taken(batcher) == ([0], [])
    assert batcher.take() is None


def test_windows_narrow_as_streams_come_and_all_of_them_fit_the_queue():
    limits = Limits(window=32, queue=512)
    windows = [limits.window_of(streams) for streams in range(1, 1025)]
    assert windows[0] == 32
    assert windows == sorted(windows, reverse=True)
    assert all(window * streams <= 512 or window == 1 for streams, window in enumerate(windows, 1))
    assert set(windows) == {1, 2, 4, 8, 16, 32}


def test_percentiles_are_of_what_was_measured():
    assert _percentiles(list(range(1, 101))) == {"p50": 50, "p95": 95, "p99": 99}
    assert _percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    assert _percentiles([]) == {"p50": None, "p95": None, "p99": None}
