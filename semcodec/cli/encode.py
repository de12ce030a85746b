"""``semcodec encode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcodec._files import whole_file
from semcodec.cli import options
from semcodec.cli.sample_output import KEYS, Sample, document, encode, run, show

if TYPE_CHECKING:
    from semcodec.pipeline.device import Encoded


@click.command(epilog=KEYS)
@click.argument("spec")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .sem file to write.")
@click.option("--check", is_flag=True, help="Also decode what is written, as a server would, and show its answers.")
@options.accelerator
@options.weights
@options.as_json
def command(
    spec: str,
    inputs: tuple[str, ...],
    output: Path,
    check: bool,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Compress inputs by the pipeline SPEC into one file: a stream header, then one record an INPUT.

    An INPUT is a file, or DATASET:INDEX for a sample of a test split. The file is complete or not there. Only the
    device's half of the pipeline is built, so what is shown of answers is the device's own, where it has one.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.container.packets import write_header
    from semcodec.data import classes_of
    from semcodec.pipeline.accelerator import Accelerator
    from semcodec.pipeline.device import Device
    from semcodec.pipeline.pipeline import Pipeline

    composition, request = compose_spec(spec), options.request(given, offline)
    there = Accelerator.find(device, half)
    with whole_file(output) as file:
        classes = classes_of(inputs[0])
        end: Device | Pipeline
        if check:
            end = pipeline = Pipeline.load(composition, request, classes=classes, device=there)

            def one(sample: Sample, number: int) -> tuple[Encoded, dict[str, Any]]:
                return run(pipeline, sample, number)
        else:
            end = alone = Device.load(composition, request, classes=classes, device=there)

            def one(sample: Sample, number: int) -> tuple[Encoded, dict[str, Any]]:
                return encode(alone, sample, number)

        sample = Sample(inputs[0], end)
        one(sample, 0)  # so that the times are not those of a first run
        file.write(write_header(end.header))
        records = []
        for number, named in enumerate(inputs):
            sample = Sample(named, end) if number else sample
            encoded, record = one(sample, number)
            file.write(encoded.data)
            records.append(record)
    show(document(end, records), form)
