"""The device's half of an Encoder where there is no torch: what is exported of it, and what runs that in numpy.

Features here are arrays of numpy by name, batch first, in the shapes and dtypes of the tensors that they stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from semcodec.specs import FeatureSpec
from semcodec.types import Analysis, Latent, Sink

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Arrays = dict[str, Any]
"""Arrays by name, as ``Features`` are tensors by name."""

Graph = Callable[..., "tuple[Any, ...]"]
"""A network that runs without torch: arrays in the order of its ``Network.inputs`` to those of its outputs."""


@dataclass(frozen=True)
class Network:
    """What becomes a graph. function: tensors with a batch axis to one tensor or a tuple of them, by torch's own means.

    inputs: by name, in order, each tensor of one sample; every axis but the batch is of a known length. outputs: names.
    """

    function: Callable[..., Any]
    inputs: FeatureSpec
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """What ``Encoder.export`` gives. arrays: by name, what is not part of a network. networks: by name."""

    arrays: Mapping[str, Array] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceParts:
    """The same on a device: ``graphs`` are the networks."""

    arrays: Mapping[str, Array]
    graphs: Mapping[str, Graph]


class Writer(Protocol):
    """What a device needs of a ``Coding``."""

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write one sample's symbols and blobs."""


class DeviceEncoder(ABC):
    """What an Encoder does on a device, in numpy; named by the Encoder's trait ``device``. Imports no torch.

    Constructor: ``DeviceEncoder(features, parts, **params)``, with the ``FeatureSpec`` at the cut, the ``DeviceParts``
    that ``Encoder.export`` gave, and the spec's build parameters as keywords. Methods are those of ``Encoder``.

    An Encoder that computes in numpy alone, through ``semcodec.tensors``, may be its own: the trait then names it.
    """

    coding: Writer
    units: Mapping[str, int] = MappingProxyType({})

    def analyse(self, features: Arrays) -> Analysis:
        """Scores and, where the device can answer itself, its prediction: arrays."""
        return Analysis(features)

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Any]) -> Any:
        """Importance (B, ..., N) for ``target``, given the masks already chosen for earlier targets."""
        return analysis.scores[target]

    @abstractmethod
    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """One Latent a sample, as ``Encoder.encode``."""

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write one sample's symbols and blobs."""
        self.coding.write(latent, sink)
