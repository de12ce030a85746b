"""Toy components with torch-free spec functions: every trait that composition knows, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from semcodec.component import Component, Param
from semcodec.composition.registry import Registry
from semcodec.specs import BackboneSpec, EncoderSpec, SpecMismatch, TensorSpec

CLIP = {"frames": TensorSpec((16, 3, 8, 8))}
KEPT = {"frames": TensorSpec((None, 3, 8, 8))}
MAP = {"map": TensorSpec((64, 4, 4))}


def net(params):
    if params["side"] % 8:
        raise SpecMismatch(f"side={params['side']} is no multiple of 8")
    return BackboneSpec("video", CLIP, {"input": CLIP, "mid": MAP}, tail={"input": (KEPT,)})


def still(params):
    picture = {"frames": TensorSpec((1, 3, 8, 8))}
    return BackboneSpec("classification", picture, {"input": picture})


def clip_encoder(features, params):
    if "frames" not in features:
        raise SpecMismatch("takes frames")
    _, *rest = features["frames"].shape
    kept = params["frames"]
    return EncoderSpec({"q": TensorSpec((kept,), "uint8")}, {"frames": TensorSpec((kept, *rest))})


def same_encoder(features, params):
    return EncoderSpec({"q": TensorSpec((None,), "uint8")}, features)


def same(features, params):
    return features


def half(features, params):
    return {name: replace(spec, dtype="float16") for name, spec in features.items()}


def buggy(features, params):
    return 1 // 0


def gives_features(features, params):
    return features


def gives_tuples(features, params):
    return EncoderSpec({"q": TensorSpec((None,), "uint8")}, {"maps": (3, 4, 4)})


def toy(kind, name, function=None, **more):
    spec = f"toys:{function}" if function else None
    return Component(kind, name, f"toys:{name}", f"a toy {kind}", spec=spec, **more)


BUDGET = Param("budget", float, None, "how many", when="build")
KEEP = {"abilities": ("keep",), "budget": True}
ALONE = {"abilities": ("keep",)}
GATE = {"abilities": ("gate",)}
SIDE = Param("side", int, 8, "pixels", when="build")

COMPONENTS = [
    toy(
        "encoder", "two", "clip_encoder",
        params=(
            Param("mode", str, "raw", "a choice", ("raw", "fine"), when="build"),
            Param("frames", int, 4, "a knob", (1, 2, 4, 8, 16), open=True, low=1, high=16),
            Param("pixels", float, 0.5, "a knob", low=0.1, high=1.0),
            Param("flip", bool, False, "a switch"),
        ),
        traits={"targets": ("frames", "pixels"), "recoverer": "fill", "tasks": ("video",)},
        license="MIT",
    ),
    toy(
        "encoder", "guess", "same_encoder",
        params=(
            Param("patches", float, 1.0, "a knob", low=0.0, high=1.0),
            Param("edge", str, "tiny", "a net", when="build"),
        ),
        traits={"targets": ("patches",), "predicts": True, "entropy": "mixed", "selectors": ("share:0.9", "doubt")},
    ),
    toy(
        "encoder", "whole", "same_encoder", positional="quality",
        params=(Param("quality", int, 75, "of the picture", low=1, high=100),),
        traits={"entropy": "none"},
    ),
    toy("encoder", "deep", "same_encoder", traits={"cut": "mid"}),
    toy("encoder", "buggy", "buggy"),
    toy("recoverer", "none", "same"),
    toy("recoverer", "fill", "same", params=(Param("steps", int, 1, "how long", when="build"),)),
    toy("recoverer", "half", "half"),
    toy("entropy", "rans"),
    toy("entropy", "zip", params=(Param("level", int, 6, "how hard"),), positional="level"),
    toy("selector", "top-k", params=(BUDGET,), positional="budget", traits=KEEP),
    toy("selector", "dice", params=(BUDGET, Param("seed", int, 0, "of the draw")), positional="budget", traits=KEEP),
    toy("selector", "share", params=(Param("of", float, 0.5, "part"),), positional="of", traits=ALONE),
    toy("selector", "doubt", params=(Param("above", float, 0.8, "bits"),), positional="above", traits=GATE),
    toy("selector", "odds", traits=GATE),
    toy("backbone", "net", "net", params=(SIDE,)),
    toy("backbone", "still", "still"),
    toy("backbone", "blind", license="AGPL-3.0"),
]  # fmt: skip

REGISTRY = Registry.of(COMPONENTS)
