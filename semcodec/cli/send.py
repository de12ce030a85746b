"""``semcodec send``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from semcodec._json import to_json
from semcodec.cli import options, passing_over
from semcodec.cli.output import echo_fields, tamed
from semcodec.cli.passing_over import PassingOver
from semcodec.cli.reads import spare
from semcodec.cli.streams import check_output
from semcodec.errors import DataError, SemcodecError, UsageError

if TYPE_CHECKING:
    from semcodec.data.base import Dataset
    from semcodec.data.camera import Camera
    from semcodec.data.inputs import Input
    from semcodec.data.parts import Part
    from semcodec.serving.link import Answer, Link
    from semcodec.specs import InputRequest
    from semcodec.tasks.base import Score

STALL_S = 60.0
"""Of a shaped link whose trace ends at rate 0: so long one message is held back at most."""
CAMERA_IN_FLIGHT = 2
"""One that is decoded, one on the way: more would wait, and a newer picture is worth more than one that waits."""


@click.command()
@click.argument("spec")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--to", "url", required=True, metavar="ws://HOST:PORT", help="The server; wss:// where it has TLS.")
@click.option("--limit", type=click.IntRange(1), help="The first so many samples.")
@click.option("--split", default="test", show_default=True, help="Of whole data sets: test, train, or for folders all.")
@click.option("--deadline-ms", type=click.FloatRange(0, 1e9), help="From the sample to its turn at the server; what is "
              "not decoded by then is late.")  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), help="No more samples a second; a camera keeps its own."
)
@click.option("--in-flight", type=click.IntRange(1, 1024), help="Samples without an answer, at most.  [default: as the "
              f"server says; {CAMERA_IN_FLIGHT} of a camera]")  # fmt: skip
@click.option("--adapt", metavar="RESULTS", help="Set call parameters for each sample by the link as it is, within the "
              "deadline: by what 'semcodec bench' measured, in this folder.")  # fmt: skip
@click.option("--shape", metavar="FILE|GENERATOR", help="Send no faster than a link of these rates would: a trace, as "
              "of 'semcodec plan --trace'.")  # fmt: skip
@click.option("--patience-s", type=click.FloatRange(0), default=60.0, show_default=True, help="Without a connection, "
              "before giving up.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the token that the server asks for.")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates to trust, as PEM, in place of the system's.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Write every answer to this JSON Lines "
              "file.")  # fmt: skip
@options.task
@options.part
@passing_over.option
@options.accelerator
@options.weights
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="How answers are printed; json is one line each, and one of the summary.")  # fmt: skip
def command(
    spec: str,
    inputs: tuple[str, ...],
    url: str,
    limit: int | None,
    split: str,
    deadline_ms: float | None,
    fps: float | None,
    in_flight: int | None,
    adapt: str | None,
    shape: str | None,
    patience_s: float,
    token_file: Path | None,
    ca: Path | None,
    record: Path | None,
    task: str | None,
    part: Part | None,
    keep_going: bool,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Send inputs to a server over the network, and print its answers as they come.

    Only the device's half of SPEC is loaded; a file of 'semcodec export' stands in its place. An INPUT is a file, a
    folder, DATASET:INDEX, a data set by name or folder, or a camera: /dev/video0, any URL that FFmpeg reads, or - for
    stdin. Of files every one is answered, whatever is cut meanwhile; of a camera the newest picture is sent, and those
    before it are dropped and counted. For one labelled data set accuracy is printed too. With --adapt the deadline is
    that of the spec's selector 'deadline', else --deadline-ms.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.data.camera_names import is_camera
    from semcodec.pipeline.exported import is_exported
    from semcodec.planning.live import check_adapt, open_live
    from semcodec.serving.extras import check_device
    from semcodec.serving.trust import read_token, trusting

    request, exported = options.request(given, offline), None
    if is_exported(spec):
        from semcodec.pipeline.device import Device

        exported = Device.load(spec, request, device=device, half=half)
    composition = compose_spec(spec) if exported is None else exported.composition
    if task is not None:
        chosen = exported is None and adapt is None  # else the file says what is sent, or each point does
        composition = composition.for_tasks([task]) if chosen else composition.alone(task)
        exported = exported and replace(exported, composition=composition)
    composition.check_one()
    live = [text for text in inputs if is_camera(text)]
    if live and len(inputs) > 1:
        raise UsageError(f"{live[0]} has no end, and there are other inputs: send each by a command of its own")
    if live and fps is not None:
        raise UsageError("--fps is for files; a camera keeps its own pace")
    if live and part is not None and (part.start or part.duration is not None):
        raise UsageError("--start and --duration are of video files; a camera begins now")
    pass_over = passing_over.PassingOver(keep_going)
    if not live:
        inputs = _good(inputs, composition.request, part, pass_over)
    if adapt is not None:
        check_adapt(composition, adapt, deadline_ms)
    uplink = None if shape is None else _shaped(shape)
    token = None if token_file is None else read_token(token_file)
    trust = None if ca is None else trusting(ca)
    check_device()
    if record:
        check_output(record, stdout=False)
        spare([record], data=[] if live else inputs, weights=given)

    from semcodec.data.datasets import open_dataset
    from semcodec.pipeline.device import Device
    from semcodec.serving.link import Connecting, Link
    from semcodec.tasks.detection import SHOWN

    scored = len(inputs) == 1 and _is_dataset(inputs[0])
    data = next((text for text in inputs if _is_dataset(text)), None)
    classes = None if data is None else open_dataset(data, split, task=composition.task).classes
    end = exported or Device.load(composition, request, classes=classes, device=device, half=half, replied=None)
    meter = chooser = None
    if adapt is not None:
        from semcodec.serving.meter import Meter

        meter = Meter()
        chooser = open_live(end.composition, adapt, deadline_ms, meter.state)
    link = Link(
        url,
        end,
        token=token,
        ssl_context=trust,
        logits=form == "json" or record is not None,
        least_score=0.0 if scored else SHOWN,
        in_flight=in_flight or (CAMERA_IN_FLIGHT if live else None),
        patience_s=patience_s,
        meter=meter,
        chooser=chooser,
        shape=uplink,
    )
    with ExitStack() as opened:
        file = opened.enter_context(open(record, "w", encoding="utf-8")) if record else None
        camera: Camera | None = None
        dataset: Dataset | None = None
        if live:
            from semcodec.data.camera import Camera

            window, stride = (part.window, part.stride) if part else (None, None)
            camera = opened.enter_context(Camera(live[0], end.request, window=window, stride=stride))
        elif scored:
            dataset = open_dataset(inputs[0], split, end.request)
        opened.enter_context(Connecting(link))
        samples = islice(camera or _samples(inputs, split, end.request, part, pass_over), limit)
        failed = _run(link, samples, dataset, camera, deadline_ms, fps, form, file)
    if failed or pass_over.names:
        click.get_current_context().exit(1)


def _shaped(trace: str) -> Callable[[int, float], float]:
    """Milliseconds that so many bytes take on a trace from a moment on."""
    from semcodec.planning.link import Link as Trace

    link = Trace.trace(trace)
    return lambda octets, start_s: min(float(link.ms(octets, start_s)), 1e3 * STALL_S)


def _good(
    inputs: tuple[str, ...], request: InputRequest | None, part: Part | None, pass_over: PassingOver
) -> tuple[str, ...]:
    """Those that nothing is wrong with, as far as can be told without opening them. Raises DataError for none."""
    from semcodec.data.inputs import check_input

    good = []
    for text in inputs:
        if not os.path.isdir(text) and not _is_dataset(text):
            try:
                check_input(text, request, part)
            except (SemcodecError, OSError) as error:
                pass_over(text, error)
                continue
        elif part is not None:
            raise UsageError(f"{text} is a data set; a start, a duration and windows are of video files")
        good.append(text)
    if not good:
        raise DataError(f"none of the {len(inputs)} inputs can be sent")
    return tuple(good)


def _is_dataset(text: str) -> bool:
    """Whether a whole data set is named, in a form that has labels."""
    from semcodec.data.datasets import NAMED

    if text in NAMED:
        return not os.path.isfile(text)
    if not os.path.isdir(text):
        return False
    from semcodec.data.files import visible
    from semcodec.data.forms import is_listed

    return is_listed(text) or not any(path.is_file() for path in _media(visible(Path(text))))


def _media(paths: Any) -> Iterator[Path]:
    """Pictures and clips."""
    from semcodec.data.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    return (path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def _samples(
    inputs: tuple[str, ...], split: str, request: InputRequest, part: Part | None, pass_over: PassingOver
) -> Iterator[Input]:
    """What the inputs name, one after the other, read when it is asked for."""
    from semcodec.data.datasets import open_dataset
    from semcodec.data.files import visible
    from semcodec.data.inputs import Input

    for text in inputs:
        if _is_dataset(text):
            dataset = open_dataset(text, split, request)
            for index in range(len(dataset)):
                pixels, labels = dataset.batch([index])
                size = dataset.sizes([index])[0] if request.placed else None
                yield Input(pixels, labels[0], dataset.classes, dataset.ids([index])[0], size)
        elif os.path.isdir(text):
            files = [path for path in _media(visible(Path(text))) if path.is_file()]
            if not files:
                raise DataError(f"{text}: holds no {request.kind}")
            for path in files:
                yield from _of_file(str(path), request, None, pass_over)
        else:
            yield from _of_file(text, request, part, pass_over)


def _of_file(text: str, request: InputRequest, part: Part | None, pass_over: PassingOver) -> Iterator[Input]:
    """The sample of a file, or of one of a data set, or the windows of a video."""
    from semcodec.data.inputs import open_input, open_windows

    try:
        if part is not None:
            yield from open_windows(text, request, part)
        else:
            yield open_input(text, request)
    except (SemcodecError, OSError) as error:
        pass_over(text, error)


def _run(
    link: Link,
    samples: Iterator[Input],
    dataset: Dataset | None,
    camera: Camera | None,
    deadline_ms: float | None,
    fps: float | None,
    form: str,
    file: IO[str] | None,
) -> int:
    """Send all, print what comes and then what it amounts to; how many failed. An interrupted run is summed up too."""
    from semcodec.serving.statistics import Statistics
    from semcodec.tasks.table import get_task

    task, end = get_task(link.device.composition.task), link.device
    score = None if dataset is None else task.score(dataset, link.classes, end.request, end.raw_uint8_bytes)
    statistics = Statistics()
    try:
        for answer in link.stream(samples, deadline_ms=deadline_ms, fps=fps):
            statistics.add(answer)
            told = _describe(link, answer)
            line = to_json(told)
            if file is not None:
                print(line, file=file, flush=True)
            click.echo(line if form == "json" else tamed(_row(told)))
            if score is not None and answer.prediction is not None:
                sample = answer.sample
                score.add([answer.prediction], [sample.label], sample.size and [sample.size])
    finally:
        if camera is not None:
            statistics.dropped = camera.dropped
        _sum_up(link, statistics.summary(), score, form)
    return statistics.outcomes["failed"]


def _describe(link: Link, answer: Answer) -> dict[str, Any]:
    """Keys of one answer: those of ``encode --format json`` that are of one sample, its outcome and times."""
    from semcodec.cli.sample_output import SIZES
    from semcodec.specs import CLASS
    from semcodec.tasks.table import get_task

    sample, request = answer.sample, link.device.request
    task = get_task(link.device.composition.task)
    label = sample.label
    if label is not None and sample.classes is not None:
        label = task.label(int(label) if request.labels == CLASS else label, sample.classes, sample.size, request)
    if answer.prediction is None:
        found = task.describe_unanswered(label, sample.classes, sample.size or (request.width, request.height))
    else:
        found = task.describe(answer.prediction, link.classes, label, sample.classes)
    return {
        "input": sample.name,
        "sequence": answer.sequence,
        "outcome": answer.outcome,
        "error": answer.error,
        "task": task.name,
        **found,
        **{name: getattr(answer.encoded, name) for name in SIZES},
        "rounds": answer.rounds,
        "reply_bytes": answer.reply_bytes,
        "total_ms": answer.total_ms,
        "ms": dict(answer.ms),
    }


def _row(told: dict[str, Any]) -> str:
    from semcodec.tasks.table import get_task

    cells = []
    if told["prediction"] is not None:
        cells = [str(value) for _, value in get_task(told["task"]).cells(told) if value is not None]
    elif told["outcome"] in ("late", "skipped"):
        cells = [told["outcome"]]
    else:
        cells = [f"failed: {told['error']}"]
    size = f"{told['bytes_total']:,} bytes" if told["outcome"] not in ("local", "skipped") else "not sent"
    if told["rounds"] > 1:
        size += f" in {told['rounds']} rounds, {told['reply_bytes']:,} back between them"
    return "  ".join([told["input"], *cells, size, f"{told['total_ms']:.1f} ms"])


def _sum_up(link: Link, summary: dict[str, Any], score: Score | None, form: str) -> None:
    """Print what a run amounts to; nothing of one without an answer."""
    if not summary["samples"]:
        return
    from semcodec.tasks.table import get_task

    accuracy: dict[str, Any] = {}
    if score is not None and summary["answered"] + summary["local"]:
        accuracy = score.accuracy()
    summary = {**summary, **link.statistics, **accuracy, **_of_the_link(link)}
    if form == "json":
        click.echo(to_json({"summary": {"spec": link.device.spec, **summary}}))
        return
    told = ["answered", "local", "late", "failed", "skipped", "dropped", "resent"]
    counts = ", ".join(f"{summary[name]:,} {name}" for name in told if summary[name] or name == "answered")
    parts = "; ".join(
        f"{name} {'/'.join(f'{value:.1f}' for value in of.values())}"
        for name, of in summary["ms"].items()
        if None not in of.values()
    )
    connections = summary["connections"]
    fields = [
        ("sent", f"{summary['sent']:,} of {summary['samples']:,} samples: {counts}"),
        ("bytes", f"{summary['bytes_up']:,} up, {summary['bytes_down']:,} down, with all that the protocol adds"),
        ("bits", f"{summary['bits']:,.0f} a sample"),
        ("fps", f"{summary['fps']:,.1f}" if summary["fps"] else "-"),
        *([("ms", f"{parts} (p50/p95/p99)")] if parts else []),
        *_adapted(summary),
        *([("connections", f"{connections:,}, of which {connections - 1:,} after cuts")] if connections > 1 else []),
    ]
    if accuracy:
        metric = get_task(link.device.composition.task).metric
        low, high = (metric.shown(bound) for bound in accuracy[f"{metric.key}_interval"])
        of = summary["answered"] + summary["local"]
        fields.append(
            (
                "accuracy",
                f"{metric.shown(accuracy[metric.key]):.2f} {metric.unit} {metric.label} of {of:,} "
                f"({low:.1f} - {high:.1f})",
            )
        )
    click.echo()
    echo_fields(fields)


def _of_the_link(link: Link) -> dict[str, Any]:
    """What an adaptive sender measured of its link, and how often it chose what; nothing of another."""
    if link.meter is None or link.chooser is None:
        return {}
    state = link.meter.state()
    measured = {"rate_mbps": state.mbps, "rtt_ms": state.rtt_ms, "loss": state.loss}
    return {"link": measured, "chosen": dict(link.chooser.taken)}


def _adapted(summary: dict[str, Any]) -> list[tuple[str, str]]:
    if "link" not in summary:
        return []
    link, chosen = summary["link"], summary["chosen"]
    rate = "unknown" if link["rate_mbps"] is None else f"{link['rate_mbps']:.3g} Mbit/s"
    loss = "" if link["loss"] is None else f", {link['loss']:.2%} of its segments sent again"
    count = sum(chosen.values())
    told = ", ".join(f"{name} {n / count:.0%}" for name, n in sorted(chosen.items(), key=lambda pair: -pair[1]))
    return [("link", f"{rate} at last, {link['rtt_ms']:.1f} ms round trip{loss}"), ("chosen", told)]
