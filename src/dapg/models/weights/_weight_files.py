"""Shared by the weights loader: a weights file of any common kind becomes named tensors, and nothing of it is run."""

import argparse
import importlib
import io
import pathlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dapg.core.errors import DapgError, DataError, WeightsError
from dapg.core.files import sha256
from dapg.core.schema import parse_json, read_json, said
from dapg.core.types import JsonObject

LARGEST_FILE = 4 * 2**30
"""Bytes; a checkpoint of the largest backbone with optimiser and queue stays well below."""
LARGEST_INDEX, MOST_INSTRUCTIONS = 4 * 2**20, 500_000
"""Bytes and instructions of the pickled index inside a torch file; a ResNet-50 checkpoint's has about 0.1 million bytes
and 10,000 instructions."""
METADATA_KEY = "dapg"
"""Where a safetensors file of ours says what it holds: one key, so that equal content gives equal bytes."""
BACKBONE_FORMAT, COMPANION_FORMAT = "dapg backbone 1", "dapg flat weights 1"
METHOD_FORMAT = "dapg method 1"
"""A whole trained method in one file (``methods/method_files.py``), described as a backbone is."""

_WRAPPERS = ("state_dict", "model", "net", "student", "model_state_dict", "module", "teacher", "model_ema")


@dataclass(frozen=True)
class Content:
    """Tensors of a file under its own names, unwrapped, and what the file or its companion says about them."""

    tensors: dict[str, Tensor]
    wrapper: str
    """Keys that led to the state dict, joined by dots."""
    sha256: str
    metadata: JsonObject | None
    """None for files that others wrote."""


def read(path: Path) -> Content:
    """Read a safetensors or torch file; the content decides which it is, not the name.

    Raises:
        WeightsError: unreadable, too large, damaged, of another kind, or with more in it than tensors and values.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > LARGEST_FILE:
        raise WeightsError(f"{path} has {size / 2**30:.1f} GiB; weights files above {LARGEST_FILE >> 30} are refused")
    digest = sha256(path)
    _check_published_name(path, digest)
    if start[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
        return Content(tensors, "", digest, metadata or _companion(path, digest))
    _check_foreign(path, start, size)
    wrapper, tensors = _unwrap(_read_torch(path, start), path)
    return Content(tensors, wrapper, digest, _companion(path, digest))


def description(path: Path) -> JsonObject | None:
    """What a safetensors file of ours says about itself, without its tensors; None for any other file.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        with path.open("rb") as handle:
            if handle.read(9)[8:] != b"{":
                return None
        with safe_open(path, framework="pt") as handle:
            stored = handle.metadata() or {}
    except Exception as error:  # whatever safetensors raises for a damaged file
        raise WeightsError(f"{path} cannot be read: {said(error)}") from error
    return _description(stored, path)


def _check_published_name(path: Path, digest: str) -> None:
    """Torchvision puts the first eight digits of the hash into the name; a broken download shows there."""
    match = re.fullmatch(r"(?:resnet\d+|mobilenet_v2)-([0-9a-f]{8})", path.stem)
    if match and not digest.startswith(match[1]):
        raise WeightsError(
            f"{path}: its SHA-256 begins with {digest[:8]}, not with {match[1]} as its name says; download it again"
        )


def _check_foreign(path: Path, start: bytes, size: int) -> None:
    """Name what people pass by mistake."""
    if size == 0:
        raise WeightsError(f"{path} is empty")
    if start.startswith(b"version https://"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not a weights file: the download did not work")
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightsError(f"{path} is neither a safetensors nor a torch file")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], JsonObject | None]:
    try:
        with safe_open(path, framework="pt") as handle:
            stored = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # whatever safetensors and torch raise for a damaged file
        raise WeightsError(f"{path} is a damaged safetensors file ({said(error)})") from error
    return tensors, _description(stored, path)


def _description(stored: Mapping[str, str], path: Path) -> JsonObject | None:
    if METADATA_KEY not in stored:
        return None
    try:
        stated = parse_json(stored[METADATA_KEY], path)
    except DataError as error:
        raise WeightsError(f"{path}: what the file says about itself is damaged ({error})") from error
    return _checked(stated, (BACKBONE_FORMAT, METHOD_FORMAT), path)


def _companion(path: Path, digest: str) -> JsonObject | None:
    """The description that ``export_flat`` writes beside its file."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        stated = read_json(beside)
    except DapgError:
        return None  # somebody else's file
    if not isinstance(stated, dict) or stated.get("format") != COMPANION_FORMAT:
        return None
    if stated.get("sha256") != digest:
        raise WeightsError(
            f"{beside} describes another file than {path.name} (other SHA-256): export again or remove it"
        )
    return _checked(stated, (COMPANION_FORMAT,), beside)


def _checked(stated: object, expected: tuple[str, ...], path: Path) -> JsonObject:
    """What a file of ours says about itself, with every part of the kind it must be."""
    if not isinstance(stated, dict) or stated.get("format") not in expected:
        raise WeightsError(f"{path} was not written by this version: expected {' or '.join(map(repr, expected))}")
    kinds = {"architecture": str, "config": dict, "mean": list, "std": list, "metadata": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(stated.get(key), kind)]
    if wrong:
        raise WeightsError(f"{path} does not state its {', '.join(wrong)} as it should")
    return stated


def _read_torch(path: Path, start: bytes) -> object:
    """Unpickle with torch's restricted reader, which builds tensors and plain values and runs nothing."""
    if start.startswith(b"PK"):
        _check_archive(path)
    else:
        with path.open("rb") as handle:
            _check_instructions(handle, path, pickles=5)  # magic number, version, system, content, keys of storages
    try:
        with torch.serialization.safe_globals(_plain_types()):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
            return content
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        wants = f" (it asks for {match[1]})" if match else ""
        raise WeightsError(
            f"{path} holds more than tensors and plain values{wants}, or is damaged; it was not opened further. If you "
            "trust it, store its state_dict alone with torch.save"
        ) from error
    except Exception as error:  # damaged bytes can make the reader stumble anywhere, out of memory included
        raise WeightsError(f"{path} is a damaged torch file ({said(error)})") from error


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to more than they weigh; torch stores without compression."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.filename.endswith(".pkl") and entry.file_size <= LARGEST_INDEX:
                    _check_instructions(io.BytesIO(archive.read(entry)), path)
    except WeightsError:
        raise
    except Exception as error:  # an encrypted, oddly compressed or damaged entry raises many kinds
        raise WeightsError(f"{path} is cut off or damaged ({said(error)}); copy or download it again") from error
    unpacked = sum(entry.file_size for entry in entries)
    index = max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)
    if unpacked > path.stat().st_size or index > LARGEST_INDEX:
        raise WeightsError(
            f"{path} unpacks to {unpacked} bytes with an index of {index}: no torch file looks like that"
        )


def _check_instructions(handle: io.BufferedIOBase, path: Path, pickles: int = 1) -> None:
    """Refuse pickles that cost minutes and gigabytes to read: torch's reader has no limit of its own."""
    count = 0
    for _ in range(pickles):
        try:
            for _ in pickletools.genops(cast(IO[bytes], handle)):
                count += 1
                if count > MOST_INSTRUCTIONS:
                    raise WeightsError(f"{path} has an index of over {MOST_INSTRUCTIONS:,} instructions; not read")
        except ValueError:
            return  # damaged, or the end: torch's reader says so


def _plain_types() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Types that checkpoints of this field hold beside tensors: numpy scores and parsed arguments. None runs code."""
    package = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    multiarray = importlib.import_module(f"{package}.multiarray")
    kinds = "?bhilqBHILQefd"  # booleans, integers and floats of every size
    allowed: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        np.ndarray,
        np.dtype,
        argparse.Namespace,
        *{type(np.dtype(kind)) for kind in kinds},
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2 wrote different names
        allowed += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    for pure, kind in ((pathlib.PurePosixPath, "PosixPath"), (pathlib.PureWindowsPath, "WindowsPath")):
        # Paths among parsed arguments: built as pure ones, which open nothing.
        allowed += [
            (pure, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in (kind, f"Pure{kind}")
        ]
    return allowed


def _unwrap(content: object, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The state dict inside a checkpoint, and the keys that led to it."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    mapping: Mapping[object, object] = content
    wrapper: list[str] = []
    for _ in range(4):
        inner = next((key for key in _WRAPPERS if isinstance(mapping.get(key), Mapping)), None)
        if inner is None:  # under a name of its own: the only mapping of tensors
            nested = [key for key, value in mapping.items() if isinstance(value, Mapping) and _has_tensors(value)]
            inner = str(nested[0]) if len(nested) == 1 and not _has_tensors(mapping) else None
        below = None if inner is None else mapping.get(inner)
        if inner is None or not isinstance(below, Mapping):
            break
        wrapper.append(inner)
        mapping = below
    tensors = {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; its keys are {some([str(key) for key in mapping])}")
    return ".".join(wrapper), {
        name: tensor.detach()
        for name, tensor in tensors.items()
        if tensor.layout == torch.strided and tensor.device.type == "cpu"  # no sparse tensors, none without values
    }


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def some(names: list[str] | tuple[str, ...], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
