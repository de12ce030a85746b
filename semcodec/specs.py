"""Shapes and types that are threaded from stage to stage. No torch here.

A ``FeatureSpec`` describes one sample of a ``dict[str, Tensor]``; the batch axis is left out.
A ``None`` axis means "any length".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Literal

from semcodec.errors import UsageError

EXPORTED = ".semdev"
"""How files of ``semcodec export`` end: a name that ends so is a file, never a spec."""
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
FITS = ("crop", "letterbox")
CLASS, BOXES, MASKS = "class", "boxes", "masks"
"""Labels that data may have: a class for each sample, ``Boxes``, a class for each pixel (``semcodec.class_masks``)."""
RECONSTRUCTION = "reconstruction"
"""The task whose labels every picture has: its own pixels, as the model's input shows them."""
LABELS = {"classification": CLASS, "video": CLASS, "detection": BOXES, "segmentation": MASKS}
"""By task, the labels that its data must have; those of any other bear the task's own name."""
MAPS = "maps"
"""Name of a convolutional network's features at every cut but the input."""
TOKENS, PREFIX = "tokens", "prefix"
"""Names of a transformer's features at every cut but the input: tokens of a grid, (N, D), and before them in attention
those that have no place there, (P, D): class, distillation, registers. A model without such has no "prefix"."""
EMBED = "embed"
"""Cut of a transformer behind its embedding and positions; "block1", "block2", ... are behind so many blocks."""
ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "int16": 2, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class TensorSpec:
    """Shape (without batch) and dtype name of one tensor.

    grid: of tokens, the sizes of the grid whose places they are in raster order, (h, w) or (t, h, w); () elsewhere.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    grid: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements; an open axis counts as one."""
        return prod(d for d in self.shape if d is not None)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * ITEM_BYTES[self.dtype]

    def accepts(self, other: TensorSpec) -> bool:
        """Whether a tensor of spec ``other`` may go where this one is expected."""
        return (
            self.dtype == other.dtype
            and len(self.shape) == len(other.shape)
            and all(a is None or b is None or a == b for a, b in zip(self.shape, other.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.dtype}[{'x'.join('?' if d is None else str(d) for d in self.shape)}]"


FeatureSpec = Mapping[str, TensorSpec]


def describe(features: FeatureSpec | None) -> str:
    """One line for tables and messages; ``?`` where nothing is known before the model is built."""
    if features is None:
        return "?"
    return ", ".join(f"{name} {spec}" for name, spec in features.items())


def mismatch(forms: Sequence[FeatureSpec], given: FeatureSpec) -> str | None:
    """Why ``given`` may not go where any of ``forms`` is expected, or None if it may."""
    reasons = [_mismatch(form, given) for form in forms]
    return None if None in reasons else reasons[0]


def _mismatch(expected: FeatureSpec, given: FeatureSpec) -> str | None:
    for name, spec in expected.items():
        if name not in given:
            return f"expects {name} {spec}, gets {describe(given)}"
        if not spec.accepts(given[name]):
            return f"expects {name} {spec}, gets {name} {given[name]}"
    return None


@dataclass(frozen=True)
class BackboneSpec:
    """What a Backbone takes and gives, known without building it.

    task: "classification", "detection", "segmentation", "video" or another of ``semcodec.tasks.table.TASKS``.
    input: what ``head`` takes, one sample.
    cuts: by cut name, in order from "input" on, what ``head(x, cut)`` gives.
    tail: by cut name, what ``tail`` accepts where that is not just what ``cuts`` says: any of several forms.
    crop, interpolation: how the input is made of a picture: its shorter side resized by "bilinear", "bicubic",
    "lanczos" or "nearest" so that the input is this share of it, then the centre cropped.
    fit: "crop", or "letterbox": the whole picture as large as it fits, in the middle of grey; crop counts for nothing.
    patch: side in pixels of the patches whose class-token attention ``attend`` gives; None where there is none.
    """

    task: str
    input: FeatureSpec
    cuts: Mapping[str, FeatureSpec]
    tail: Mapping[str, Sequence[FeatureSpec]] = field(default_factory=dict)
    crop: float = 1.0
    interpolation: str = "bilinear"
    patch: int | None = None
    fit: str = "crop"

    def accepts(self, cut: str) -> Sequence[FeatureSpec]:
        """The forms that ``tail`` takes at a cut."""
        return self.tail.get(cut, (self.cuts[cut],))


@dataclass(frozen=True)
class InputRequest:
    """The pixels that a model wants: ``frames`` of ``height`` x ``width``; ``frames`` is None for still images.

    crop, interpolation, fit: how they are made of a picture or film. The shorter side is resized to floor(side / crop)
    by "bilinear", "bicubic", "lanczos" or "nearest" interpolation, then the centre is cropped; or, with the fit
    "letterbox", the whole is made as large as it fits and laid into the middle of grey. What is made on the fly comes
    in the right size, whatever these say. labels: those that are wanted: "class", "boxes", "masks", or another
    task's. sized: whether packets have the source's size, which another task of the same stream needs. Raises
    UsageError for a crop out of (0, 1], another interpolation or fit, and for boxes or masks where pictures are
    cropped.
    """

    frames: int | None
    height: int
    width: int
    crop: float = 1.0
    interpolation: str = "bilinear"
    fit: str = "crop"
    labels: str = CLASS
    sized: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop is a share above 0 and up to 1, not {self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation is one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")
        if self.fit not in FITS:
            raise UsageError(f"fit is one of {', '.join(FITS)}, not {self.fit!r}")
        if self.labels in (BOXES, MASKS) and self.fit != "letterbox":
            finds = "finds boxes" if self.labels == BOXES else "segments"
            raise UsageError(f"a model that {finds} takes the whole picture: fit='letterbox', not {self.fit!r}")

    @classmethod
    def of(cls, model: BackboneSpec) -> InputRequest:
        """What a model wants whose input is "frames" or an "image"."""
        clip = "frames" in model.input
        *frames, _, height, width = model.input["frames" if clip else "image"].shape
        assert height is not None and width is not None
        labels = LABELS.get(model.task, model.task)
        return cls(frames[0] if clip else None, height, width, model.crop, model.interpolation, model.fit, labels)

    @property
    def placed(self) -> bool:
        """Whether labels may lie somewhere in the picture, so that the source's size is needed beside them."""
        return self.sized or self.labels != CLASS

    @property
    def kind(self) -> Literal["video", "image"]:
        """Whether clips or still images are wanted."""
        return "image" if self.frames is None else "video"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's pixels: ([frames,] height, width, 3)."""
        return (*(() if self.frames is None else (self.frames,)), self.height, self.width, 3)

    def __str__(self) -> str:
        return "x".join(str(n) for n in (self.frames, self.height, self.width) if n is not None)


@dataclass(frozen=True)
class EncoderSpec:
    """What an Encoder makes of features: the integers it sends and what ``restore`` gives back.

    figures: the rate by the paper's own formula, by name; reported beside measured bytes, never among them.
    """

    latent: FeatureSpec
    restored: FeatureSpec
    figures: Mapping[str, float] = field(default_factory=dict)


def misformed(found: object, kind: str) -> str | None:
    """What is wrong, in words, with what the spec function of a component of that kind gave; None where nothing is."""
    parts: dict[str, object]
    if kind == "encoder":
        if not isinstance(found, EncoderSpec):
            return f"{type(found).__name__}, where an EncoderSpec is due"
        parts = {"latent": found.latent, "restored": found.restored}
    elif kind == "backbone":
        if not isinstance(found, BackboneSpec):
            return f"{type(found).__name__}, where a BackboneSpec is due"
        parts = {"input": found.input, **{f"cut {cut}": features for cut, features in found.cuts.items()}}
    else:
        parts = {"features": found}
    for part, features in parts.items():
        if not isinstance(features, Mapping):
            return f"{part} as {type(features).__name__}, where a TensorSpec by name is due"
        for name, spec in features.items():
            if not isinstance(spec, TensorSpec):
                return f"{part} {name!r} as {type(spec).__name__}, where a TensorSpec is due"
    return None


class SpecMismatch(Exception):
    """Raised by spec functions: the reason, in words, why a stage refuses its input."""


def classifier_spec(
    height: int,
    width: int,
    crop: float,
    interpolation: str,
    patch: int | None = None,
    maps: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    tokens: Mapping[str, FeatureSpec] = MappingProxyType({}),
) -> BackboneSpec:
    """Of an image classifier for ``height`` x ``width`` pixels.

    patch: where its tail takes patches of that side alone. maps: by inner cut, in order, the shape (C, H, W) there.
    tokens: of a transformer, ``token_cuts``.
    """
    image = {"image": TensorSpec((3, height, width))}
    forms = [image]
    if patch is not None:
        forms.append({"patches": TensorSpec((None, 3, patch, patch)), "index": TensorSpec((None,), "int64")})
    return BackboneSpec(
        task="classification",
        input=image,
        cuts={"input": image, **{cut: {MAPS: TensorSpec(shape)} for cut, shape in maps.items()}, **tokens},
        tail={"input": forms, **some_tokens(tokens)},
        crop=crop,
        interpolation=interpolation,
        patch=patch,
    )


def token_cuts(depth: int, grid: tuple[int, ...], dim: int, prefix: int = 0) -> dict[str, FeatureSpec]:
    """Inner cuts of a transformer of so many blocks and so wide, and the features there.

    prefix: tokens that have no place in the grid. "block4" is behind the fourth block.
    """
    features = {TOKENS: TensorSpec((prod(grid), dim), grid=grid)}
    if prefix:
        features[PREFIX] = TensorSpec((prefix, dim))
    return dict.fromkeys((EMBED, *(f"block{i}" for i in range(1, depth + 1))), features)


def some_tokens(cuts: Mapping[str, FeatureSpec]) -> dict[str, Sequence[FeatureSpec]]:
    """What tails take at the cuts of ``token_cuts``: any number of tokens."""
    return {
        cut: [{**features, TOKENS: TensorSpec((None, features[TOKENS].shape[1]))}] for cut, features in cuts.items()
    }


def token_grid(features: FeatureSpec) -> tuple[tuple[int, ...], int, int]:
    """Grid, width D and number of prefix tokens. Raises SpecMismatch for anything but tokens of a known grid."""
    tokens, prefix = features.get(TOKENS), features.get(PREFIX)
    if tokens is not None and features.keys() <= {TOKENS, PREFIX} and len(tokens.grid) in (2, 3):
        (count, dim), dtypes = tokens.shape, {spec.dtype for spec in features.values()}
        before = 0 if prefix is None else prefix.shape[0]
        if count == prod(tokens.grid) and count and dim and before is not None and dtypes == {"float32"}:
            return tokens.grid, dim, before
    raise SpecMismatch(f"takes tokens float32[NxD] of a known grid, not {describe(features)}")


def image_size(features: FeatureSpec) -> tuple[int, int]:
    """Height and width. Raises SpecMismatch for anything but an RGB image of a known size."""
    spec = features.get("image")
    if len(features) == 1 and spec is not None and spec.dtype == "float32" and len(spec.shape) == 3:
        channels, height, width = spec.shape
        if channels == 3 and height is not None and width is not None:
            return height, width
    raise SpecMismatch(f"takes an RGB image of a known size, image float32[3xHxW], not {describe(features)}")


def map_sizes(features: FeatureSpec) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every tensor. Raises SpecMismatch where one is no feature map of a known size."""
    found = {}
    for name, spec in features.items():
        if len(spec.shape) != 3 or None in spec.shape or 0 in spec.shape or spec.dtype != "float32":
            raise SpecMismatch(f"takes feature maps float32[CxHxW] of a known size, not {describe({name: spec})}")
        channels, height, width = spec.shape
        assert channels is not None and height is not None and width is not None
        found[name] = channels, height, width
    return found


def map_size(features: FeatureSpec) -> tuple[str, tuple[int, int, int]]:
    """Name and (C, H, W). Raises SpecMismatch for anything but one feature map of a known size."""
    if len(features) != 1:
        raise SpecMismatch(f"takes one feature map, such as a CNN's at @stem, not {describe(features)}")
    [found] = map_sizes(features).items()
    return found
