"""Spec functions of the toys, which must not import torch."""

from __future__ import annotations

from semcodec.specs import BackboneSpec, EncoderSpec, SpecMismatch, TensorSpec


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
