"""Local computing: the whole model on the device, whose answer stands."""

from __future__ import annotations

from semcodec.device_half import Exported, Network
from semcodec.interfaces import Analysis, Backbone, Features
from semcodec.specs import FeatureSpec
from semcodec_plugins.image_codecs.pictures_encoder import Jpeg


class Local(Jpeg):
    """``model`` predicts from the input itself. Under the usual gate, ``never``, nothing is sent.

    Under a gate that measures doubt it is the cascade of a device and a server: what is sent is the input as JPEG.
    """

    def __init__(self, features: FeatureSpec, *, model: Backbone) -> None:
        super().__init__(features)
        self.model, self.takes = model, dict(features)

    def analyse(self, features: Features) -> Analysis:
        """The prediction of ``model`` from the input."""
        return Analysis(features, prediction=self.model.tail(features, "input"))

    def export(self) -> Exported:
        """The whole model as one network."""
        name = "frames" if self.clip else "image"
        network = Network(lambda x: self.analyse(self.model.head({name: x}, "input")).prediction,
                          {name: self.takes[name]}, ("logits",))  # fmt: skip
        return Exported(networks={"model": network})
