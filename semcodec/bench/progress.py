"""How far a run has come and how long it will still take, by what cells like those to come have taken."""

from __future__ import annotations

from collections.abc import Sequence

from semcodec._progress import Progress
from semcodec.bench.cells import Cell
from semcodec.bench.runner import Done


class Remaining:
    """Cells that begin a point do what those after them share, so the two are counted apart, by family."""

    def __init__(self, cells: Sequence[Cell], workers: int) -> None:
        self.workers = workers
        self._took: dict[tuple[str, bool], list[float]] = {}
        seen = set[tuple[str, str]]()
        self._left: dict[str, tuple[str, bool]] = {}
        for cell in cells:
            point = cell.family, cell.point
            self._left[cell.digest] = cell.family, point not in seen
            seen.add(point)

    def done(self, done: Done) -> None:
        kind = self._left.pop(done.cell.digest)
        self._took.setdefault(kind, []).append(done.seconds)

    def seconds(self) -> float | None:
        """None as long as too little is known: before a cell of each sort that is left, begun or shared, is done."""
        found = 0.0
        for family, first in self._left.values():
            alike = self._took.get((family, first)) or [
                t for (_, other), times in self._took.items() if other == first for t in times
            ]
            if not alike:
                return None
            found += sum(alike) / len(alike)
        return found / max(1, min(self.workers, len(self._left)))


class Line:
    """The line of a run: cells that are done, those that failed, and the time that is left.

    Where stderr is no terminal, as in a batch scheduler's log, it is a line a cell.
    """

    def __init__(self, cells: Sequence[Cell], workers: int) -> None:
        self.total, self.finished, self.failed = len(cells), 0, 0
        self._progress = Progress()
        self._remaining = Remaining(cells, workers)
        self._write("")

    def done(self, done: Done) -> None:
        self.finished += 1
        self.failed += "failed" in (done.record or {})
        self._remaining.done(done)
        self._write(done.cell.label)
        outcome = f"failed: {done.record['failed']}" if done.record and "failed" in done.record else "done"
        self._progress.note(f"{self.finished}/{self.total}  {done.cell.label}  {outcome}, {done.seconds:.1f} s")

    def close(self) -> None:
        self._progress.close()

    def _write(self, spec: str) -> None:
        failed = f", {self.failed} failed" if self.failed else ""
        left = self._remaining.seconds()
        time_left = "" if left is None else f", about {format_seconds(left)} left"
        self._progress.show(f"{self.finished}/{self.total}{failed}{time_left}  {spec[:60]}")


def format_seconds(seconds: float) -> str:
    """A duration in its fitting unit."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
