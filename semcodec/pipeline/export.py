"""A composition's device as one file, for where there is no torch: ``semcodec export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs
from torch import Tensor

from semcodec._version import __version__
from semcodec.artifact import manifest as form
from semcodec.artifact.archive import array_bytes, write_archive
from semcodec.artifact.manifest import GraphForm, Manifest
from semcodec.component import Component
from semcodec.composition.composition import Composition
from semcodec.composition.registry import import_target
from semcodec.composition.resolution import INPUT
from semcodec.container.packets import write_header
from semcodec.device_half import Exported, Network
from semcodec.errors import UsageError
from semcodec.interfaces import Selector
from semcodec.pipeline.device import Device
from semcodec.pipeline.exported import DEVICE, HEAD, graph_of_encoder
from semcodec.pipeline.graphs import export_graph
from semcodec.pipeline.selection import Selectors
from semcodec.pipeline.weights import WeightsRequest


@dataclass(frozen=True)
class Artifact:
    """What a file holds. header: the stream's, as bytes. graphs, arrays: by name, as bytes."""

    manifest: Manifest
    header: bytes
    graphs: Mapping[str, bytes]
    arrays: Mapping[str, bytes]

    def write(self, path: Path) -> None:
        """The file, complete or not there. Raises OSError, WeightsError where it would be too large to be read."""
        write_archive(path, form.members(self.manifest, self.header, self.graphs, self.arrays))

    def with_int8(self, told: dict[str, Any]) -> Artifact:
        """The same with what its manifest says of 8 bits."""
        return replace(self, manifest=structs.replace(self.manifest, int8=told))


def export_device(
    composition: Composition,
    path: Path,
    request: WeightsRequest | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> Manifest:
    """Write the device's half as a file that ``Device.load`` takes in place of a spec. Complete or not there.

    classes: names for an untrained backbone. Raises UsageError for what needs torch on the device, WeightsError,
    PluginError where an exporter is missing, OSError.
    """
    artifact = export_parts(composition, request, classes=classes)
    artifact.write(path)
    return artifact.manifest


def export_parts(
    composition: Composition, request: WeightsRequest | None = None, *, classes: Sequence[str] | None = None
) -> Artifact:
    """What ``export_device`` writes. Raises as it does."""
    check_exportable(composition)
    device = Device.load(composition, request, classes=classes)
    check_selectors(device.selectors, device.composition)
    found = device.encoder.export()
    graphs: dict[str, bytes] = {}
    forms: dict[str, GraphForm] = {}
    for name, network in networks_of(device, found).items():
        graphs[name], forms[name] = export_graph(network, name)
    c = device.composition
    arrays = {name: array_bytes(array) for name, array in found.arrays.items()}
    manifest = Manifest(
        format=form.FORMAT,
        package=__version__,
        spec=c.spec,
        classes=list(device.classes),
        weights={
            slot: {"source": source.origin if source else None, "digest": device.digests.get(slot)}
            for slot, source in device.sources.items()
        },
        licenses=licenses(c),
        known=dict(c.known),
        graphs=forms,
        arrays=list(arrays),
    )
    return Artifact(manifest, write_header(device.header), graphs, arrays)


def networks_of(device: Device, found: Exported) -> dict[str, Network]:
    """By the names of graphs, the head up to the cut where there is one, and the Encoder's networks."""
    networks = {graph_of_encoder(name): network for name, network in found.networks.items()}
    c = device.composition
    if c.cut == INPUT:
        return networks
    features = c.stages.features
    assert features is not None
    [name] = [name for name in device.input if name in ("frames", "image")]

    def head(x: Tensor) -> tuple[Tensor, ...]:
        made = device.head({name: x})
        return tuple(made[feature] for feature in features)

    return {HEAD: Network(head, {name: device.input[name]}, tuple(features)), **networks}


def check_exportable(composition: Composition) -> None:
    """Raise UsageError for an Encoder that says no class for devices without torch; imports that class."""
    component = composition.encoder.component
    if DEVICE not in component.traits:
        why = component.traits.get("needs_torch", "its component has no trait 'device'")
        raise UsageError(f"{component.name} runs on a device with torch alone: {why}")
    import_target(component.traits[DEVICE], component.name)


def check_selectors(selectors: Selectors, composition: Composition) -> None:
    """Raise UsageError, by name, for a Selector that chooses by torch alone."""
    asked: list[tuple[Any, Component, str]] = [
        (selectors.keep[target], bound.component, "keep") for target, (bound, _) in composition.keep.items()
    ]
    if selectors.gate is not None and composition.gate is not None:
        asked.append((selectors.gate, composition.gate.component, "gate"))
    for selector, component, ability in asked:
        in_numpy = f"{ability}_array"
        if getattr(type(selector), in_numpy) is getattr(Selector, in_numpy):
            raise UsageError(
                f"{component.name} chooses by torch alone: its {ability} has no {in_numpy}; name another selector"
            )


def licenses(composition: Composition) -> dict[str, str]:
    """By component of the pipeline and model of its Encoder, SPDX names."""
    bounds = [*composition.bounds, *composition.models.values()]
    return {bound.name: bound.component.license for bound in bounds}
