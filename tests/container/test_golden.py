"""Streams of every container format are decoded for ever, to the same integers.

A file that is missing fails. To add a stream (never to change one), give it a recipe and run
``SEMCODEC_UPDATE_GOLDEN=1 pytest tests/container/test_golden.py``, which writes the folders that are not there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from golden.payloads import CASES, made, prior_of
from golden.streams import RECIPES, decode, encode

from semcodec.composition.registry import get_registry
from semcodec.container.header import FORMATS
from semcodec.errors import CorruptStream

ROOT = Path(__file__).parents[1] / "golden"
PAYLOADS = ROOT / "v1" / "entropy"  # what is inside chunks, which no format of the container changes
STREAMS = [pytest.param(version, name, id=f"v{version}-{name}") for version in FORMATS for name in RECIPES]
UPDATE = os.environ.get("SEMCODEC_UPDATE_GOLDEN") == "1"
STAGES = ("deflate", "huffman", "pack", "range", "rans", "zstd")


def golden(path: Path) -> bytes:
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing: get it back from version control"
    return path.read_bytes()


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    golden(path)
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def add_stream(version: int, name: str) -> None:
    folder = ROOT / f"v{version}" / name
    stream = encode(RECIPES[name], version)
    decoded = decode(stream)
    folder.mkdir(parents=True)
    (folder / "stream.sem").write_bytes(stream)
    made_of = {"spec": RECIPES[name].spec, "packets": list(RECIPES[name].packets)}
    text = json.dumps({"made_of": made_of, **decoded.config}, indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(folder / "expected.npz", **decoded.arrays)


@pytest.mark.parametrize(("version", "name"), STREAMS)
def test_streams(version, name):
    folder = ROOT / f"v{version}" / name
    if UPDATE and not folder.exists():
        add_stream(version, name)
    decoded = decode(golden(folder / "stream.sem"))
    config = json.loads(golden(folder / "config.json"))
    made_of = config.pop("made_of")
    assert made_of == {"spec": RECIPES[name].spec, "packets": list(RECIPES[name].packets)}
    assert decoded.config == config
    expected = arrays_of(folder / "expected.npz")
    assert decoded.arrays.keys() == expected.keys()
    for key, values in expected.items():
        found = decoded.arrays[key]
        assert (found.dtype, found.shape) == (values.dtype, values.shape), key
        assert found.tobytes() == values.tobytes(), key


@pytest.mark.parametrize("version", FORMATS)
def test_streams_hold_what_they_are_kept_for(version):
    """The files themselves: layers whole, left out and cut off, a LOCAL record, masks, overridden parameters."""
    root = ROOT / f"v{version}"
    configs = {name: json.loads(golden(root / name / "config.json")) for name in RECIPES}
    layered, cut = configs["layered"]["records"], configs["layered-cut"]["records"]
    assert [r["layers"] for r in layered if "packet" in r] == [[3, 3], [1, 1], [2, 2]]
    assert [r["layers"] for r in cut] == [[3, 3], [1, 1], [1, 2]]
    assert [r for r in layered if "local" in r] == [{"local": 7, "class": 3, "probability": 0.75}]
    assert [r["params"]["pixels"] for r in configs["stae-raw"]["records"]] == [0.5, 1.0, 0.2]
    for name, config in configs.items():
        assert config["header"]["spec"].split("+")[0].split(":")[0] in name.replace("layered", "golden-layered")
    raw = arrays_of(root / "stae-raw" / "expected.npz")
    assert raw["0.symbols.kept"].sum() == 3
    assert raw["0.symbols.mask"].mean() == 0.5


@pytest.mark.parametrize(("version", "name"), STREAMS)
def test_a_changed_stream_is_noticed(version, name):
    stream = bytearray(golden(ROOT / f"v{version}" / name / "stream.sem"))
    stream[-10] ^= 1
    with pytest.raises(CorruptStream):
        decode(bytes(stream))


@pytest.mark.parametrize("stage", STAGES)
def test_payloads(stage):
    coder = get_registry().load(get_registry().find(stage, "entropy"))()
    if UPDATE and not (PAYLOADS / "expected.npz").exists():
        PAYLOADS.mkdir(parents=True)
        np.savez_compressed(PAYLOADS / "expected.npz", **made())
    arrays = arrays_of(PAYLOADS / "expected.npz")
    for case in CASES:
        symbols, prior, path = arrays[case], prior_of(case, arrays), PAYLOADS / f"{stage}.{case}.bin"
        if UPDATE and not path.exists():
            path.write_bytes(coder.encode(symbols, prior))
        decoded = coder.decode(golden(path), prior, len(symbols))
        assert decoded.dtype == np.int32
        assert np.array_equal(decoded, symbols), case


def test_every_stage_of_this_package_has_payloads():
    registry = get_registry()
    own = [c.name for c in registry if c.kind == "entropy" and registry.origin(c)[0] == "semcodec"]
    assert sorted(own) == sorted(STAGES)


def test_the_folder_stays_small():
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    assert len(files) == 3 * len(STREAMS) + 1 + len(STAGES) * len(CASES), "a file without a recipe, or one missing"
    assert sum(path.stat().st_size for path in files) < 550_000
