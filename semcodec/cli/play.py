"""``semcodec play``."""

from __future__ import annotations

import click

from semcodec.cli import options
from semcodec.errors import SemcodecError


@click.command()
@click.argument("spec", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; others let others in.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The port to listen at.  [default: the first free from 7860]"
)
@click.option("--fetch", is_flag=True, help="Fetch weights that are not here from the hub.")
@options.device
@options.weights
def command(
    spec: str | None, host: str, port: int | None, fetch: bool, device: str, given: tuple[str, ...], offline: bool
) -> None:
    """Show in a browser what a spec makes of a picture, a clip or the webcam, beside JPEG, AVIF and H.265.

    Every plugin that is installed is in it, with all its knobs. Nothing is asked of the network, and nobody else can
    reach it unless --host says so; whoever reaches it from elsewhere may choose among the specs that are listed alone.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.play.page import serve
    from semcodec.play.playground import Playground

    if spec is not None:
        spec = compose_spec(spec).spec
    request = options.request(given, offline or not fetch)
    free = host in ("127.0.0.1", "localhost", "::1")
    try:
        serve(Playground(request, device=device, free=free), spec, host=host, port=port,
              told=lambda line: click.echo(line, err=True))  # fmt: skip
    except OSError as error:  # Gradio's, of a port that is taken
        raise SemcodecError(
            f"cannot listen at {host}{f':{port}' if port else ''}: {error.strerror or error}"
        ) from error
