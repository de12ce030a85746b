"""Image files of every mode and condition give the right pixels, or one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from semcodec.data.datasets import open_dataset
from semcodec.data.images import fit, from_picture, read_image, size_of
from semcodec.data.inputs import open_input
from semcodec.errors import DataError, UsageError
from semcodec.specs import INTERPOLATIONS, InputRequest

DEIT = {"crop": 0.9, "interpolation": "bicubic"}
WAYS = sorted(set(product([0.875, 0.95, 1.0], INTERPOLATIONS)) - {(1.0, "bilinear")})  # the last rounds nothing
WANTED = InputRequest(None, 32, 32)
RNG = np.random.default_rng(0)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A picture that JPEG keeps well: uint8 (height, width, channels)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [127 + 120 * np.sin((n + 1) * 3 * x + 5 * y * (2 - n) + n) for n in range(channels)]
    return np.stack(waves, -1).round().astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(256, size=(height, width, 3), dtype=np.uint8)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        read_image(path, WANTED)
    message = str(error.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message


def same(path: Path, expected: Image.Image, tolerance: int = 0) -> None:
    difference = read_image(path, WANTED).astype(int) - fit(expected, WANTED)
    assert np.abs(difference).max() <= tolerance


# Resizing and cropping as timm does


def timm_pixels(image: Image.Image, **config) -> np.ndarray:
    """What timm's evaluation transform makes of it, uint8 (height, width, 3)."""
    create_transform = pytest.importorskip("timm.data").create_transform
    transform = create_transform(normalize=False, **config)
    return transform(image).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def deit_config() -> dict:
    resolve_data_config = pytest.importorskip("timm.data").resolve_data_config
    from timm.models import get_pretrained_cfg

    return resolve_data_config({}, pretrained_cfg=get_pretrained_cfg("deit_tiny_patch16_224").to_dict())


@pytest.mark.parametrize(
    "size", [(299, 299), (333, 500), (513, 302), (301, 200), (224, 225), (1, 1), (7, 400), (97, 1001), (248, 248)]
)
def test_pixels_are_those_of_timm(size, deit_config):
    assert {name: deit_config[f"{name}_pct" if name == "crop" else name] for name in DEIT} == DEIT
    for picture in (noise(*size), smooth(*size)):
        image = Image.fromarray(picture)
        assert np.array_equal(fit(image, InputRequest(None, 224, 224, **DEIT)), timm_pixels(image, **deit_config))


@pytest.mark.parametrize(("crop", "interpolation"), WAYS)
@pytest.mark.parametrize("side", [(64, 64), (64, 96), (97, 64)])
def test_so_are_those_of_other_models(crop, interpolation, side):
    for size in ((120, 171), (171, 120), (33, 47), (140, 140)):
        image = Image.fromarray(noise(*size))
        expected = timm_pixels(image, input_size=(3, *side), crop_pct=crop, interpolation=interpolation)
        assert np.array_equal(fit(image, InputRequest(None, *side, crop, interpolation)), expected)


@pytest.mark.shared_data
def test_pixels_of_photographs_are_those_of_timm(deit_config):
    root = Path(os.environ.get("SEMCODEC_DATA", ""), "nips2017")
    if not (root / "labels.csv").is_file():
        pytest.skip("SEMCODEC_DATA names no folder with nips2017/labels.csv")
    data = open_dataset(str(root), "test", InputRequest(None, 224, 224, **DEIT))
    chosen = range(0, len(data), 25)
    pixels, _ = data.batch(chosen)
    for name, found in zip(data.ids(chosen), pixels, strict=True):
        with Image.open(root / "images" / name) as image:
            assert np.array_equal(found, timm_pixels(image.convert("RGB"), **deit_config))


def test_a_long_thread_is_cropped_before_it_is_resized():
    """Resized whole this one would take 34 GB; its rows differ, so that a wrong place would show."""
    levels = np.linspace(0, 255, 50_000).astype(np.uint8)
    image = Image.fromarray(np.repeat(levels[:, None, None], 3, -1))
    pixels = fit(image, InputRequest(None, 224, 224, **DEIT))
    assert pixels.shape == (224, 224, 3)
    assert np.abs(pixels.astype(int) - int(levels[25_000])).max() <= 1


def test_crop_and_interpolation_are_checked():
    for crop in (0.0, 1.1, -1.0, float("nan")):
        with pytest.raises(UsageError, match="crop"):
            InputRequest(None, 8, 8, crop)
    with pytest.raises(UsageError, match="bicubic"):
        InputRequest(None, 8, 8, 0.9, "cubic")


# Modes


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".avif"])
def test_usual_files_are_what_pillow_reads(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth(50, 70)).save(path)
    with Image.open(path) as image:
        same(path, image.convert("RGB"))
    assert np.abs(read_image(path, WANTED).astype(int) - fit(Image.fromarray(smooth(50, 70)), WANTED)).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_grey_is_grey(tmp_path, suffix):
    grey = Image.fromarray(smooth(50, 70)[..., 0])
    grey.save(tmp_path / f"a{suffix}")
    same(tmp_path / f"a{suffix}", grey.convert("RGB"), 0 if suffix != ".jpg" else 6)


def test_black_and_white(tmp_path):
    image = Image.fromarray(noise(40, 40)[..., 0]).convert("1")
    for name in ("a.png", "a.tif", "a.bmp"):
        image.save(tmp_path / name)
        same(tmp_path / name, image.convert("RGB"))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "big-endian.tif"])
def test_16_bits_are_scaled_to_8(tmp_path, name):
    levels = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 256 256 65535\n" + levels.astype(">u2").tobytes())
    elif name == "big-endian.tif":
        Image.frombytes("I;16B", (256, 256), levels.astype(">u2").tobytes()).save(tmp_path / name)
    else:
        Image.fromarray(levels).save(tmp_path / name)
    expected = np.round(levels * (255 / 65535)).astype(np.uint8)
    found = read_image(tmp_path / name, InputRequest(None, 256, 256))
    assert np.array_equal(found, np.repeat(expected[..., None], 3, -1))


def test_pixels_of_no_known_range_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "float.tif")
    refused(tmp_path / "float.tif", "floating-point", "8 or 16 bits")
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(tmp_path / "int.tif")
    refused(tmp_path / "int.tif", "32-bit integer")


def test_cmyk_has_the_right_colours(tmp_path):
    """Adobe's inverted form, which is how CMYK JPEG files are written: the marker is in the file."""
    path = tmp_path / "a.jpg"
    inks = np.zeros((40, 80, 4), np.uint8)
    inks[:, :40, 1:3] = 255  # magenta and yellow: red
    inks[:, 40:, 0] = 255  # cyan
    Image.fromarray(inks, "CMYK").save(path, quality=95)
    assert b"Adobe\0" in path.read_bytes()
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    pixels = read_image(path, InputRequest(None, 40, 80)).astype(int)
    assert np.abs(pixels[:, :36] - [255, 0, 0]).max() < 8
    assert np.abs(pixels[:, 44:] - [0, 255, 255]).max() < 8
    picture = Image.fromarray(smooth(50, 70)).convert("CMYK")
    picture.save(tmp_path / "a.tif")
    same(tmp_path / "a.tif", picture.convert("RGB"))


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_pixels_are_laid_over_white(tmp_path, mode, suffix):
    picture, alpha = smooth(32, 32), smooth(32, 32, 4)[..., 3]
    if mode == "LA":
        picture = np.repeat(picture[..., :1], 3, -1)
    image = Image.fromarray(np.dstack([picture, alpha])).convert(mode)
    image.save(tmp_path / f"a{suffix}", **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    found = read_image(tmp_path / f"a{suffix}", WANTED)
    assert np.abs(found - over_white(picture, alpha)).max() < 1.01


def test_transparent_palette_entries_are_laid_over_white(tmp_path):
    image = Image.fromarray(RNG.integers(4, size=(32, 32), dtype=np.uint8), "P")
    colours = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10], [10, 10, 200]], np.uint8)
    image.putpalette(colours.tobytes())
    index = np.asarray(image)
    image.save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png", WANTED), colours[index])
    image.save(tmp_path / "a.png", transparency=0)
    image.save(tmp_path / "a.gif", transparency=0)
    image.save(tmp_path / "shades.png", transparency=bytes([0, 255, 128, 255]))
    seen = colours.astype(float)
    seen[0] = 255
    for name in ("a.png", "a.gif"):
        assert np.array_equal(read_image(tmp_path / name, WANTED), seen[index])
    seen[2] = (colours[2] * 128.0 + 255 * 127) / 255
    assert np.abs(read_image(tmp_path / "shades.png", WANTED) - seen[index]).max() < 1.01


def test_a_transparent_colour_is_laid_over_white(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = (10, 200, 30)
    Image.fromarray(picture).save(tmp_path / "a.png", transparency=(0, 0, 0))
    expected = picture.copy()
    expected[:, :16] = 255
    assert np.array_equal(read_image(tmp_path / "a.png", WANTED), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth(40, 60)).save(path, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert upright.size == ((60, 40) if orientation < 5 else (40, 60))
    same(path, upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_turns_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(40, 60)).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    with Image.open(path) as image:
        same(path, image.convert("RGB"))


def test_of_several_frames_the_first_is_taken(tmp_path):
    first, *others = (Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (200, 90, 10))
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        first.save(tmp_path / name, save_all=True, append_images=others)
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 3
        same(tmp_path / name, first, 2)
        pixels, *_ = open_input(str(tmp_path / name), WANTED)
        assert np.array_equal(pixels[0], read_image(tmp_path / name, WANTED))


# Sizes


def test_one_pixel_fills_the_picture(tmp_path):
    Image.new("RGB", (1, 1), (10, 200, 30)).save(tmp_path / "a.png")
    for request in (WANTED, InputRequest(None, 224, 224, **DEIT), InputRequest(None, 24, 40, 0.8, "lanczos")):
        assert (read_image(tmp_path / "a.png", request) == (10, 200, 30)).all()


@pytest.mark.parametrize("name", ["large.jpg", "large.png"])
def test_100_megapixels_take_bounded_memory(tmp_path, name):
    """Decoded once, not copied; a JPEG is decoded at an eighth of its size."""
    path = tmp_path / name
    image = Image.new("L", (10_000, 10_000), 40)
    image.paste(220, (0, 0, 10_000, 5_000))
    image.save(path)
    del image
    code = (
        "import resource; from semcodec.specs import InputRequest; from semcodec.data.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"pixels = read_image({str(path)!r}, InputRequest(None, 224, 224, 0.9, 'bicubic'))\n"
        "print(pixels[:110].min(), pixels[:110].max(), pixels[114:].min(), pixels[114:].max(), pixels.shape)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    shown, megabytes = done.stdout.splitlines()
    assert shown == "220 220 40 40 (224, 224, 3)"
    assert float(megabytes) < (60 if name == "large.jpg" else 700)
    assert done.stderr == ""


def test_a_draft_of_a_large_jpeg_is_close_to_the_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(1500, 2100)).save(path, quality=92)
    request = InputRequest(None, 64, 64, 0.9, "bicubic")
    whole = read_image(path, request)
    monkeypatch.setattr("semcodec.data.images._DRAFT", 1 << 20)
    draft = read_image(path, request)
    assert not np.array_equal(draft, whole)
    assert np.abs(draft.astype(int) - whole).max() <= 3


def test_more_than_179_megapixels_are_one_line(tmp_path):
    size = (20_000).to_bytes(4, "big")
    chunks = [b"IHDR" + size + size + b"\x08\x02\0\0\0", b"IDAT" + zlib.compress(bytes(100))]
    data = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks]
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(data))
    refused(tmp_path / "huge.png", "178,956,970", "smaller")


# Files that are none


def test_a_truncated_jpeg_is_one_line(tmp_path):
    for progressive in (False, True):
        buffer = io.BytesIO()
        Image.fromarray(noise(100, 100)).save(buffer, "JPEG", progressive=progressive)
        for share in (0.1, 0.5, 0.9):
            (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
            refused(tmp_path / "cut.jpg")


def test_what_is_no_image_is_one_line(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused(tmp_path / "empty.jpg", "empty file")
    (tmp_path / "text.jpg").write_text("hello\nworld")
    refused(tmp_path / "text.jpg", "no image")
    (tmp_path / "folder.jpg").mkdir()
    refused(tmp_path / "folder.jpg", "is a folder")
    refused(tmp_path / "absent.jpg", "no such image file")
    with pytest.raises(DataError, match=r"folder\.jpg is a folder"):
        open_input(str(tmp_path / "folder.jpg"), WANTED)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".webp", ".bmp", ".pgm", ".avif"])
def test_damaged_files_never_raise_anything_else(tmp_path, suffix):
    rng = np.random.default_rng(1)
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(smooth(24, 24)[..., 0] if suffix == ".pgm" else smooth(24, 24))
    image.save(path, **({"exif": exif} if suffix in (".jpg", ".png", ".tif", ".webp") else {}))
    good, messages = path.read_bytes(), []
    for _ in range(60):
        data = bytearray(good[: int(rng.integers(1, len(good)))] if rng.random() < 0.3 else good)
        for at in rng.integers(min(len(data), 400), size=rng.integers(1, 6)):
            data[at] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            assert read_image(path, WANTED).shape == (32, 32, 3)
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


# Whatever the way in


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_sizes_and_pixels_are_of_the_same_upright_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners = np.zeros((40, 60, 3), np.uint8)
    corners[:20, :30], corners[:20, 30:], corners[20:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(corners).save(path, exif=exif)
    turned = Image.fromarray(corners)
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned)).astype(int)
    high, wide = expected.shape[:2]
    request = InputRequest(None, high, wide, fit="letterbox", labels="boxes")
    assert size_of(path) == (wide, high)
    assert np.abs(read_image(path, request) - expected).mean() < 6
    with Image.open(path) as image:
        pixels, size = from_picture(image, request)
    assert size == (wide, high)
    assert np.array_equal(pixels, read_image(path, request))


def test_a_pgm_of_16_bits_is_the_same_as_a_pillow_image(tmp_path):
    levels = np.arange(1 << 10, dtype=">u2").reshape(32, 32) * 60
    (tmp_path / "a.pgm").write_bytes(b"P5 32 32 65535\n" + levels.tobytes())
    with Image.open(tmp_path / "a.pgm") as image:
        assert np.array_equal(from_picture(image, WANTED)[0], read_image(tmp_path / "a.pgm", WANTED))


def test_grey_of_16_bits_is_laid_over_white(tmp_path):
    levels = np.full((32, 32), 300, np.uint16)
    levels[:, 16:] = 301
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=300)
    found = read_image(tmp_path / "a.png", WANTED)
    assert (found[:, :16] == 255).all() and (found[:, 16:] == 1).all()
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(from_picture(image, WANTED)[0], found)


def test_so_is_a_transparent_colour_of_16_bits(tmp_path):
    picture = np.full((32, 32, 3), 0x1234, ">u2")
    picture[:, 16:] = 0x4321
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    head = (32).to_bytes(4, "big") * 2 + b"\x10\x02\0\0\0"
    parts = [b"IHDR" + head, b"tRNS" + b"\x12\x34" * 3, b"IDAT" + zlib.compress(rows), b"IEND"]
    data = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(data))
    found = read_image(tmp_path / "a.png", WANTED)
    assert (found[:, :16] == 255).all() and (found[:, 16:] == 0x43).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_truncated_pillow_image_is_one_line(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(100, 100)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    try:
        image = Image.open(path)
    except OSError:
        pytest.skip("Pillow does not open it")
    with image, pytest.raises(DataError, match="the Pillow image: cannot be read") as error:
        from_picture(image, WANTED)
    assert "\n" not in str(error.value)
