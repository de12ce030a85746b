"""The same cells on a Ray cluster: one actor a slot, made anew, anywhere, where one dies."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from semcodec._network import check_cluster
from semcodec.bench.cells import Cell
from semcodec.bench.runner import Done
from semcodec.bench.worker import POLL, Settings, Worker, failure, guard
from semcodec.errors import PluginError, SemcodecError, first_line

TRIES = 3
"""How often a cell is begun whose worker dies: a machine that is taken away is not the cell's fault."""


class Actor:
    """A worker on some machine of the cluster, where data, weights and plugins have the same names as here."""

    def __init__(self, settings: Settings) -> None:
        if settings.memory is not None:
            guard(settings.memory)
        self.worker = Worker(settings)

    def ready(self) -> None:
        """Returns once everything is imported."""

    def measure(self, cell: Cell) -> dict[str, Any]:
        return self.worker.measure(cell)


@dataclass
class _Running:
    actor: Any
    cell: Cell
    answer: Any
    given: float
    ready: bool = False
    began: float | None = None


class OnRay:
    """A ``Pool`` of actors. ``address``: of a running cluster, "auto" for that of this machine; without, a new one.

    Raises PluginError where Ray is absent, SemcodecError where there is no cluster, UsageError for no address.
    """

    def __init__(self, settings: Settings, timeout: float | None = None, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise PluginError("--executor ray needs Ray: pip install 'semcodec[ray]'") from None
        if address and "://" not in address and not ray.is_initialized():
            check_cluster(address)
        self.ray, self.settings, self.timeout = ray, settings, timeout
        self._own = not ray.is_initialized()
        try:
            if self._own:
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if not address else None,
                )
        except Exception as error:
            raise SemcodecError(f"no Ray cluster at {address or 'this machine'}: {first_line(error)}") from error
        self._actors: dict[int, Any] = {}
        self._running: dict[int, _Running] = {}
        self._tries: dict[str, int] = {}

    def submit(self, slot: int, cell: Cell) -> None:
        fresh = slot not in self._actors
        if fresh:
            kind: Any = self.ray.remote(num_cpus=self.settings.threads, max_restarts=0)(Actor)
            self._actors[slot] = kind.remote(self.settings)
        actor = self._actors[slot]
        now = time.monotonic()
        answer = actor.ready.remote() if fresh else actor.measure.remote(cell)
        self._running[slot] = _Running(actor, cell, answer, now, not fresh, None if fresh else now)

    def wait(self) -> list[Done]:
        answers = {running.answer: slot for slot, running in self._running.items()}
        ready, waiting = self.ray.wait(list(answers), num_returns=len(answers), timeout=POLL)
        done = [self._heard(answers[answer]) for answer in ready]
        done += [self._watched(answers[answer]) for answer in waiting]
        return [one for one in done if one is not None]

    def release(self, slot: int) -> None:
        if slot in self._actors:
            self.ray.kill(self._actors.pop(slot))

    def close(self) -> None:
        for actor in self._actors.values():
            self.ray.kill(actor)
        if self._own:
            self.ray.shutdown()

    def _heard(self, slot: int) -> Done | None:
        running = self._running[slot]
        try:
            record = self.ray.get(running.answer)
        except self.ray.exceptions.RayActorError:
            return self._lost(slot)
        except self.ray.exceptions.RayError as error:
            return self._back(slot, failure(running.cell, self.settings, first_line(error)))
        if not running.ready:
            running.ready, running.began = True, time.monotonic()
            running.answer = running.actor.measure.remote(running.cell)
            return None
        return self._back(slot, record)

    def _watched(self, slot: int) -> Done | None:
        running = self._running[slot]
        if self.timeout is None or running.began is None or time.monotonic() - running.began <= self.timeout:
            return None
        self.ray.kill(self._actors.pop(slot))
        return self._back(
            slot, failure(running.cell, self.settings, f"not done after {self.timeout:g} s, see --timeout")
        )

    def _lost(self, slot: int) -> Done:
        """Its worker or the machine of it died: again, elsewhere, unless that was tried enough."""
        self._actors.pop(slot)
        cell = self._running[slot].cell
        self._tries[cell.digest] = self._tries.get(cell.digest, 0) + 1
        if self._tries[cell.digest] < TRIES:
            return self._back(slot, None)
        limit = ", which may be for --memory-gb" if self.settings.memory else ""
        return self._back(slot, failure(cell, self.settings, f"its worker died {TRIES} times{limit}"))

    def _back(self, slot: int, record: dict[str, Any] | None) -> Done:
        running = self._running.pop(slot)
        return Done(slot, running.cell, record, time.monotonic() - running.given)
