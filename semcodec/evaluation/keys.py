"""What a record is of: its key, and whether what is to be measured was measured before, or has changed since.

What counts is content, never a path: the same samples under another path are the same, and other labels are not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semcodec.errors import UsageError
from semcodec.evaluation.records import RECORD, lines, migrate

CONTAINER = "container"
"""Among the formats of a record, that of the stream's own bytes."""


@dataclass(frozen=True)
class Identity:
    """All that a record's figures depend on but machine and batch.

    data: as it was named, which does not count. content: digest of samples and labels, see ``Dataset.content``.
    classes: names of those that count, where these are not all. weights: by slot, "source" (which does not count) and
    "digest"; one without a digest is not compared. formats: versions of the container and of each component's stream.
    task: of a stream for several, the one that is measured; None of a stream for one.
    pixels: gives the ``data_digest`` of the samples, which says for earlier records what they are of.
    """

    spec: str
    knobs: Mapping[str, Any]
    data: str
    split: str | None
    samples: int
    content: str
    classes: list[str] | None
    weights: Mapping[str, Mapping[str, str | None]]
    formats: Mapping[str, int | str]
    pixels: Callable[[], str] = field(compare=False)
    task: str | None = None

    @property
    def key(self) -> str:
        """16 hex digits, equal for what is equal in all that counts."""
        digests = {slot: source["digest"] for slot, source in self.weights.items()}
        parts = [RECORD, self.spec, dict(self.knobs), self.split, self.samples, self.content, self.classes, digests]
        text = json.dumps([*parts, dict(self.formats), *([self.task] if self.task else [])], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(record: Mapping[str, Any], new: Identity) -> list[str]:
    """In words, what of a record's point, by the same name, is no longer what it was. ``record``: migrated."""
    found = []
    knobs = json.loads(json.dumps(dict(new.knobs)))
    # A parameter that came later leaves what was there as it was; where it is set, the spec has it and names another.
    if any(name not in knobs or knobs[name] != value for name, value in record["knobs"].items()):
        found.append("defaults of its parameters")
    for slot, source in new.weights.items():
        before = record["weights"].get(slot) or {}
        if source["digest"] and before.get("digest") != source["digest"]:
            found.append(f"weights of {slot} ({source['source']})")
    formats = record["formats"]  # of earlier records, all of which were 1
    # The container's own bytes are told by themselves, and what it holds does not change with its format.
    found += [
        f"format of {name}"
        for name, version in new.formats.items()
        if name != CONTAINER and formats.get(name, 1) != version
    ]
    if not found and not _same_samples(record, new):  # last, as it may have to read all samples
        found.append(f"files or labels of {new.data}")
    return found


def _same_samples(record: Mapping[str, Any], new: Identity) -> bool:
    if record["content"] is None:
        return bool(record["data_digest"] == new.pixels())
    return bool(record["content"] == new.content)


def _same_point(record: Mapping[str, Any], new: Identity) -> bool:
    """Whether a record is of what is meant by these names: of other data, weights or samples there may be more."""
    if (record["spec"], record["samples"], record.get("classes")) != (new.spec, new.samples, new.classes):
        return False
    if new.task is not None and record["task"] != new.task:
        return False
    if record["content"] is not None and record["split"] != new.split:
        return False
    for slot, source in new.weights.items():
        before = record["weights"].get(slot) or {}
        same = not source["digest"] or before.get("digest") == source["digest"]
        if not same and not _same_name(str(before.get("source") or ""), source["source"] or ""):
            return False
    return _same_name(record["data"], new.data) or _same_samples(record, new)


def _same_name(before: str, now: str) -> bool:
    """Whether two paths are one, of which the first may have been cut to its last part."""
    return os.path.normpath(before) in (os.path.normpath(now), os.path.basename(os.path.normpath(now)))


class Known:
    """Records that are there, earlier ones too. ``stale``: those to be replaced by what is measured anew.

    where: what messages call the place that they are in. remeasure: whether points that changed are measured anew,
    rather than refused. tell: takes a line on each of these.
    """

    def __init__(
        self,
        found: Iterable[Mapping[str, Any]] = (),
        where: object = "the file",
        *,
        remeasure: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Raises DataError for a record of a form that is not known."""
        self.where, self.remeasure, self.tell = where, remeasure, tell
        self.stale: list[Mapping[str, Any]] = []
        self._keys: set[str] = set()
        self._records: dict[str, list[tuple[Mapping[str, Any], dict[str, Any]]]] = {}
        for record in found:
            if "failed" not in record:
                self.add(record)

    @classmethod
    def read(cls, *paths: Path) -> Known:
        """Those of files in JSON Lines, of which the first is the one that is written to. Raises DataError."""
        return cls((record for path in paths for record in lines(path)[0]), paths[0])

    def add(self, record: Mapping[str, Any]) -> None:
        """One that was measured. Raises DataError for a record of a form that is not known."""
        new = migrate(record, str(self.where))
        self._records.setdefault(new["spec"], []).append((record, new))
        if new["content"] is not None:
            self._keys.add(new["key"])

    def has(self, new: Identity) -> bool:
        """Whether it was measured. Raises UsageError for a point that has changed, unless it is measured anew."""
        if new.key in self._keys:
            return True
        alike = [(old, record) for old, record in self._records.get(new.spec, ()) if _same_point(record, new)]
        changed = [(old, changes(record, new)) for old, record in alike]
        if any(not what for _, what in changed):
            return True
        if not changed:
            return False
        what = " and ".join(changed[-1][1])
        if not self.remeasure:
            raise UsageError(
                f"{self.where} has {new.spec} as it was before a change of: {what}; measure it anew with --remeasure, "
                "or name another place for the records"
            )
        if self.tell:
            self.tell(f"{new.spec} is measured anew after a change of: {what}")
        self.stale += [old for old, _ in changed]
        return False
