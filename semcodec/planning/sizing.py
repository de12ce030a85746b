"""How many streams a server carries, from the times of its stages and the bytes of its messages.

A process of ``semcodec serve`` has one thread that runs the models and one that reads and writes; Python lets one of
them run at a time but inside the networks, so their times add up. A process carries

    use / (fps * (decoding + networks / speed + messages))

streams: the stages of a sample's answer, batch by batch as they were timed, and what its messages cost. ``speed`` is of
an accelerator, for the networks alone: decoding stays on the processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

from semcodec.errors import UsageError
from semcodec.planning.latency import OperatingPoint

MESSAGE_MS = 0.4
"""Of the processor, for a record that comes and its answer that goes: measured, see docs/scale.md."""
NETWORKS = ("recover", "tail", "nms")
"""Stages of the server that an accelerator runs."""
DATA_BYTES, ANSWER_BYTES = 20, 40
"""Of a DATA message beside its record, and of an ANSWER without boxes and logits."""
FRAME_BYTES = 6 + 40
"""Of a message on the network beside itself: a WebSocket frame, and one segment's IP and TCP."""
SESSION_KB = 26.0
"""Of memory, for a session that is idle: measured likewise."""
USE = 0.7
"""Of a process that is to answer in time: what waits grows without bound as it comes near to 1."""


@dataclass(frozen=True)
class Sizing:
    """What one point needs for so many streams.

    sample_ms: of a process, for one sample, of which ``decode_ms``, ``networks_ms`` and ``message_ms`` are the parts.
    per_process, processes: streams that one carries, and how many carry all. up_mbps, down_mbps: of all streams, with
    what the network adds. memory_mb: of sessions and of records in flight, of all processes, beside the models.
    """

    point: OperatingPoint
    streams: int
    decode_ms: float
    networks_ms: float
    message_ms: float
    per_process: int
    processes: int
    up_mbps: float
    down_mbps: float
    memory_mb: float

    @property
    def sample_ms(self) -> float:
        """Of a process, for one sample."""
        return self.decode_ms + self.networks_ms + self.message_ms

    def document(self) -> dict[str, Any]:
        """For JSON."""
        p = self.point
        names = ("streams", "sample_ms", "decode_ms", "networks_ms", "message_ms", "per_process", "processes",
                 "up_mbps", "down_mbps", "memory_mb")  # fmt: skip
        return {"label": p.label, "spec": p.spec or None, "accuracy": p.accuracy, "bytes": p.bytes,
                **{name: getattr(self, name) for name in names}}  # fmt: skip


def size(
    point: OperatingPoint,
    streams: int,
    fps: float,
    *,
    speed: float = 1.0,
    use: float = USE,
    message_ms: float = MESSAGE_MS,
    window: int = 2,
) -> Sizing:
    """What ``point`` needs for ``streams`` of ``fps`` samples a second each.

    speed: of the networks on an accelerator, times that of the processor that was timed. use: of a process, at most.
    window: records of a stream in flight. Raises UsageError.
    """
    if streams < 1:
        raise UsageError(f"streams are counted from 1, not {streams}")
    for name, value in (
        ("samples a second", fps),
        ("the speed of an accelerator", speed),
        ("a message's cost", message_ms),
    ):
        if not 0 < value < inf:
            raise UsageError(f"{name}: a number above 0, not {value:g}")
    if not 0 < use <= 1:
        raise UsageError(f"the use of a process is from 0 to 1, not {use:g}")
    networks = sum(ms for stage, ms in point.server_ms.items() if stage in NETWORKS) / speed
    decode = sum(ms for stage, ms in point.server_ms.items() if stage not in NETWORKS)
    a_sample = point.sent * (decode + networks + message_ms)
    each = floor(use * 1000 / (fps * a_sample)) if a_sample else streams
    sent = fps * point.sent
    up, down = (8e-6 * sent * octets for octets in (point.bytes + DATA_BYTES + FRAME_BYTES, ANSWER_BYTES + FRAME_BYTES))
    memory = SESSION_KB / 1e3 + window * point.bytes / 1e6
    return Sizing(
        point, streams, point.sent * decode, point.sent * networks, point.sent * message_ms, each,
        ceil(streams / each) if each else 0, streams * up, streams * down, streams * memory,
    )  # fmt: skip
