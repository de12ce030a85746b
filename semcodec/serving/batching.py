"""Work that waits for the models: across streams, oldest deadline first."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Generic, Protocol, TypeVar

PATIENCE_S = 5.0
"""After which work without a deadline, or with a far one, comes before all that has more time left."""


class Stream(Protocol):
    """What may be answered together: records of one stream header. open: how many sessions send such records now."""

    open: int


S = TypeVar("S", bound=Stream)
OwnerT = TypeVar("OwnerT")


@dataclass(eq=False, slots=True)
class Job(Generic[S, OwnerT]):
    """One record to answer. owner: whom the outcome is for. arrived, deadline: in seconds of the batcher's clock.

    round: as of DATA. first: of a second round the first one's record, and what the server said to it.
    """

    stream: S
    owner: OwnerT
    sequence: int
    record: bytes
    arrived: float
    deadline: float = inf
    round: int = 0
    first: tuple[bytes, bytes] | None = None


@dataclass(slots=True)
class _Queue(Generic[S, OwnerT]):
    since: float
    heap: list[tuple[float, int, Job[S, OwnerT]]] = field(default_factory=list)


class Batcher(Generic[S, OwnerT]):
    """A queue that any thread may put work into and take batches from.

    A batch holds records of one stream header, those first whose deadline is nearest. It waits ``wait_s`` for more, but
    only while there are open sessions of this header that have nothing in it. Work whose deadline is over is given back
    apart. now: the clock.
    """

    def __init__(self, most: int, wait_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.most, self.wait_s, self.now = most, wait_s, now
        self._changed = threading.Condition()
        self._queues: dict[S, _Queue[S, OwnerT]] = {}
        self._count = 0
        self._waiting = 0
        self._closed = False

    def __len__(self) -> int:
        return self._waiting

    def put(self, job: Job[S, OwnerT]) -> None:
        """Add one record."""
        with self._changed:
            queue = self._queues.get(job.stream)
            if queue is None:
                queue = self._queues[job.stream] = _Queue(job.arrived)
            self._count += 1
            self._waiting += 1
            heapq.heappush(queue.heap, (min(job.deadline, job.arrived + PATIENCE_S), self._count, job))
            self._changed.notify()

    def discard(self, owner: OwnerT) -> None:
        """Forget what waits for an owner that nothing can reach any more."""
        with self._changed:
            for stream, queue in list(self._queues.items()):
                kept = [entry for entry in queue.heap if entry[2].owner is not owner]
                self._waiting -= len(queue.heap) - len(kept)
                if kept:
                    heapq.heapify(kept)
                    queue.heap = kept
                else:
                    del self._queues[stream]
            self._changed.notify()

    def close(self) -> None:
        """No more work comes: ``take`` gives what there is, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> tuple[list[Job[S, OwnerT]], list[Job[S, OwnerT]]] | None:
        """The next batch, and work whose time is over; waits for some. None once it is closed and empty."""
        with self._changed:
            while True:
                if not self._queues:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                stream, queue = min(self._queues.items(), key=lambda item: item[1].heap[0][:2])
                left = queue.since + self.wait_s - self.now()
                if left <= 0 or self._closed or len(queue.heap) >= min(self.most, stream.open):
                    return self._pop(stream, queue)
                self._changed.wait(left)

    def _pop(self, stream: S, queue: _Queue[S, OwnerT]) -> tuple[list[Job[S, OwnerT]], list[Job[S, OwnerT]]]:
        batch: list[Job[S, OwnerT]] = []
        late: list[Job[S, OwnerT]] = []
        now = self.now()
        while queue.heap and len(batch) < self.most:
            job = heapq.heappop(queue.heap)[2]
            (late if job.deadline <= now else batch).append(job)
        self._waiting -= len(batch) + len(late)
        if queue.heap:
            queue.since = now
        else:
            del self._queues[stream]
        if self._queues:  # whoever is about to compute this looks after them no longer
            self._changed.notify()
        return batch, late
