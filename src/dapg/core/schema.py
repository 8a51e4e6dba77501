"""Files of our own that are read back: each reader says what it needs, and a file that has something else is named.

A shape is a type: a ``TypedDict`` or dataclass for objects, ``list[...]``, ``dict[str, ...]``, numbers with ranges
(core/ranges.py). Keys beyond the shape are let through: other readers, and later versions, have use for them.
"""

import contextlib
import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import DapgError, DataError
from dapg.core.ranges import Range
from dapg.core.settings import describe, hints_of, read_yaml, shown
from dapg.core.types import JsonObject

REMEDY = "it was damaged, or written by something else: put back a copy, or delete its folder and make it anew"


@contextlib.contextmanager
def wall(where: object, remedy: str = REMEDY) -> Iterator[None]:
    """Around calls of other libraries on a file's content: whatever they raise says in one line which file it was.

    Raises:
        DataError: anything was raised but our own errors, which pass.
    """
    try:
        yield
    except DapgError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{where} does not exist") from error
    except Exception as error:
        raise DataError(f"{where} cannot be read ({said(error)}); {remedy}") from error


def said(error: BaseException) -> str:
    """A foreign error in at most two hundred characters of one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"no {text}"
    return text if len(text) <= 200 else f"{text[:197]}..."


def checked(value: object, shape: Any, where: object, remedy: str = REMEDY) -> Any:
    """``value``, which fits the shape.

    Raises:
        DataError: says which key holds what in place of what.
    """
    try:
        _check(value, shape, "")
    except _Mismatch as error:
        raise DataError(f"{where}: {error}; {remedy}") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply; {remedy}") from None
    return value


class _Mismatch(Exception):
    """What is where, in place of what."""


def _check(value: object, shape: Any, key: str) -> None:
    origin, inner = typing.get_origin(shape), typing.get_args(shape)
    if shape is Any or shape is object:
        return
    if typing.is_typeddict(shape) or dataclasses.is_dataclass(shape):
        _check_keys(value, shape, key)
    elif origin is Annotated:
        _check(value, inner[0], key)
        ranges = [mark for mark in inner[1:] if isinstance(mark, Range)]
        if not all(isinstance(value, int | float) and value in numbers for numbers in ranges):
            _refuse(value, shape, key)
    elif origin in (types.UnionType, typing.Union):
        if not any(_fits(value, kind) for kind in inner):
            _refuse(value, shape, key)
    elif origin is Literal:
        if not any(type(choice) is type(value) and choice == value for choice in inner):
            _refuse(value, shape, key)
    elif origin is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            _refuse(value, shape, key)
        for name, item in value.items():
            _check(item, inner[1], _below(key, name))
    elif origin is list or inner[1:] == (Ellipsis,):
        if not isinstance(value, list | tuple):
            _refuse(value, shape, key)
        for number, item in enumerate(value):
            if not _fits_plainly(item, inner[0]):
                _check(item, inner[0], f"{key}[{number}]")
    elif origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            _refuse(value, shape, key)
        for number, (item, kind) in enumerate(zip(value, inner, strict=True)):
            if not _fits_plainly(item, kind):
                _check(item, kind, f"{key}[{number}]")
    elif not _is_plain(value, shape):
        _refuse(value, shape, key)


def _check_keys(value: object, shape: Any, key: str) -> None:
    if not isinstance(value, dict):
        _refuse(value, shape, key)
    missing = sorted(_required(shape) - value.keys())
    if missing:
        raise _Mismatch(f"{key or 'it'} has no {', '.join(missing)}")
    if dataclasses.is_dataclass(shape):  # it is going to be made of them
        unknown = sorted(value.keys() - {field.name for field in dataclasses.fields(shape)}, key=str)
        if unknown:
            raise _Mismatch(f"{_below(key, str(unknown[0]))} is not known")
    for name, kind in hints_of(shape).items():
        if name in value:
            _check(value[name], _without_required(kind), _below(key, name))


@functools.cache
def _required(shape: Any) -> frozenset[str]:
    if typing.is_typeddict(shape):
        return frozenset(shape.__required_keys__)
    return frozenset(
        field.name
        for field in dataclasses.fields(shape)
        if field.default is field.default_factory is dataclasses.MISSING
    )


def _without_required(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) in (typing.Required, typing.NotRequired) else kind


def _below(key: str, name: str) -> str:
    return f"{key}.{shown(name)[1:-1]}" if key else shown(name)[1:-1]


def _fits(value: object, shape: Any) -> bool:
    try:
        _check(value, shape, "")
    except _Mismatch:
        return False
    return True


def _fits_plainly(value: object, kind: Any) -> bool:
    """Asked first of what there may be thousands of."""
    return kind in (int, float, str) and _is_plain(value, kind)


def _is_plain(value: object, kind: Any) -> bool:
    """JSON has one kind of number: a whole one is also a float, but true is no number."""
    if kind is None or kind is types.NoneType:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


def _refuse(value: object, shape: Any, key: str) -> NoReturn:
    wanted = "a mapping" if typing.is_typeddict(shape) or typing.get_origin(shape) is dict else describe(shape)
    raise _Mismatch(f"{key or 'it'} must be {wanted}, not {shown(value)}")


def read_json(path: Path | str, shape: Any = JsonObject, remedy: str = REMEDY) -> Any:
    """The value of a JSON file of ours.

    Raises:
        DapgError: missing, not JSON, or not of this shape.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return checked(parse_json(data, path, remedy), shape, path, remedy)


def parse_json(data: bytes | str, where: object, remedy: str = REMEDY) -> object:
    """The value of a JSON text; NaN and infinity, which JSON has no word for, are refused.

    Raises:
        DataError: not JSON.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise DataError(f"{where} is nested too deeply; {remedy}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise DataError(f"{where} is not valid JSON ({said(error)}); {remedy}") from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def read_json_lines(path: Path | str, shape: Any, remedy: str = REMEDY) -> list[Any]:
    """The values of a file with one JSON text per line; empty lines are skipped.

    Raises:
        DataError: missing, or a line that is not of this shape: names it.
    """
    with wall(path, remedy):
        data = Path(path).read_bytes()
    return parse_json_lines(data, shape, path, remedy)


def parse_json_lines(data: bytes, shape: Any, where: object, remedy: str = REMEDY) -> list[Any]:
    """As ``read_json_lines``, of bytes."""
    values = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            place = f"{where}, line {number}"
            values.append(checked(parse_json(line, place, remedy), shape, place, remedy))
    return values


def read_settings(path: Path, shape: Any = JsonObject, remedy: str = REMEDY) -> JsonObject:
    """The mapping of a YAML file of ours.

    Raises:
        UsageError: missing, or not YAML.
        DataError: not of this shape.
    """
    values = read_yaml(path)
    checked(values, shape, path, remedy)
    return values


class Array(typing.NamedTuple):
    """What an array of an ``.npz`` file must be."""

    kinds: str
    """Letters of ``numpy.dtype.kind``, such as ``iu`` for whole numbers."""
    shape: tuple[int | None, ...] = ()
    """Length of each axis; None is any."""

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether an array is such a one; numbers are finite."""
        sizes = len(self.shape) == array.ndim and all(
            want in (None, size) for want, size in zip(self.shape, array.shape, strict=True)
        )
        return sizes and array.dtype.kind in self.kinds and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))


def read_arrays(
    path: Path | str, wanted: Mapping[str, Array] | None = None, remedy: str = REMEDY
) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file of ours, those named of the kind and shape that is said.

    Raises:
        DataError: missing, damaged, or an array is absent or another one.
    """
    with wall(path, remedy):
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is no .npz file; {remedy}")
        with stored:
            arrays = {name: stored[name] for name in stored.files}
    for name, array in (wanted or {}).items():
        if name not in arrays:
            raise DataError(f"{path} has no array {name}; {remedy}")
        if not array.fits(arrays[name]):
            unfit = arrays[name]
            raise DataError(f"{path}: array {name} is {unfit.dtype} {unfit.shape}, not what belongs there; {remedy}")
    return arrays
