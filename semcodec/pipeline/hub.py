"""Published weights, fetched once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from semcodec._files import whole_file
from semcodec.errors import WeightsError


def cache_folder() -> Path:
    """Where the user's weights are looked for, and fetched ones are kept."""
    root = (
        os.environ.get("SEMCODEC_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "semcodec"
    )
    return Path(root) / "weights"


def download(repository: str) -> Path:
    """Weights of a repository of the Hugging Face hub, with its config.json beside them, or of an https:// address.

    Raises WeightsError where they cannot be had.
    """
    if repository.startswith("https://"):
        return _fetch(repository)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(
            f"the weights are on the hub as {repository}: pip install 'semcodec[hub]', or give --weights PATH"
        ) from None
    try:
        hf_hub_download(repository, "config.json")
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the hub's client raises many kinds for one thing: it could not be had
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"{repository} cannot be fetched from the hub ({first[:120]}); fetch it elsewhere, give --weights PATH"
        ) from error


def _fetch(url: str) -> Path:
    """A file that is published by its address, kept in the user's cache; its name ends in the start of its SHA-256."""
    from urllib.request import urlopen

    kept = cache_folder() / url.rpartition("/")[2]
    due = kept.name.partition(".")[0].rpartition("-")[2]
    if kept.is_file() and _is_whole(kept.read_bytes(), due):
        return kept
    try:
        with urlopen(url, timeout=60) as answer:
            data = answer.read()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{url} cannot be fetched ({error}); fetch it elsewhere, give --weights PATH") from error
    if not _is_whole(data, due):
        raise WeightsError(f"{url} arrives damaged; fetch it again, or elsewhere, and give --weights PATH")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(kept) as file:
        file.write(data)
    return kept


def _is_whole(data: bytes, due: str) -> bool:
    """Whether a file is the one whose SHA-256 begins so."""
    return hashlib.sha256(data).hexdigest().startswith(due)
