"""Task-oriented compression for split inference.

    >>> import semcodec
    >>> pipeline = semcodec.compose("stae+rans+vit-nano")
    >>> packet = pipeline.encode(clip)      # uint8 (T, H, W, 3); packet.bytes_total, packet.data
    >>> pipeline.decode(packet).name

Importing this imports nothing heavy; ``compose`` imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from semcodec.errors import SemcodecError

if TYPE_CHECKING:
    from semcodec.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["SemcodecError", "__version__", "compose"]


def compose(
    spec: str,
    weights: str | Mapping[str, str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    offline: bool = False,
) -> Pipeline:
    """Build the pipeline that ``spec`` names, with its weights.

    weights: a path for all slots, or paths by slot ("encoder", "recoverer", "backbone"); "random" for none.
    classes: class names for an untrained backbone. offline: look nothing up on the network.
    Raises SpecError, PluginError, WeightsError.
    """
    from semcodec.composition import compose_spec
    from semcodec.pipeline import Pipeline
    from semcodec.weights import Request

    given = {"": weights} if isinstance(weights, str) else dict(weights or {})
    return Pipeline.load(compose_spec(spec), Request(given, offline), classes=classes)
