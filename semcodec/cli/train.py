"""``semcodec train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json, echo_table
from semcodec.cli.reads import spare
from semcodec.errors import UsageError


@click.command()
@click.argument("spec", required=False)
@click.option("--data", required=True, metavar="NAME|FOLDER", help="What to train on; see 'semcodec data list'.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to write.")
@click.option(
    "--cells",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.toml",
    help="Instead of SPEC: all that the cells of 'semcodec bench --cells FILE.toml' need, each into a folder in DIR.",
)
@options.classes
@options.device
@options.weights
@click.option("--init", metavar="PATH", help="Weights of another task that the backbone starts from, "
              "named as for --weights; of 'distil' those of the same encoder, before another backbone or with "
              "fewer layers.")  # fmt: skip
@click.option(
    "--objective",
    type=click.Choice(["recipe", "task", "refine", "distil"]),
    default="recipe",
    show_default=True,
    help="By the method's own recipe; 'task': encoder, recoverer and backbone together on L = task loss + lambda * "
    "rate; 'refine': the backbone alone, on what the codec decodes; 'distil': encoder and recoverer, on the answers of "
    "the uncompressed model: pictures or clips in a folder are enough, labels are not looked at.",
)
@click.option(
    "--rate-weight",
    callback=lambda _, __, text: None if text is None else _numbers(text),
    metavar="FLOAT[,FLOAT...]",
    help="lambda of 'task', of a rate in bits a pixel of the input, or of 'distil', of a kilobyte at the coarsest of a "
    "codec's operating points, or at each from there on.  [default: 1.0]",
)
@click.option(
    "--task-weight",
    "tasks",
    multiple=True,
    metavar="TASK=FLOAT",
    help="Of a spec with several backbones: what a task weighs beside the others.  [default: 1 each]",
)
@click.option("--until", metavar="STEP", help="The recipe's last step to run, as its card names it.")
@click.option(
    "--samples-scale",
    "scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the samples of every step of the recipe.",
)
@click.option(
    "--samples",
    multiple=True,
    metavar="STEP=N",
    help="Samples of a step, in place of the recipe's; 0 leaves it out. Its card names the steps.",
)
@click.option(
    "--distil",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of 'distil': features=0.1, the weight of the features' error beside the answers'; behind=0, that of "
    "the same error half-way behind the cut; lr=0.0007, the largest learning rate, less to go on from "
    "a codec that has learned; crop=0.5, the smallest part of a side that is seen; mix=yes, parts of "
    "others put into samples, or no.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order and of what is drawn at random.")
@click.option(
    "--tensorboard", is_flag=True, help="Also write scalars and pictures for TensorBoard, into DIR/tensorboard."
)
@options.as_json
def command(
    spec: str | None,
    data: str,
    output: Path,
    file: Path | None,
    classes: list[str] | None,
    device: str,
    given: tuple[str, ...],
    offline: bool,
    init: str | None,
    objective: str,
    rate_weight: float | list[float] | None,
    tasks: tuple[str, ...],
    until: str | None,
    scale: float,
    samples: tuple[str, ...],
    settings: tuple[str, ...],
    seed: int,
    tensorboard: bool,
    form: str,
) -> None:
    """Train what SPEC names, a pipeline or a backbone alone, step by step as its recipe says.

    Leaves weights.safetensors and card.json in DIR: give DIR as --weights to use them. A run that was stopped goes
    on from its last checkpoint when the same command is given again. With --cells each run has a folder of its own
    in DIR, and DIR as --weights finds what belongs to each spec.
    """
    from semcodec.data.datasets import check_dataset

    if (spec is None) == (file is None):
        raise UsageError("name what to train: a SPEC, or --cells FILE.toml")
    runs = {output: spec} if spec is not None else _runs(output, file)
    request = options.request(given, offline)
    weighted = options.numbers(tasks, "TASK=FLOAT", "detection=2")
    counts = {step: _count(step, text) for step, text in options.pairs(samples, "STEP=N", "distil=100000").items()}
    named = options.pairs(settings, "NAME=VALUE", "crop=0.6")
    check_dataset(data)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; weights go into a folder")

    from semcodec.training.distillation import Settings
    from semcodec.training.processes import is_first
    from semcodec.training.train import WRITTEN, train
    from semcodec.training.watch import TensorBoard, check_tensorboard

    if tensorboard:
        check_tensorboard()

    written = (folder / name for folder in runs for name in WRITTEN)
    spare(written, data=[data], weights=given, files=[init, file])
    cards: list[dict[str, Any]] = []
    for folder, name in runs.items():
        if file is not None:
            click.echo(f"{len(cards) + 1}/{len(runs)}  {name}", err=True)
        watch = TensorBoard(folder / "tensorboard", _panels(data)) if tensorboard else None
        try:
            card = train(
                name, data, folder, request=request, classes=classes, init=init, objective=objective,
                rate_weight=rate_weight, task_weights=weighted, until=until, scale=scale, samples=counts, seed=seed,
                device=device, distillation=Settings.parse(named), on_step=watch,
            )  # fmt: skip
        except KeyboardInterrupt:
            if (folder / "checkpoint.safetensors").exists():
                click.echo(f"{folder} has a checkpoint: the same command goes on from there", err=True)
            raise
        finally:
            if watch is not None:
                watch.close()
        cards.append(card)
    if not is_first():
        return
    if form == "json":
        echo_json(cards[0] if file is None else cards)
    elif file is None:
        _show(cards[0], output)
    else:
        echo_table(
            ["spec", "last step", "loss", "in"],
            [[card["spec"], card["metrics"][-1]["step"], card["metrics"][-1].get("loss"), str(folder)]
             for folder, card in zip(runs, cards, strict=True)],
        )  # fmt: skip


def _numbers(text: str) -> float | list[float]:
    """One number, or several with commas between. Raises UsageError."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--rate-weight is a number, or several with commas between, not {text}") from None
    return found if "," in text else found[0]


def _count(step: str, text: str) -> int:
    """Raises UsageError for what is no number of samples."""
    if not text.isdecimal() or len(text) > 12:
        raise UsageError(f"--samples {step}={text}: a step sees a number of samples, 0 leaves it out")
    return int(text)


def _runs(output: Path, file: Path | None) -> dict[Path, str]:
    from semcodec.bench.sweeps import read_cells
    from semcodec.bench.training import to_train

    assert file is not None
    found = to_train(read_cells(file))
    if not found:
        raise UsageError(f"{file}: none of its cells has an encoder that learns")
    return {output / folder: spec for folder, spec in found.items()}


def _panels(data: str) -> Callable[[Any], list[tuple[str, Any]]]:
    """Of a pipeline, titles and pictures of what it makes of the first sample that is trained on."""
    from semcodec.data.datasets import open_unlabelled
    from semcodec.evaluation.sample_panels import make_panels
    from semcodec.play.pictures import picture

    def draw(pipeline: Any) -> list[tuple[str, Any]]:
        pixels, _ = open_unlabelled(data, pipeline.request).batch([0])
        return [(panel.title, picture(panel)) for panel in make_panels(pipeline, pixels)]

    return draw


def _show(card: Mapping[str, Any], output: Path) -> None:
    echo_fields(
        [
            ("spec", card["spec"]),
            ("data", f"{card['data']}, digest {card['data_digest']}, {len(card['classes'])} classes"),
            ("seed", card["seed"]),
            ("weights", f"{output} (use them with --weights {output})"),
        ]
    )
    click.echo()
    names = list(dict.fromkeys(name for step in card["metrics"] for name in step))
    echo_table(names, [[step.get(name) for name in names] for step in card["metrics"]])
