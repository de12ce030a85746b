"""A device's file that is damaged, of another version or hostile is refused in one line, in bounded memory."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from semcodec.artifact.archive import array_bytes, read_array
from semcodec.artifact.graph_check import OPERATORS, check_graph
from semcodec.artifact.manifest import FORMAT, GraphForm
from semcodec.artifact.sessions import Session
from semcodec.composition.composition import compose_spec
from semcodec.errors import SemcodecError, VersionMismatch, WeightsError
from semcodec.pipeline.device import Device
from semcodec.pipeline.export import export_device
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import TensorSpec

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Members of a whole file, by name."""
    path = tmp_path_factory.mktemp("good") / "good.semdev"
    export_device(compose_spec("aecnn+resnet-nano"), path, WeightsRequest(offline=True))
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def changed(good, **fields):
    """The members with other fields in the manifest."""
    return {**good, MANIFEST: json.dumps({**json.loads(good[MANIFEST]), **fields}).encode()}


def refused(path, error=WeightsError):
    with pytest.raises(error) as found:
        Device.load(path)
    text = str(found.value)
    assert "\n" not in text and path.name in text
    return text


def test_the_whole_file_is_taken(good, tmp_path):
    assert Device.load(write(tmp_path / "good.semdev", good)).spec == "aecnn+rans+resnet-nano"


def test_every_cut_and_many_flips_are_refused(good, tmp_path):
    path = write(tmp_path / "a.semdev", good)
    data = path.read_bytes()
    cut = tmp_path / "cut.semdev"
    for size in [0, 1, 4, 21, 22, *range(100, len(data), 997), len(data) - 1]:
        cut.write_bytes(data[:size])
        refused(cut)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 150):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        cut.write_bytes(broken)
        with suppress(SemcodecError):  # nothing else is raised; in a date or a version it may be none
            Device.load(cut)


@pytest.mark.parametrize("name", ["../out.npy", "/etc/passwd", "arrays/../../x.npy", "more.txt"])
def test_members_that_no_manifest_names_are_refused(name, good, tmp_path):
    assert repr(name) in refused(write(tmp_path / "more.semdev", {**good, name: b"x"}))


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "/x"])
def test_names_that_are_paths_are_refused(name, good, tmp_path):
    arrays = [*json.loads(good[MANIFEST])["arrays"], name]
    assert "no name" in refused(write(tmp_path / "path.semdev", changed(good, arrays=arrays)))


def test_a_zip_bomb_is_refused_unread(good, tmp_path):
    members = {**good, MANIFEST: b" " * (1 << 28) + good[MANIFEST]}
    path = write(tmp_path / "bomb.semdev", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is packed" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 16


def test_members_over_each_other_are_refused(good, tmp_path):
    path = write(tmp_path / "over.semdev", good)
    data = bytearray(path.read_bytes())
    size = len(data)
    start = data.index(b"PK\x01\x02")
    entry = bytes(data[start : start + 46 + struct.unpack_from("<H", data, start + 28)[0]])
    for number in range(200):  # as many names for the first member's bytes
        name = f"m{number:0{len(entry) - 48}d}.x".encode()[-(len(entry) - 46) :]
        data[-22:-22] = entry[:46] + name
    count, length = struct.unpack_from("<H", data, len(data) - 12)[0] + 200, len(data) - start - 22
    struct.pack_into("<HHI", data, len(data) - 14, count, count, length)
    path.write_bytes(data)
    assert len(data) > size
    refused(path)


def test_a_list_of_very_many_members_is_refused_unread(good, tmp_path):
    path = tmp_path / "many.semdev"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5000):
            archive.writestr(f"arrays/{number}.npy", b"")
    assert "5,000 members" in refused(path)


def test_what_is_no_regular_file_is_refused(tmp_path):
    folder = tmp_path / "folder.semdev"
    folder.mkdir()
    refused(folder)
    with pytest.raises(FileNotFoundError):
        Device.load(tmp_path / "none.semdev")


@pytest.mark.parametrize("version", [0, FORMAT + 1, "1", None, 10**30])
def test_other_versions_are_refused_by_their_number(version, good, tmp_path):
    text = refused(write(tmp_path / "v.semdev", changed(good, format=version)), VersionMismatch)
    assert repr(version) in text and "export it again" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": "jpeg+vit-nano-server"},
        {"classes": [1]},
        {"more": 1},
        {"graphs": {}},
        {"arrays": []},
        {"graphs": {"head": {"inputs": {"image": {"shape": [3, 96, 10**9]}}, "outputs": {}}}},
        {"graphs": {"head": {"inputs": {"image": {"shape": [3, None, 96]}}, "outputs": {}}}},
        {"graphs": {"head": {"inputs": {"image": {"shape": [3, 96, 96]}}, "outputs": {"maps": {"shape": [9, 9, 9]}}}}},
        {"known": {"resnet-nano": {"task": "classification", "input": {"image": {"shape": [3, 10**6, 10**6]}},
                                   "cuts": {}}}},
    ],
    ids=str,
)  # fmt: skip
def test_manifests_that_say_something_else_are_refused(fields, good, tmp_path):
    refused(write(tmp_path / "m.semdev", changed(good, **fields)))


def test_a_header_of_newer_components_is_refused_by_their_versions(good, tmp_path):
    from io import BytesIO

    from msgspec.structs import replace

    from semcodec.container.packets import read_header, write_header

    header = read_header(BytesIO(good["header.bin"]))
    newer = replace(header, components={**header.components, "encoder/aecnn": 7})
    members = {**good, "header.bin": write_header(newer)}
    assert "encoder/aecnn 7" in refused(write(tmp_path / "h.semdev", members), VersionMismatch)
    other = write_header(replace(header, spec="nothing+at-all"))
    assert "nothing+at-all" in refused(write(tmp_path / "h.semdev", {**good, "header.bin": other}))
    refused(write(tmp_path / "h.semdev", {**good, "header.bin": good["header.bin"] + b"x"}))


def test_arrays_are_bounded_by_their_bytes():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    data = array_bytes(array)
    assert np.array_equal(read_array(data), array)
    assert read_array(array_bytes(np.array(7))).shape == ()
    for broken in (data[:-1], data + b"x", data.replace(b"(2, 3)", b"(9, 9)"), data.replace(b"<i2", b"|O8"), b""):
        with pytest.raises(ValueError, match=r".+"):
            read_array(broken)


@pytest.mark.parametrize(("name", "shape"), [("quantiser.low", (3,)), ("quantiser.counts", (16, 7)), ("kept", ())])
def test_arrays_that_do_not_fit_are_refused_when_the_file_is_loaded(name, shape, good, tmp_path):
    path = write(tmp_path / "a.semdev", {**good, f"arrays/{name}.npy": array_bytes(np.ones(shape, np.float32))})
    if name == "kept":  # which only the graph was made with
        Device.load(path)
    else:
        assert "fit together" in refused(path)


# -- graphs ----------------------------------------------------------------------------------------------------------

ONE = {"x": TensorSpec((4,))}
FORM = GraphForm(ONE, {"y": TensorSpec((4,))})


def graph(*nodes, initializers=(), domains=(("", 20),), shape=("batch", 4)):
    """A model of x (B, 4) to y."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    made = helper.make_graph(list(nodes), "g", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid(*one) for one in domains]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


RELU = helper.make_node("Relu", ["x"], ["y"])


def test_a_graph_runs():
    session = Session(graph(RELU).SerializeToString(), FORM, "a graph")
    [found] = session(np.array([[-1, 0, 1, 2]], np.float32))
    assert found.tolist() == [[0, 0, 1, 2]]


def outside():
    """A constant in another file."""
    tensor = constant("c", np.ones(4, np.float32))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/hostname")
    return graph(helper.make_node("Add", ["x", "c"], ["y"]), initializers=[tensor])


def hollow():
    """A constant of very many numbers, of which none is there."""
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20])
    return graph(helper.make_node("Add", ["x", "c"], ["y"]), initializers=[tensor])


def branching():
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "inner", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])])  # fmt: skip
    return graph(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
                 initializers=[constant("c", np.array(True))])  # fmt: skip


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (graph(helper.make_node("Mine", ["x"], ["y"], domain="my.own"), domains=(("", 20), ("my.own", 1))), "my.own"),
        (graph(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")), "com.microsoft::Gelu"),
        (graph(helper.make_node("Loop", ["x"], ["y"])), "the operator Loop"),
        (graph(helper.make_node("RandomNormalLike", ["x"], ["y"])), "RandomNormalLike"),
        (branching(), "a graph of its own"),
        (outside(), "another file"),
        (hollow(), "fewer bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_graphs_that_no_device_runs_are_refused(model, why):
    with pytest.raises(WeightsError, match=why):
        Session(model.SerializeToString(), FORM, "a graph")


def test_damaged_graphs_are_refused():
    data = graph(RELU, initializers=[constant("c", np.ones(300, np.float32))]).SerializeToString()
    for size in range(0, len(data), 7):
        with pytest.raises(WeightsError):
            Session(data[:size], FORM, "a graph")
    rng = np.random.default_rng(0)
    for _ in range(300):
        noise = rng.bytes(int(rng.integers(1, 200)))
        with pytest.raises(ValueError, match=r"it|operator|tensor"):
            check_graph(noise)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (graph(RELU, shape=("batch", 5)), FORM),
        (graph(RELU), GraphForm({"z": TensorSpec((4,))}, FORM.outputs)),
        (graph(RELU), GraphForm(ONE, {"y": TensorSpec((5,))})),
        (graph(RELU), GraphForm(ONE, {"y": TensorSpec((4,), "int64")})),
        (graph(RELU), GraphForm({**ONE, "w": TensorSpec((4,))}, FORM.outputs)),
    ],
)
def test_graphs_of_another_form_than_the_manifest_says_are_refused(model, form):
    with pytest.raises(WeightsError, match="manifest"):
        Session(model.SerializeToString(), form, "a graph")


def test_operators_are_onnx_own():
    from onnx import defs

    own = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert own >= OPERATORS
    assert not OPERATORS & {"If", "Loop", "Scan", "RandomUniform"}


HUNGRY = """
import re, sys
import numpy as np
from semcodec.artifact.manifest import GraphForm
from semcodec.artifact.sessions import Session
from semcodec.errors import WeightsError
from semcodec.specs import TensorSpec
form = GraphForm({"x": TensorSpec((4,))}, {"y": TensorSpec((4,))})
try:
    Session(open(sys.argv[1], "rb").read(), form, "a graph")(np.ones((1, 4), np.float32))
except WeightsError as error:
    print(error)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # that of rusage begins with its parent's
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process' own peak of memory")
@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Range"])
def test_a_graph_that_would_take_much_memory_is_stopped(kind, tmp_path):
    """Shapes are constants, as a graph would hide them from whoever looks at its inputs; a terabyte each."""
    if kind == "Range":
        first = helper.make_node("Range", ["a", "b", "d"], ["big"])
        constants = [constant(n, np.array(v, np.float32)) for n, v in (("a", 0.0), ("b", 2e11), ("d", 1.0))]
    else:
        first = helper.make_node(kind, ["one", "s"] if kind == "Expand" else ["s"], ["big"])
        constants = [constant("s", np.array([1 << 20, 1 << 18])), constant("one", np.ones((1, 1), np.float32))]
    model = graph(
        first,
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
        initializers=constants,
    )
    path = tmp_path / "hungry.onnx"
    path.write_bytes(model.SerializeToString())
    done = subprocess.run([sys.executable, "-c", HUNGRY, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line, peak = done.stdout.splitlines()
    assert "does not run" in line or "cannot be loaded" in line
    assert int(peak) < 400_000  # KiB


def test_the_command_says_it_in_one_line(good, tmp_path):
    path = write(tmp_path / "short.semdev", good)
    path.write_bytes(Path(path).read_bytes()[:-100])
    for command in (["encode", path, "digits-scenes:0", "-o", tmp_path / "a.sem"], ["inspect", path]):
        done = subprocess.run([sys.executable, "-m", "semcodec", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("error:") and "short.semdev" in line
    assert not (tmp_path / "a.sem").exists()
