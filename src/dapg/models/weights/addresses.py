"""Where weights come from: a path, a name of the zoo, or an address. Files are checked by hash and kept in a cache.

Nothing is downloaded unless ``download`` is true (``--download``). Addresses are

    https://host/file#sha256=HASH    http:// and file:// likewise; the hash is not optional
    hf://owner/name@revision         a repository of the Hugging Face hub in our layout (``dapg export --hub``)
    hf://owner/name@revision/file    one file of any repository
"""

import functools
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dapg.core.errors import UsageError, WeightsError, nearest
from dapg.core.files import ASSETS, atomic_path, sha256
from dapg.core.schema import read_json
from dapg.core.settings import from_dict
from dapg.core.types import JsonObject

ZOO = ASSETS / "models" / "zoo.json"
"""The models that this package knows by name."""
ZOO_VARIABLE, CACHE_VARIABLE = "DAPG_ZOO", "DAPG_CACHE"
"""Environment variables: another zoo file, which is read first; the folder of downloads."""
LARGEST_DOWNLOAD = 4 * 2**30
"""Bytes."""
_SCHEMES = ("https", "http", "file", "hf")
_HUB_FILES = ("config.json", "model.safetensors", "README.md")
_NOT_STATED = "not stated"


@dataclass(frozen=True)
class CardScore:
    """A score of a model, and by which rules it was taken."""

    protocol: str
    """Data set, mode, feature, corruption: whatever a second person needs to take it again."""
    rank_1: float
    """Per cent."""
    mAP: float
    """Per cent."""


@dataclass(frozen=True)
class Card:
    """What one must know before a model is used."""

    data: str = _NOT_STATED
    """What it was trained on, first weights included."""
    terms: str = _NOT_STATED
    """Terms of that data: what may be done with a model that has seen it."""
    licence: str = _NOT_STATED
    """Of the weights."""
    use: str = _NOT_STATED
    """What it is meant for, and what not."""
    scores: tuple[CardScore, ...] = ()
    """Taken with these weights."""
    infrared: str = "unknown"
    """Kind of infrared that it has learnt from: near, thermal or unknown."""

    def __str__(self) -> str:
        lines = [f"{name}: {getattr(self, name)}" for name in ("data", "infrared", "terms", "licence", "use")]
        scores = [f"{score.protocol}: rank-1 {score.rank_1:.1f}, mAP {score.mAP:.1f}" for score in self.scores]
        return "\n".join([*lines, f"scores: {'; '.join(scores) or 'none'}"])


@dataclass(frozen=True)
class ZooModel:
    """An entry of a zoo file, which is a JSON list of them."""

    name: str
    file: str
    """Path from the zoo file's folder, or an address."""
    sha256: str
    """Of the file; empty for ``hf://``, where the hub states the hashes."""
    card: Card

    def __post_init__(self) -> None:
        """Every field of the card but the scores is filled in."""
        empty = [key for key in ("data", "terms", "licence", "use") if getattr(self.card, key) in ("", _NOT_STATED)]
        if empty:
            raise UsageError(f"the card of {self.name} does not state its {', '.join(empty)}")


@dataclass(frozen=True)
class Source:
    """Weights on this machine."""

    path: Path
    """A file, or a folder in the hub's layout or of a run."""
    card: Card | None = None
    """Of the zoo; None where only the file itself may have one."""


def zoo() -> dict[str, ZooModel]:
    """The models known by name: those of the file in ``DAPG_ZOO``, then the package's own.

    Raises:
        UsageError: a file that is no zoo, or an entry without its hash or card.
    """
    own = os.environ.get(ZOO_VARIABLE)
    return {**_zoo(ZOO), **(_zoo(Path(own)) if own else {})}


@functools.lru_cache(maxsize=4)
def _zoo(path: Path) -> Mapping[str, ZooModel]:
    entries = read_json(path, list[JsonObject], "a zoo is a list of models with name, file, sha256 and card")
    models = {}
    for number, entry in enumerate(entries):
        model = from_dict(ZooModel, entry, f"{path}, model {number + 1}: ")
        place = urlsplit(model.file)
        if not place.scheme:
            model = ZooModel(model.name, str(path.parent / model.file), model.sha256, model.card)
        if not (re.fullmatch(r"[0-9a-f]{64}", model.sha256) or (place.scheme == "hf" and not model.sha256)):
            raise UsageError(f"{path}: {model.name} needs the sha256 of its file, 64 hexadecimal digits")
        models[model.name] = model
    return models


def is_address(source: str) -> bool:
    """Whether this is an address rather than a path or a name."""
    return source.partition("://")[0] in _SCHEMES and "://" in source


def locate(source: str, download: bool = False) -> Source:
    """The file or folder that a path, a name of the zoo or an address stands for.

    Raises:
        UsageError: none of these, an address without a hash, or one that is not here yet and ``download`` is false.
        WeightsError: the download failed, or a file has another hash than it should have.
    """
    if is_address(source):
        return Source(_fetched(source, download))
    if Path(source).exists():
        return Source(Path(source))
    models = zoo()
    if source not in models:
        hint = nearest(source, list(models))
        raise UsageError(
            f"{source}: no such file or folder, and no model of the zoo ({', '.join(models)}) is called so{hint}"
        )
    model = models[source]
    if is_address(model.file):
        address = f"{model.file}#sha256={model.sha256}" if model.sha256 else model.file
        return Source(_fetched(address, download, source), model.card)
    _check(Path(model.file), model.sha256)
    return Source(Path(model.file), model.card)


def cache_folder() -> Path:
    """Where downloads are kept: ``DAPG_CACHE``, else ``dapg`` in the user's cache folder."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE_VARIABLE) or users / "dapg")


def _fetched(address: str, download: bool, name: str = "") -> Path:
    """The cached file of an address, downloaded first if that is allowed."""
    if address.startswith("hf://"):
        return _from_hub(address, download, name)
    url, _, fragment = address.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not match:
        raise UsageError(f"{address} does not end with #sha256= and the file's hash of 64 digits, so it is not used")
    digest, parts = match[1].lower(), urlsplit(url)
    if parts.scheme == "file":
        return _check(Path(unquote(parts.path)), digest)
    path = cache_folder() / digest / (Path(unquote(parts.path)).name or "weights")
    if path.is_file():
        return _check(path, digest)
    if not download:
        raise UsageError(_not_here(name or address))
    _download(url, path, digest)
    return path


def _not_here(source: str) -> str:
    return f"{source} is not on this machine, and nothing is downloaded unasked: `dapg weights '{source}' --download`"


def _check(path: Path, digest: str) -> Path:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if sha256(path) != digest:
        raise WeightsError(f"{path} has another SHA-256 than it should have ({digest[:12]}...); remove or replace it")
    return path


def _download(url: str, path: Path, digest: str) -> None:
    """Into ``path``, if the content has the hash; nothing is left behind otherwise."""
    actual = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, atomic_path(path) as temporary:
            with temporary.open("wb") as handle:
                size = 0
                while block := answer.read(1 << 20):
                    size += len(block)
                    if size > LARGEST_DOWNLOAD:
                        raise WeightsError(f"{url} has more than {LARGEST_DOWNLOAD >> 30} GiB; not downloaded")
                    actual.update(block)
                    handle.write(block)
            if actual.hexdigest() != digest:
                raise WeightsError(
                    f"{url} gave a file of another SHA-256, {actual.hexdigest()[:12]}... instead of {digest[:12]}...: "
                    "it is not kept"
                )
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise WeightsError(f"{url} could not be downloaded: {reason or type(error).__name__}") from error


def _from_hub(address: str, download: bool, name: str) -> Path:
    """A folder (or one file) in the hub client's own cache, every file checked against the hub's hash of it."""
    match = re.fullmatch(r"hf://([^/@#]+/[^/@#]+)(?:@([^/#]+)(?:/([^#]+))?)?", address)
    if not match:
        raise UsageError(f"{address} is no address of the hub: hf://owner/name@revision")
    repository, revision, file = match.groups()
    if revision is None:
        raise UsageError(f"{address} names no revision, so it may change: hf://{repository}@REVISION (a commit or tag)")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [file] if file else list(_HUB_FILES)
    try:
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=wanted, local_files_only=not download)
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise WeightsError(f"{address} could not be downloaded: the hub does not answer") from error
        raise UsageError(_not_here(name or address)) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsError(f"{address} could not be downloaded: {reason or type(error).__name__}") from error
    present = [path for path in map(folder.joinpath, wanted) if path.is_file()]
    if folder / wanted[0] not in present or (not file and folder / "model.safetensors" not in present):
        if not download:
            raise UsageError(_not_here(name or address))
        raise WeightsError(f"{address} holds no {' and '.join(wanted[:2])}")
    for path in present:
        _check_blob(path)
    return folder / file if file else folder


def _check_blob(path: Path) -> None:
    """A file of the hub's cache is a link to a blob named after its SHA-256 (large files) or git's SHA-1."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        intact = sha256(blob) == blob.name
    elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        intact = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == blob.name
    else:
        raise WeightsError(f"{path} is a copy without the hub's hash, so it cannot be checked; give #sha256= and a URL")
    if not intact:
        raise WeightsError(f"{blob} does not have the hash that the hub states; delete it and download again")
