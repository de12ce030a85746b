"""What an artifact says of itself, read before anything else in it: JSON in a bounded member, of a checked form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from semcodec._json import to_json
from semcodec.artifact.archive import Archive
from semcodec.errors import VersionMismatch, WeightsError, first_line
from semcodec.specs import BackboneSpec, TensorSpec

FORMAT = 1
"""Of artifacts. It rises when what is in them changes meaning; those of earlier ones that are read are in ``READ``."""
READ = (1,)
MANIFEST, HEADER = "manifest.json", "header.bin"
MOST_MANIFEST, MOST_HEADER = 4 << 20, 1 << 16
MOST_ELEMENTS = 1 << 27
"""Of one sample's tensor."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""Of a graph or array: a member's name is one of them in a folder of its own, and so no path."""


class GraphForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a graph takes and gives, by name and in order, of one sample."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """format: of the artifact. package: version of semcodec that wrote it. spec: what is composed.

    classes: names of what is recognised. weights: by slot, their source and digest. licenses: by component, SPDX names.
    known: by item, what only built Backbones tell. graphs: by name; "head" is the backbone's. arrays: names.
    int8: what is said of a quantised device, its accuracy beside; empty at float32.
    """

    format: int
    package: str
    spec: str
    classes: list[str]
    weights: dict[str, dict[str, str | None]]
    licenses: dict[str, str]
    known: dict[str, BackboneSpec]
    graphs: dict[str, GraphForm]
    arrays: list[str]
    int8: dict[str, Any] = {}


def graph_member(name: str) -> str:
    """The name of a graph's member."""
    return f"graphs/{name}.onnx"


def array_member(name: str) -> str:
    """The name of an array's member."""
    return f"arrays/{name}.npy"


def to_bytes(manifest: Manifest) -> bytes:
    """As JSON, to be read by people too."""
    return to_json(msgspec.to_builtins(manifest)).encode()


def read_manifest(archive: Archive) -> Manifest:
    """Raises VersionMismatch for another version's, WeightsError for anything else that is no manifest of this file."""
    path, data = archive.path, archive.read(MANIFEST, MOST_MANIFEST)
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if version not in READ:
            raise VersionMismatch(
                f"{path} is of format {version!r}, and read here are {', '.join(map(str, READ))}: export it again with "
                "the semcodec that is installed here"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: its manifest is none ({first_line(error)}); export it again") from error
    _check(path, manifest)
    due = {MANIFEST, HEADER, *map(graph_member, manifest.graphs), *map(array_member, manifest.arrays)}
    for name in archive.names:
        if name not in due:
            raise WeightsError(f"{path}: holds {name!r}, which its manifest does not name")
    for name in due - set(archive.names):
        raise WeightsError(f"{path}: lacks {name}; export it again")
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    for name in (*manifest.graphs, *manifest.arrays):
        if not NAME.fullmatch(name):
            raise WeightsError(f"{path}: {name!r} is no name of a graph or array")
    tensors: list[tuple[str, TensorSpec]] = []
    for form in manifest.graphs.values():
        if any(None in spec.shape for spec in form.inputs.values()):
            raise WeightsError(f"{path}: a graph leaves an axis open")
        tensors += [*form.inputs.items(), *form.outputs.items()]
    for spec in manifest.known.values():
        for features in (spec.input, *spec.cuts.values()):
            tensors += features.items()
    for name, tensor in tensors:
        if any(side is not None and side < 0 for side in tensor.shape) or tensor.size > MOST_ELEMENTS:
            raise WeightsError(f"{path}: {name} of {tensor} is larger than any that a device takes")


def members(
    manifest: Manifest, header: bytes, graphs: Mapping[str, bytes], arrays: Mapping[str, bytes]
) -> dict[str, bytes]:
    """An artifact's members by name."""
    return {
        MANIFEST: to_bytes(manifest),
        HEADER: header,
        **{graph_member(name): data for name, data in graphs.items()},
        **{array_member(name): data for name, data in arrays.items()},
    }
