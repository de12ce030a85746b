"""Compress a clip, send it as bytes, recognise it from them; then measure a few operating points.

Run with ``python examples/quickstart.py``. Needs no download: method, weights and data come with semcodec.
"""

from __future__ import annotations

import sys

import semcodec
from semcodec.data import open_dataset


def main(samples: int) -> None:
    """``samples``: clips to measure on."""
    pipeline = semcodec.compose("stae+rans+vit-nano", offline=True)
    dataset = open_dataset("digits-motion", "test", pipeline.request)
    clips, labels = dataset.batch([0])

    packet = pipeline.encode(clips[0])  # uint8 (T, H, W, 3) to bytes, on the device
    answer = pipeline.decode(packet.data)  # and from these bytes alone, on the server
    print(f"{pipeline.spec}: {answer.name} ({answer.probability:.0%}), it is {dataset.classes[labels[0]]}")
    print(f"{packet.bytes_total:,} bytes instead of {pipeline.raw_uint8_bytes:,} as 8-bit pixels")

    print(f"\nThe first {samples} clips of {dataset.name}:")
    for spec in ("stae:frames=8", "stae:frames=4", "stae:frames=2", "jpeg:quality=75,frames=4", "h264:28"):
        record = semcodec.compose(f"{spec}+vit-nano", offline=True).evaluate("digits-motion", limit=samples)
        low, high = record["top1_interval"]
        print(f"{spec:28} top-1 {record['top1']:.2f} [{low:.2f}, {high:.2f}]  {record['bytes_total']:9,.0f} bytes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
