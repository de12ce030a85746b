"""``semcodec decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcodec.cli import options
from semcodec.cli.sample_output import KEYS, document, show, told
from semcodec.errors import StreamError

if TYPE_CHECKING:
    from semcodec.container.packets import LocalRecord, Packet
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.tasks.prediction import Prediction


@click.command(epilog=KEYS)
@click.argument("file", type=click.Path(path_type=Path))
@options.weights
@options.as_json
def command(file: Path, given: tuple[str, ...], offline: bool, form: str) -> None:
    """Recognise what FILE holds, from the file alone plus weights.

    Refuses a file made with other weights or by component versions that are not read here. Where the file is
    damaged, what comes before the damage is printed before the error.
    """
    request = options.request(given, offline)
    with file.open("rb") as stream:
        from semcodec.container.packets import read_header, read_packets

        header = read_header(stream)

        from semcodec.pipeline.pipeline import open_stream
        from semcodec.pipeline.timing import Clock

        pipeline = open_stream(header, request)
        records = []
        try:
            for record in read_packets(stream, header):
                clock = Clock()
                prediction = pipeline.decode_batch([record], clock)[0]
                records.append(told(pipeline, prediction, _sizes(pipeline, record, prediction), clock, record.sequence))
        except StreamError:
            if records:
                show(document(pipeline, records), form)
            raise
        show(document(pipeline, records, stream.tell()), form)


def _sizes(pipeline: Pipeline, record: Packet | LocalRecord, prediction: Prediction) -> dict[str, int]:
    """What the record's bytes were, as they were read."""
    from semcodec.container.packets import LocalRecord, write_local

    if isinstance(record, LocalRecord):
        local = len(write_local(pipeline.header, record))
        return dict.fromkeys(("bytes_total", "bytes_payload", "bytes_side", "bytes_header"), 0) | {"bytes_local": local}
    side = sum(row.side_bytes for row in prediction.rows)
    data = sum(row.bytes for row in prediction.rows)
    return {
        "bytes_total": record.size,
        "bytes_payload": data - side,
        "bytes_side": side,
        "bytes_header": record.size - data,
        "bytes_local": 0,
    }
