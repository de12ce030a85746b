"""``semcodec push``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("name", metavar="OWNER/NAME[@BRANCH]")
@click.option(
    "--results",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Records of 'semcodec eval --format json' or 'bench' with these weights, which the model card shows with "
    "their intervals. Repeatable.",
)
@click.option("--private", is_flag=True, help="A repository that is made is not public.")
@click.option("--dry-run", is_flag=True, help="Print the model card that would be pushed, and send nothing.")
@options.as_json
def command(folder: Path, name: str, results: tuple[Path, ...], private: bool, dry_run: bool, form: str) -> None:
    """Publish what 'semcodec train' left in DIR on the hub.

    That is weights.safetensors and card.json, beside them what 'split' and 'export' wrote into DIR, a model card made
    from card.json, and a list of all digests. The token is HF_TOKEN, or of 'hf auth login'; HF_ENDPOINT names another
    server. Use them anywhere as --weights hf:OWNER/NAME.
    """
    from semcodec.evaluation.publishing import to_publish
    from semcodec.pipeline.repositories import README, Repository, push

    repository = Repository.parse(name)
    files = to_publish(folder, repository, results)
    if dry_run:
        readme = files[README]
        assert isinstance(readme, bytes)
        click.echo(readme.decode(), nl=False)
        return
    commit = push(files, repository, private=private)
    if form == "json":
        echo_json({"repository": repository.name, "commit": commit, "files": list(files)})
        return
    use = f"hf:{repository}"
    echo_fields([("pushed", str(repository)), ("commit", commit), ("files", ", ".join(files)), ("weights", use)])
