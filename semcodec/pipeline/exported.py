"""A device from the file that ``semcodec export`` wrote: numpy and, where there are networks, onnxruntime; no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from semcodec.artifact.archive import Archive, opened, read_array
from semcodec.artifact.manifest import HEADER, MOST_HEADER, Manifest, array_member, graph_member, read_manifest
from semcodec.artifact.sessions import Session
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.registry import import_target
from semcodec.composition.resolution import INPUT
from semcodec.container.packets import StreamHeader, read_header
from semcodec.device_half import DeviceEncoder, DeviceParts
from semcodec.errors import SemcodecError, StreamError, UsageError, VersionMismatch, WeightsError, first_line
from semcodec.pipeline.accelerator import CPU, Accelerator
from semcodec.pipeline.end import make_header
from semcodec.pipeline.weights import Weights, WeightsRequest
from semcodec.specs import EXPORTED, FeatureSpec, InputRequest, mismatch
from semcodec.tensors import floats_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcodec.interfaces import Encoder
    from semcodec.pipeline.accelerator import Where
    from semcodec.types import Features

HEAD = "head"
DEVICE = "device"
"""The graph of the backbone's head, and the Encoder's trait that names its ``DeviceEncoder``."""


def is_exported(spec: object) -> bool:
    """Whether what stands in the place of a spec is such a file."""
    return isinstance(spec, str | os.PathLike) and os.fspath(spec).endswith(EXPORTED)


def graph_of_encoder(name: str) -> str:
    """What a network of the Encoder is called in the file, where the head has a name too."""
    return f"encoder.{name}"


@dataclass(frozen=True)
class WithoutTorch(Accelerator):
    """Where arrays of numpy are computed with: the CPU. Networks bring their own runtime."""

    def inputs(self, name: str, pixels: npt.NDArray[np.uint8]) -> Features:
        """float32 in [0, 1], an array."""
        found: Features = {name: cast("Any", floats_of(pixels))}
        return found

    def inference(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Nothing has to be turned off."""
        return nullcontext()


class GraphHead:
    """Model input to features at the cut by a graph; the input itself where that is the cut."""

    def __init__(self, session: Session | None) -> None:
        self.session = session

    def __call__(self, x: Features) -> Features:
        """x: the model's input, an array by its name."""
        if self.session is None:
            return x
        found: Features = dict(zip(self.session.form.outputs, self.session(*x.values()), strict=True))
        return found


@dataclass(frozen=True)
class ExportedHalf:
    """What a ``Device`` is made of that a file holds."""

    composition: Composition
    header: StreamHeader
    classes: Sequence[str]
    head: Any
    encoder: Any
    sources: Mapping[str, Weights | None]
    digests: Mapping[str, str]
    accelerator: Accelerator


def load_exported(
    path: str,
    weights: WeightsRequest | None = None,
    *,
    classes: Sequence[str] | None = None,
    device: Where = "cpu",
    half: bool = False,
    listen: Callable[[str, Sequence[Any]], None] | None = None,
) -> ExportedHalf:
    """The device's half that a file holds. Nothing in the file is believed before it is checked.

    listen: told of every call of a graph, by its name, and of the arrays that it is given.

    Raises OSError, WeightsError for a file that is none or is damaged, VersionMismatch for one of another version,
    UsageError for weights, classes, a device or a precision beside it, which it has its own of.
    """
    given = WeightsRequest() if weights is None else weights
    if given.given:
        raise UsageError(f"{path} has its own weights: leave out --weights, or name a spec in its place")
    if classes is not None:
        raise UsageError(f"{path} has its own classes")
    if (device if isinstance(device, str) else Accelerator.find(device).name) != CPU.name or half:
        raise UsageError(f"{path} runs on the CPU at its own precision: leave out --device and --half")
    with opened(Path(path)) as archive:
        return _Reader(archive, read_manifest(archive), listen).half()


class _Reader:
    """Makes of an archive what a device is made of."""

    def __init__(
        self, archive: Archive, manifest: Manifest, listen: Callable[[str, Sequence[Any]], None] | None
    ) -> None:
        self.archive, self.manifest, self.listen, self.path = archive, manifest, listen, archive.path

    def half(self) -> ExportedHalf:
        """All of it."""
        header, known = _header(self.archive), self.manifest.known
        try:
            composition = compose_spec(header.spec).with_built_specs(known)
        except SemcodecError as error:
            raise WeightsError(f"{self.path} is of {header.spec!r}, which is none here: {first_line(error)}") from error
        _check(self.path, composition, header, self.manifest)
        given = self.manifest.weights
        sources: dict[str, Weights | None] = {
            slot: Weights(slot, f"{source.get('source') or 'random'}, exported", self.path)
            for slot, source in given.items()
        }
        digests = {slot: digest for slot, one in given.items() if (digest := one.get("digest"))}
        head, encoder = self.head(composition), self.encoder(composition)
        classes, there = self.manifest.classes, WithoutTorch()
        return ExportedHalf(composition, header, classes, head, encoder, sources, digests, there)

    def head(self, composition: Composition) -> GraphHead:
        """Raises WeightsError for a head of other features than the composition's."""
        if composition.cut == INPUT:
            return GraphHead(None)
        features, given = composition.stages.features, composition.stages.input
        assert features is not None and given is not None
        if HEAD not in self.manifest.graphs:
            raise WeightsError(f"{self.path}: lacks the backbone's head; export it again")
        session = self.session(HEAD)
        pixels = {name: spec for name, spec in given.items() if name in ("frames", "image")}
        if session.form.inputs != pixels or list(session.form.outputs) != list(features):
            raise WeightsError(f"{self.path}: its head takes or gives other features than {composition.spec}")
        if reason := mismatch([_open_channels(features)], session.form.outputs):
            raise WeightsError(f"{self.path}: its head is not that of {composition.spec}: {reason}")
        return GraphHead(session)

    def encoder(self, composition: Composition) -> DeviceEncoder | Encoder:
        """Raises WeightsError where what it needs is missing."""
        bound = composition.encoder
        if DEVICE not in bound.component.traits:
            raise WeightsError(f"{self.path}: {bound.name} runs with torch alone here; export it again")
        arrays = {}
        for name in self.manifest.arrays:
            try:
                arrays[name] = read_array(self.archive.read(array_member(name)))
            except ValueError as error:
                raise WeightsError(f"{self.path}: the array {name}: {first_line(error)}; export it again") from error
        prefix = graph_of_encoder("")
        names = [name for name in self.manifest.graphs if name.startswith(prefix)]
        parts = DeviceParts(arrays, {name.removeprefix(prefix): self.session(name) for name in names})
        try:
            return build_encoder(composition, parts)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise WeightsError(f"{self.path}: what it holds of {bound.name} is not whole ({error})") from error

    def session(self, name: str) -> Session:
        """One graph by its name."""
        data, form = self.archive.read(graph_member(name)), self.manifest.graphs[name]
        listen = None if self.listen is None else partial(self.listen, name)
        return Session(data, form, f"{self.path}: {name}", listen)


def _header(archive: Archive) -> StreamHeader:
    data = archive.read(HEADER, MOST_HEADER)
    stream = BytesIO(data)
    try:
        header = read_header(stream)
    except StreamError as error:
        raise type(error)(f"{archive.path}: its stream header: {first_line(error)}") from error
    if stream.read(1):
        raise WeightsError(f"{archive.path}: more than a stream header in {HEADER}")
    return header


def _check(path: Path, composition: Composition, header: StreamHeader, manifest: Manifest) -> None:
    """Raise where the spec does not make such a header here, as where a component has a newer version."""
    if composition.spec != manifest.spec or composition.source is None or composition.stages.features is None:
        raise WeightsError(f"{path} is of {header.spec}, and its manifest of another pipeline; export it again")
    try:
        InputRequest.of(composition.source)
    except (KeyError, ValueError, AssertionError, UsageError) as error:
        raise WeightsError(f"{path}: its model takes neither images nor clips ({first_line(error)})") from error
    here = make_header(composition, header.weights)
    if here.components != header.components:
        told = ", ".join(f"{n} {v}" for n, v in header.components.items() if here.components.get(n) != v)
        raise VersionMismatch(f"{path} was exported for {told}, which is not what is written here: export it again")
    if here.input != header.input or here.params != header.params:
        raise WeightsError(f"{path}: its stream header is not that of {header.spec}; export it again")


def _open_channels(features: FeatureSpec) -> FeatureSpec:
    """The same but for the channels of maps, of which an Encoder may want some."""
    return {n: replace(t, shape=(None, *t.shape[1:])) if len(t.shape) == 3 else t for n, t in features.items()}


def build_encoder(composition: Composition, parts: DeviceParts) -> DeviceEncoder | Encoder:
    """What runs the Encoder on a device: the class of its trait, which may be the Encoder itself."""
    bound, features = composition.encoder, composition.stages.features
    build = {name: value for name, value in bound.build.items() if name not in composition.models}
    target = bound.component.traits[DEVICE]
    kind: Any = import_target(target, bound.name)
    made: DeviceEncoder | Encoder = (
        kind(features, **build) if target == bound.component.target else kind(features, parts, **build)
    )
    return made


def describe_exported(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What ``semcodec inspect`` tells of a file; loads no graph. Raises as ``load_exported``."""
    with opened(Path(path)) as archive:
        manifest, header = read_manifest(archive), _header(archive)
        sizes = {name: archive.size(name) for name in archive.names}
    return {
        "spec": manifest.spec,
        "format": manifest.format,
        "package": manifest.package,
        "components": header.components,
        "weights": manifest.weights,
        "licenses": manifest.licenses,
        "classes": len(manifest.classes),
        "int8": manifest.int8,
        "graphs": {
            name: {
                "inputs": {n: str(t) for n, t in one.inputs.items()},
                "outputs": {n: str(t) for n, t in one.outputs.items()},
                "bytes": sizes[graph_member(name)],
            }
            for name, one in manifest.graphs.items()
        },
        "array_bytes": sum(sizes[array_member(name)] for name in manifest.arrays),
        "file_bytes": Path(path).stat().st_size,
    }
