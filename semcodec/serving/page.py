"""The page of a server: streams as they are, and the last pictures received, for a browser.

The page is one document with style and script inside, which asks for nothing but what is here. Figures are kept of
every stream; records are kept to be shown, and decoded once more for it, only while somebody looks.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from semcodec._json import to_json
from semcodec._version import __version__
from semcodec.errors import SemcodecError
from semcodec.serving.engine import item_of
from semcodec.serving.figures import WINDOW_S
from semcodec.serving.messages import Boxes
from semcodec.serving.service import Held, Service

MOST = 200
"""Streams that are listed, the busiest first."""
KNOWN = 8
"""Letters of a session's name that are shown; all of them would let anyone go on with it."""
CLOSE = {"Connection": "close", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Guard = Callable[[Callable[[Request], Any]], Callable[[Request], Any]]


class Page:
    """What is shown of one service. Used on its event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._text, self._policy = _document()
        self._drawing = asyncio.Lock()
        self._drawn: dict[str, tuple[int, list[Mapping[str, Any]]]] = {}

    def routes(self, guarded: Guard) -> list[Route]:
        """``/``, ``/v1/streams`` and ``/v1/streams/{name}/panels``. guarded: lets in who may look."""
        shown = [("/", self._page), ("/v1/streams", self._streams), ("/v1/streams/{name}/panels", self._panels)]
        return [Route(path, guarded(answer)) for path, answer in shown]

    async def _page(self, request: Request) -> Response:
        headers = {**CLOSE, "Content-Security-Policy": self._policy, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(self._text, headers=headers)

    async def _streams(self, request: Request) -> Response:
        self.service.look()
        return _json(self.describe())

    async def _panels(self, request: Request) -> Response:
        self.service.look()
        name = request.path_params["name"]
        held = next((h for s, h in self.service.sessions.items() if s[:KNOWN] == name), None)
        if held is None:
            return JSONResponse({"error": "there is no such stream"}, 404, CLOSE)
        if held.shown is None:
            return _json({"sequence": None, "panels": []})
        job, answer = held.shown
        async with self._drawing:  # one at a time, since models are to have the processor
            known = self._drawn.get(name)
            if known is None or known[0] != job.sequence:
                try:
                    draw = self.service.engine.executor.draw
                    panels = await asyncio.to_thread(draw, job.stream, item_of(job), answer)
                except SemcodecError:
                    panels = []
                self._drawn = {n: kept for n, kept in self._drawn.items() if n in self._names()}
                self._drawn[name] = known = job.sequence, panels
        return _json({"sequence": known[0], "answer": _told(held), "panels": known[1]})

    def _names(self) -> set[str]:
        return {session[:KNOWN] for session in self.service.sessions}

    def describe(self) -> dict[str, Any]:
        """Of the server and of each stream: see docs/serving.md."""
        service, now = self.service, time.monotonic()
        streams = [(held, held.figures.summary(now)) for held in service.sessions.values()]
        streams.sort(key=lambda pair: (pair[0].connection is None, -pair[1]["fps"]))
        return {
            "version": __version__,
            "specs": [server.spec for server in service.models.servers],
            "seconds": now - service.began,
            "window_s": WINDOW_S,
            "draining": service.draining,
            "queued": len(service.batcher),
            "connected": sum(held.connection is not None for held, _ in streams),
            "kept": sum(held.connection is None for held, _ in streams),
            "fps": sum(figures["fps"] for _, figures in streams),
            "bits_per_s": sum(figures["bits_per_s"] for _, figures in streams),
            "streams": [self._describe(held, figures, now) for held, figures in streams[:MOST]],
        }

    def _describe(self, held: Held, figures: dict[str, Any], now: float) -> dict[str, Any]:
        counts = held.session.counts
        return {
            "name": held.session.id[:KNOWN],
            "spec": held.hosted.server.spec,
            "peer": None if held.connection is None else held.connection.peer,
            "seconds": now - held.figures.began,
            "in_flight": len(held.session.queued),
            "window": held.session.window,
            "received": counts.sent,
            "answered": counts.answered,
            "late_total": counts.late,
            "failed_total": counts.failed,
            "shown": None if held.shown is None else held.shown[0].sequence,
            "answer": _told(held),
            **figures,
        }


def _told(held: Held) -> dict[str, Any] | None:
    """The answer to the record that is shown."""
    if held.shown is None:
        return None
    answer = held.shown[1]
    boxes = len(answer.boxes.classes) if isinstance(answer.boxes, Boxes) else None
    return {"name": answer.name, "probability": answer.probability, "layers": list(answer.layers), "boxes": boxes}


def _json(document: Mapping[str, Any]) -> Response:
    return Response(to_json(document), media_type="application/json", headers=CLOSE)


def _document() -> tuple[str, str]:
    """The page and its content security policy: its own style and script by their digests, and requests to here."""
    parts = {
        name: files("semcodec.serving").joinpath(f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")
    }
    page = parts["html"]
    for name in ("css", "js"):
        page = page.replace("{{" + name + "}}", parts[name], 1)
    css, js = (b64encode(hashlib.sha256(parts[name].encode()).digest()).decode() for name in ("css", "js"))
    policy = (
        f"default-src 'none'; style-src 'sha256-{css}'; script-src 'sha256-{js}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def check_host(request: Request, hosts: frozenset[str]) -> Response | None:
    """Refuse a request under a name that is not the server's: without a token, another site's script could have its
    own name lead here and read what is shown. Addresses and ``hosts`` are the server's."""
    name = request.url.hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if name not in hosts:
            return PlainTextResponse("open this page by the server's address, or start it with a token\n", 421, CLOSE)
    return None
