"""The gates. Each decides by the device's own logits (B, classes), sample by sample, whether the server is asked.

A gate that measures doubt does so in float64, so that huge logits and near-certain answers come out right: a class of
logit minus infinity has probability zero, and a single class leaves no doubt. Logarithms and exponentials of torch and
numpy may differ in the last bit, so these gates have two forms, one for each; they decide alike but for a doubt that
lies within float64's rounding of the threshold.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semcodec.errors import SemcodecError
from semcodec.interfaces import Selector

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.interfaces import Bool, Floats

Float64 = npt.NDArray[np.float64]


class _Entropy(Selector):
    """Sends where an entropy in bits reaches ``threshold`` (equation 11)."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        return self.bits(_log_probabilities(prediction)) >= self.threshold

    def gate_array(self, prediction: Floats) -> Bool:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        sent: Bool = self.bits_array(_log_probabilities_array(prediction)) >= self.threshold
        return sent

    @abstractmethod
    def bits(self, log_p: Tensor) -> Tensor:
        """The entropy (B,) of float64 natural log-probabilities (B, classes)."""

    @abstractmethod
    def bits_array(self, log_p: Float64) -> Float64:
        """``bits`` in numpy."""


class MinEntropy(_Entropy):
    """Equation 13: the surprise of the likeliest class, ``-log2 max p``; 0 to log2(classes) bits."""

    def bits(self, log_p: Tensor) -> Tensor:
        """(B,) float64."""
        return -log_p.amax(1) / math.log(2)

    def bits_array(self, log_p: Float64) -> Float64:
        """(B,) float64."""
        surprise: Float64 = -log_p.max(1) / math.log(2)
        return surprise


class ShannonEntropy(_Entropy):
    """Equation 12: the mean surprise, ``-sum p log2 p``; 0 to log2(classes) bits."""

    def bits(self, log_p: Tensor) -> Tensor:
        """(B,) float64."""
        import torch

        mean: Tensor = torch.special.entr(log_p.exp()).sum(1) / math.log(2)
        return mean

    def bits_array(self, log_p: Float64) -> Float64:
        """(B,) float64."""
        p = np.exp(log_p)
        surprise = -np.log(p, out=np.zeros_like(p), where=p > 0)
        mean: Float64 = (p * surprise).sum(1) / math.log(2)
        return mean


class Margin(Selector):
    """Sends where the two largest probabilities differ by less than ``threshold``."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def gate(self, prediction: Tensor) -> Tensor:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        p = _log_probabilities(prediction).exp()
        first, *second = p.topk(min(2, p.shape[1])).values.unbind(1)
        sent: Tensor = first - (second[0] if second else 0.0) < self.threshold
        return sent

    def gate_array(self, prediction: Floats) -> Bool:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        p = np.sort(np.exp(_log_probabilities_array(prediction)), axis=1)
        sent: Bool = p[:, -1] - (p[:, -2] if p.shape[1] > 1 else 0.0) < self.threshold
        return sent


class Always(Selector):
    """Sends every sample: the device's answer is not used, whatever it is."""

    def gate_array(self, prediction: Floats) -> Bool:
        """Bool (B,)."""
        return np.ones(len(prediction), np.bool_)


class Never(Selector):
    """Sends nothing: the device's model alone."""

    def gate_array(self, prediction: Floats) -> Bool:
        """Bool (B,). Raises SemcodecError for logits that are NaN or infinite."""
        _log_probabilities_array(prediction)  # an answer that is none cannot be kept
        return np.zeros(len(prediction), np.bool_)


def _log_probabilities(prediction: Tensor) -> Tensor:
    """Natural log-softmax (B, classes) in float64."""
    log_p = prediction.double().log_softmax(1)
    if log_p.isnan().any():
        raise _no_answer()
    return log_p


def _log_probabilities_array(prediction: Floats) -> Float64:
    """Natural log-softmax (B, classes) in float64."""
    logits = prediction.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        below = logits - logits.max(1, keepdims=True)
        log_p: Float64 = below - np.log(np.exp(below).sum(1, keepdims=True))
    if np.isnan(log_p).any():
        raise _no_answer()
    return log_p


def _no_answer() -> SemcodecError:
    return SemcodecError("the device's own answer holds NaN or infinity: check the input and the weights")
