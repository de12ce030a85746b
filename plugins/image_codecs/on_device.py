"""Local computing: the whole model on the device, whose answer stands."""

from __future__ import annotations

from semcodec.interfaces import Analysis, Backbone, Features
from semcodec.specs import FeatureSpec
from semcodec_plugins.image_codecs.pictures_encoder import Jpeg


class Local(Jpeg):
    """``model`` predicts from the input itself. Under the usual gate, ``never``, nothing is sent.

    Under a gate that measures doubt it is the cascade of a device and a server: what is sent is the input as JPEG.
    """

    def __init__(self, features: FeatureSpec, *, model: Backbone) -> None:
        super().__init__(features)
        self.model = model

    def analyse(self, features: Features) -> Analysis:
        """The prediction of ``model`` from the input."""
        return Analysis(features, prediction=self.model.tail(features, "input"))
