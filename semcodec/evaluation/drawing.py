"""Panels laid out on a page, by matplotlib, which is imported only where something is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from semcodec.errors import SemcodecError, UsageError
from semcodec.panels import MISSING, Floats, Frame, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "jpg", "jpeg", "webp", "pdf", "svg")
WIDTH, MARGIN, GAP = 11.0, 0.25, 0.2
TALLEST = 3.2
"""Inches: of the page, around it, between panels; the greatest height of a panel."""
LINE = 0.24
"""Inches, of a line of text."""
LUMA = np.array([0.299, 0.587, 0.114])


def check(form: str) -> None:
    """Raises UsageError for a format (a file's suffix) that cannot be drawn, SemcodecError without matplotlib."""
    if form.removeprefix(".").lower() not in FORMATS:
        raise UsageError(f"a plot cannot be written as {form or 'a file without a suffix'}; use .{', .'.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SemcodecError("a plot needs matplotlib: pip install 'semcodec[report]'") from None


def draw(panels: Sequence[Panel], title: str, file: IO[bytes], form: str = "png") -> None:
    """Lay the panels out under a title of one or more lines, of which the first stands out, and write the picture.

    form: one of ``FORMATS``, with or without a dot. Raises as ``check`` does.
    """
    check(form)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first, *more = [line for whole in title.split("\n") for line in _wrapped(whole)]
    lines = list(_lines(panels))
    heights = [_height(line) for line in lines]
    head = LINE * (1 + len(more))
    height = 2 * MARGIN + head + sum(heights) + len(lines) * (LINE + GAP) - GAP
    figure = Figure((WIDTH, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    top = height - MARGIN
    for number, text in enumerate((first, *more)):
        style: dict[str, Any] = {"weight": "normal" if number else "bold", "fontsize": 10.5, "parse_math": False}
        figure.text(MARGIN / WIDTH, (top - number * LINE) / height, text, va="top", **style)
    top -= head
    for line, tall in zip(lines, heights, strict=True):
        left = MARGIN
        top -= LINE + tall
        for panel in line:
            wide = tall * panel.aspect
            _draw_panel(figure, panel, (left / WIDTH, top / height, wide / WIDTH, tall / height))
            left += wide + GAP
        top -= GAP
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks is drawn as boxes
        figure.savefig(file, format=form.removeprefix(".").lower())


def _wrapped(line: str, width: int = 100) -> list[str]:
    """Lines of a title that fit the page."""
    return [line[i : i + width] for i in range(0, len(line), width)] or [""]


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    """Panels in their order, as many beside each other as keep a fair height."""
    line: list[Panel] = []
    for panel in panels:
        if line and _height([*line, panel]) < 0.62 * TALLEST:
            yield line
            line = []
        line.append(panel)
    if line:
        yield line


def _height(line: Sequence[Panel]) -> float:
    """Inches at which a line of panels fills the page, up to the greatest."""
    room = WIDTH - 2 * MARGIN - GAP * (len(line) - 1)
    return min(TALLEST, room / sum(panel.aspect for panel in line))


def _draw_panel(figure: Figure, panel: Panel, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    axes.set_axis_off()
    image, heat = panel.image, panel.heat
    if image is not None and heat is not None:  # without colours of its own, so that the map's can be read
        image = (0.6 * (image @ LUMA) + 0.4 * 255)[..., None].repeat(3, 2).astype(np.uint8)
    if image is not None:
        axes.imshow(image, aspect="auto", extent=(0, 1, 0, 1))
    if heat is not None:
        colours = _colours(heat, over=image is not None)
        axes.imshow(colours, aspect="auto", extent=(0, 1, 0, 1), interpolation="nearest")
    for frame in panel.frames:
        _draw_frame(axes, frame)
    axes.set_title(panel.title, fontsize=9, loc="left", pad=4, parse_math=False)


def _draw_frame(axes: Axes, frame: Frame) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colour = colormaps["tab10"](frame.colour % 10)
    left, top, right, bottom = frame.place
    axes.add_patch(Rectangle((left, 1 - bottom), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1))
    plate = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
    look: dict[str, Any] = {"color": "white", "fontsize": 5, "va": "top", "clip_on": True, "parse_math": False}
    axes.text(left, 1 - top, frame.text, bbox=plate, **look)


def _colours(heat: Floats, over: bool) -> Floats:
    """RGBA (h, w, 4) of a map between its least and greatest value; over an image it lets that shine through."""
    from matplotlib import colormaps

    finite = np.isfinite(heat)
    low, high = (heat[finite].min(), heat[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, heat - low, 0.0) / (high - low if high > low else 1.0)
    colours: Floats = np.asarray(colormaps["inferno"](scaled, alpha=0.6 if over else 1.0))
    colours[np.isnan(heat)] = (1, 1, 1, 0) if over else (*(MISSING / 255,) * 3, 1)
    colours[np.isinf(heat)] = (1, 1, 1, 0)
    return colours
