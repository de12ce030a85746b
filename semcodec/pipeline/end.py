"""What the two ends of a composition have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from semcodec._version import __version__
from semcodec.composition.composition import Composition
from semcodec.container.packets import CurrentHeader, StreamHeader
from semcodec.pipeline.accelerator import Accelerator
from semcodec.pipeline.timing import Clock
from semcodec.specs import FeatureSpec, InputRequest

if TYPE_CHECKING:
    from semcodec.pipeline.weights import Weights


class End:
    """composition: what is composed. header: of the stream between both ends. classes: names of what is recognised.

    sources: by slot, where the weights of this end came from (None: nowhere). digests: by slot, the name of a model's
    weights, of which an end may hold a part. accelerator: where this end's networks are and run.
    """

    composition: Composition
    header: StreamHeader
    classes: Sequence[str]
    sources: Mapping[str, Weights | None]
    digests: Mapping[str, str]
    accelerator: Accelerator

    def clock(self) -> Clock:
        """One that waits for the accelerator."""
        return Clock() if self.accelerator.name == "cpu" else Clock(self.accelerator.synchronise)

    def describe_weights(self) -> dict[str, dict[str, str | None]]:
        """By slot, where weights came from and the digest that names them."""
        return {
            slot: {"source": source.origin if source else "none", "digest": self.digests.get(slot)}
            for slot, source in self.sources.items()
        }

    def _repr_html_(self) -> str:
        """For notebooks: what it is composed of, and where weights came from."""
        from semcodec import _html

        weights = [(slot, one["source"], one["digest"]) for slot, one in self.describe_weights().items()]
        return self.composition._repr_html_() + _html.table(("weights", "from", "digest"), weights)

    @property
    def spec(self) -> str:
        """The canonical spec string."""
        return self.composition.spec

    @property
    def input(self) -> FeatureSpec:
        """What the backbone takes, one sample."""
        spec = self.composition.stages.input
        assert spec is not None
        return spec

    @property
    def request(self) -> InputRequest:
        """The pixels that the backbone wants."""
        request = self.composition.request
        assert request is not None
        return request

    @property
    def raw_float32_bytes(self) -> int:
        """The float32 tensors at the cut: what split inference would send without compression."""
        features = self.composition.stages.features
        assert features is not None
        return sum(4 * spec.size for spec in features.values() if spec.dtype == "float32")

    @property
    def raw_uint8_bytes(self) -> int:
        """The source as 8-bit pixels."""
        return sum(spec.size for spec in self.input.values())


def make_header(composition: Composition, decoding: Mapping[str, str]) -> StreamHeader:
    """The header of the composition's streams. decoding: by slot, digests of the weights that decoding uses."""
    spec = composition.stages.input
    assert spec is not None
    return CurrentHeader(
        spec=composition.spec,
        components={bound.key: bound.component.stream_version for bound in composition.coding},
        weights=dict(decoding),
        input={name: (tensor.shape, tensor.dtype) for name, tensor in spec.items()},
        params=dict(composition.call),
        package=__version__,
    )
