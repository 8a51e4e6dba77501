"""Settings are frozen dataclasses: plain values become checked settings, and settings plain values; both are compared.

A field's type says everything that is checked: its kind and, by ``core/ranges.py``, the numbers it may hold. The same
check serves options, YAML files and settings built in Python.
"""

import contextlib
import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard, TypeVar

import yaml

from dapg.core.errors import UsageError, nearest
from dapg.core.ranges import Range
from dapg.core.types import JsonObject

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Dataclass = DataclassInstance
else:
    Dataclass = object

T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound=Dataclass)

RUN_ONLY = {"run_only": True}
"""Field metadata of settings that do not change the result: device, workers, logging, output folder."""


def run_only(default: T) -> T:
    """A dataclass field that does not count when two runs are compared."""
    return dataclasses.field(default=default, metadata=RUN_ONLY)


def unset(default: T) -> T:
    """A dataclass field whose default ``to_dict`` leaves out: settings from before it existed keep their hash."""
    return dataclasses.field(default=default, metadata={"unset": True})


@dataclasses.dataclass(frozen=True)
class Setting:
    """A plain value in a tree of settings."""

    name: str
    """Dotted, such as ``train.steps``."""
    hint: object
    """Its type."""
    value: object
    owner: type
    """The dataclass that declares it."""
    run_only: bool
    """Whether it, or a part of the tree that holds it, does not change the result."""

    @property
    def doc(self) -> str:
        """The docstring under its declaration, on one line."""
        return field_docs(self.owner).get(self.name.rpartition(".")[2], "")


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """Field -> type, with the ranges of numbers."""
    return typing.get_type_hints(kind, include_extras=True)


def settings_in(settings: Dataclass, prefix: str = "", run_only: bool = False) -> Iterator[Setting]:
    """Every plain value below ``settings``, in the order of declaration."""
    hints = hints_of(type(settings))
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        apart = run_only or bool(field.metadata.get("run_only"))
        if _is_group(value):
            yield from settings_in(value, f"{name}.", apart)
        else:
            yield Setting(name, hints[field.name], value, type(settings), apart)


def _is_group(value: object) -> TypeGuard[Dataclass]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and of those it inherits from, read from the source."""
    import ast
    import inspect
    import textwrap

    docs: dict[str, str] = {}
    for owner in reversed([parent for parent in kind.__mro__ if dataclasses.is_dataclass(parent)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            match before, after:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def to_dict(settings: Dataclass, whole: bool = False) -> JsonObject:
    """Nested plain values (dict, list, str, int, float, bool, None) that YAML and JSON can hold.

    Args:
        settings: a dataclass.
        whole: with ``unset`` fields at their defaults, for files that are given back over any preset's settings.
    """
    values = {field: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    stored = {f: value for f, value in values.items() if whole or "unset" not in f.metadata or value != f.default}
    return {field.name: to_plain(value, whole) for field, value in stored.items()}


def to_plain(value: object, whole: bool = False) -> object:
    """One value as ``to_dict`` writes it."""
    if type(value) in (str, int, float, bool):  # most are, and the other questions take longer
        return value
    if _is_group(value):
        return to_dict(value, whole)
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_dict(kind: type[SettingsT], values: object, where: str = "settings.") -> SettingsT:
    """Build a settings dataclass from plain values; missing ones take their defaults.

    Args:
        kind: the dataclass.
        values: field -> plain value.
        where: what stands before a field's name in messages.

    Raises:
        UsageError: an unknown key (the nearest name is suggested), a value of the wrong kind or out of range, or a
            missing one that has no default.
    """
    given = _checked_fields(kind, values, where)
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            raise UsageError(f"{where}{field.name} is missing and has no default")
    return kind(**given)


def merge(defaults: SettingsT, values: object, where: str = "settings.") -> SettingsT:
    """``defaults`` with the given plain values in place of its own, at any depth.

    Raises:
        UsageError: an unknown key (the nearest name is suggested), or a value of the wrong kind or out of range.
    """
    return dataclasses.replace(defaults, **_checked_fields(type(defaults), values, where, defaults))


def check(settings: Dataclass) -> None:
    """Refuse settings, built in Python perhaps, that hold a value of the wrong kind or out of range.

    Raises:
        UsageError: names the first of them.
    """
    for setting in settings_in(settings):
        _checked(setting.hint, setting.value, setting.name)


def _checked_fields(kind: type[Dataclass], values: object, where: str, defaults: Dataclass | None = None) -> JsonObject:
    known = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(values, dict):
        raise UsageError(f"{where.rstrip('.: ')} must be a mapping{_example(kind)}, not {shown(values)}")
    hints = hints_of(kind)
    given: JsonObject = {}
    for key, value in values.items():
        if key not in known:
            name = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise UsageError(f"{where}{name} is not a setting{nearest(str(key), known)}")
        current, place = getattr(kind if defaults is None else defaults, key, None), f"{where}{key}"
        own = hints[key] is Any  # a plug-in's settings, whose kind only the defaults tell
        if _is_group(current) and (own or isinstance(value, dict)):
            given[key] = merge(current, value, f"{place}.")
        else:
            given[key] = _checked(hints[key], value, place, current)
    return given


def _checked(hint: object, value: object, where: str, current: object = None) -> object:
    """A plain value as the hint wants it, or an error that names the place."""
    try:
        return _converted(hint, value, where)
    except (ValueError, OverflowError):
        raise UsageError(f"{where} must be {describe(hint)}{_example(hint, current)}, not {shown(value)}") from None


def _example(hint: object, current: object = None) -> str:
    """What a list or a mapping looks like: its default, or one of the kind where that is empty."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return next(filter(None, (_example(kind, current) for kind in inner)), "")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "".join(f", such as {{{field.name}: ...}}" for field in dataclasses.fields(hint)[:1])
    if origin not in (tuple, list):
        return ""
    if current and isinstance(current, list | tuple):
        return f", such as {shown(to_plain(current))}"
    lows = [mark.low for kind in inner for mark in typing.get_args(kind) if isinstance(mark, Range)]
    return f", such as {lows}" if lows else ", such as [first, second]"


def _converted(hint: object, value: object, where: str) -> object:
    """``value`` as the hint wants it; a ValueError where it is nothing of the kind."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        number = _converted(inner[0], value, where)
        ranges = [mark for mark in inner[1:] if isinstance(mark, Range)]
        if any(not isinstance(number, int | float) or number not in numbers for numbers in ranges):
            raise ValueError(hint)
        return number
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError(hint)
        kinds = [inner[0]] * len(value) if origin is list or inner[1:] == (Ellipsis,) else inner
        return origin(_converted(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin in (types.UnionType, typing.Union):
        if type(value) in inner:
            return value
        for kind in inner:
            with contextlib.suppress(ValueError):
                return _converted(kind, value, where)
        raise ValueError(hint)
    if origin is Literal:
        return inner[[(type(choice), choice) for choice in inner].index((type(value), value))]
    return _converted_plain(hint, value, where) if isinstance(hint, type) else value


def _converted_plain(hint: type, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, f"{where}.")
    if isinstance(value, str) and any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError("no name, path or word holds NUL or half a character")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if issubclass(hint, enum.Enum) and isinstance(value, str):
        return list(hint)[[member.name.lower() for member in hint].index(value)]
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = float(value)  # from text: YAML 1.1 reads 1e-4, which has no point, as text
        if math.isfinite(number):
            return number
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(hint)


_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def describe(hint: object) -> str:
    """What a setting of this type may be, in words: ``a whole number from 1 to 4,096``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([describe(inner[0]), *(str(mark) for mark in inner[1:])])
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if isinstance(hint, enum.EnumType):
        return f"one of {', '.join(member.lower() for member in hint.__members__)}"
    if origin is list or inner[1:] == (Ellipsis,):
        return f"a list, each {describe(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}, each {' or '.join(dict.fromkeys(map(describe, inner)))}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(describe, inner))
    if dataclasses.is_dataclass(hint):
        return "a mapping"
    return "null" if hint is types.NoneType else _WORDS.get(hint, "anything")


def shown(value: object) -> str:
    """A value for a message of one line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number with thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def from_text(hint: object, text: str) -> object:
    """The plain value that a word of the command line stands for; the word itself where it stands for none."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if text == "null" and types.NoneType in kinds:
        return None
    origins = {typing.get_origin(kind) for kind in kinds}
    if Literal in origins or any(isinstance(kind, type) and issubclass(kind, str | Path | enum.Enum) for kind in kinds):
        return text
    try:
        return _load_yaml(f"[{text}]" if origins & {tuple, list} and not text.startswith("[") else text)
    except UsageError:
        return text


def flat(values: JsonObject, prefix: str = "") -> JsonObject:
    """Nested mappings as one level with dotted keys."""
    result: JsonObject = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def nested(values: Mapping[str, object]) -> JsonObject:
    """Dotted keys as nested mappings: ``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    tree: JsonObject = {}
    for name, value in values.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


_GONE = {"part", "processes"}
"""Settings of earlier versions that changed no result, in files that these wrote."""


def differences(settings: Dataclass, stored: JsonObject) -> dict[str, tuple[object, object]]:
    """Dotted key -> (stored value, new value) of what would change the result.

    A file from before a setting existed means its default.
    """
    new, old = flat(to_dict(settings, whole=True)), flat(stored)
    old = {key: new[key] for key in new.keys() - flat(to_dict(settings)).keys()} | old
    ignored = {setting.name for setting in settings_in(settings) if setting.run_only} | _GONE
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(new.keys() | old.keys())
        if key not in ignored and old.get(key) != new.get(key)
    }


def listed(different: Mapping[str, tuple[object, object]], most: int = 8) -> str:
    """What ``differences`` found, in words; of many the first."""
    words = [f"{key}: {shown(old)} there, {shown(new)} now" for key, (old, new) in list(different.items())[:most]]
    return "; ".join([*words, *[f"and {len(different) - most} more"] * (len(different) > most)])


def dump_yaml(values: JsonObject) -> str:
    """YAML with keys in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


_Dumper: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""By libyaml where it is there, ten times as fast, with the same text."""


def read_yaml(path: Path) -> JsonObject:
    """A YAML file that holds one mapping.

    Raises:
        UsageError: missing, or not a mapping.
    """
    try:
        values = _load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (UsageError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of settings")
    return values


_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
"""Without dates, which no setting is."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """By libyaml, ten times as fast: a page may read thousands of settings."""

    yaml_implicit_resolvers = _RESOLVERS


class _Loader(yaml.SafeLoader):
    """By Python, and without aliases, which may grow without end."""

    yaml_implicit_resolvers = _RESOLVERS

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's own."""
        if self.check_event(yaml.AliasEvent):
            raise UsageError("aliases (*) are not taken")
        return super().compose_node(parent, index)


_NESTED = 500
"""Signs that may begin a level; libyaml has no limit of its own, so that text with more is left to Python's."""


def _load_yaml(text: str) -> Any:
    """Plain values.

    Raises:
        UsageError: no YAML; one line that says where.
    """
    plain = not any(sign in text for sign in "&*") and sum(map(text.count, ("[", "{", "- "))) < _NESTED
    try:
        return yaml.load(text, _FastLoader if plain and yaml.__with_libyaml__ else _Loader)
    except RecursionError:
        raise UsageError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{line}{error.problem}") from error
    except UsageError:
        raise
    except Exception as error:  # PyYAML also lets out what int(), dict look-ups and regular expressions raise
        raise UsageError(" ".join(str(error).split())[:200] or type(error).__name__) from error
