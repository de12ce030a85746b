"""What of a training run's folder is pushed to a hub, each part checked against the others before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semcodec._files import read_regular
from semcodec._typed import read_json
from semcodec.artifact.archive import opened
from semcodec.artifact.manifest import read_manifest
from semcodec.errors import DataError, UsageError, WeightsError, first_line
from semcodec.evaluation.model_card import model_card
from semcodec.evaluation.record_form import check_record
from semcodec.evaluation.records import lines
from semcodec.pipeline.repositories import BESIDE, README, SUMS, Repository, sums_of
from semcodec.pipeline.weights import read_card
from semcodec.pipeline.zoo import task_of
from semcodec.specs import EXPORTED

WEIGHTS, CARD = "weights.safetensors", "card.json"
LARGEST_CARD = 1 << 24


def to_publish(folder: Path, repository: Repository, results: Sequence[Path] = ()) -> dict[str, Path | bytes]:
    """By its name there, every file that is pushed: weights, card, halves, devices, the model card and all digests.

    results: records of ``semcodec eval`` or ``bench`` in JSON or JSON Lines, of these weights.
    Raises UsageError for a folder that training did not write, WeightsError where its parts do not belong together,
    DataError for records that are none, or of other weights.
    """
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder} has no {WEIGHTS}; push the folder that semcodec train wrote")
    card = read_run_card(folder)
    found: dict[str, Path | bytes] = {WEIGHTS: folder / WEIGHTS, CARD: folder / CARD}
    for name in BESIDE:
        if (folder / name).is_file():
            found[name] = folder / name
    for device in sorted(folder.glob(f"*{EXPORTED}")):
        _check_device(device, card)
        found[device.name] = device
    records = [record for path in results for record in read_records(path)]
    for record in records:
        _check_weights(record, card)
    found[README] = model_card(repository.name, card, task_of(str(card.get("spec"))), records, list(found)).encode()
    return {**found, SUMS: sums_of(found)}


def read_run_card(folder: Path) -> dict[str, Any]:
    """``card.json``, which says the same as the weights' own metadata. Raises WeightsError."""
    path = folder / CARD
    try:
        card = read_json(read_regular(path, LARGEST_CARD), dict[str, Any])
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no {CARD}, from which the model card is written") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({first_line(error)}); take another copy") from error
    held = read_card(folder / WEIGHTS)
    for name in ("spec", "keys", "digests"):
        if card.get(name) != held.get(name):
            raise WeightsError(f"{path} says another {name} than {WEIGHTS} beside it; take both from one run")
    return card


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a JSON document or of JSON Lines. Raises DataError."""
    try:
        content: Any = read_json(read_regular(path, LARGEST_CARD), Any)
        found: list[Any] = content if isinstance(content, list) else [content]
    except ValueError:
        found = lines(path)[0]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    records = [record for record in found if isinstance(record, dict) and "failed" not in record]
    if not records:
        raise DataError(f"{path} holds no record: write one with semcodec eval --format json")
    for number, record in enumerate(records, 1):
        check_record(record, f"{path}, record {number}")
    return records


def _check_weights(record: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    used = {source.get("digest") for source in record.get("weights", {}).values()}
    if not used & set(card.get("digests", {}).values()):
        raise DataError(f"a record of {record.get('spec')} was measured with other weights than these")


def _check_device(path: Path, card: Mapping[str, Any]) -> None:
    with opened(path) as archive:
        manifest = read_manifest(archive)
    for slot, digest in card.get("digests", {}).items():
        named = manifest.weights.get(slot, {}).get("digest")
        if named is not None and named != digest:
            raise WeightsError(f"{path} was exported with other weights of {slot}; export it again from these")
