"""Every number in any settings of the package has a range, and the defaults and presets are within them."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

import dapg
from dapg import recipes
from dapg.core import plugins
from dapg.core.ranges import Range
from dapg.core.scales import PRESETS
from dapg.core.settings import check


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
    assert {"TrainConfig", "DAPG.Config", "BYOLHead.Config", "Sampling", "Rerank", "ResNet.Config"} <= names


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
