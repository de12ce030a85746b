"""Weights in repositories of a Hugging Face hub, by name: ``hf:OWNER/NAME[@REVISION]``.

``huggingface_hub`` transfers and caches; which server, token and cache is its environment's to say (``HF_ENDPOINT``,
``HF_TOKEN``, ``HF_HOME``). Here is what is asked of it, and every way in which that fails as one line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from semcodec._files import read_regular
from semcodec._network import HUB, unreachable
from semcodec.errors import SemcodecError, UsageError, WeightsError, first_line
from semcodec.specs import EXPORTED

PREFIX = "hf:"
WEIGHTS = ("weights.safetensors", "model.safetensors")
"""What a repository must hold one of: what training writes, or another library's checkpoint."""
BESIDE = ("card.json", "config.json", "device.safetensors", "server.safetensors")
README = "README.md"
SUMS = "SHA256SUMS"
LARGEST_SUMS = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w.\-/]*", re.ASCII)


class Repository(NamedTuple):
    """One repository at a branch, tag or commit; None is the branch that is looked at first, ``main``."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @classmethod
    def parse(cls, text: str) -> Repository:
        """From ``[hf:]OWNER/NAME[@REVISION]``. Raises UsageError."""
        name, at, revision = text.removeprefix(PREFIX).partition("@")
        if not NAME.fullmatch(name) or ".." in name or "--" in name:
            raise UsageError(f"{text!r} names no repository: write OWNER/NAME or OWNER/NAME@REVISION")
        if at and (not REVISION.fullmatch(revision) or ".." in revision):
            raise UsageError(f"{text!r} names no revision behind its @: a branch, a tag or a commit")
        return cls(name, revision or None)


def is_named(text: str | os.PathLike[str]) -> bool:
    """Whether what stands for a path names a repository."""
    return os.fspath(text).startswith(PREFIX)


def local_path(text: str | os.PathLike[str], offline: bool = False) -> Path:
    """A path as it is, and of a repository the folder that it was fetched into. Raises as ``fetch``."""
    return fetch(os.fspath(text), offline) if is_named(text) else Path(text)


def fetch(text: str, offline: bool = False) -> Path:
    """The folder of a repository's weights and what stands beside them, fetched once in a process.

    offline: only what was fetched before is taken. Raises UsageError for a name that is none, WeightsError where it
    cannot be had, or arrived other than its list of digests says.
    """
    environment = tuple(os.environ.get(name) for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"))
    return _fetch(Repository.parse(text), offline or bool(os.environ.get("HF_HUB_OFFLINE")), environment)


@cache
def _fetch(repository: Repository, offline: bool, environment: tuple[str | None, ...]) -> Path:
    hub = _client(f"the weights are on the hub as {repository}")
    if offline:
        folder = _cached(hub, repository)
    else:
        with _one_line(repository, "fetched from", "fetch it elsewhere, give --weights PATH"):
            found = hub.HfApi(endpoint=_endpoint()).model_info(repository.name, revision=repository.revision)
            names = [one.rfilename for one in found.siblings or ()]
            wanted = [name for name in names if name in (*WEIGHTS, *BESIDE, README, SUMS) or _is_artifact(name)]
            if not set(wanted) & set(WEIGHTS):
                raise WeightsError(f"{PREFIX}{repository} holds neither {' nor '.join(WEIGHTS)}")
            paths = [_download(hub, repository, name) for name in wanted]
            folder = paths[0].parent
    check_sums(folder)
    return folder


def _download(hub: Any, repository: Repository, name: str, **more: Any) -> Path:
    """Into the cache that ``cache_root`` names; asked of the server that the environment names now."""
    root = {"cache_dir": str(found)} if (found := cache_root()) else {}
    there = {"endpoint": _endpoint(), **root, **more}
    return Path(hub.hf_hub_download(repository.name, name, revision=repository.revision, **there))


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or HUB


def _cached(hub: Any, repository: Repository) -> Path:
    """What was fetched before."""
    for name in WEIGHTS:
        try:
            return _download(hub, repository, name, local_files_only=True).parent
        except Exception:  # its client raises one of several kinds where a file is not there
            continue
    raise WeightsError(
        f"{PREFIX}{repository} was not fetched yet, and nothing is fetched now: semcodec pull {repository}"
    )


def push(
    files: Mapping[str, Path | bytes], repository: Repository, *, private: bool = False, message: str = "semcodec push"
) -> str:
    """Files by their names there, in one commit to a repository that is made where it is not there; its commit.

    Of a revision, a branch of that name. Raises WeightsError where that fails, UsageError offline.
    """
    hub = _client("a push needs the hub's client")
    if os.environ.get("HF_HUB_OFFLINE"):
        raise UsageError(f"{repository} cannot be pushed to while HF_HUB_OFFLINE is set")
    with _one_line(repository, "pushed to", "try again where there is a network"):
        api = hub.HfApi(endpoint=_endpoint())
        if not hub.get_token():
            raise WeightsError(f"{repository} cannot be pushed to without a token: set HF_TOKEN, or log in")
        api.create_repo(repository.name, private=private, exist_ok=True)
        if repository.revision not in (None, "main"):
            api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, str(f) if isinstance(f, Path) else f) for name, f in files.items()]
        done = api.create_commit(
            repository.name, operations, commit_message=message, revision=repository.revision or "main"
        )
        return str(done.oid)


def sums_of(files: Mapping[str, Path | bytes]) -> bytes:
    """The list of digests that travels along, as ``sha256sum`` writes it."""
    lines = []
    for name, content in sorted(files.items()):
        if isinstance(content, bytes):
            digest = hashlib.sha256(content).hexdigest()
        else:
            with open(content, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {name}\n")
    return "".join(lines).encode()


def check_sums(folder: Path) -> None:
    """Raise WeightsError where a file is not what its folder's list of digests says; without a list all are taken."""
    path = folder / SUMS
    if not path.is_file():
        return
    try:
        lines = read_regular(path, LARGEST_SUMS).decode().splitlines()
        due = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {first_line(error)}") from error
    for name, digest in due.items():
        if name in (*WEIGHTS, *BESIDE, README) or _is_artifact(name):
            file = folder / name
            if file.is_file() and sums_of({name: file}).decode().split()[0] != digest:
                raise WeightsError(f"{file} is damaged: its SHA-256 is not what {SUMS} says; fetch it again")


def cached_repositories() -> Iterator[tuple[str, str, Path]]:
    """Name, commit and folder of every repository with weights in the hub's cache; asks nobody."""
    root = cache_root()
    for path in sorted(root.glob("models--*--*/snapshots/*")) if root else ():
        if any((path / name).is_file() for name in WEIGHTS):
            yield path.parents[1].name.removeprefix("models--").replace("--", "/", 1), path.name, path


def cache_root() -> Path | None:
    """Where the hub's client keeps what it fetched. None where there is no home."""
    environment = os.environ
    try:
        if named := environment.get("HF_HUB_CACHE"):
            return Path(named).expanduser()
        general = environment.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(environment.get("HF_HOME") or Path(general) / "huggingface").expanduser() / "hub"
    except RuntimeError:
        return None


def _is_artifact(name: str) -> bool:
    return name.endswith(EXPORTED) and "/" not in name


def _client(what: str) -> Any:
    """``huggingface_hub``, silent."""
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError(f"{what}: pip install 'semcodec[hub]'") from None
    import_module("huggingface_hub.utils").disable_progress_bars()
    return huggingface_hub


@contextmanager
def _one_line(repository: Repository, done: str, cure: str) -> Iterator[None]:
    """Whatever the hub's client raises, as a WeightsError that says what is wrong in one line.

    Where no server answers that is known at once, and ``cure`` said: the client would try for half a minute.
    """
    start = f"{PREFIX}{repository} cannot be {done} the hub"
    if absent := unreachable(_endpoint()):
        raise WeightsError(f"{start}: {absent}; {cure}")
    try:
        yield
    except SemcodecError:
        raise
    except Exception as error:
        raise WeightsError(f"{start}: {_why(error, repository)}") from error


def _why(error: Exception, repository: Repository) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    rules: list[tuple[Callable[[], bool], str]] = [
        (lambda: kind == "RevisionNotFoundError", f"{repository.name} has no revision {repository.revision!r}"),
        (lambda: status == 401 and _has_token(), "the token is not accepted; set another HF_TOKEN, or log in anew"),
        (lambda: status == 403, "the token does not allow it; make one that may"),
        (lambda: status in (401, 404), f"there is no {repository.name}, or it is private and needs HF_TOKEN"),
    ]
    return next((words for holds, words in rules if holds()), first_line(error)[:160])


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())
