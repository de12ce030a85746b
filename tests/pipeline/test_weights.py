"""Weights come from the first place that has them, and any that do not fit are refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from foreign_checkpoints import hugging_face
from safetensors.torch import load_file, save_file

from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry
from semcodec.errors import UsageError, WeightsError
from semcodec.pipeline import weights
from semcodec.pipeline.hub import download as fetch
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import build
from semcodec.pipeline.weights import WeightsRequest, digest
from semcodec.training.checkpoint import state_dict

# Of a side that no checkpoint in the wheel has.
SPEC = "stae+rans+vit-nano:32"
CLASSES = ["left", "right", "up"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEMCODEC_CACHE", str(folder))
    return folder / "weights"


@pytest.fixture(scope="module")
def modules():
    composition = compose_spec(SPEC)
    return composition, build(composition, CLASSES).modules()


def write(path, modules, slots=weights.SLOTS, fill=None, **card):
    """A file as training writes it. ``fill``: a value that every float tensor gets, to tell files apart."""
    composition, built = modules
    tensors = state_dict({slot: built[slot] for slot in slots})
    if fill is not None:
        tensors = {k: torch.full_like(v, fill) if v.is_floating_point() else v for k, v in tensors.items()}
    card = {"keys": {slot: composition.weights_key(slot) for slot in slots}, "classes": CLASSES, **card}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, path,
              {"semcodec": json.dumps(card)})  # fmt: skip
    return path


def filled(pipeline: Pipeline, slot: str) -> float:
    """The value that ``write`` filled a slot with."""
    values = {float(p.flatten()[0]) for p in pipeline.stages.modules()[slot].parameters()}
    assert len(values) == 1
    return values.pop()


def load(spec: str = SPEC, registry: Registry | None = None, **given: str) -> Pipeline:
    return Pipeline.load(
        compose_spec(spec, registry), WeightsRequest({k.removeprefix("all"): v for k, v in given.items()})
    )


def refused(action, *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable()
    assert all(word in message for word in words), message


def shipping(tmp_path, monkeypatch, resource: str = "toy_shipped:inside/w.safetensors") -> Registry:
    """STAE as if a checkpoint were in its wheel."""
    (tmp_path / "toy_shipped" / "inside").mkdir(parents=True)
    (tmp_path / "toy_shipped" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return Registry.of([replace(c, weights=(resource,)) if c.name == "stae" else c for c in get_registry()])


# -- where they are found ---------------------------------------------------------------------------------------------


def test_the_order_is_given_shipped_cache(tmp_path, monkeypatch, modules, cache):
    registry = shipping(tmp_path, monkeypatch)
    refused(
        lambda: load(registry=registry), "no weights for stae+vit-nano", "--weights encoder=PATH", "--weights random"
    )
    write(cache / "b.safetensors", modules, fill=0.25)
    pipeline = load(registry=registry)
    assert {s.origin for s in pipeline.sources.values()} == {"cache: b.safetensors"}
    assert filled(pipeline, "recoverer") == 0.25
    assert list(pipeline.classes) == CLASSES

    write(tmp_path / "toy_shipped" / "inside" / "w.safetensors", modules, fill=0.5)
    pipeline = load(registry=registry)
    assert {s.origin for s in pipeline.sources.values()} == {"shipped: w.safetensors"}
    assert [filled(pipeline, slot) for slot in weights.SLOTS] == [0.5] * 3

    given = write(tmp_path / "given.safetensors", modules, fill=0.75)
    pipeline = load(registry=registry, all=str(given))
    assert {s.origin for s in pipeline.sources.values()} == {str(given)}
    assert [filled(pipeline, slot) for slot in weights.SLOTS] == [0.75] * 3

    pipeline = load(registry=registry, recoverer=str(given), backbone="random")
    origins = {slot: source.origin for slot, source in pipeline.sources.items()}
    assert origins == {"encoder": "shipped: w.safetensors", "recoverer": str(given), "backbone": "random"}
    assert [filled(pipeline, slot) for slot in ("encoder", "recoverer")] == [0.5, 0.75]


def test_a_file_for_all_may_hold_some(tmp_path, modules, cache):
    write(cache / "rest.safetensors", modules, fill=0.25)
    some = write(tmp_path / "some.safetensors", modules, ("encoder",), fill=0.5)
    pipeline = load(all=str(some))
    assert [filled(pipeline, slot) for slot in weights.SLOTS] == [0.5, 0.25, 0.25]
    pipeline = load(all=str(some), encoder="random")
    assert pipeline.sources["encoder"].origin == "random"


def test_a_folder_is_what_training_wrote_there(tmp_path, modules):
    write(tmp_path / "run" / "weights.safetensors", modules, fill=0.5)
    assert filled(load(all=str(tmp_path / "run")), "backbone") == 0.5


def test_a_folder_of_runs_has_what_belongs_to_each_spec(tmp_path, modules, cache):
    other = compose_spec("stae+rans+vit-nano:64")
    others = (other, build(other, CLASSES).modules())
    write(tmp_path / "runs" / "a" / "weights.safetensors", others, fill=0.25)
    write(tmp_path / "runs" / "b" / "weights.safetensors", modules, fill=0.5)
    runs = str(tmp_path / "runs")
    assert filled(load(all=runs), "encoder") == 0.5
    pipeline = load("stae+rans+vit-nano:64", all=runs)
    assert filled(pipeline, "encoder") == 0.25
    assert pipeline.sources["encoder"].origin == f"{runs}: a"
    refused(lambda: load("stae+rans+vit-nano:48", encoder=runs), "none of its 2 runs", "stae+vit-nano@input:48")
    refused(lambda: load("stae+rans+vit-nano:48", all=runs), "no weights for stae+vit-nano@input:48")


def test_what_was_trained_as_the_whole_composition_comes_first(modules, cache):
    """And its slots come from one file, whichever other files hold some of them too."""
    write(cache / "a.safetensors", modules, ("encoder",), fill=1)
    write(cache / "b.safetensors", modules, fill=2)
    write(cache / "c.safetensors", modules, ("backbone",), fill=3)
    pipeline = load()
    assert {slot: filled(pipeline, slot) for slot in weights.SLOTS} == dict.fromkeys(weights.SLOTS, 2)


def test_training_anew_begins_with_a_backbone_that_learned_alone(modules, cache):
    composition = compose_spec(SPEC)
    both = write(cache / "a.safetensors", modules, fill=1)
    alone = write(cache / "b.safetensors", modules, ("backbone",), fill=2)
    assert weights.find(composition, "backbone", WeightsRequest()).path == both
    assert weights.find(composition, "backbone", WeightsRequest(), alone=True).path == alone
    assert weights.find(composition, "backbone", WeightsRequest({"backbone": str(both)}), alone=True).path == both


def test_a_backbone_that_learned_with_one_encoder_is_no_others(modules, cache):
    write(cache / "a.safetensors", modules, fill=1)
    refused(lambda: load("jpeg+vit-nano:32"), "no weights for vit-nano:32")
    write(cache / "b.safetensors", modules, ("backbone",), fill=2)
    assert filled(load("jpeg+vit-nano:32"), "backbone") == 2


def test_other_build_parameters_are_other_weights(modules, cache):
    write(cache / "w.safetensors", modules)
    load("stae:frames=1+random@pixels+zstd+vit-nano:32")
    refused(lambda: load("stae+rans+vit-nano:48"), "no weights for stae+vit-nano@input:48")
    refused(lambda: load("stae+rans+vit-tiny:32"), "no weights for stae+vit-tiny@input:32")


def test_options_are_parsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert WeightsRequest.parse(["a.safetensors", "encoder=b=c", "recoverer=random"]).given == {
        "": "a.safetensors",
        "encoder": "b=c",
        "recoverer": "random",
    }
    Path("odd=name.safetensors").touch()
    assert WeightsRequest.parse(["odd=name.safetensors"]).given == {"": "odd=name.safetensors"}
    assert WeightsRequest.parse(["runs/lr=1/x.safetensors"]).given == {"": "runs/lr=1/x.safetensors"}
    for twice in (["a", "b"], ["backbone=a", "backbone=b"]):
        with pytest.raises(UsageError, match=r"two files .*a and .*b"):
            WeightsRequest.parse(twice)


def test_a_slot_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="has the slots encoder, recoverer, backbone"):
        Pipeline.load(compose_spec("stae+rans+vit-nano"), WeightsRequest.parse(["egde=random"]))


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_codec_of_pixels_goes_before_another_backbone_where_it_is_named(tmp_path):
    """Its shapes permitting: here those of clips of another size do."""
    composition = compose_spec("deepisc+huffman+vit-nano:32")
    both = (composition, build(composition, CLASSES).modules())
    given = str(write(tmp_path / "given.safetensors", both, ("encoder",), fill=0.5))
    assert filled(load("deepisc+huffman+vit-nano:64", encoder=given, backbone="random"), "encoder") == 0.5
    refused(lambda: load("deepisc+huffman+vit-nano:64", all=given), "holds no weights of")
    refused(lambda: load("stae+rans+vit-nano:64", encoder=given), "holds no weights of stae")


def test_weights_of_another_model_are_refused(tmp_path, modules, cache):
    write(cache / "right.safetensors", modules)
    path = str(write(tmp_path / "w.safetensors", modules))
    refused(lambda: load("stae+rans+vit-tiny:32", backbone=path), path, "no weights of vit-tiny:", "but of", "vit-nano")
    # A file for all that holds nothing of this composition is a mistake too, though other weights could be found.
    other = str(write(tmp_path / "other.safetensors", modules, keys={"backbone": "vit-base"}))
    refused(lambda: load(all=other), other, "vit-base", "vit-nano")


def test_tensors_that_do_not_fit_are_refused(tmp_path, modules):
    path = write(tmp_path / "w.safetensors", modules)
    good = load_file(path)
    card = {"semcodec": json.dumps({"keys": {s: modules[0].weights_key(s) for s in weights.SLOTS}, "classes": CLASSES})}
    name = "encoder.frame_attention.mlp.0.weight"
    for tensors, words in (
        ({k: v for k, v in good.items() if k != name}, ["frame_attention.mlp.0.weight is missing"]),
        ({**good, "encoder.more": torch.zeros(1)}, ["more is not part of the model"]),
        ({**good, name: torch.zeros(3, 3)}, ["is (3, 3), not ("]),
        ({k: v for k, v in good.items() if not k.startswith("encoder")}, ["is missing and", "more"]),
    ):
        save_file(tensors, path, card)
        refused(lambda: load(all=str(path)), str(path), "does not fit the model", *words)


@pytest.mark.parametrize("metadata", ['"text"', "[1]", "3", "{", '{"classes": ["a"]}', '{"keys": []}', '{"keys": 1}'])
def test_a_damaged_card_is_refused(tmp_path, modules, metadata):
    path = write(tmp_path / "w.safetensors", modules)
    save_file(load_file(path), path, {"semcodec": metadata})
    refused(lambda: load(backbone=str(path)), str(path))
    refused(lambda: load(all=str(path)), str(path))


def test_files_that_are_none_are_refused(tmp_path, modules, cache):
    good = write(tmp_path / "w.safetensors", modules).read_bytes()
    absent = str(tmp_path / "absent.safetensors")
    refused(lambda: load(all=absent), f"no such weights file: {absent}")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(lambda: load(backbone=str(empty)), str(empty), "weights.safetensors", "model.safetensors")
    for name, data in {
        "nothing": b"",
        "text": b"these are no tensors at all",
        "cut": good[: len(good) // 2],
        "head": good[:100],
        "size": b"\xff" * 8 + good[8:],
        "pickle": b"\x80\x02}q\x00.",
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        refused(lambda path=path: load(all=str(path)), str(path), "no readable safetensors file")
    cache.mkdir()
    (cache / "broken.safetensors").write_bytes(good[:1000])
    refused(load, "broken.safetensors", "no readable safetensors file")


def test_another_librarys_file_is_refused_where_it_cannot_be_read(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    refused(lambda: load(all=str(path)), str(path), "was not written by semcodec train")
    refused(lambda: load(all="random", backbone=str(path)), "neither semcodec's nor")


# -- the hub ----------------------------------------------------------------------------------------------------------

HUB = "png+vit-small:32"
REPOSITORY = "MCG-NJU/videomae-small-finetuned-kinetics"


def hub(monkeypatch, download=None):
    monkeypatch.setattr("semcodec.pipeline.hub.unreachable", lambda address: None)
    module = ModuleType("huggingface_hub")
    if download:
        module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module if download else None)


def test_the_hub_is_asked_last_and_only_where_it_may(monkeypatch, tmp_path):
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        raise ConnectionError("no route to the hub\nand much more")

    hub(monkeypatch, download)
    refused(lambda: load(HUB), REPOSITORY, "no route to the hub", "--weights PATH")
    assert asked[0] == (REPOSITORY, "config.json")
    asked.clear()
    with pytest.raises(WeightsError, match="no weights for vit-small") as caught:
        Pipeline.load(compose_spec(HUB), WeightsRequest(offline=True))
    assert str(caught.value).isprintable()
    assert Pipeline.load(compose_spec(HUB), partial=True).sources == {"backbone": None}
    assert load(HUB, all="random").sources["backbone"].origin == "random"
    assert not asked


def test_without_the_hubs_client_the_cure_is_named(monkeypatch):
    hub(monkeypatch)
    refused(lambda: load(HUB), REPOSITORY, "pip install 'semcodec[hub]'", "--weights PATH")


def test_what_the_hub_has_is_loaded_with_its_names(monkeypatch, tmp_path):
    hugging_face(tmp_path)
    hub(monkeypatch, lambda repository, name: str(tmp_path / name))
    tiny = [replace(c, traits={"hub": "someone/videomae-tiny", "classes": 5}) if c.name == "vit-tiny" else c
            for c in get_registry()]  # fmt: skip
    pipeline = load("png+vit-tiny:32", Registry.of(tiny))
    assert pipeline.sources["backbone"].origin == "hub: someone/videomae-tiny"
    assert list(pipeline.classes) == ["jump", "run", "sit", "walk", "wave"]


# -- random weights and digests ---------------------------------------------------------------------------------------


def test_random_weights_are_the_same_in_every_process():
    code = f"import semcodec; print(sorted(semcodec.compose({SPEC!r}, weights='random').digests.items()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    here = load(all="random")
    assert torch.equal(torch.get_rng_state(), state)  # nor does it disturb the caller's
    assert ran.stdout.strip() == str(sorted(here.digests.items()))


def test_digests_name_names_shapes_and_values():
    a = {"x": torch.arange(6.0), "y": torch.ones(2)}
    variants = [
        a,
        {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(2)},
        {"z": torch.arange(6.0), "y": torch.ones(2)},
        {"x": torch.arange(6.0) + torch.tensor([0, 0, 0, 0, 0, 1e-6]), "y": torch.ones(2)},
        {"x": torch.arange(6).double(), "y": torch.ones(2)},
        {"x": torch.arange(6.0)},
        {},
    ]
    assert len({digest(v) for v in variants}) == len(variants)
    assert digest(dict(reversed(a.items()))) == digest(a)
    assert digest({"x": torch.arange(12.0)[::2] / 2, "y": torch.ones(2)}) == digest(a)


def test_without_a_network_the_hub_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    began = time.monotonic()
    refused(lambda: load(HUB), REPOSITORY, "127.0.0.1 cannot be reached: Connection refused", "--weights PATH")
    assert time.monotonic() - began < 8


def test_a_repository_without_a_config_is_fetched(monkeypatch, tmp_path):
    class RemoteEntryNotFoundError(Exception):
        pass

    def download(repository, name):
        if name == "config.json":
            raise RemoteEntryNotFoundError(name)
        return str(tmp_path / name)

    hub(monkeypatch, download)
    assert fetch(REPOSITORY) == tmp_path / "model.safetensors"


# -- what stands beside another library's weights ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_classes():
    import timm

    return timm.create_model("test_resnet", num_classes=3).state_dict()


def timm_folder(folder, tensors, config):
    folder.mkdir(exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(config)
    return {"backbone": str(folder)}


NUMBERED = ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("config", "classes"),
    [
        ('{"num_classes": 3, "label_names": ["ant", "bee", "cat"], "pretrained_cfg": {}}', ["ant", "bee", "cat"]),
        ('{"id2label": {"0": "ant", "1": "bee", "2": "cat"}}', ["ant", "bee", "cat"]),
        ('{"num_classes": 3}', NUMBERED),
        ('{"num_classes": 3, "label_names": ["ant", "bee"]}', NUMBERED),
        ('{"num_classes": 2, "label_names": ["ant", "bee"]}', NUMBERED),
        ('{"num_classes": 3, "label_names": [1, 2, 3]}', NUMBERED),
        ('{"id2label": 3}', NUMBERED),
        ("{", NUMBERED),
        (None, NUMBERED),
    ],
)
def test_a_config_beside_weights_names_their_classes_or_is_done_without(three_classes, tmp_path, config, classes):
    given = timm_folder(tmp_path, three_classes, config)
    assert Pipeline.load(compose_spec("png+timm/test_resnet"), WeightsRequest(given)).classes == classes


def test_counts_of_batches_that_a_file_leaves_out_stay_as_they_are(three_classes, tmp_path):
    left = {name: t for name, t in three_classes.items() if not name.endswith("num_batches_tracked")}
    assert len(left) < len(three_classes)
    given = timm_folder(tmp_path, left, None)
    assert len(Pipeline.load(compose_spec("png+timm/test_resnet"), WeightsRequest(given)).classes) == 3
    del left["fc.bias"]
    with pytest.raises(WeightsError, match=r"fc\.bias is missing"):
        Pipeline.load(compose_spec("png+timm/test_resnet"), WeightsRequest(timm_folder(tmp_path, left, None)))
