"""Which of CompressAI's image models there are, how large, and what they take and give; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.errors import did_you_mean
from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, image_size

FACTORIZED, HYPER, CHECKERBOARD, RASTER = "factorized", "hyper", "checkerboard", "raster"
DOWN = 16
"""Pixels along each side that one place of the latent y stands for; of z, where there is one, ``4 * DOWN``."""
MOST = 512
"""Channels of a model of one's own, whose weights stay below a gigabyte: the header may be a stranger's."""


@dataclass(frozen=True)
class Model:
    """context: what y is coded under. small, large: channels (N, M) below the quality ``turn`` and from it on.

    one: whether N is also M, and all that the constructor takes. groups: of channels of y, coded one after another.
    """

    context: str
    small: tuple[int, int]
    large: tuple[int, int]
    turn: int
    qualities: int = 8
    one: bool = False
    groups: int = 1


_SMALL, _LARGE = (128, 192), (192, 320)
MODELS = {
    "bmshj2018-factorized": Model(FACTORIZED, _SMALL, _LARGE, 6),
    "bmshj2018-factorized-relu": Model(FACTORIZED, _SMALL, _LARGE, 6),
    "bmshj2018-hyperprior": Model(HYPER, _SMALL, _LARGE, 6),
    "mbt2018-mean": Model(HYPER, _SMALL, _LARGE, 5),
    "mbt2018": Model(RASTER, (192, 192), _LARGE, 5),
    "cheng2020-anchor": Model(RASTER, (128, 128), (192, 192), 4, 6, one=True),
    "cheng2020-attn": Model(RASTER, (128, 128), (192, 192), 4, 6, one=True),
    "cheng2020-anchor-checkerboard": Model(CHECKERBOARD, (192, 192), (192, 192), 1, 6, one=True),
    "elic2022-official": Model(CHECKERBOARD, _LARGE, _LARGE, 1, groups=5),
    "elic2022-chandelier": Model(CHECKERBOARD, _LARGE, _LARGE, 1, groups=5),
}
"""CompressAI's image models by name, but those of variable rate, whose weights it does not publish."""


def model(name: str) -> Model:
    """What is known of a model by its name. Raises SpecMismatch for one that CompressAI has not."""
    if name not in MODELS:
        hint = did_you_mean(name, MODELS, f"there are {', '.join(MODELS)}")
        raise SpecMismatch(f"CompressAI has no image model {name!r}: {hint}")
    return MODELS[name]


def channels(params: Mapping[str, Any]) -> tuple[int, int]:
    """N and M. Raises SpecMismatch."""
    known = model(params["model"])
    if params["quality"] > known.qualities:
        raise SpecMismatch(f"{params['model']} has qualities of 1 to {known.qualities}, not {params['quality']}")
    if params["size"] is None:
        return known.large if params["quality"] >= known.turn else known.small
    match = re.fullmatch(r"([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", str(params["size"]))
    n, m = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    # N-M of mbt2018 and its kin have layers of 3 M / 2 and 10 M / 3 channels.
    if not match or not 2 <= n <= MOST or not 2 <= m <= MOST or (known.one and n != m):
        form = "N" if known.one else "N-M, as 32-48"
        raise SpecMismatch(f"size is {form}, of 2 to {MOST} channels each, not {params['size']!r}")
    if m % 2 or (m < 16 and known.context == CHECKERBOARD):
        raise SpecMismatch(f"{params['model']} takes an even number of channels M, 16 or more with groups, not {m}")
    return n, m


def published(**params: Any) -> str | None:
    """Where CompressAI publishes weights; None for models without any and for sizes of one's own."""
    channels(params)
    if params["size"] is not None:
        return None
    from compressai.zoo.image import model_urls

    found: str | None = model_urls.get(params["model"], {}).get(params["metric"], {}).get(params["quality"])
    return found


def places(size: tuple[int, int], known: Model) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of y, and of z (0 where there is none), of the input padded to whole places of the coarser."""
    step = DOWN if known.context == FACTORIZED else 4 * DOWN
    height, width = (-(-side // step) for side in size)
    if known.context == FACTORIZED:
        return (height, width), (0, 0)
    return (4 * height, 4 * width), (height, width)


def shape_of_y(known: Model, m: int, y: tuple[int, int]) -> tuple[int, int, int]:
    """Channels first, or last where place after place is coded."""
    return (*y, m) if known.context == RASTER else (m, *y)


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """An image of a known size, whatever it is."""
    size = image_size(features)
    known, (n, m) = model(params["model"]), channels(params)
    y, z = places(size, known)
    latent = {"y": TensorSpec(shape_of_y(known, m, y), "int32")}
    if z[0]:
        latent["z"] = TensorSpec((n, *z), "int32")
    return EncoderSpec(latent=latent, restored=dict(features))
