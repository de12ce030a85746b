"""How the servers of some SPECs are loaded, the same in every process, with their networks or without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semcodec.pipeline.accelerator import Accelerator
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest


@dataclass(frozen=True)
class Loading:
    """tasks: that are answered, of each SPEC; None: all. device, half: as of ``Server.load``."""

    specs: Sequence[str]
    request: WeightsRequest
    tasks: Sequence[Sequence[str] | None]
    device: str = "cpu"
    half: bool = False

    def load(self) -> list[Server]:
        """Raises what ``Server.load`` raises."""
        there, offline = Accelerator.find(self.device, self.half), self.request.offline
        return [
            Server.load(spec, self.request, offline=offline, device=there, replies=None, tasks=tasks)
            for spec, tasks in zip(self.specs, self.tasks, strict=True)
        ]

    def anywhere(self) -> Loading:
        """The same, from whatever folder it is loaded."""
        given = {
            slot: os.path.abspath(path) if os.path.exists(path) else path for slot, path in self.request.given.items()
        }
        return replace(self, request=replace(self.request, given=given))


def lighten(server: Server) -> None:
    """Let go of a server's networks: it still says which streams it answers, but answers none."""
    from torch import nn

    for part in (*server.tails.values(), server.encoder, server.recoverer):
        if isinstance(part, nn.Module):
            part.to("meta")
