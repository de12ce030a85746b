"""``semcodec encode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcodec.cli import options, passing_over
from semcodec.cli.reads import spare
from semcodec.cli.sample_output import KEYS, Sample, document, encode, open_samples, run, show
from semcodec.cli.streams import check_output, telling, writing
from semcodec.errors import DataError, SemcodecError, UsageError

if TYPE_CHECKING:
    from semcodec.data.parts import Part
    from semcodec.pipeline.device import Device, Encoded
    from semcodec.pipeline.pipeline import Pipeline


@click.command(epilog=KEYS)
@click.argument("spec")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The .sem file to write; - for stdout."
)
@click.option("--check", is_flag=True, help="Also decode what is written, as a server would, and show its answers.")
@passing_over.option
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK",
    help="Of a stream for several tasks: send the layers that this one needs. Repeatable.  [default: all]",
)
@options.part
@options.accelerator
@options.weights
@options.as_json
def command(
    spec: str,
    inputs: tuple[str, ...],
    output: Path,
    check: bool,
    keep_going: bool,
    tasks: tuple[str, ...],
    part: Part | None,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Compress inputs by the pipeline SPEC into one file: a stream header, then one record an INPUT.

    An INPUT is a file, or DATASET:INDEX for a sample of a test split; with --window each window of a video file is a
    record. The file is complete or not there. Only the device's half of the pipeline is built, so what is shown of
    answers is the device's own, where it has one. A file of 'semcodec export' stands in the place of SPEC.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.data.inputs import check_input, classes_of
    from semcodec.pipeline.exported import is_exported

    exported, request = is_exported(spec), options.request(given, offline)
    if exported and check:
        raise UsageError(f"--check decodes too, and {spec} holds a device alone: leave it out, or give a spec")
    check_output(output)
    if exported:
        from semcodec.pipeline.device import Device

        ready = Device.load(spec, request, device=device, half=half)
        composition = ready.composition
    else:
        composition = compose_spec(spec)
    if tasks and exported:  # its header says what it sends
        views = [composition.alone(task) for task in tasks]
        composition = views[0] if len(views) == 1 else composition
    elif tasks:
        composition = composition.for_tasks(tasks)
    if check:
        composition.check_one()
    pass_over = passing_over.PassingOver(keep_going)
    good: list[str] = []
    for named in inputs:
        try:
            check_input(named, composition.request, part)
            good.append(named)
        except (SemcodecError, OSError) as error:
            pass_over(named, error)
    if not good:
        raise DataError(f"none of the {len(inputs)} inputs can be encoded")

    from semcodec.container.packets import write_header
    from semcodec.pipeline.accelerator import Accelerator
    from semcodec.pipeline.device import Device

    there = Accelerator.find(device, half)
    spare([output], data=inputs, weights=given)
    with writing(output) as file:
        end: Device | Pipeline
        if check:
            from semcodec.pipeline.pipeline import Pipeline

            end = pipeline = Pipeline.load(
                composition, request, classes=classes_of(good[0], composition.task), device=there
            )

            def one(sample: Sample, number: int) -> tuple[Encoded, dict[str, Any]]:
                return run(pipeline, sample, number)
        else:
            if not exported:
                ready = Device.load(composition, request, classes=classes_of(good[0], composition.task), device=there)
            end = alone = ready

            def one(sample: Sample, number: int) -> tuple[Encoded, dict[str, Any]]:
                return encode(alone, sample, number)

        spare([output], files=[source.path for source in end.sources.values() if source])
        records: list[dict[str, Any]] = []
        for named in good:
            samples = open_samples(named, end, part)
            while True:
                try:
                    sample = next(samples, None)
                    if sample is None:
                        break
                    if not records:
                        one(sample, 0)  # so that the times are not those of a first run
                    encoded, record = one(sample, len(records))
                except (SemcodecError, OSError) as error:
                    pass_over(named, error)
                    break
                if not records:
                    file.write(write_header(end.header))
                file.write(encoded.data)
                records.append(record)
        if not records:
            raise DataError(f"none of the {len(inputs)} inputs can be encoded")
    with telling(output):
        show(document(end, records), form)
    if pass_over.names:
        click.get_current_context().exit(1)
