"""What a device needs runs without torch: every room below ``pipeline``, every Coding, every golden packet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

IMPORT = """
import sys
for name in ("torch", "torchvision", "timm", "compressai", "ultralytics"):
    sys.modules[name] = None  # importing it raises ImportError
import importlib, pkgutil
import semcodec, semcodec_plugins

ROOMS = ("artifact", "composition", "coding", "container", "data", "tasks")
modules = [m.name for m in pkgutil.iter_modules(semcodec.__path__, "semcodec.") if not m.ispkg]
modules.remove("semcodec.__main__")
for room in ROOMS:
    package = importlib.import_module(f"semcodec.{room}")
    modules += [m.name for m in pkgutil.iter_modules(package.__path__, f"semcodec.{room}.")]
for plugin in pkgutil.iter_modules(semcodec_plugins.__path__, "semcodec_plugins."):
    package = importlib.import_module(plugin.name)
    inside = [m.name for m in pkgutil.iter_modules(package.__path__, f"{plugin.name}.")]
    modules += [name for name in inside if name.rpartition(".")[2] in ("coding", "device", "spec")]
PIPELINE = ("device", "exported", "light_stages", "selection", "end", "weights")
modules += [f"semcodec.pipeline.{name}" for name in PIPELINE]
for name in modules:
    importlib.import_module(name)
print(len(modules), sum(name.endswith(".coding") for name in modules))
"""

READ = """
import sys
for name in ("torch", "torchvision", "timm", "compressai", "ultralytics"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
from golden.parts import COMPONENTS
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry, import_target
from semcodec.container.packets import Packet, read_stream
from semcodec.container.sinks import PacketSink, PacketSource

registry = Registry.of([*get_registry(), *COMPONENTS])
for folder in sorted(Path(sys.argv[1]).glob("*/stream.sem")):
    expected = np.load(folder.with_name("expected.npz"), allow_pickle=False)
    header, records = read_stream(folder.read_bytes())
    composition = compose_spec(header.spec, registry)
    bound, features = composition.encoder, composition.stages.features
    if bound.component.coding:
        models = {name: spec for name, spec in zip(composition.models, [composition.source] * 9)}
        coding = import_target(bound.component.coding, bound.name)(features, {}, **{**bound.build, **models})
    else:
        coding = registry.load(bound.component)(features)
    entropy = composition.entropy
    stage = registry.load(entropy.component)(**entropy.build) if entropy else None
    compared = 0
    for i, record in enumerate(records):
        if not isinstance(record, Packet):
            continue
        source = PacketSource(record, stage, composition.with_call(**record.params).call)
        latent = coding.read(source)
        source.finish()
        compared += bool(latent.side)  # pictures are blobs, which the checksums hold
        for name, values in latent.symbols.items():
            assert np.array_equal(values, expected[f"{i}.symbols.{name}"]), (folder, i, name)
            compared += 1
        if record.layers_present == record.layers_total:
            sink = PacketSink(stage)
            coding.write(latent, sink)
            again = sink.pack(header, record.sequence, dict(record.params))
            assert len(again.data) == record.size, (folder, i)
    assert compared
    print(folder.parent.name)
"""


def run(code: str, *arguments: object) -> list[str]:
    path = [str(ROOT / "tests" / "helpers"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_rooms_below_the_pipeline_and_codings_are_imported():
    modules, codings = map(int, run(IMPORT))
    assert modules > 80
    assert codings >= 12


def test_every_golden_packet_is_read_and_written():
    folders = {path.parent.name for path in (ROOT / "tests" / "golden" / "v1").glob("*/stream.sem")}
    assert set(run(READ, ROOT / "tests" / "golden" / "v1")) == folders
