"""``semcodec serve``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcodec.cli import options
from semcodec.errors import UsageError

if TYPE_CHECKING:
    from semcodec.composition.composition import Composition


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for every network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for any that is free.")
@click.option("--max-batch", type=click.IntRange(1, 1024), default=16, show_default=True, help="Samples that are "
              "decoded together.")  # fmt: skip
@click.option("--batch-wait-ms", type=click.FloatRange(0, 1000), default=2.0, show_default=True, help="How long the "
              "first sample of a batch waits for those of other streams.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the token that devices have to know.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="The server's certificate, with its chain, as PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's private key, as PEM.")
@click.option(
    "--max-streams", type=click.IntRange(1, 65536), default=1024, show_default=True, help="Streams at a time."
)
@click.option(
    "--max-samples-per-s", type=click.FloatRange(0, min_open=True), help="Of one stream; more are read later."
)
@click.option("--idle-s", type=click.IntRange(1, 86400), default=120, show_default=True, help="How long a stream may "
              "be silent, and a session without a connection is kept.")  # fmt: skip
@click.option("--page/--no-page", default=True, show_default=True, help="Whether a browser is shown the streams at /.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the "
              "lines on stderr.")  # fmt: skip
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where "
              "models run: in this process, or in replicas on a Ray cluster.")  # fmt: skip
@click.option("--address", help="Of a Ray cluster, HOST:PORT or auto; without, one is started here.")
@click.option("--replicas", type=click.IntRange(1), help="Processes with the models.  [default: by load, from 1 to the "
              "cluster's CPUs or GPUs]")  # fmt: skip
@click.option("--num-gpus", type=click.FloatRange(0, min_open=True), help="Of each replica: a GPU, or a share of one.")
@options.tasks
@options.accelerator
@options.weights
def command(
    specs: tuple[str, ...],
    host: str,
    port: int,
    max_batch: int,
    batch_wait_ms: float,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    max_streams: int,
    max_samples_per_s: float | None,
    idle_s: int,
    page: bool,
    log_format: str,
    executor: str,
    address: str | None,
    replicas: int | None,
    num_gpus: float | None,
    tasks: tuple[str, ...],
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
) -> None:
    """Answer streams of devices over the network, for each SPEC with its server's weights.

    A stream may differ from its SPEC in selectors, gates and call parameters; another encoder, recoverer, entropy
    stage, backbone, cut or other weights are refused before anything is built. A SPEC with several backbones answers
    the task that a device asks for, of those that --task names where it is given. The first line of stdout is the
    address once it answers. SIGTERM and Ctrl-C end it when what is in flight is answered. Over HTTP: /healthz, /readyz,
    /metrics and /v1/compositions, and at / a page that shows the streams and what of them was received last.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.serving.extras import check_serve
    from semcodec.serving.trust import read_token

    if executor == "local" and (address or replicas or num_gpus):
        raise UsageError("--address, --replicas and --num-gpus are for --executor ray")
    if executor == "ray" and device != "cpu" and not (num_gpus and device == "cuda"):
        raise UsageError(
            f"--executor ray: instead of --device {device}, --num-gpus says what each replica has of a GPU"
        )
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    for path in (tls_cert, tls_key):
        if path is not None and not path.is_file():
            raise UsageError(f"no such file: {path}")
    token = None if token_file is None else read_token(token_file)
    request = options.request(given, offline)
    compositions = [compose_spec(spec) for spec in specs]
    signatures = [composition.decoding_signature() for composition in compositions]
    if len(set(signatures)) < len(specs):
        raise UsageError("two SPECs name the same models, which answer one stream as the other: leave out one")
    answered = _answered(compositions, tasks)
    check_serve()

    from semcodec.serving.app import HOSTS, PATH, bind, serve
    from semcodec.serving.limits import Limits
    from semcodec.serving.loading import Loading
    from semcodec.serving.log import Log

    log = Log(log_format)
    listener = bind(host, port)
    loading = Loading(specs, request, answered, device, half)
    scheme = "ws" if tls_cert is None else "wss"
    shown = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
    if token is None and host not in ("127.0.0.1", "::1", "localhost"):
        log("warning", message="anyone who reaches this address is answered: give --token-file")
    stdout = sys.stdout

    def ready() -> None:
        log("listening", address=url, path=PATH, specs=[server.spec for server in servers])
        click.echo(url, file=stdout)

    with ExitStack() as open_until_the_end:
        if executor == "ray":
            from semcodec.serving.on_ray import OnRay

            loading = replace(loading, device="cuda" if num_gpus else "cpu")
            there = open_until_the_end.enter_context(OnRay(loading, log, address, replicas, num_gpus))
            servers = there.servers
        else:
            there, servers = None, loading.load()
        interrupted = serve(
            servers,
            listener,
            Limits(max_batch, batch_wait_ms / 1000, max_streams, max_samples_per_s, idle_s=idle_s),
            token=token,
            cert=None if tls_cert is None else str(tls_cert),
            key=None if tls_key is None else str(tls_key),
            log=log,
            ready=ready,
            page=page,
            hosts=HOSTS | {host},
            executor=there,
        )
    if interrupted:
        raise KeyboardInterrupt


def _answered(compositions: Sequence[Composition], tasks: Sequence[str]) -> list[list[str] | None]:
    """Of each composition, the tasks among ``tasks`` that it has; None: all.

    Raises UsageError for one that none has.
    """
    known = [set(c.tasks) | set(c.tails) for c in compositions]
    for task in tasks:
        if not any(task in names for names in known):
            there = ", ".join(dict.fromkeys(str(one) for c in compositions for one in c.tasks))
            raise UsageError(f"--task {task}: the specs have the tasks {there}")
    return [[task for task in tasks if task in names] or None for names in known]
