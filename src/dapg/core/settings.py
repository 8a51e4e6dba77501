"""Settings are frozen dataclasses: to plain values and back, and compared, without any command-line package."""

import dataclasses
import enum
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dapg.core.errors import UsageError, nearest

T = TypeVar("T")

RUN_ONLY = {"run_only": True}
"""Field metadata of settings that do not change the result: device, workers, logging, output folder."""


def run_only(default: Any) -> Any:
    """A dataclass field that does not count when two runs are compared."""
    return dataclasses.field(default=default, metadata=RUN_ONLY)


def unset(default: Any = None) -> Any:
    """A dataclass field whose default is not stored: settings from before it existed keep their hash."""
    return dataclasses.field(default=default, metadata={"unset": True})


def to_dict(settings: Any) -> Any:
    """Nested plain values (dict, list, str, int, float, bool, None) that YAML and JSON can hold."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        values = {field: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        stored = {f: value for f, value in values.items() if "unset" not in f.metadata or value != f.default}
        return {field.name: to_dict(value) for field, value in stored.items()}
    if isinstance(settings, enum.Enum):
        return settings.name.lower()
    if isinstance(settings, Path):
        return str(settings)
    if isinstance(settings, dict):
        return {str(key): to_dict(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_dict(value) for value in settings]
    return settings


def from_dict(kind: type[T], values: dict[str, Any], where: str = "settings") -> T:
    """Build a settings dataclass from plain values; missing ones take their defaults.

    Raises:
        UsageError: an unknown key (the nearest name is suggested), a value of the wrong kind, or a missing one that
            has no default.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(values, list(known), where)
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UsageError(f"{where} lacks {name!r}, which has no default")
    return kind(**{key: _coerce(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _refuse_unknown(values: dict[str, Any], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise UsageError(f"{where} has no key {key!r}{nearest(str(key), known)}")


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """A plain value as the hint wants it, or an error that names the place."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a mapping, not {value!r}")
        return from_dict(hint, value, where)
    origin = typing.get_origin(hint)
    if origin in (tuple, list):
        return _coerce_sequence(origin, typing.get_args(hint), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UsageError(f"{where} must be one of {', '.join(map(str, typing.get_args(hint)))}, not {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _coerce_union(typing.get_args(hint), value, where)
    return _coerce_plain(hint, value, where) if isinstance(hint, type) else value


def _coerce_sequence(origin: type, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} must be a list, not {value!r}")
    open_ended = origin is list or (len(inner) == 2 and inner[1] is Ellipsis)
    kinds = [inner[0]] * len(value) if open_ended else list(inner)
    if len(kinds) != len(value):
        raise UsageError(f"{where} must have {len(kinds)} entries, not {len(value)}")
    return origin(_coerce(kind, item, where) for kind, item in zip(kinds, value, strict=True))


def _coerce_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(value) in kinds:
        return value
    problems = []
    for kind in kinds:
        try:
            return _coerce(kind, value, where)
        except UsageError as error:
            problems.append(error)
    raise problems[0]


def _coerce_plain(hint: type, value: Any, where: str) -> Any:
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if issubclass(hint, enum.Enum):
        members = {member.name.lower(): member for member in hint}
        if value in members:
            return members[value]
        raise UsageError(f"{where} must be one of {', '.join(members)}, not {value!r}")
    raise UsageError(f"{where} must be {hint.__name__}, not {value!r}")


_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
"""``1e-4``, which YAML 1.1 reads as text because it has no point."""


def merge(defaults: T, values: dict[str, Any], where: str = "settings") -> T:
    """``defaults`` with the given plain values in place of its own, at any depth.

    Raises:
        UsageError: an unknown key (the nearest name is suggested) or a value of the wrong kind.
    """
    hints = typing.get_type_hints(type(defaults))
    known = [field.name for field in dataclasses.fields(defaults)]  # type: ignore[arg-type]
    _refuse_unknown(values, known, where)
    changed: dict[str, Any] = {}
    for key, value in values.items():
        current = getattr(defaults, key)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            changed[key] = merge(current, value, f"{where}.{key}")
        elif dataclasses.is_dataclass(current) and hints[key] is Any:  # the plug-in's own settings
            raise UsageError(f"{where}.{key} must be a mapping, not {value!r}")
        else:
            changed[key] = _coerce(hints[key], value, f"{where}.{key}")
    return dataclasses.replace(defaults, **changed)  # type: ignore[type-var]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def run_only_keys(settings: Any, prefix: str = "") -> set[str]:
    """Dotted names of the fields that do not change a result."""
    keys: set[str] = set()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.metadata.get("run_only"):
            keys |= set(flat({field.name: to_dict(value)}, prefix))
        elif dataclasses.is_dataclass(value):
            keys |= run_only_keys(value, f"{prefix}{field.name}.")
    return keys


def differences(settings: Any, stored: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (stored value, new value) of what would change the result."""
    new, old = flat(to_dict(settings)), flat(stored)
    ignored = run_only_keys(settings)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(new.keys() | old.keys())
        if key not in ignored and old.get(key) != new.get(key)
    }


def dump_yaml(values: dict[str, Any]) -> str:
    """YAML with keys in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping.

    Raises:
        UsageError: missing, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of settings")
    return values
