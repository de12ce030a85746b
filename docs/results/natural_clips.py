"""Makes clips to learn from without labels: parts of videos, and pictures that a camera moves over.

    python docs/results/natural_clips.py OUT --videos DATA/fights --pictures DATA/pictures DATA/pictures_imagenet

Each has 16 frames of 128x128. Parts of a video begin anywhere in it and are of several paces. Over a picture the camera
goes from one place, size and angle to another, and before half of the pictures a part of another one moves.
"""

from __future__ import annotations

import math
import random
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
from PIL import Image, ImageDraw

FRAMES, SIDE = 16, 128
RATE, CRF = 12, "14"
PACES = (2, 3, 4, 5)
"""Frames of a video from one that is taken to the next; four are what is asked in use."""
PARTS, MOVING = 3, 2000
"""Clips of each video, and of pictures."""
SEEN, NEAREST = 1.0, 0.45
"""Of a picture's short side, the most and the least that the camera sees."""
TURNED = 0.15
"""Radians, at most."""
VIDEOS, PICTURES = {".mp4", ".avi"}, {".jpg", ".jpeg", ".png"}


def files(folders: Iterable[Path], suffixes: set[str]) -> list[Path]:
    return [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes]


def write(frames: Sequence[Image.Image], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", RATE, options={"crf": CRF, "preset": "veryfast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))


# -- parts of videos --------------------------------------------------------------------------------------------------


def write_parts(video: Path, out: Path, count: int = PARTS) -> list[Path]:
    """So many clips of a video, named after it; those that are there stay as they are."""
    paths = [out / f"{video.stem}-{number}.mp4" for number in range(count)]
    if not all(path.exists() for path in paths):
        with av.open(str(video)) as container:
            frames = [small(frame.to_image()) for frame in container.decode(video=0)]
        rng = random.Random(video.stem)
        for path in paths:
            pace = min(rng.choice(PACES), max(1, len(frames) // FRAMES))
            start = rng.randint(0, max(0, len(frames) - FRAMES * pace))
            write([frames[min(start + i * pace, len(frames) - 1)] for i in range(FRAMES)], path)
    return paths


def small(frame: Image.Image) -> Image.Image:
    """The middle square, at the size that clips have."""
    side = min(frame.size)
    left, top = ((length - side) // 2 for length in frame.size)
    return frame.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


# -- pictures that a camera moves over ---------------------------------------------------------------------------------

View = tuple[float, float, float, float]
"""Middle, of the room that there is; side, of the short one; angle."""


def look(picture: Image.Image, view: View, size: int = SIDE) -> Image.Image:
    x, y, part, angle = view
    side = part * min(picture.size)
    middle = [length / 2 + (place - 0.5) * (length - side) for place, length in zip((x, y), picture.size, strict=True)]
    cos, sin = (turn(angle) * side / size for turn in (math.cos, math.sin))
    half = size / 2
    data = (cos, -sin, middle[0] - half * (cos - sin), sin, cos, middle[1] - half * (cos + sin))
    return picture.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def draw_view(rng: random.Random) -> View:
    return rng.random(), rng.random(), rng.uniform(NEAREST, SEEN), rng.uniform(-TURNED, TURNED)


def on_the_way(start: View, end: View, far: float) -> View:
    x, y, part, angle = (a + (b - a) * far for a, b in zip(start, end, strict=True))
    return x, y, part, angle


def move_over(pictures: Sequence[Image.Image], rng: random.Random) -> list[Image.Image]:
    """A camera over the first picture, and a part of the second, if any, before it."""
    start, end, distance = draw_view(rng), draw_view(rng), rng.uniform(0.1, 0.7)
    frames = [look(pictures[0], on_the_way(start, end, distance * i / FRAMES)) for i in range(FRAMES)]
    for other in pictures[1:]:
        size = rng.randint(SIDE // 4, SIDE * 5 // 8)
        mask = Image.new("L", (size, size))
        ImageDraw.Draw(mask).ellipse((size * rng.uniform(0, 0.25), 0, size * rng.uniform(0.75, 1), size), fill=255)
        view, far = draw_view(rng), rng.uniform(0.2, 1)
        (x, y), (to_x, to_y) = ([rng.uniform(-size / 2, SIDE - size / 2) for _ in range(2)] for _ in range(2))
        part = look(other, view, size)
        for i, frame in enumerate(frames):
            gone = far * i / FRAMES
            frame.paste(part, (round(x + (to_x - x) * gone), round(y + (to_y - y) * gone)), mask)
    return frames


def write_moving(pictures: Sequence[Path], out: Path, count: int = MOVING) -> None:
    for number in range(count):
        path = out / f"moving-{number:04}.mp4"
        if not path.exists():
            rng = random.Random(number)
            opened = [Image.open(rng.choice(pictures)).convert("RGB") for _ in range(rng.choice((1, 2)))]
            write(move_over(opened, rng), path)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    for video in files(given.videos, VIDEOS):
        write_parts(video, given.out / "videos")
    if given.pictures:
        write_moving(files(given.pictures, PICTURES), given.out / "moving")


if __name__ == "__main__":
    main()
