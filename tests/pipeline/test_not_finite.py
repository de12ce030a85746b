"""NaN and infinity are never an answer: not from weights, not from a forged packet, and never in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from semcodec._json import to_json
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import WeightsError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.tensor_files import write_tensors
from semcodec.pipeline.weights import METADATA, name_weights, read_card
from semcodec.types import Latent


def strict(text: str):
    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, one_thread, value):
    pipeline = Pipeline.load(compose_spec("png+resnet-nano"))
    backbone = pipeline.stages.backbone
    state = backbone.state_dict()
    name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.dim() == 4)
    state = {key: tensor.clone() for key, tensor in state.items()}
    state[name][0, 0, 0, 0] = value
    backbone.load_state_dict(state)
    card = {"keys": {"backbone": "resnet-nano"}, "classes": pipeline.classes, **name_weights({"backbone": backbone})}
    path = tmp_path / "w.safetensors"
    write_tensors(path, {f"backbone.{key}": t for key, t in state.items()}, {METADATA: json.dumps(card)})
    assert read_card(path)["keys"]
    result = call("compose", "png+resnet-nano", "--input", "digits-scenes:0", "--weights", path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {path} is of no use: {name} holds NaN or infinity; train it again or take another\n"
    )
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):  # each end by itself
        Server.load("jpeg+resnet-nano", {"backbone": str(path)})


def test_a_forged_packet_whose_ranges_are_beyond_reason(tmp_path, one_thread, monkeypatch):
    pipeline = Pipeline.load(compose_spec("tensor8+rans+resnet-nano@stem"))
    encoder = pipeline.stages.encoder
    encode = encoder.encode

    def forged(*arguments):
        [latent] = encode(*arguments)
        return [Latent(latent.symbols, dict.fromkeys(latent.side, (0.0, 3e38)))]

    monkeypatch.setattr(encoder, "encode", forged)
    pixels, _ = open_dataset("digits-scenes", "test", pipeline.request).batch([0])
    path = tmp_path / "forged.sem"
    path.write_bytes(pipeline.device.stream(pipeline.encode_batch(pixels, [0])))
    for form in ("table", "json"):
        result = call("decode", path, "--format", form)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: resnet-nano answers with NaN or infinity")
        assert len(result.stderr.splitlines()) == 1


def test_json_is_strict():
    nan, never = float("nan"), float("inf")
    value = {"a": nan, "b": [1.5, -never, (nan, "NaN")], "c": {"d": never, "e": None, "f": True}}
    assert strict(to_json(value)) == {
        "a": None,
        "b": [1.5, None, [None, "NaN"]],
        "c": {"d": None, "e": None, "f": True},
    }
    good = {"x": [1, 2.5, "y"]}
    assert to_json(good, indent=2) == json.dumps(good, indent=2)


def test_nothing_else_writes_json():
    """Every document of the package goes through ``to_json``."""
    import semcodec

    root = Path(semcodec.__file__).parent
    writers = {str(path.relative_to(root)) for path in root.rglob("*.py") if "json.dumps(" in path.read_text()}
    told = {
        "_json.py",
        "_typed.py",
        "cli/plugins_new.py",
        "tasks/segmentation.py",
        "tasks/statistics.py",
        "evaluation/keys.py",
    }
    assert {name for name in writers if not name.startswith("testing/")} <= told  # bytes, digests, words: no documents
