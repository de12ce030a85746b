"""What a task is: all that a pipeline, its measurement and the command line leave to it.

A task is one module here and one entry in ``table.TASKS``; ``docs/tasks.md`` shows one. No module of this room imports
torch when it is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from semcodec.errors import CorruptStream, DataError
from semcodec.specs import LABELS, InputRequest, TensorSpec
from semcodec.tasks.prediction import Answer, Prediction, Size

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from semcodec.container.packets import LocalRecord, Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.panels import Panel, UInt8
    from semcodec.types import Labels, Sink, Source

    Floats = npt.NDArray[np.floating[Any]]

Told = Mapping[str, Any]
"""What ``--format json`` says of one sample: what ``Task.describe`` gives, among the keys of every task."""
Record = Mapping[str, Any]
"""What ``eval`` says of a data set."""


class Stopwatch(Protocol):
    """Adds the seconds within to a stage's, by its name: a ``Clock``."""

    def __call__(self, stage: str, /) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Metric:
    """A task's accuracy, of which more is better.

    key: in records, where its 95 % interval is under ``<key>_interval``. label: in words. head: above a column.
    unit: in which it is shown; "%" of a fraction, which alone is weighed with others and planned for.
    """

    key: str
    label: str
    head: str
    unit: str = "%"

    def shown(self, value: float) -> float:
        """A record's value in the unit."""
        return 100 * value if self.unit == "%" else value


class Score(ABC):
    """Takes predictions batch by batch, and says how good they are."""

    @property
    @abstractmethod
    def source_bytes(self) -> float:
        """Mean size of the sources as 8-bit pixels."""

    @abstractmethod
    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        """Predictions of several samples and their labels. sizes: width and height of each source, where known."""

    @abstractmethod
    def accuracy(self) -> dict[str, Any]:
        """Keys of a record, of all samples together: the metric, its interval, and what belongs to them."""

    @abstractmethod
    def by_sample(self) -> dict[str, Any]:
        """Keys of a record that ``Task.compare`` needs."""

    def rate(self, size: float) -> dict[str, float]:
        """Keys that a mean size of packets gives, beside it."""
        return {}


class Task(ABC):
    """What differs between tasks.

    name: as ``BackboneSpec.task`` has it. metric: how its accuracy is measured. draws: whether ``panel`` draws.
    side: the name of what ``write_side`` writes; packets for several tasks have what several write just once.
    """

    metric: ClassVar[Metric]
    draws: ClassVar[bool] = False
    side: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    # -- labels ------------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> str:
        """Which labels a data set must have: "class", "boxes", or the task's own name."""
        return LABELS.get(self.name, self.name)

    def check_labels(self, name: str, labels: Labels) -> None:
        """Refuse labels of which nothing can be learned. name: of the data set. Raises UsageError."""
        return

    @abstractmethod
    def example_labels(self, count: int) -> Labels:
        """Labels of so many samples, by which conformance checks try ``Backbone.task_loss``; classes 0 and 1."""

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        """A data set's label as ``describe`` takes it: a class's name, boxes in pixels of the source."""
        return label

    # -- packets -----------------------------------------------------------------------------------------------------

    def write_side(self, sink: Sink, size: Size | None, request: InputRequest) -> None:
        """Write the side information that a packet begins with. size: of the source; None where it is the input's."""
        return

    def read_side(self, source: Source) -> None:
        """Read what ``write_side`` writes, so that the Encoder's own follows. Raises CorruptStream."""
        return

    # -- answers -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def output(self, classes: int) -> TensorSpec:
        """What the tail gives of one sample."""

    def output_fault(self, output: Tensor) -> str | None:
        """What is wrong about a batch of the tail's output though its shape is right, in words; None: nothing."""
        return None

    @abstractmethod
    def port(self, classes: int | None) -> dict[str, str]:
        """The last row of ``compose``'s table: by name, what it gives. classes: how many; None where not known."""

    @abstractmethod
    def answers(self, output: Tensor, clock: Stopwatch) -> list[Answer]:
        """A batch of the tail's output, on the CPU, to one answer a sample. What takes time is a stage of its own."""

    @abstractmethod
    def predict(
        self,
        packet: Packet,
        answer: Answer,
        classes: Sequence[str],
        request: InputRequest,
        rows: tuple[ChunkRow, ...],
    ) -> Prediction:
        """An answer as it is told. rows: the packet's chunks as they were read. Raises CorruptStream."""

    def predict_local(self, record: LocalRecord, classes: Sequence[str]) -> Prediction:
        """Of a sample that the device answered itself. Raises CorruptStream."""
        if record.index >= len(classes):
            raise CorruptStream(f"record {record.sequence} names class {record.index} of {len(classes)}")
        return Prediction(record.index, classes[record.index], record.probability, where="device")

    def numbers(self, prediction: Prediction) -> Any:
        """An array of what a prediction says, by which conformance checks compare answers of a server."""
        return prediction.logits

    def to_bytes(self, prediction: Prediction) -> bytes | None:
        """What a server's answer holds beside class and logits, of a task that has more to say; None."""
        return None

    def from_bytes(self, prediction: Prediction, data: bytes, classes: Sequence[str]) -> Prediction:
        """A prediction with what ``to_bytes`` wrote. Raises CorruptStream."""
        raise CorruptStream(f"an answer has {len(data)} bytes that {self.name} does not know")

    # -- accuracy ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        """An empty score. classes: the model's. input_bytes: of the model's input as 8-bit pixels.

        Raises DataError where labels do not fit the model's classes, SemcodecError where a library is missing.
        """

    @abstractmethod
    def compare(self, first: Record, second: Record) -> dict[str, float]:
        """Two records over the same samples: ``difference``, its 95 % interval ``low``, ``high``, and ``p``."""

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        """The metric of samples that are counted ``weights`` (B, samples) times, (B,); NaN where there is none.

        What the interval of several tasks' mean is made of. None where a record does not say how each sample fared.
        """
        return None

    def columns(self, record: Record) -> list[tuple[str, Any]]:
        """Heads and values that ``eval``'s table shows beside the metric."""
        return []

    def notes(self, record: Record) -> list[tuple[str, str]]:
        """What ``eval`` says below its table of the labels."""
        return []

    # -- one sample --------------------------------------------------------------------------------------------------

    @abstractmethod
    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        """Keys of ``--format json``: at least ``prediction`` with ``where``, and ``label``.

        classes: the model's. label: as ``label`` gives it, or None; names: of the data's classes. Where ``source`` is
        among the keys, width and height, ratios are to its pixels.
        """

    def describe_unanswered(self, label: Any, names: Sequence[str] | None, size: Size) -> dict[str, Any]:
        """The same keys where nobody has answered yet: ``prediction`` is None. size: width and height of the source."""
        return {"prediction": None, "label": label}

    def table(self, told: Told) -> tuple[list[str], list[tuple[Any, ...]]] | None:
        """Head and rows of a table above the ``fields`` of one sample, or None."""
        return None

    @abstractmethod
    def fields(self, told: Told) -> list[tuple[str, Any]]:
        """What is printed of one sample's prediction."""

    @abstractmethod
    def cells(self, told: Told) -> list[tuple[str, Any]]:
        """The same among several samples: heads of columns and values."""

    @abstractmethod
    def headline(self, told: Told) -> list[str]:
        """The same above a plot: the first follows the sample's name."""

    def panel(self, prediction: Prediction, pixels: UInt8, sent: str) -> Panel:
        """What is drawn of a prediction. pixels: (H, W, 3), the model's input. sent: begins the title."""
        raise NotImplementedError


def match_classes(dataset: Dataset, classes: Sequence[str], labels: Sequence[int]) -> list[int]:
    """For each of the data's labels, the model's class of that name. Raises DataError where there is none."""
    if dataset.classes == list(classes):  # names may be there twice: ImageNet has two cranes
        return list(labels)
    places = {name: i for i, name in enumerate(classes)}
    names = [dataset.classes[label] for label in labels]
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(
            f"the model does not know class {missing[0]!r} of {dataset.name}; "
            f"its classes are {', '.join(list(classes)[:8])}{' ...' if len(places) > 8 else ''}"
        )
    return [places[name] for name in names]
