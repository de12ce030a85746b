"""What a stream holds, read without any plugin."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, BinaryIO

import msgspec

from semcodec.container.packets import LocalRecord, Packet, read_stream, write_header, write_local


def _layer_bytes(packet: Packet) -> list[int]:
    """Data of the chunks of each layer that is there."""
    sizes = [0] * packet.layers_present
    layer = 0
    for chunk in packet.chunks:
        sizes[layer] += chunk.size
        layer += chunk.ends_layer
    return sizes


def summarise(file: str | os.PathLike[str] | bytes | BinaryIO) -> dict[str, Any]:
    """What a stream holds, for ``inspect``: its header's fields and the sizes of each record, without any plugin.

    Heads are checked; chunks are only measured, since checking one takes the name its Encoder reads it under.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return summarise(opened)
    header, records = read_stream(file)
    rows: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, LocalRecord):
            rows.append({"kind": "local", **asdict(record), "bytes_local": len(write_local(header, record))})
            continue
        data = sum(chunk.size for chunk in record.chunks)
        rows.append(
            {
                "kind": "packet",
                "sequence": record.sequence,
                "params": dict(record.params),
                "bytes_total": record.size,
                "bytes_header": record.size - data,
                "chunks": [{"bytes": c.size, "side": c.side, "ends_layer": c.ends_layer} for c in record.chunks],
                "layers_present": record.layers_present,
                "layers_total": record.layers_total,
                "layer_bytes": _layer_bytes(record),
            }
        )
    own = len(write_header(header))
    return {
        "format": header.format,
        "id": f"{header.id:08x}",
        **msgspec.to_builtins(header),
        "bytes_stream_header": own,
        "file_bytes": own + sum(row.get("bytes_total", 0) + row.get("bytes_local", 0) for row in rows),
        "records": rows,
    }
