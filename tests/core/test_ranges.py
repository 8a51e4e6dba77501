"""Every number in any settings of the package has a range, and the defaults and presets are within them."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

import dapg
from dapg import recipes
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.ranges import Range
from dapg.core.scales import PRESETS
from dapg.core.settings import check, merge, settings_in


def settings_classes() -> dict[str, type]:
    """Frozen dataclasses called ...Settings or ...Config, and those that they hold, anywhere in the package."""
    classes: dict[str, type] = {}

    def add(kind: Any) -> None:
        if not inspect.isclass(kind) or not kind.__module__.startswith("dapg.") or str(kind) in classes:
            return
        if dataclasses.is_dataclass(kind):
            classes[str(kind)] = kind
            for hint in typing.get_type_hints(kind).values():
                add(hint)

    def search(owner: Any, module: str) -> None:
        for name, value in list(vars(owner).items()):
            if inspect.isclass(value) and value.__module__ == module:
                if name.endswith(("Settings", "Config")):
                    add(value)
                if value is not owner:
                    search(value, module)

    for info in pkgutil.walk_packages(dapg.__path__, "dapg."):
        if not info.name.endswith("__main__"):
            search(importlib.import_module(info.name), info.name)
    return classes


CLASSES = settings_classes()


def numbers_without_range(hint: Any) -> Iterator[Any]:
    """The kinds of number in a type that stand outside ``Annotated[..., Range(...)]``."""
    if typing.get_origin(hint) is Annotated:
        if not any(isinstance(mark, Range) for mark in typing.get_args(hint)):
            yield from numbers_without_range(typing.get_args(hint)[0])
    elif hint in (int, float):
        yield hint
    else:
        for inner in typing.get_args(hint):
            yield from numbers_without_range(inner)


def test_the_search_finds_numbers_and_settings() -> None:
    assert list(numbers_without_range(tuple[int, Annotated[float, Range(0, 1)]] | None)) == [int]
    names = {kind.__qualname__ for kind in CLASSES.values()}
    assert {"TrainConfig", "DAPG.Config", "BYOLHead.Config", "Sampling", "Rerank", "Pyramid.Config"} <= names


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_has_a_range(name: str) -> None:
    hints = typing.get_type_hints(CLASSES[name], include_extras=True)
    missing = [field.name for field in dataclasses.fields(CLASSES[name]) if [*numbers_without_range(hints[field.name])]]
    assert not missing, f"{name}: give these a range of dapg/core/ranges.py"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_within_the_ranges(preset: str) -> None:
    for folder in ("pretraining", "alignment", "finetuning"):
        for method in plugins.names(f"methods.{folder}"):
            check(getattr(recipes, folder)(method, preset))


NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, 10**400, 16**5000, 1e300, True)
NASTY: tuple[object, ...] = (*NUMBERS, None, "", "nan", "x" * 500, [], [1], {}, {"a": 1})


def refusal(settings: Any, name: str, value: object) -> str:
    """What is said when a setting gets a value; nothing when it is taken."""
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    try:
        check(merge(settings, nested, "c.yaml: "))
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("settings", [recipes.pretraining("dapg", "demo"), recipes.finetuning("agw", "demo")])
def test_a_nasty_value_is_taken_as_it_is_meant_or_refused_in_one_line(settings: Any) -> None:
    """Every setting; NaN and infinity are no number anywhere."""
    for setting in settings_in(settings):
        for value in NASTY:
            message = refusal(settings, setting.name, value)
            assert "\n" not in message
            assert len(message) < 300
            assert message or not isinstance(value, float) or math.isfinite(value), setting.name
