"""Measures what docs/results/deit_rounding.md shows: a codec before a backbone whose LayerNorms are a little other.

    python docs/results/deit_rounding.py nips2017 deit_tiny_patch16_224.safetensors

The DeiT-Tiny that `layered+deit-tiny@block4` learned behind has LayerNorms rounded to 1/64; those that were published
lie up to half of that from it. Each draw moves every weight and bias of its LayerNorms by a uniform amount of as much.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pages
import torch
from safetensors.torch import load_file, save_file

from semcodec.pipeline.weights import WeightsRequest

HERE = Path(__file__).parent
PAGE = HERE / "deit_rounding.md"
MARKS = "<!-- table -->", "<!-- end of table -->"
STEP = 1 / 64
DRAWS = (0, 1)
"""The first is the file as it is."""
SWEEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("png+deit-tiny", {}),
    ("layered+deit-tiny@block4", {"layered.level": (1, 2, 3, 4)}),
)


def moved(weights: Path, draw: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(draw)
    return {
        name: tensor + ((torch.rand(tensor.shape, generator=noise) - 0.5) * STEP).to(tensor.dtype)
        if draw and "norm" in name
        else tensor
        for name, tensor in load_file(weights).items()
    }


def records_of(draw: int) -> Path:
    """A file for each, as records of one name in a file are of the same weights."""
    return HERE / f"deit_rounding_{draw}.jsonl"


def measure(data: str, weights: Path) -> None:
    for draw in DRAWS:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "weights.safetensors"
            save_file(moved(weights, draw), file)
            for spec, grid in SWEEPS:
                request = WeightsRequest({"backbone": str(file)}, True)
                pages.measure(records_of(draw), f"draw {draw}", spec, grid, request, data)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("weights", type=Path, nargs="?")
    options = parser.parse_args()
    if options.weights:
        measure(options.data, options.weights)
    rows = ["| LayerNorms | uncompressed, top-1 % | level 1 | level 2 | level 3 | level 4 |", "| --- |" + " --- |" * 5]
    for draw in DRAWS:
        own = sorted(pages.read(records_of(draw)), key=lambda r: r["knobs"].get("level", 0))
        cells = [f"{100 * own[0]['top1']:.1f}", *(f"{100 * r['top1']:.1f} / {r['bytes_total']:,.0f}" for r in own[1:])]
        rows.append(f"| {f'moved, draw {draw}' if draw else 'as they are'} | {' | '.join(cells)} |")
    pages.tell(PAGE, MARKS, rows)


if __name__ == "__main__":
    main()
