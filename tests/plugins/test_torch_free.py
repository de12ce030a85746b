"""Without torch entropy stages code, and pictures, videos and tensors are written and read."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENTROPY = """
import sys
for name in {blocked}:
    sys.modules[name] = None
import numpy as np
from semcodec.composition.registry import get_registry
from semcodec.priors import Bits, Counted
from semcodec_plugins.entropy import semcodec_components
symbols = np.random.default_rng(0).integers(-40, 3000, 2000, np.int32)
for component in semcodec_components():
    if component.name in {left}:
        continue
    stage = get_registry().load(component)()
    for prior, values in ((Counted(), symbols), (Bits(12), symbols + 40)):
        assert np.array_equal(stage.decode(stage.encode(values, prior), prior, len(values)), values)
    print(component.name)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("blocked", "left"), [(["torch"], []), (["torch", "constriction"], ["rans", "range"])], ids=["torch", "both"]
)
def test_entropy_stages_code(blocked, left):
    assert len(run(ENTROPY.format(blocked=blocked, left=left))) == 6 - len(left)


def test_codecs_write_and_read_their_latents():
    names = run(
        """
import sys
sys.modules["torch"] = None
from io import BytesIO
import numpy as np
from semcodec.composition.registry import get_registry, import_target
from semcodec.container.header import StreamHeader
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.interfaces import Latent
from semcodec.specs import TensorSpec
from semcodec_plugins.entropy.pack import Pack
from semcodec_plugins.image_codecs import semcodec_components

maps = {"maps": TensorSpec((4, None, 6)), "index": TensorSpec((3,), "int64")}
image, clip = {"image": TensorSpec((3, 32, 48))}, {"frames": TensorSpec((8, 3, 32, 48))}
index = np.array([1, 3, 5, 7])
whole, four = {"picture": b"a picture"}, {"picture": b"a picture", "index": index}
values = Latent(
    {"maps": np.arange(120, dtype=np.uint8).reshape(4, 5, 6), "index": np.array([1, 2, 1 << 40])}, {"maps": (0.0, 2.0)}
)
for component in semcodec_components():
    coding = import_target(component.coding, component.name)
    cases = [(image, Latent({}, whole)), (clip, Latent({}, four))]
    if coding.__name__ == "VideoCoding":
        cases = [(clip, Latent({}, {"video": b"a film", "index": index}))]
    if coding.__name__ == "TensorCoding":
        cases = [(maps, values)]
    for features, latent in cases:
        build = {p.name: p.default for p in component.params if p.when == "build"}
        call = {"frames": 4} if "index" in latent.side else {}
        header = StreamHeader("a spec", {}, {}, {}, call)
        sink = PacketSink(Pack())
        coding(features, {}, **build).write(latent, sink)
        [packet] = read_packets(BytesIO(sink.pack(header, 0, call).data), header)
        source = PacketSource(packet, Pack())
        read = coding(features, {}, **build).read(source)
        source.finish()
        assert read.symbols.keys() == latent.symbols.keys() and read.side.keys() == latent.side.keys()
        assert all(np.array_equal(read.symbols[n], a) and read.symbols[n].dtype == a.dtype
                   for n, a in latent.symbols.items())
        assert all(np.array_equal(read.side[n], value) for n, value in latent.side.items())
    print(component.name)
"""
    )
    assert {"jpeg", "h264", "roi-jpeg", "local", "full-offload", "tensor8"} <= set(names)
