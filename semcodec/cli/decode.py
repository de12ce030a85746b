"""``semcodec decode``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcodec.cli import options
from semcodec.cli.sample_output import KEYS, describe_sample, describe_tasks, document, show
from semcodec.cli.streams import reading
from semcodec.errors import StreamError, TooFewLayers, UsageError, first_line

if TYPE_CHECKING:
    from semcodec.container.packets import LocalRecord, Packet, StreamHeader
    from semcodec.pipeline.server import Server
    from semcodec.pipeline.timing import Clock
    from semcodec.tasks.prediction import Prediction


@click.command(epilog=KEYS)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--fetch", is_flag=True, help="Look for weights on the network too: a stream may name any model.")
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="SPEC",
    help="Decode only what has the encoder, recoverer, entropy stage, backbone and cut of SPEC. Repeatable.",
)
@options.task
@click.option("--mask-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Of a model that "
              "segments: write each mask there, as PNG of the source's size, with the classes' names.")  # fmt: skip
@click.option("--picture-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Of a model that "
              "reconstructs: write each picture there, as PNG of its size in the model's input.")  # fmt: skip
@options.accelerator
@options.weights
@options.as_json
def command(
    file: Path,
    fetch: bool,
    allowed: tuple[str, ...],
    task: str | None,
    mask_dir: Path | None,
    picture_dir: Path | None,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Recognise what FILE holds, from the file alone plus weights; - is stdin.

    A stream for several tasks is answered for all of them, unless --task names one.

    Refuses a file made with other weights or by component versions that are not read here, before any model is built,
    and looks for no weights on the network unless --fetch says so. Where the file is damaged, what comes before the
    damage is printed before the error. Records with too few layers for the task, or for any, are passed over, and the
    exit code is then 1.
    """
    if fetch and offline:
        raise UsageError("--fetch looks on the network, --offline does not; leave out one")
    request = options.request(given, offline=not fetch)
    with reading(file) as stream:
        from semcodec.container.packets import read_header, read_packets

        header = read_header(stream)
        _check_allowed(header, allowed)
        from semcodec.pipeline.server import Server

        server = Server.load(header, request, device=device, half=half, tasks=None if task is None else [task])
        several = len(server.tasks) > 1
        keep = [] if mask_dir is None else [_mask_folder(mask_dir, server)]
        keep += [] if picture_dir is None else [_picture_folder(picture_dir, server)]
        records, lacking = [], 0
        try:
            for record in read_packets(stream, header):
                clock = server.clock()
                try:
                    found = _answers(server, record, clock)
                except TooFewLayers as reason:
                    lacking += 1
                    click.echo(f"not answered: {reason}", err=True)
                    continue
                answered = [one for one in found.values() if not isinstance(one, TooFewLayers)]
                for write, prediction in itertools.product(keep, answered):
                    write(record.sequence, prediction)
                sizes = _sizes(server, record, answered[0])
                if several:
                    records.append(describe_tasks(server, found, sizes, clock, record.sequence))
                else:
                    records.append(describe_sample(server, answered[0], sizes, clock, record.sequence))
        except StreamError as error:
            if records:
                show(document(server, records, stream.seek(0, os.SEEK_END), first_line(error)), form)
            raise
        if records or not lacking:
            show(document(server, records, stream.tell()), form)
        if lacking:
            raise TooFewLayers(
                f"{lacking} of {lacking + len(records)} records have too few layers for {' and '.join(server.tasks)}"
            )


def _answers(server: Server, record: Packet | LocalRecord, clock: Clock) -> Mapping[str, Prediction | TooFewLayers]:
    """By task the answer, of several also why one has none. Raises TooFewLayers where none has any."""
    if len(server.tasks) == 1:
        return {name: server.decode_batch([record], clock)[0] for name in server.tasks}
    found = server.decode_tasks(record, clock)
    reasons = [one for one in found.values() if isinstance(one, TooFewLayers)]
    if len(reasons) == len(found):
        raise reasons[0]
    return found


def _mask_folder(folder: Path, server: Server) -> Callable[[int, Prediction], None]:
    """What writes a record's mask into a folder, which is made, with ``classes.yaml`` beside. Raises UsageError."""
    from semcodec._files import whole_file
    from semcodec.tasks.segmentation import NAMES, mask_png, names_yaml

    if "segmentation" not in server.tasks:
        raise UsageError(
            f"--mask-dir is for a model that segments, and this stream is for {' and '.join(server.tasks)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / NAMES) as file:
        file.write(names_yaml(server.alone("segmentation").classes).encode())

    def keep(sequence: int, prediction: Prediction) -> None:
        if prediction.mask is not None:
            with whole_file(folder / f"{sequence}.png") as file:
                file.write(mask_png(prediction))

    return keep


def _picture_folder(folder: Path, server: Server) -> Callable[[int, Prediction], None]:
    """What writes a record's picture into a folder, which is made. Raises UsageError."""
    from semcodec._files import whole_file
    from semcodec.tasks.reconstruction import picture_png

    if "reconstruction" not in server.tasks:
        there = " and ".join(server.tasks)
        raise UsageError(f"--picture-dir is for a model that reconstructs pictures, and this stream is for {there}")
    folder.mkdir(parents=True, exist_ok=True)

    def keep(sequence: int, prediction: Prediction) -> None:
        if prediction.picture is not None:
            with whole_file(folder / f"{sequence}.png") as file:
                file.write(picture_png(prediction))

    return keep


def _check_allowed(header: StreamHeader, allowed: Sequence[str]) -> None:
    """Raise UsageError for a stream that needs other models than each of the specs that are allowed, if any are."""
    from semcodec.composition.composition import compose_spec
    from semcodec.composition.stored import compose_stored

    if not allowed:
        return
    wanted = compose_stored(header.spec, header.components).decoding_signature()
    if all(compose_spec(text).decoding_signature() != wanted for text in allowed):
        raise UsageError(f"the stream was made by {header.spec}, and --allow lets only {', '.join(allowed)} be decoded")


def _sizes(server: Server, record: Packet | LocalRecord, prediction: Prediction) -> dict[str, int]:
    """What the record's bytes were, as they were read, less those of layers that are damaged."""
    from semcodec.container.packets import LocalRecord, write_local
    from semcodec.container.truncation import first_layers

    if isinstance(record, LocalRecord):
        local = len(write_local(server.header, record))
        return dict.fromkeys(("bytes_total", "bytes_payload", "bytes_side", "bytes_header"), 0) | {"bytes_local": local}
    if prediction.layers[0] < record.layers_present:
        record = first_layers(record, prediction.layers[0], server.header.format)
    side = sum(row.side_bytes for row in prediction.rows)
    data = sum(row.bytes for row in prediction.rows)
    return {
        "bytes_total": record.size,
        "bytes_payload": data - side,
        "bytes_side": side,
        "bytes_header": record.size - data,
        "bytes_local": 0,
    }
