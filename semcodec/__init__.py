"""Task-oriented compression for split inference.

    >>> import semcodec
    >>> pipeline = semcodec.compose("stae+rans+vit-nano")
    >>> packet = pipeline.encode("digits-motion:0")     # or pixels, a picture, a file; packet.bytes_total, packet.data
    >>> pipeline.decode(packet).name

Importing this imports nothing heavy; what runs a model imports torch when it is called. ``docs/api.md`` has examples.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from semcodec._moved import OldPaths
from semcodec._version import __version__
from semcodec.errors import SemcodecError, UsageError

if TYPE_CHECKING:
    from semcodec.bench.page import Report
    from semcodec.component import Component, Kind
    from semcodec.data.base import Dataset
    from semcodec.data.camera import Camera
    from semcodec.data.inputs import Sample
    from semcodec.evaluation.notebook import Shown
    from semcodec.pipeline.accelerator import Where
    from semcodec.pipeline.device import Device
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.server import Server
    from semcodec.pipeline.weights import Given as Weights
    from semcodec.serving.link import Connecting
    from semcodec.specs import InputRequest
    from semcodec.tasks.prediction import Prediction

sys.meta_path.append(OldPaths())

__all__ = [
    "Device",
    "SemcodecError",
    "Server",
    "__version__",
    "components",
    "compose",
    "connect",
    "decode",
    "open_camera",
    "open_dataset",
    "report",
    "show",
    "sweep",
    "train",
]


def compose(
    spec: str,
    weights: Weights = None,
    *,
    classes: Sequence[str] | None = None,
    offline: bool = False,
    device: Where = "cpu",
    half: bool = False,
) -> Pipeline:
    """Build the pipeline that ``spec`` names, with its weights.

    weights: a path for all slots, or paths by slot ("encoder", "recoverer", "backbone"); "random" for none.
    classes: class names for an untrained backbone. offline: look nothing up on the network. device: where networks run,
    in torch's words ("cpu", "cuda", "cuda:1", "mps"). half: in bfloat16 where they can.
    Raises SpecError, PluginError, WeightsError, UsageError for a device that is not there.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.weights import WeightsRequest

    request = WeightsRequest.of(weights, offline)
    return Pipeline.load(compose_spec(spec), request, classes=classes, device=device, half=half)


def decode(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    weights: Weights = None,
    *,
    fetch: bool = False,
    offline: bool | None = None,
    device: Where = "cpu",
    half: bool = False,
) -> Iterator[Prediction]:
    """What a stream holds, a .sem file or its bytes, sample by sample, from its bytes alone plus weights.

    fetch: look for weights on the network too. It must be asked for, since a stream may name any model; offline, of
    other functions, is its opposite here and need not be given. device, half: as of ``compose``.
    Raises StreamError where it is damaged, after what comes before the damage; WeightsError, OSError, and UsageError
    where fetch and offline contradict each other.
    """
    from io import BytesIO

    from semcodec.container.packets import read_header
    from semcodec.pipeline.server import Server

    if offline is not None and offline == fetch:
        raise UsageError("a stream is decoded offline unless fetch=True: leave offline out")
    with open(source, "rb") if isinstance(source, str | os.PathLike) else BytesIO(source) as stream:
        header = read_header(stream)
        server = Server.load(header, weights, offline=not fetch, device=device, half=half)
        yield from server.decode_stream(stream)


def connect(
    url: str,
    spec: str,
    weights: Weights = None,
    *,
    token: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    logits: bool = False,
    least_score: float = 0.0,
    in_flight: int | None = None,
    patience_s: float | None = 60.0,
    adapt: str | os.PathLike[str] | None = None,
    deadline_ms: float | None = None,
    classes: Sequence[str] | None = None,
    offline: bool = False,
    device: Where = "cpu",
    half: bool = False,
) -> Connecting:
    """A link to ``semcodec serve`` at ``url``, ws:// or wss:// HOST:PORT, for a device of ``spec``: ``with`` gives a
    ``Link``, ``async with`` an ``AsyncLink``, each with ``send(sample, **call)`` and ``stream(samples)``.

    Only the device's half is loaded; weights, classes, offline, device and half are as of ``compose``. token: what the
    server asks for. ca: a PEM file of certificates to trust, where it has one of its own. logits: whether answers have
    them; least_score: of the boxes that they have. in_flight: samples at most that have no answer yet.
    patience_s: how long to be without a connection before giving up; None: for ever. adapt: a folder of ``semcodec
    bench``, of whose points each sample is sent at the most accurate that is in time over the link as it is, kept on
    the device, or skipped; deadline_ms: from a sample to its answer, where the spec has no selector ``deadline``.
    Raises as ``compose``, and UsageError for an ``adapt`` without a deadline; entering raises LinkError where the
    server cannot be reached or refuses.
    """
    from semcodec.pipeline.device import Device
    from semcodec.serving.extras import check_device
    from semcodec.serving.link import Connecting, Link
    from semcodec.serving.trust import trusting

    check_device()
    end = Device.load(spec, weights, classes=classes, offline=offline, device=device, half=half, replied=None)
    trust = None if ca is None else trusting(ca)
    meter = chooser = None
    if adapt is not None:
        from semcodec.planning.live import open_live
        from semcodec.serving.meter import Meter

        meter = Meter()
        chooser = open_live(end.composition, os.fspath(adapt), deadline_ms, meter.state)
    return Connecting(
        Link(url, end, token=token, ssl_context=trust, logits=logits, least_score=least_score, in_flight=in_flight,
             patience_s=patience_s, meter=meter, chooser=chooser)
    )  # fmt: skip


def open_camera(address: str, request: InputRequest, *, window: int | None = None, stride: int | None = None) -> Camera:
    """A camera, or any address that FFmpeg reads as video: samples as ``request`` (``link.request``) wants them, always
    the newest one.

    address: a device such as /dev/video0, a URL, or - for stdin. window, stride: of clips, in frames: see
    ``semcodec.data.camera.Camera``. Raises DataError where it cannot be opened.
    """
    from semcodec.data.camera import Camera

    return Camera(address, request, window=window, stride=stride)


def components(kind: Kind | None = None) -> list[Component]:
    """The records of all that is installed, or of one kind, by kind and name. Imports no torch.

    Raises UsageError for a kind that there is not.
    """
    from semcodec.component import KINDS
    from semcodec.composition.registry import get_registry

    if kind not in (None, *KINDS):
        raise UsageError(f"there is no kind {kind!r}; there are {', '.join(KINDS)}")
    return [component for component in get_registry() if kind in (None, component.kind)]


def open_dataset(
    name_or_path: str | os.PathLike[str], split: str = "test", request: InputRequest | None = None
) -> Dataset:
    """A data set by name, or a folder: see ``semcodec.data.open_dataset``.

    request: the pixels that a model wants, as ``pipeline.request``.
    """
    from semcodec.data import datasets

    return datasets.open_dataset(datasets.name_of(name_or_path), split, request)


def show(pipeline: Pipeline, sample: Sample) -> Shown:
    """One sample on its way through real bytes: its panels, packet and answer, which a notebook draws.

    sample: as ``Pipeline.encode`` takes it. Raises as that does.
    """
    from semcodec.evaluation import notebook

    return notebook.show(pipeline, sample)


def report(path: str | os.PathLike[str], anchor: str | None = None) -> Report:
    """What 'semcodec bench' found in a folder, or records in a file, as ``results``; a notebook shows its page.

    anchor: the curve that the others are compared with. Raises DataError for a folder or a file of another form.
    """
    from pathlib import Path

    from semcodec.bench.page import Report
    from semcodec.bench.results import load

    return Report(load(Path(path)), anchor)


def sweep(
    spec: str,
    grid: Mapping[str, Sequence[Any]],
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    limit: int | None = None,
    weights: Weights = None,
    offline: bool = False,
    device: Where = "cpu",
    half: bool = False,
) -> Iterator[dict[str, Any]]:
    """One record of ``Pipeline.evaluate`` for each point of ``grid``, by "item.parameter" its values, as it is ready.

    Models are built once for points that share them. A wrong value is an error before anything runs. device, half: as
    of ``compose``; with ``half`` each record also has the accuracy at float32.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.data.datasets import name_of
    from semcodec.evaluation.evaluate import run_sweep
    from semcodec.pipeline.weights import WeightsRequest

    request, composition = WeightsRequest.of(weights, offline), compose_spec(spec)
    return run_sweep(composition, grid, request, name_of(data), split=split, limit=limit, device=device, half=half)


def train(
    spec: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    weights: Weights = None,
    objective: str = "recipe",
    rate_weight: float | Sequence[float] | None = None,
    scale: float = 1.0,
    samples: Mapping[str, int] | None = None,
    distillation: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Where = "cpu",
) -> dict[str, Any]:
    """Train what ``spec`` names by its recipe into the folder ``out``; returns the card: see ``semcodec.training``.

    weights: what to start from, as for ``compose``. objective: "task", "refine" or "distil" in place of the recipe: see
    ``semcodec.training.objectives``. rate_weight: lambda of "task", or of "distil", which takes one for each of a
    codec's operating points as well. scale: multiplies the samples of every step; samples: of steps by name, in place
    of the recipe's. distillation: what is not as usual of ``semcodec.training.distillation.Settings``.
    device: as of ``compose``. Raises UsageError for what cannot be trained so.
    """
    from semcodec.data.datasets import name_of
    from semcodec.pipeline.weights import WeightsRequest
    from semcodec.training import train
    from semcodec.training.distillation import Settings

    return train.train(
        spec,
        name_of(data),
        os.fspath(out),
        request=WeightsRequest.of(weights),
        objective=objective,
        rate_weight=rate_weight,
        scale=scale,
        samples=samples,
        distillation=Settings.of(distillation or {}),
        seed=seed,
        device=device,
    )


if not TYPE_CHECKING:

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

    def __getattr__(name: str) -> Any:
        """The two ends, each imported when it is asked for."""
        if name == "Device":
            from semcodec.pipeline.device import Device

            return Device
        if name == "Server":
            from semcodec.pipeline.server import Server

            return Server
        raise AttributeError(f"module 'semcodec' has no attribute {name!r}")
