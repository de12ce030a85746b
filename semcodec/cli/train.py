"""``semcodec train``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json, echo_table


@click.command()
@click.argument("spec")
@click.option("--data", required=True, metavar="NAME|FOLDER", help="What to train on; see 'semcodec data list'.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to write.")
@options.classes
@options.weights
@click.option("--init", metavar="PATH", help="Weights of another task that the backbone starts from (safetensors).")
@click.option("--until", metavar="STEP", help="The recipe's last step to run, as its card names it.")
@click.option(
    "--samples-scale",
    "scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the samples of every step of the recipe.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order and of what is drawn at random.")
@options.as_json
def command(
    spec: str,
    data: str,
    output: Path,
    classes: list[str] | None,
    given: tuple[str, ...],
    offline: bool,
    init: str | None,
    until: str | None,
    scale: float,
    seed: int,
    form: str,
) -> None:
    """Train what SPEC names, a pipeline or a backbone alone, step by step as its recipe says.

    Leaves weights.safetensors and card.json in DIR: give DIR as --weights to use them. A run that was stopped goes
    on from its last checkpoint when the same command is given again.
    """
    from semcodec.trainer import train

    request = options.request(given, offline)
    try:
        card = train(
            spec, data, output, request=request, classes=classes, init=init, until=until, scale=scale, seed=seed
        )
    except KeyboardInterrupt:
        if (output / "checkpoint.safetensors").exists():
            click.echo(f"{output} has a checkpoint: the same command goes on from there", err=True)
        raise
    if form == "json":
        echo_json(card)
        return
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
