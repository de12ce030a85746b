"""Compress a clip, recognise it from the bytes, measure a few operating points: ``python examples/quickstart.py``.

Needs no download: method, weights and data come with semcodec.
"""

import sys

import semcodec

samples = int(sys.argv[1]) if len(sys.argv) > 1 else 100

pipeline = semcodec.compose("stae+rans+vit-nano")
packet = pipeline.encode("digits-motion:0")  # on the device: pixels, a picture, a file or a sample's name to bytes
answer = pipeline.decode(packet.data)  # on the server: from these bytes alone
print(f"{pipeline.spec}: {answer.name} ({answer.probability:.0%})")
print(f"{packet.bytes_total:,} bytes instead of {pipeline.raw_uint8_bytes:,} as 8-bit pixels\n")

for record in semcodec.sweep("stae+vit-nano", {"stae.frames": [8, 4, 2]}, "digits-motion", limit=samples):
    low, high = record["top1_interval"]
    print(f"{record['spec']:30} top-1 {record['top1']:.2f} [{low:.2f}, {high:.2f}] {record['bytes_total']:9,.0f} bytes")

record = semcodec.compose("h264:28+vit-nano").evaluate("digits-motion", limit=samples)
print(f"{record['spec']:30} top-1 {record['top1']:.2f} {record['bytes_total']:24,.0f} bytes")
