"""What the two ends of a composition have in common."""

from __future__ import annotations

from collections.abc import Sequence

from semcodec.composition.composition import Composition
from semcodec.container.packets import StreamHeader
from semcodec.pipeline.stages import Stages
from semcodec.specs import FeatureSpec, InputRequest


class End:
    """composition: what is composed. stages: its models. header: of the stream between both ends."""

    composition: Composition
    stages: Stages
    header: StreamHeader

    @property
    def classes(self) -> Sequence[str]:
        return self.stages.backbone.classes

    @property
    def input(self) -> FeatureSpec:
        spec = self.composition.stages.input
        assert spec is not None
        return spec

    @property
    def request(self) -> InputRequest:
        """The pixels that the backbone wants."""
        request = self.composition.request
        assert request is not None
        return request
