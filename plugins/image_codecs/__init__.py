"""Pictures and 8-bit tensors as encoders: what every other method is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.image_codecs"
FRAMES = Param(
    "frames", int, 0, "frames of a clip to send, uniformly spaced; 0 sends all", (1, 2, 4, 8, 16), open=True, low=0
)

SLOW = Param("slow", bool, False, "at the coder's greatest effort: many times the time for somewhat fewer bytes")


def _quality(default: int) -> Param:
    sweep = (10, 25, 40, 60, 75, 90)
    return Param("quality", int, default, "1 small to 100 faithful", sweep, open=True, low=1, high=100)


def _number(name: str, default: int, help: str, sweep: tuple[int, ...], low: int, high: int) -> Param:  # noqa: A002
    return Param(name, int, default, help, sweep, open=True, low=low, high=high)


PSNR = _number("psnr", 36, "of the picture in dB: 20 small to 60 faithful", (28, 32, 36, 40, 44), 20, 60)
QP = "the quantiser: 0 faithful to {} small"
CRF = "0 faithful to {} small"

PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
GROUP = Param("group", int, 0, "most frames from one key frame to the next; 0: as the coder decides", low=0, high=1000)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    bpg = _number("qp", 29, QP.format(51), (22, 29, 36, 43), 0, 51)
    pictures: tuple[tuple[str, str, str, tuple[Param, ...], dict[str, Any]], ...] = (
        ("jpeg", "Jpeg", "the input as a JPEG picture", (_quality(75), FRAMES), {}),
        ("webp", "Webp", "the input as a WebP picture", (_quality(75), FRAMES, SLOW), {}),
        ("avif", "Avif", "the input as an AVIF picture", (_quality(60), FRAMES, SLOW), {}),
        ("png", "Png", "the input as a PNG picture: 8-bit pixels without loss", (FRAMES,), {}),
        ("jpeg2000", "Jpeg2000", "the input as a JPEG 2000 picture", (PSNR, FRAMES), {}),
        (
            "jpegxl",
            "JpegXl",
            "the input as a JPEG XL picture",
            (_quality(75), FRAMES, SLOW),
            {"requires": ("pillow_jxl",), "extra": "jpegxl"},
        ),
        (
            "bpg",
            "Bpg",
            "the input as a BPG picture, by the programs of libbpg",
            (bpg, FRAMES),
            {"license": "BSD-2-Clause AND LGPL-2.1-or-later", "traits": {"programs": ("bpgenc", "bpgdec")}},
        ),
    )
    for name, target, summary, params, more in pictures:
        traits: dict[str, Any] = {"entropy": "none"} | (
            {"baseline": "full-offload", "error": 0} if name == "png" else {}
        )
        yield Component(
            kind="encoder",
            name=name,
            target=f"{PACKAGE}.pictures_encoder:{target}",
            spec=f"{PACKAGE}.spec:picture",
            coding=f"{PACKAGE}.coding:PictureCoding",
            summary=summary,
            params=params,
            positional=params[0].name if name != "png" else None,
            **(more | {"traits": traits | more.get("traits", {}) | {"device": f"{PACKAGE}.pictures_encoder:{target}"}}),
        )
    words = Param("preset", str, "medium", "how long the coder tries", PRESETS)
    preset = _number("preset", 6, "how long the coder tries: 0 longest to 13", (4, 6, 8, 10), 0, 13)
    for name, target, spec, summary, knob, settings, license, programs in (  # noqa: A001
        ("h264", "H264", "video", "H.264 video (x264)", ("crf", 28, CRF, 51), (words, GROUP), "GPL-2.0-or-later", ()),
        ("h265", "H265", "large_video", "H.265 video (x265)", ("crf", 28, CRF, 51), (words, GROUP), "GPL-2.0-or-later",
         ()),
        ("av1", "Av1", "large_video", "AV1 video (SVT-AV1)", ("crf", 35, CRF, 63), (preset, GROUP),
         "BSD-3-Clause-Clear", ()),
        (
            "vvc",
            "Vvc",
            "large_video",
            "H.266 video, by the program of VVenC",
            ("qp", 32, QP, 63),
            (),
            "BSD-3-Clause-Clear",
            ("vvencapp",),
        ),
    ):  # fmt: skip
        word, default, text, high = knob
        sweep = (20, 28, 36, 44) if high == 51 else (22, 30, 38, 46, 54)
        yield Component(
            kind="encoder",
            name=name,
            target=f"{PACKAGE}.video_encoder:{target}",
            spec=f"{PACKAGE}.spec:{spec}",
            coding=f"{PACKAGE}.coding:VideoCoding",
            summary=f"a clip as {summary}",
            params=(_number(word, default, text.format(high), sweep, 0, high), FRAMES, *settings),
            positional=word,
            license=license,
            requires=("av",),
            extra="video",
            traits={
                "entropy": "none",
                "tasks": ("video",),
                "device": f"{PACKAGE}.video_encoder:{target}",
                **({"programs": programs} if programs else {}),
            },
        )
    yield Component(
        kind="encoder",
        name="roi-jpeg",
        target=f"{PACKAGE}.roi:RoiJpeg",
        spec=f"{PACKAGE}.spec:regions",
        coding=f"{PACKAGE}.coding:PictureCoding",
        summary="the input as one JPEG picture, whose blocks that are not salient have a lower quality",
        params=(
            Param("keep", float, 0.5, "share of the blocks", (0.1, 0.25, 0.5, 0.75), open=True, low=0.01, high=1.0),
            _quality(60),
            _number("low", 10, "quality of the other blocks", (2, 5, 10, 20), 1, 100),
            Param("saliency", str, "spectral", "what scores blocks", ("spectral", "gradient"), when="build"),
        ),
        positional="keep",
        traits={
            "entropy": "none",
            "targets": ("keep",),
            "selectors": ("top-k",),
            "units": {"keep": ("block", "blocks")},
            "device": f"{PACKAGE}.roi:RoiJpeg",
        },
    )
    yield Component(
        kind="encoder",
        name="full-offload",
        target=f"{PACKAGE}.pictures_encoder:Jpeg",
        spec=f"{PACKAGE}.spec:picture",
        coding=f"{PACKAGE}.coding:PictureCoding",
        summary="the baseline that sends the whole input, as JPEG of a quality that costs no accuracy to speak of",
        params=(_quality(95),),
        positional="quality",
        traits={
            "entropy": "none",
            "baseline": "full-offload",
            "device": f"{PACKAGE}.pictures_encoder:Jpeg",
        },
    )
    yield Component(
        kind="encoder",
        name="local",
        target=f"{PACKAGE}.on_device:Local",
        spec=f"{PACKAGE}.spec:local",
        coding=f"{PACKAGE}.coding:PictureCoding",
        summary="the baseline that sends nothing: the whole model on the device; a gate may send some inputs as JPEG",
        params=(
            _quality(95),
            Param("model", str, None, "the device's model, as in model=resnet18; else the server's", when="build"),
        ),
        traits={
            "entropy": "none",
            "models": ("model",),
            "predicts": True,
            "selectors": ("never",),
            "tasks": ("classification", "video"),
            "device": f"{PACKAGE}.device:LocalDevice",
        },
    )
    yield Component(
        kind="encoder",
        name="tensor8",
        target=f"{PACKAGE}.tensor8:Tensor8",
        spec=f"{PACKAGE}.spec:tensor8",
        coding=f"{PACKAGE}.coding:TensorCoding",
        summary="any features at 8 bits a value, uniform between each tensor's minimum and maximum",
        traits={"entropy": "required", "device": f"{PACKAGE}.tensor8:Tensor8"},
    )
