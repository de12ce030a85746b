"""Runs cells on workers, which may fail, hang, grow or die, and gives a record for each as it is finished."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from semcodec.bench.cells import Cell, Queue
from semcodec.bench.worker import GIB, POLL, Settings, failure, resident, serve

Record = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A cell that came back from the worker ``slot``. ``record`` is None where it shall be tried again."""

    slot: int
    cell: Cell
    record: Record | None
    seconds: float


class Pool(Protocol):
    """Workers in numbered slots, each with at most one cell."""

    def submit(self, slot: int, cell: Cell) -> None:
        """Give a worker that has none a cell; starts the worker where there is none."""

    def wait(self) -> list[Done]:
        """Cells that came back since; returns after a moment if none did."""

    def release(self, slot: int) -> None:
        """Nothing is left for this worker: what it holds is for others."""

    def close(self) -> None: ...


def run(cells: Sequence[Cell], pool: Pool, slots: int) -> Iterator[Done]:
    """Every cell's outcome as it comes. Closes the pool in the end, whatever the end is."""
    queue, busy = Queue(cells), set[int]()
    try:
        while True:
            for slot in sorted(set(range(slots)) - busy):
                cell = queue.take(slot)
                if cell is None:
                    pool.release(slot)
                else:
                    pool.submit(slot, cell)
                    busy.add(slot)
            if not busy:
                return
            for done in pool.wait():
                busy.discard(done.slot)
                if done.record is None:
                    queue.put_back(done.cell)
                else:
                    yield done
    finally:
        pool.close()


class Local:
    """Worker processes on this machine. ``timeout``: seconds a cell may take, the making of its models included."""

    def __init__(self, settings: Settings, timeout: float | None = None) -> None:
        self.settings, self.timeout = settings, timeout
        self._processes: dict[int, _Process] = {}

    def submit(self, slot: int, cell: Cell) -> None:
        if slot not in self._processes:
            self._processes[slot] = _Process(self.settings)
        self._processes[slot].give(cell)

    def wait(self) -> list[Done]:
        busy = {p.connection: slot for slot, p in self._processes.items() if p.cell is not None}
        ready = wait(list(busy), POLL)
        done = [self._heard(busy[connection]) for connection in ready if isinstance(connection, Connection)]
        done += [self._watched(slot) for connection, slot in busy.items() if connection not in ready]
        return [one for one in done if one is not None]

    def release(self, slot: int) -> None:
        if slot in self._processes:
            self._end(slot)

    def close(self) -> None:
        for slot in list(self._processes):
            self._end(slot)

    def _heard(self, slot: int) -> Done | None:
        process = self._processes[slot]
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            process.process.join(5)
            return self._failed(slot, f"its worker died ({_ended(process.process.exitcode)})")
        if message == "ready":
            process.began = time.monotonic()
            return None
        return process.back(slot, message)

    def _watched(self, slot: int) -> Done | None:
        process = self._processes[slot]
        took = 0.0 if process.began is None else time.monotonic() - process.began
        if self.timeout is not None and took > self.timeout:
            return self._failed(slot, f"not done after {self.timeout:g} s, see --timeout")
        if self.settings.memory is not None and resident(process.process.pid or 0) > self.settings.memory:
            return self._failed(slot, f"more than {self.settings.memory / GIB:g} GB of memory, see --memory-gb")
        return None

    def _failed(self, slot: int, reason: str) -> Done:
        process = self._processes[slot]
        assert process.cell is not None
        done = process.back(slot, failure(process.cell, self.settings, reason))
        self._end(slot)
        return done

    def _end(self, slot: int) -> None:
        process = self._processes.pop(slot)
        process.connection.close()
        process.process.kill()
        process.process.join()


class _Process:
    """A worker process. ``began``: when it was given its cell and was ready to take it."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.cell: Cell | None = None
        self.began: float | None = None
        self.given = 0.0

    def give(self, cell: Cell) -> None:
        self.cell, self.given = cell, time.monotonic()
        self.began = self.given if self.ready else None
        try:
            self.connection.send(cell)
        except OSError:  # it died meanwhile, which is heard of when it is listened to
            return

    def back(self, slot: int, record: Record) -> Done:
        assert self.cell is not None
        done = Done(slot, self.cell, record, time.monotonic() - self.given)
        self.ready, self.cell = True, None
        return done


def _ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
