"""Measures cells one after the other, in a process or actor of its own, and keeps what the next one shares."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from semcodec.bench.cells import Cell
from semcodec.errors import SemcodecError, first_line

GIB = 1 << 30
POLL = 0.2


@dataclass(frozen=True)
class Settings:
    """What all cells of a run have in common.

    classes: those whose boxes or masks count, where these are not all. weights, offline: as on the command line.
    limit: samples. threads: of each worker. memory: bytes that a worker may take at most, None for no limit. shared:
    bytes of these for what cells share. device, half: as on the command line.
    """

    data: str
    split: str = "test"
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    batch: int = 32
    seed: int = 0
    weights: tuple[str, ...] = ()
    offline: bool = False
    threads: int = 1
    memory: int | None = None
    shared: int = GIB
    device: str = "cpu"
    half: bool = False


class Worker:
    """Imports what is heavy, then measures."""

    def __init__(self, settings: Settings) -> None:
        import torch

        import semcodec.evaluation.evaluate  # noqa: F401 - so that no cell's time is that of importing it
        from semcodec.bench.memory import Memory
        from semcodec.pipeline.weights import WeightsRequest

        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.request = WeightsRequest.parse(settings.weights, settings.offline)
        self.memory = Memory(min(settings.shared, settings.memory // 4) if settings.memory else settings.shared)
        self._family = ""
        self._pipelines: list[Any] = []
        self._datasets: dict[Any, Any] = {}

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The record of a cell; of one that fails, with the reason. Raises nothing but KeyboardInterrupt."""
        named = {"cell": cell.digest, "seed": self.settings.seed}
        try:
            return {**self._evaluate(cell), **named}
        except SemcodecError as error:
            return failure(cell, self.settings, first_line(error))
        except MemoryError:
            self._pipelines.clear()
            return failure(cell, self.settings, "out of memory")
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            return failure(cell, self.settings, f"{type(error).__name__}: {first}")

    def _evaluate(self, cell: Cell) -> dict[str, Any]:
        import numpy as np
        import torch

        from semcodec.bench.memory import SharedDataset
        from semcodec.bench.reuse import share
        from semcodec.composition.composition import compose_spec
        from semcodec.data.datasets import open_dataset
        from semcodec.evaluation.evaluate import evaluate
        from semcodec.pipeline.pipeline import Pipeline

        s = self.settings
        if cell.family != self._family:
            self._pipelines.clear()
            self._family = cell.family
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(s.seed)
        composition = compose_spec(cell.spec)
        pipeline = next(
            (p.replace(composition=composition) for p in self._pipelines if p.shares_models(composition)), None
        )
        if pipeline is None:
            names = open_dataset(s.data, s.split, classes=s.classes, task=composition.task).classes
            pipeline = Pipeline.load(composition, self.request, classes=names, device=s.device, half=s.half)
            self._pipelines.append(pipeline)
        view = pipeline if cell.task is None else pipeline.alone(cell.task)
        if view.request not in self._datasets:
            if not any(replace(request, labels=view.request.labels) == view.request for request in self._datasets):
                self._datasets.clear()  # other pixels
                self.memory.pixels.clear()
            self._datasets[view.request] = open_dataset(s.data, s.split, view.request, s.classes)
        dataset = SharedDataset(self._datasets[view.request], self.memory)
        # A point sets other parameters for every sample: there is nothing to share.
        shared = view if view.composition.point else share(view, self.memory, dataset)
        return evaluate(shared, dataset, limit=s.limit, batch=s.batch)


def failure(cell: Cell, settings: Settings, reason: str) -> dict[str, Any]:
    """The record of a cell that could not be measured."""
    from semcodec.evaluation.records import RECORD

    task = {} if cell.task is None else {"task": cell.task}
    return {"record": RECORD, "cell": cell.digest, "seed": settings.seed, "spec": cell.spec, **task,
            "data": settings.data, "failed": reason}  # fmt: skip


def serve(connection: Any, settings: Settings) -> None:
    """The main function of a worker process: cells come in by ``connection``, records go out. Ends with its parent."""
    import multiprocessing
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.dup2(2, 1)  # stdout holds records; what libraries print is no record
    sys.stdout = sys.stderr
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    worker = Worker(settings)
    connection.send("ready")
    while True:
        try:
            cell = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(worker.measure(cell))


def _end_with(join: Callable[[], None]) -> None:
    join()
    os._exit(1)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def guard(limit: int) -> None:
    """End this very process once it holds more than ``limit`` bytes: where no parent watches it."""

    def watch() -> None:
        while resident(os.getpid()) <= limit:
            time.sleep(POLL)
        os._exit(137)

    threading.Thread(target=watch, daemon=True).start()
