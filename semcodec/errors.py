"""Every error a user can meet, each with the exit code the command line gives it.

A message says in one line what is wrong and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable


class SemcodecError(Exception):
    """Base of all errors that are the input's or the environment's fault, not ours."""

    exit_code = 1


class UsageError(SemcodecError):
    """The request itself is wrong (an argument, a knob, a spec): exit code 2."""

    exit_code = 2


class SpecError(UsageError):
    """A spec string that does not parse or does not compose.

    ``str()`` shows the spec with a caret under ``span`` when both are known.
    """

    def __init__(self, message: str, spec: str = "", span: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.message, self.spec, self.span = message, spec, span

    def __str__(self) -> str:
        if not self.spec or self.span is None:
            return self.message
        start, end = self.span
        return f"{self.message}\n  {self.spec}\n  {' ' * start}{'^' * max(1, end - start)}"


class PluginError(SemcodecError):
    """A component cannot be used: broken import, clashing names, missing extra."""


class DataError(SemcodecError):
    """A file or data set that is missing, broken or of the wrong form."""


class WeightsError(SemcodecError):
    """Weights that are missing or do not fit the model."""


class StreamError(SemcodecError):
    """Bytes that are not a readable stream."""


class CorruptStream(StreamError):
    """A checksum, bound or structure that does not hold."""


class DamagedLayer(CorruptStream):
    """A chunk that fails its checksum, in a packet whose first ``layers`` layers are as they were written."""

    def __init__(self, message: str, layers: int) -> None:
        super().__init__(message)
        self.layers = layers


class TooFewLayers(StreamError):
    """A packet with fewer layers than the task needs that is asked for; what it has may serve others."""


class TruncatedStream(StreamError):
    """The bytes end too early."""


class VersionMismatch(StreamError):
    """The stream was written by a format or component version that is not read here."""


class WeightsMismatch(StreamError):
    """The stream was made with other weights than the ones loaded here."""


class LinkError(SemcodecError):
    """A server that cannot be reached, or that refuses."""


LONGEST = 4000
"""Characters of a line that are shown."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one line of ours; the name of its class where it has no message.

    Of a line without an end, as of what a file holds, its beginning.
    """
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip()
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ... ({len(line):,} characters)"


def printable(text: str, kept: str = "") -> str:
    """A text as a terminal may have it, which files and messages of others may have written.

    What would move the cursor, colour or turn round what follows is told, as ``\\x1b``. kept: characters that stay.
    """
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, most: int = 1) -> str:
    """The end of a message about a name that there is not: which of the known ones is written most alike.

    otherwise: what stands there where none is alike. most: names that are told.
    """
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=most)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


EXTRAS = {
    "av": "video",
    "datasets": "datasets",
    "gradio": "play",
    "huggingface_hub": "hub",
    "onnx": "export",
    "onnxruntime": "device",
    "onnxscript": "export",
    "pycocotools": "torch",
    "tensorboard": "watch",
    "timm": "torch",
    "torch": "torch",
    "torchvision": "torch",
    "websockets": "device",
}
"""By the name that is imported, the extra of this package that installs it."""


def cure(error: ImportError) -> str | None:
    """What to install where an import failed, in words; None where it is none of the packages of an extra."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    return None if extra is None else f"{package} is not installed: pip install 'semcodec[{extra}]'"
