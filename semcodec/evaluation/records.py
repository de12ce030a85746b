"""A results folder: ``plan.json`` says what is measured, ``records.jsonl`` and ``skips.jsonl`` have a line for each.

A record is on the disk, whole, before the next is begun. What a run that was killed left half is passed over when
it is read and cut off when the run goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from semcodec._files import LineFile, read_regular, whole_file
from semcodec._json import to_json
from semcodec._typed import convert, read_json
from semcodec.composition.composition import compose_spec
from semcodec.composition.stored import restate
from semcodec.errors import DataError, SemcodecError, UsageError, first_line
from semcodec.evaluation.record_form import RECORD, check_record

__all__ = ["FORM", "PLAN", "RECORD", "RECORDS", "SKIPS", "Folder", "check_form", "lines", "read"]

FORM = 1
"""Version of the folder's form."""

PLAN, RECORDS, SKIPS = "plan.json", "records.jsonl", "skips.jsonl"
FIXED = ("data", "split", "classes", "limit", "seed", "batch", "weights", "device", "half")
"""What a run that goes on must have in common with the one that began."""


LARGEST = 1 << 31
"""Bytes of a file that is read."""


class PlanForm(msgspec.Struct):
    """What is used of ``plan.json``."""

    data: str | None = None
    split: str | None = None
    classes: list[str] | None = None
    weights: list[str] = []
    command: str | list[str] | None = None


def read(folder: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The records of a results folder in the order they finished; of a cell that was run again, the last.

    notes: takes what else would be a Python warning. Raises DataError.
    """
    check_form(folder)
    found, _ = lines(folder / RECORDS, notes)
    last = {cell if isinstance(cell := r.get("cell"), str) else number: r for number, r in enumerate(found)}
    return [restated(record) for record in last.values()]


def check_form(folder: Path) -> dict[str, Any]:
    """``plan.json``. Raises DataError where there is none or it is of another version."""
    path = folder / PLAN
    try:
        header = read_json(read_regular(path, LARGEST), dict[str, Any])
    except FileNotFoundError:
        raise DataError(f"{folder} is no results folder: it has no {PLAN}, which 'semcodec bench' writes") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)}); measure into another folder") from None
    form = header.get("bench")
    if form != FORM:
        raise DataError(f"{folder} holds results of form {form}, this version reads form {FORM}; use another folder")
    try:
        convert(header, PlanForm)
    except ValueError as error:
        raise DataError(f"{path}: {error}; measure into another folder") from None
    return header


def data_of(folder: Path, data: str) -> str:
    """What a results folder calls its data, ``data`` where there is none yet: cells are named after it."""
    return str(check_form(folder).get("data", data)) if (folder / PLAN).exists() else data


def lines(path: Path, notes: list[str] | None = None) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON Lines file, and how many bytes of it are whole lines. Raises DataError."""
    try:
        content = read_regular(path, LARGEST)
    except FileNotFoundError:
        return [], 0
    found: list[dict[str, Any]] = []
    whole = 0
    parts = content.split(b"\n")
    for number, line in enumerate(parts, 1):
        last = number == len(parts) or (number == len(parts) - 1 and not parts[-1])
        value = _object(line) if line.strip() else None
        if line.strip() and (value is None or number == len(parts)):
            if not last:
                raise DataError(f"{path}, line {number}: not a JSON object; expects one record a line")
            _note(f"{path}, line {number}: half a record, passed over; its cell is to be run again", notes)
            break
        if value is not None:
            found.append(value)
        whole += len(line) + (number < len(parts))
    return found, whole


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return read_json(line, dict[str, Any])
    except ValueError:
        return None


def _note(text: str, notes: list[str] | None) -> None:
    if notes is None:
        warnings.warn(text, stacklevel=4)
    else:
        notes.append(text)


def migrate(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record with every key of today, as earlier versions lack some. Raises DataError where it is of another form.

    Those lack what the samples' files hold (``content``, then None) and the versions of the formats, which were all 1
    then (``formats``, then empty); some lack the split.
    """
    if record.get("record") != RECORD:
        form = record.get("record")
        raise DataError(f"{where}: a record of form {form!r}, and form {RECORD} is read here; measure it anew")
    filled: dict[str, Any] = {"content": None, "split": None, "formats": {}, **restated(record)}
    texts = dict.fromkeys(("key", "spec", "data", "data_digest"), str)
    lacking = [name for name, kind in {**texts, "samples": int}.items() if not isinstance(filled.get(name), kind)]
    if "failed" not in record and lacking:
        raise DataError(f"{where}: a record without {lacking[0]}; measure it anew")
    for name in ("knobs", "weights", "formats"):
        if not isinstance(filled.setdefault(name, {}), dict):
            raise DataError(f"{where}: a record whose {name} are no object; measure it anew")
    if not all(isinstance(source, dict) for source in filled["weights"].values()):
        raise DataError(f"{where}: a record whose weights are no objects by slot; measure it anew")
    return filled


def restated(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose spec is canonical today, with the versions from which it means what it meant."""
    spec, formats = record.get("spec"), record.get("formats", {})
    if not isinstance(spec, str) or "failed" in record or not isinstance(formats, dict):
        return dict(record)
    try:
        now = restate(spec, formats)
    except SemcodecError:  # no spec, which is refused where it is used
        return dict(record)
    if not now.versions:
        return dict(record)
    text = now.spec
    with suppress(SemcodecError):  # what does not compose here keeps its words
        text = compose_spec(text).spec
    return {**record, "spec": text, "formats": {**formats, **now.versions}}


class Folder:
    """A results folder that is written to, by one run at a time. ``known``: records that were there, by cell."""

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, resume: bool = False, notes: list[str] | None = None
    ) -> None:
        """Raises UsageError for a folder with other results, DataError for one that cannot be gone on with."""
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; results go into a folder")
        begun = (path / PLAN).exists()
        if begun:
            before = check_form(path)
            self._compare(before, header, resume)
        elif (path / RECORDS).exists() and (path / RECORDS).stat().st_size:
            raise DataError(
                f"{path} has {RECORDS} without {PLAN}, so what they are of is not known; use another folder"
            )
        made = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        self._file = LineFile(path / RECORDS, path)
        try:
            found, whole = lines(path / RECORDS, notes)
            if found and not resume:
                raise UsageError(f"{path} holds {len(found)} records; add --resume to go on, or name another folder")
            for number, record in enumerate(found, 1):
                check_record(record, f"{path / RECORDS}, record {number}")
            self.known = {record["cell"]: record for record in found if record.get("cell") is not None}
            self._file.truncate(whole)
            if not begun or not resume:
                self.write(PLAN, to_json({"bench": FORM, **header}, indent=2) + "\n")
        except BaseException:
            self._file.close()
            if not (path / PLAN).exists():  # no later run could tell what these are records of
                with suppress(OSError):
                    (path / RECORDS).unlink()
                    if made:
                        path.rmdir()
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, to the disk. Raises DataError, and leaves no half, where that fails."""
        try:
            self._file.append(to_json(record))
        except OSError as error:
            raise DataError(
                f"{self.path / RECORDS}: {error.strerror}: the {len(self.known)} records before are kept; "
                "make room, then go on with --resume"
            ) from error
        self.known[record["cell"]] = dict(record)

    def write(self, name: str, text: str) -> None:
        """A file of the folder, whole or not there. Raises DataError."""
        try:
            with whole_file(self.path / name) as file:
                file.write(text.encode())
        except OSError as error:
            raise DataError(f"{self.path / name}: {error.strerror}; nothing was measured") from error

    def write_skips(self, skips: Iterable[Mapping[str, str]]) -> None:
        """What is not measured, and why."""
        self.write(SKIPS, "".join(to_json(skip) + "\n" for skip in skips))

    def _compare(self, before: Mapping[str, Any], header: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            return
        other = [name for name in FIXED if {name} & {*header, *before} and before.get(name) != header.get(name)]
        if "data" in other and before.get("content") and before["content"] == header.get("content"):
            other.remove("data")  # the same samples under another path
        if other:
            raise UsageError(
                f"{self.path} was measured with {_said(before, other)}, not {_said(header, other)}: "
                "go on with the same, or name another folder"
            )


def _said(header: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {to_json(header.get(name))}" for name in names)
