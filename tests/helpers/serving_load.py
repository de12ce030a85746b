"""Devices that have their packets ready, many on one event loop: what a server does under load."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from serving_process import ServerProcess
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from semcodec.composition.composition import compose_spec
from semcodec.container.packets import write_header
from semcodec.data.datasets import open_dataset
from semcodec.pipeline.device import Device
from semcodec.serving import messages
from semcodec.serving.messages import Hello
from semcodec.serving.sessions import DeviceSession

TICKS = os.sysconf("SC_CLK_TCK")
EACH = 50


def cpu_seconds(process: ServerProcess) -> float:
    """That a server has taken of the processor so far."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def records_of(spec: str) -> tuple[Hello, list[bytes]]:
    """How a device opens its stream, and some records of it."""
    device = Device.load(compose_spec(spec), offline=True)
    dataset = open_dataset("digits-scenes", "test", device.request)
    pixels, _ = dataset.batch(range(EACH))
    sizes = dataset.sizes(range(EACH)) if device.request.placed else None
    records = [one.data for one in device.encode_batch(pixels, range(EACH), sizes=sizes)]
    return Hello("", write_header(device.header), "", False, 0.25), records


async def stream(url: str, hello: Hello, records: list[bytes]) -> int:
    """One device: how many of its records are answered."""
    session, answered = DeviceSession(hello), 0
    async with connect(url + "/v1/stream", compression=None, proxy=None) as socket:
        await socket.send(session.open())
        for number, record in enumerate(records):
            session.submit(number, record)
        while session.unanswered:
            answered += isinstance(session.receive(await socket.recv()), messages.Answer)
            for _, data in session.to_send(time.monotonic()):
                await socket.send(data)
        await socket.send(session.counts.bye("done"))
        with suppress(ConnectionClosed):  # a server that is kept from the processor closes without its own BYE
            await socket.recv()
    return answered


async def load(url: str, hello: Hello, records: list[bytes], streams: int) -> int:
    """Several devices at once: how many records are answered in all."""
    return sum(await asyncio.gather(*(stream(url, hello, records) for _ in range(streams))))
