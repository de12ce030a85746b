"""``semcodec pull``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from semcodec._files import whole_file
from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json
from semcodec.errors import UsageError


@click.command()
@click.argument("name", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy the files into a folder.  [default: the hub's cache alone]",
)
@click.option("--offline", is_flag=True, help="Only what was fetched before.")
@options.as_json
def command(name: str, output: Path | None, offline: bool, form: str) -> None:
    """Fetch weights and what lies beside them from the hub, and check them against their digests.

    Afterwards --weights hf:OWNER/NAME[@REVISION] needs no network with --offline.
    """
    from semcodec.pipeline.repositories import Repository, fetch
    from semcodec.pipeline.weights import named_file, read_card

    repository = Repository.parse(name)
    fetched = fetch(f"hf:{repository}", offline)
    card = read_card(named_file(f"hf:{repository}", offline))
    names = sorted(path.name for path in fetched.iterdir() if path.is_file())
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for one in names:
            if (output / one).is_dir():
                raise UsageError(f"{output / one} is a folder; name another with -o")
            with open(fetched / one, "rb") as source, whole_file(output / one) as file:
                shutil.copyfileobj(source, file)
    place = output or fetched
    if form == "json":
        echo_json(
            {
                "repository": repository.name,
                "revision": repository.revision,
                "commit": fetched.name,
                "folder": str(place),
                "files": names,
                "spec": card.get("spec"),
                "keys": card.get("keys", {}),
                "digests": card.get("digests", {}),
                "license": card.get("license"),
            }
        )
        return
    digests = ", ".join(f"{slot} {digest}" for slot, digest in card.get("digests", {}).items())
    echo_fields(
        [
            ("fetched", str(repository)),
            ("commit", fetched.name),
            ("spec", card.get("spec")),
            ("digests", digests or None),
            ("licence", card.get("license")),
            ("files", ", ".join(names)),
            ("folder", str(place)),
        ]
    )
