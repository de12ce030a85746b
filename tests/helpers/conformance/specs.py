"""Spec functions of the toys, which must not import torch."""

from __future__ import annotations

from semcodec.specs import BackboneSpec, EncoderSpec, SpecMismatch, TensorSpec
from semcodec.testing.stand_ins import clips


def image_spec(features, params):
    if "image" not in features:
        raise SpecMismatch("takes images")
    shape = features["image"].shape
    return EncoderSpec({"rows": TensorSpec(shape[1:2], "bool"), "q": TensorSpec(shape, "uint8")}, dict(features))


def refusing_spec(features, params):
    raise SpecMismatch("takes nothing")


def same_spec(features, params):
    return features


def halves(params):
    clip = {"frames": TensorSpec((4, 3, 16, 24)), "index": TensorSpec((4,), "int64")}
    return BackboneSpec("video", {"frames": clip["frames"]}, {"input": clip, "late": clip})


def halves_of_images(params):
    image = {"image": TensorSpec((3, 32, 48))}
    maps = {"maps": TensorSpec((6, 8, 12))}
    return BackboneSpec("classification", image, {"input": image, "maps": maps})


def boxes(params):
    image = {"image": TensorSpec((3, 32, 48))}
    return BackboneSpec("detection", image, {"input": image})


def spec_that_imports_torch(features, params):
    import torch

    return {name: TensorSpec(t.shape, str(torch.float32).removeprefix("torch.")) for name, t in features.items()}


def step_and_a_bit(features, params):
    """Pixels are rounded to 8 bits and then down to a multiple of the step."""
    return (params["step"] - 0.49) / 255


def half_a_level(features, params):
    return 0.5 / 255


def clips_of(params):
    return clips({})


def two_of_six(features, params):
    if features.keys() != {"maps"}:
        raise SpecMismatch("takes maps")
    return EncoderSpec({"q": TensorSpec((2, *features["maps"].shape[1:]), "uint8")}, dict(features))
