"""Codecs that are programs: BPG by libbpg's two, and VVC by Fraunhofer's encoder.

A program that is missing or that fails is one line. Files are in a folder that is gone afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from semcodec.coding.pictures import Rgb, decode_picture, encode_picture
from semcodec.errors import CorruptStream, PluginError, first_line
from semcodec_plugins.image_codecs.spec import HOMES

SECONDS = 600
"""After which a program is given up."""
_BPG = b"BPG\xfb"


class Failed(PluginError):
    """A program that ran and did not like what it was given."""


def run(program: str, arguments: Sequence[str | Path]) -> None:
    """Run a program that is on PATH, and waits for it. Raises PluginError."""
    path = shutil.which(program)
    if path is None:
        raise PluginError(f"{program} is not on PATH: install it from {HOMES[program]}")
    command = [path, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PluginError(f"{program} cannot be used: {first_line(error)}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise Failed(f"{program} fails with {done.returncode}: {said[-1] if said else 'it says nothing'}")


def encode_bpg(rgb: Rgb, qp: int) -> bytes:
    """A BPG file at a quantiser of 0 (faithful) to 51 (small); 4:2:0, as usual."""
    with TemporaryDirectory(prefix="semcodec-") as folder:
        source, target = Path(folder, "in.png"), Path(folder, "out.bpg")
        source.write_bytes(encode_picture(rgb, "png"))
        run("bpgenc", ["-q", str(qp), "-o", target, source])
        return target.read_bytes()


def decode_bpg(data: bytes, max_pixels: int) -> Rgb:
    """The pixels of a BPG file. Raises CorruptStream, before it is decoded where it claims more than ``max_pixels``."""
    width, height = bpg_size(data)
    if width * height > max_pixels:
        raise CorruptStream(f"a picture of {width}x{height} where at most {max_pixels} pixels are due")
    with TemporaryDirectory(prefix="semcodec-") as folder:
        source, target = Path(folder, "in.bpg"), Path(folder, "out.png")
        source.write_bytes(data)
        try:
            run("bpgdec", ["-o", target, source])
            decoded = target.read_bytes()
        except (Failed, OSError) as error:
            raise CorruptStream(f"a BPG file that cannot be decoded ({error}); get the stream again") from error
    return decode_picture(decoded, max_pixels, ("png",))


def bpg_size(data: bytes) -> tuple[int, int]:
    """Width and height that a BPG file claims: after six octets two numbers of seven bits an octet, high ones first."""
    if data[:4] != _BPG:
        raise CorruptStream("not a BPG file; the stream is damaged, get it again")
    sides, at = [], 6
    for _ in range(2):
        value = 0
        for byte in data[at : at + 5]:
            at += 1
            value = value << 7 | byte & 127
            if byte < 128:
                break
        else:
            raise CorruptStream("a BPG file whose head is cut short; get the stream again")
        sides.append(value)
    return sides[0], sides[1]


def encode_vvc(planes: Sequence[npt.NDArray[np.uint8]], qp: int) -> bytes:
    """A bare VVC stream at a quantiser of 0 to 63 from frames in planar 4:2:0, uint8 (3 H / 2, W) each."""
    height, width = planes[0].shape[0] * 2 // 3, planes[0].shape[1]
    with TemporaryDirectory(prefix="semcodec-") as folder:
        source, target = Path(folder, "in.yuv"), Path(folder, "out.266")
        source.write_bytes(b"".join(np.ascontiguousarray(frame).tobytes() for frame in planes))
        options: dict[str, str | Path] = {
            "--input": source,
            "--output": target,
            "--size": f"{width}x{height}",
            "--format": "yuv420",
            "--framerate": "25",
            "--frames": str(len(planes)),
            "--qp": str(qp),
            "--preset": "medium",
            "--threads": "1",
            "--verbosity": "0",
        }
        run("vvencapp", [part for option in options.items() for part in option])
        return target.read_bytes()
