"""The server as an ASGI application, and the process that runs it under uvicorn."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import signal
import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from semcodec.data.notes import DataNote
from semcodec.errors import SemcodecError, UsageError
from semcodec.pipeline.server import Server
from semcodec.serving.engine import Executor, Hosted
from semcodec.serving.limits import Limits
from semcodec.serving.log import Log
from semcodec.serving.messages import MAX_HELLO, OVERHEAD
from semcodec.serving.page import Page, check_host
from semcodec.serving.service import Service

PATH = "/v1/stream"
HTTP_S = 60.0
"""How long a connection that is no stream may last."""
CLOSING_S = 5.0
BASIC = 'Basic realm="semcodec: the password is the token", charset="UTF-8"'
"""By which a browser asks for it; any name will do."""
HOSTS = frozenset({"localhost"})


def make_app(service: Service, *, page: bool = True, hosts: frozenset[str] = HOSTS) -> Starlette:
    """The WebSocket of streams at ``PATH``, and what is said of the server over HTTP.

    page: whether there is one to look at (``semcodec.serving.page``). hosts: names under which it is shown where no
    token is asked for, beside addresses.
    """

    def guarded(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def checked(request: Request) -> Response:
            if service.token is not None and not _knows(request, service.token):
                refused = PlainTextResponse("a token is asked for\n", 401, {"WWW-Authenticate": BASIC})
                refused.headers.append("WWW-Authenticate", "Bearer")
                return refused
            answered: Response = await answer(request)
            return answered

        return checked

    def named(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def checked(request: Request) -> Response:
            refused = check_host(request, hosts) if service.token is None else None
            return refused or await answer(request)

        return guarded(checked)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if service.draining:
            return PlainTextResponse("draining\n", 503)
        if not service.engine.executor.ready:
            return PlainTextResponse("no replica is up\n", 503)
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def compositions(request: Request) -> Response:
        return JSONResponse({"compositions": [describe(server) for server in service.models.servers]})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", guarded(metrics)),
            Route("/v1/compositions", guarded(compositions)),
            WebSocketRoute(PATH, _Endpoint(service)),
            *(Page(service).routes(named) if page else ()),
        ]
    )


def _knows(request: Request, token: str) -> bool:
    """Whether a request shows the token: as a bearer's, or as the password that a browser asks for."""
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.encode(), token.encode())


class _Endpoint:
    """What starlette takes for an ASGI application rather than for a function of one WebSocket."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.service(scope, receive, send)


def describe(server: Server) -> dict[str, Any]:
    """What a device needs to know to be answered by it."""
    composition = server.composition
    return {
        "spec": server.spec,
        "signature": composition.decoding_signature(),
        "task": composition.task,
        "tasks": list(server.tasks),
        "classes": len(server.classes),
        "components": {name: list(versions) for name, versions in composition.reads.items()},
        "weights": dict(server.header.weights),
        "backbone": server.digests.get(composition.head_slot),
    }


class _Http(H11Protocol):
    """Gives up a connection whose request does not come, or that stays open though it is no stream."""

    opening_s = 10.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        later = self.loop.call_later
        self.timers = [later(self.opening_s, self._end_unless_asked), later(HTTP_S, transport.abort)]

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timers()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._forget_timers()
        super().handle_websocket_upgrade(event)

    def _end_unless_asked(self) -> None:
        if self.scope is None:
            self.transport.abort()

    def _forget_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()


class _WebSocket(WebSocketsSansIOProtocol):
    """Lets go of a connection that has ended though its device does not read what is left of it."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(CLOSING_S, self.transport.abort)


class _Quiet(logging.Handler):
    """What uvicorn warns of, in the server's own log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.log.fault(error)
        else:
            self.log("warning", message=record.getMessage().splitlines()[0])


def bind(host: str, port: int) -> socket.socket:
    """The socket to listen at; port 0 is any that is free. Raises UsageError where there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return opened


def serve(
    servers: Sequence[Server],
    listener: socket.socket,
    limits: Limits,
    *,
    token: str | None,
    cert: str | None,
    key: str | None,
    log: Log,
    ready: Callable[[], None],
    page: bool = True,
    hosts: frozenset[str] = HOSTS,
    executor: Executor | None = None,
) -> bool:
    """Answer streams until SIGTERM or Ctrl-C, then drain; whether it was Ctrl-C. ready: called when it answers.

    page, hosts: as of ``make_app``. executor: as of ``Service``.

    Raises UsageError for a certificate that cannot be used, SemcodecError for an executor that will not answer.
    """
    _allow_files(limits.max_streams)
    # One note a damaged packet would fill the log, and Python's memory of what it has said; the answers tell of it.
    warnings.simplefilter("ignore", DataNote)
    return asyncio.run(_serve(servers, listener, limits, token, cert, key, log, ready, page, hosts, executor))


async def _serve(
    servers: Sequence[Server],
    listener: socket.socket,
    limits: Limits,
    token: str | None,
    cert: str | None,
    key: str | None,
    log: Log,
    ready: Callable[[], None],
    page: bool,
    hosts: frozenset[str],
    executor: Executor | None,
) -> bool:
    service = Service(servers, limits, token=token, log=log, executor=executor)
    largest = max(hosted_largest(server) for server in servers)
    http = type("Http", (_Http,), {"opening_s": limits.opening_s})
    app = make_app(service, page=page, hosts=hosts)
    config = uvicorn.Config(
        app, http=http, ws=_WebSocket, ws_max_size=max(MAX_HELLO, largest + OVERHEAD),
        ws_per_message_deflate=False, lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=limits.max_streams + 128, timeout_graceful_shutdown=5,
        ssl_certfile=cert, ssl_keyfile=key,
    )  # fmt: skip
    logger = logging.getLogger("uvicorn.error")
    logger.handlers, logger.propagate = [_Quiet(log)], False
    logger.setLevel(logging.WARNING)
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"--tls-cert and --tls-key: {error.strerror or error}") from error
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()

    def ask(number: int) -> None:
        if asked.done():  # the second time it ends at once
            server.should_exit = server.force_exit = True
        else:
            asked.set_result(number)

    loop.set_exception_handler(
        lambda _, context: log.fault(context.get("exception") or RuntimeError(context["message"]))
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    await service.start()
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    computes = service.engine.executor
    while not (computes.ready or computes.failure or running.done() or asked.done()):
        await asyncio.sleep(0.05)
    failure = computes.failure
    if computes.ready:
        ready()
    if not failure:
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        draining = asyncio.create_task(service.drain())
        while not draining.done() and not server.force_exit:
            await asyncio.wait((draining,), timeout=0.1)
        server.should_exit = True
        await running
    await service.stop()
    log("stopped")
    if failure:
        raise SemcodecError(failure)
    return asked.done() and asked.result() == signal.SIGINT


def hosted_largest(server: Server) -> int:
    """Bytes of the largest record that a stream of this server may have."""
    return Hosted(server).largest


def _allow_files(streams: int) -> None:
    """As many open files as streams need, where the system lets one."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = streams + 1024
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))
