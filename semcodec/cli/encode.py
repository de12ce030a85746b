"""``semcodec encode``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec._files import whole_file
from semcodec.cli import options
from semcodec.cli.sample_output import KEYS, Sample, document, run, show


@click.command(epilog=KEYS)
@click.argument("spec")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .sem file to write.")
@options.weights
@options.as_json
def command(spec: str, inputs: tuple[str, ...], output: Path, given: tuple[str, ...], offline: bool, form: str) -> None:
    """Compress inputs by the pipeline SPEC into one file: a stream header, then one record an INPUT.

    An INPUT is a file, or DATASET:INDEX for a sample of a test split. The file is complete or not there.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.container.packets import write_header
    from semcodec.data import classes_of
    from semcodec.pipeline.pipeline import Pipeline

    composition, request = compose_spec(spec), options.request(given, offline)
    records = []
    with whole_file(output) as file:
        pipeline = Pipeline.load(composition, request, classes=classes_of(inputs[0]))
        sample = Sample(inputs[0], pipeline)
        run(pipeline, sample)  # so that the times are not those of a first run
        file.write(write_header(pipeline.header))
        for number, named in enumerate(inputs):
            sample = Sample(named, pipeline) if number else sample
            encoded, record = run(pipeline, sample, number)
            file.write(encoded.data)
            records.append(record)
    show(document(pipeline, records), form)
