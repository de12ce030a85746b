"""Published weights, fetched once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from semcodec._cache import cache_folder
from semcodec._files import whole_file
from semcodec._network import HUB, unreachable
from semcodec.errors import WeightsError, first_line


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
    # Where there is no network the client tries again and again for half a minute.
    absent = None if os.environ.get("HF_HUB_OFFLINE") else unreachable(os.environ.get("HF_ENDPOINT") or HUB)
    local: dict[str, Any] = {"local_files_only": True} if absent else {}
    try:
        try:
            hf_hub_download(repository, "config.json", **local)
        except Exception as error:
            if not type(error).__name__.endswith("EntryNotFoundError"):
                raise  # it only names classes, and not every repository has one
        return Path(hf_hub_download(repository, "model.safetensors", **local))
    except Exception as error:  # the hub's client raises many kinds for one thing: it could not be had
        raise WeightsError(
            f"{repository} cannot be fetched from the hub ({absent or first_line(error)[:120]}); "
            "fetch it elsewhere, give --weights PATH"
        ) from error


def _fetch(url: str) -> Path:
    """A file that is published by its address, kept in the user's cache; its name ends in the start of its SHA-256."""
    from urllib.request import urlopen

    folder = cache_folder("weights")
    if folder is None:
        raise WeightsError(
            f"{url} would be fetched into a cache, and SEMCODEC_CACHE is set to nothing: name a folder, or give "
            "--weights PATH"
        )
    kept = folder / url.rpartition("/")[2]
    due = kept.name.partition(".")[0].rpartition("-")[2]
    if kept.is_file() and _is_whole(kept.read_bytes(), due):
        return kept
    try:
        if absent := unreachable(url):
            raise ConnectionError(absent)
        with urlopen(url, timeout=60) as answer:
            data = answer.read()
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{url} cannot be fetched ({first_line(error)}); fetch it elsewhere, give --weights PATH"
        ) from error
    if not _is_whole(data, due):
        raise WeightsError(f"{url} arrives damaged; fetch it again, or elsewhere, and give --weights PATH")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(kept) as file:
        file.write(data)
    return kept


def _is_whole(data: bytes, due: str) -> bool:
    """Whether a file is the one whose SHA-256 begins so."""
    return hashlib.sha256(data).hexdigest().startswith(due)
