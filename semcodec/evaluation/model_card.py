"""The model card of weights that are pushed to a hub: README.md, written from what training left in card.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from semcodec.tasks.table import metric_of, task_of

LICENCES = frozenset(
    ("agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "mit")
)
"""SPDX names, in small letters, by which the hub knows a licence; any other is told by name."""
TASKS = {"classification": "image-classification", "video": "video-classification", "detection": "object-detection"}
"""By task, what the hub calls it."""
MOST_CLASSES = 20


def model_card(
    name: str, card: Mapping[str, Any], task: str | None, records: Sequence[Mapping[str, Any]], files: Sequence[str]
) -> str:
    """README.md of a repository ``name``.

    card: what training wrote. task: of its spec, where that composes here. records: of ``semcodec eval`` with these
    weights, whose accuracies are shown with their intervals. files: what lies beside it, by name.
    """
    head = yaml.safe_dump(_metadata(card, task), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{head}---", f"# {name}", _about(card)]
    if records:
        parts += ["## Measured", _measured(records)]
    parts += ["## Trained", _trained(card), "## How to run", _how_to_run(name, card, files)]
    return "\n\n".join(parts) + "\n"


def _metadata(card: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    licence = str(card.get("license") or "unknown")
    plain = licence.lower().removesuffix("-or-later").removesuffix("-only")
    named = {"license": plain} if plain in LICENCES else {"license": "other", "license_name": _slug(licence)}
    found = {"library_name": "semcodec", **named, "tags": ["semcodec", "semantic-compression", "split-computing"]}
    return {**found, **({"pipeline_tag": TASKS[task]} if task in TASKS else {})}


def _about(card: Mapping[str, Any]) -> str:
    keys = card.get("keys", {})
    held = "\n".join(f"- {slot}: {_code(key)}, digest {_code(_named(card, slot))}" for slot, key in keys.items())
    classes = list(card.get("classes") or [])
    more = f" and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    shown = ", ".join(_code(one) for one in classes[:MOST_CLASSES])
    return (
        f"Weights for {_code(card.get('spec'))} of [semcodec](https://pypi.org/project/semcodec/).\n\n{held}\n\n"
        f"Licence: {card.get('license') or 'not said'}. Classes ({len(classes):,}): {shown}{more}."
    )


def _measured(records: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| spec | data | samples | accuracy (95 %) | bytes a sample |", "| --- | --- | ---: | ---: | ---: |"]
    for record in records:
        key = metric_of(record)
        value = "-"
        if key is not None:
            metric = task_of(record).metric
            low, high = record.get(f"{key}_interval") or (None, None)
            between = ""
            if low is not None and high is not None:
                between = f" ({metric.shown(low):.1f}-{metric.shown(high):.1f})"
            value = f"{metric.label} {metric.shown(record[key]):.1f} {metric.unit}{between}"
        size = record.get("bytes_total")
        data = _code(record.get("data"))
        row = (_code(record.get("spec")), data, f"{record.get('samples', 0):,}", value,
               "-" if size is None else f"{size:,.1f}")  # fmt: skip
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def _trained(card: Mapping[str, Any]) -> str:
    told = f"On {_code(card.get('data'))} (digest {_code(card.get('data_digest'))}), seed {card.get('seed')}."
    rows = ["| step | samples | at its end, in training |", "| --- | ---: | --- |"]
    for step in card.get("metrics") or ():
        figures = ", ".join(f"{name} {value}" for name, value in step.items() if name not in ("step", "samples"))
        rows.append(f"| {_plain(step.get('step'))} | {step.get('samples', 0):,} | {_plain(figures)} |")
    return f"{told} Figures of training are means over its last batches and no measurement.\n\n" + "\n".join(rows)


def _how_to_run(name: str, card: Mapping[str, Any], files: Sequence[str]) -> str:
    spec = card.get("spec")
    lines = [
        "pip install 'semcodec[torch,hub]'",
        f"semcodec compose '{spec}' --weights hf:{name} --input FILE",
    ]
    if "encoder" not in card.get("keys", {}) and set(card.get("keys", {})) <= {"backbone"}:
        lines[1] = f"semcodec eval 'png+{spec}' --weights hf:{name} --data DATA"
    for file in files:
        if file.endswith(".semdev"):
            lines += ["", "# the device alone, without torch", f"semcodec pull {name} -o FOLDER"]
            lines += [f"semcodec encode FOLDER/{file} FILE -o out.sem"]
    return "```sh\n" + "\n".join(lines) + "\n```"


def _named(card: Mapping[str, Any], slot: str) -> Any:
    return card.get("digests", {}).get(slot, "not said")


def _code(text: Any) -> str:
    """As code, on one line, whatever it holds."""
    return f"`{_plain(text)}`"


def _plain(text: Any) -> str:
    return re.sub(r"[`|<>\r\n]+", " ", str(text))


def _slug(licence: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
