"""The gates. Each decides by the device's own logits (B, classes), sample by sample, whether the server is asked.

A gate that measures doubt does so in float64, so that huge logits and near-certain answers come out right: a class of
logit minus infinity has probability zero, and a single class leaves no doubt.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from semcodec.errors import SemcodecError
from semcodec.interfaces import Selector


class _Entropy(Selector):
    """Sends where an entropy in bits reaches ``threshold`` (equation 11)."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        return self.bits(_log_probabilities(prediction)) >= self.threshold

    @abstractmethod
    def bits(self, log_p: Tensor) -> Tensor:
        """The entropy (B,) of float64 natural log-probabilities (B, classes)."""


class MinEntropy(_Entropy):
    """Equation 13: the surprise of the likeliest class, ``-log2 max p``; 0 to log2(classes) bits."""

    def bits(self, log_p: Tensor) -> Tensor:
        return -log_p.amax(1) / math.log(2)


class ShannonEntropy(_Entropy):
    """Equation 12: the mean surprise, ``-sum p log2 p``; 0 to log2(classes) bits."""

    def bits(self, log_p: Tensor) -> Tensor:
        return torch.special.entr(log_p.exp()).sum(1) / math.log(2)


class Margin(Selector):
    """Sends where the two largest probabilities differ by less than ``threshold``."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        p = _log_probabilities(prediction).exp()
        first, *second = p.topk(min(2, p.shape[1])).values.unbind(1)
        return first - (second[0] if second else 0.0) < self.threshold


class Always(Selector):
    """Sends every sample: the device's answer is not used, whatever it is."""

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,)."""
        return torch.ones(len(prediction), dtype=torch.bool, device=prediction.device)


class Never(Selector):
    """Sends nothing: the device's model alone."""

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        _log_probabilities(prediction)  # an answer that is none cannot be kept
        return torch.zeros(len(prediction), dtype=torch.bool, device=prediction.device)


def _log_probabilities(prediction: Tensor) -> Tensor:
    """Natural log-softmax (B, classes) in float64."""
    log_p = prediction.double().log_softmax(1)
    if log_p.isnan().any():
        raise SemcodecError("the device's own answer holds NaN or infinity: check the input and the weights")
    return log_p
