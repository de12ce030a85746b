"""Local computing on a device without torch."""

from __future__ import annotations

from typing import Any

from semcodec.device_half import Arrays, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis
from semcodec_plugins.image_codecs.pictures_encoder import Jpeg


class LocalDevice(Jpeg):
    """As ``Local``: the whole model is one exported network."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, **params: Any) -> None:
        super().__init__(features)
        self._model = parts.graphs["model"]

    def analyse(self, features: Arrays) -> Analysis:
        """The prediction of the model from the input."""
        return Analysis(features, prediction=self._model(features["frames" if self.clip else "image"])[0])
