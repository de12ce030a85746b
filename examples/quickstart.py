"""Compress a clip, recognise it from the bytes, measure beside what all have: ``python examples/quickstart.py``.

Needs no download: method, weights and data come with semcodec.
"""

import sys

import semcodec

CODEC = "layered:level=2+rans+vit-nano@embed"
# What README's first screen and "make demo" show: features behind the stem of a video ViT, learned by distillation.
OTHERS = ("jpeg:10+vit-nano", "avif:10+vit-nano", "h265:36+vit-nano")

samples = int(sys.argv[1]) if len(sys.argv) > 1 else 100

pipeline = semcodec.compose(CODEC)
packet = pipeline.encode("digits-motion:0")  # on the device: pixels, a picture, a file or a sample's name to bytes
answer = pipeline.decode(packet.data)  # on the server: from these bytes alone
print(f"{pipeline.spec}: {answer.name} ({answer.probability:.0%})")
print(f"{packet.bytes_total:,} bytes instead of {pipeline.raw_uint8_bytes:,} as 8-bit pixels\n")

print(f"{'':36} {'top-1, %':>8}  95 % interval   bytes   share of the computing on the device")
for spec in (CODEC, *OTHERS):
    record = semcodec.compose(spec).evaluate("digits-motion", limit=samples)
    low, high = (100 * bound for bound in record["top1_interval"])
    figures = f"{100 * record['top1']:8.1f}   {low:4.1f} - {high:5.1f} {record['bytes_total']:9,.0f}"
    print(f"{record['spec']:36} {figures}   {record['device_share']:.2f}")
