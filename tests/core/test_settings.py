"""Settings to plain values and back; what differs; what is refused, and with which words."""

import enum
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapg.core.errors import UsageError, nearest
from dapg.core.ranges import Range, Share
from dapg.core.settings import (
    check,
    describe,
    differences,
    dump_yaml,
    field_docs,
    flat,
    from_dict,
    merge,
    read_yaml,
    run_only,
    settings_in,
    to_dict,
    unset,
)


class Light(enum.IntEnum):
    VISIBLE = 1
    INFRARED = 2


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    size: tuple[int, int] = (256, 128)
    widths: tuple[float, ...] = (1.0, 0.5)
    names: list[str] = field(default_factory=lambda: ["a"])
    kind: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True)
class Noise:
    """A nested part that does not count."""

    lines: int = 10


@dataclass(frozen=True)
class Settings:
    steps: int
    inner: Inner = field(default_factory=Inner)
    on: bool = False
    note: str | None = None
    number_or_word: int | str = 0
    maybe: Inner | None = None
    anything: Any = None
    folder: Path = Path("outputs")
    light: Light = Light.VISIBLE
    device: str = run_only("auto")
    log: Noise = run_only(Noise())


FULL = Settings(
    steps=3,
    inner=Inner(rate=1e-6, size=(1, 2), widths=(), names=["x", "y"], kind="adam"),
    on=True,
    note="ü: [x]",
    number_or_word="word",
    maybe=Inner(rate=2.0),
    anything={"deep": [1]},
    folder=Path("/a/b"),
    light=Light.INFRARED,
)


@pytest.mark.parametrize("before", [Settings(1), FULL])
def test_round_trip_through_plain_values_and_yaml(before: Settings, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(to_dict(before)), encoding="utf-8")
    stored = read_yaml(path)
    assert stored == to_dict(before)
    assert from_dict(Settings, stored) == before
    assert merge(Settings(99), stored) == before
    assert differences(before, stored) == {}


@settings(max_examples=30, deadline=None)
@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    steps=st.integers(),
    note=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8),
)
def test_any_number_and_text_survives_yaml(rate: float, steps: int, note: str | None) -> None:
    import yaml

    before = Settings(steps, inner=Inner(rate=rate), note=note)
    assert from_dict(Settings, yaml.safe_load(dump_yaml(to_dict(before)))) == before


def test_yaml_keeps_the_order_of_the_fields() -> None:
    assert [line.split(":")[0] for line in dump_yaml(to_dict(Inner())).splitlines() if line[0] != "-"] == [
        "rate",
        "size",
        "widths",
        "names",
        "kind",
    ]


@pytest.mark.parametrize("build", [lambda values: from_dict(Settings, values), lambda values: merge(FULL, values)])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1, "inner": {"rat": 1.0}}, "settings.inner.rat is not a setting; did you mean 'rate'?"),
        ({"steps": 1, "stepz": 2}, "settings.stepz is not a setting; did you mean 'steps'?"),
        ({"steps": 1, "qqq": 2}, "settings.qqq is not a setting"),
        ({"steps": 1, 7: 2}, "settings.7 is not a setting"),
        ({"steps": "3"}, "settings.steps must be a whole number, not '3'"),
        ({"steps": True}, "settings.steps must be a whole number, not True"),
        ({"steps": 3.0}, "settings.steps must be a whole number, not 3.0"),
        ({"steps": None}, "settings.steps must be a whole number, not None"),
        ({"steps": 1, "on": 1}, "settings.on must be true or false, not 1"),
        ({"steps": 1, "on": "yes"}, "settings.on must be true or false, not 'yes'"),
        ({"steps": 1, "inner": 5}, "settings.inner must be a mapping, not 5"),
        ({"steps": 1, "inner": None}, "settings.inner must be a mapping, not None"),
        ({"steps": 1, "inner": {"rate": "fast"}}, "settings.inner.rate must be a number, not 'fast'"),
        ({"steps": 1, "inner": {"rate": True}}, "settings.inner.rate must be a number, not True"),
        ({"steps": 1, "inner": {"size": [1]}}, "settings.inner.size must be a list of 2, each a whole number, not [1]"),
        ({"steps": 1, "inner": {"size": 3}}, "settings.inner.size must be a list of 2, each a whole number, not 3"),
        (
            {"steps": 1, "inner": {"size": ["1", 2]}},
            "settings.inner.size must be a list of 2, each a whole number, not ['1', 2]",
        ),
        ({"steps": 1, "inner": {"widths": "ab"}}, "settings.inner.widths must be a list, each a number, not 'ab'"),
        ({"steps": 1, "inner": {"names": [1]}}, "settings.inner.names must be a list, each text, not [1]"),
        ({"steps": 1, "inner": {"kind": "sdg"}}, "settings.inner.kind must be one of sgd, adam, not 'sdg'"),
        ({"steps": 1, "light": "green"}, "settings.light must be one of visible, infrared, not 'green'"),
        ({"steps": 1, "note": 3}, "settings.note must be text or null, not 3"),
        ({"steps": 1, "number_or_word": None}, "settings.number_or_word must be a whole number or text, not None"),
        ({"steps": 1, "folder": 3}, "settings.folder must be a path, not 3"),
    ],
)
def test_wrong_keys_and_kinds_are_refused_by_name(build: Any, values: dict[Any, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(values)
    assert re.sub(r", such as (\[.*?\]|\{.*?\})", "", str(caught.value)) == message


def test_a_list_is_explained_by_the_one_in_place() -> None:
    message = r"settings\.inner\.size must be a list of 2, each a whole number, such as \[1, 2\], not '0\.5'"
    with pytest.raises(UsageError, match=message):
        merge(FULL, {"inner": {"size": "0.5"}})


def test_a_missing_value_without_default_is_named() -> None:
    with pytest.raises(UsageError, match=r"settings\.steps is missing"):
        from_dict(Settings, {"on": True})


def test_whole_numbers_and_exponents_are_numbers() -> None:
    """YAML 1.1 reads 1e-4, without a point, as text."""
    import yaml

    for text, value in (("1e-4", 1e-4), ("3", 3.0), ("-2E+3", -2000.0), (".5e1", 5.0), ("1.5e-3", 0.0015)):
        read = from_dict(Inner, yaml.safe_load(f"rate: {text}"))
        assert read.rate == value
        assert isinstance(read.rate, float)
    assert from_dict(Settings, {"steps": 1, "note": "1e-4"}).note == "1e-4"


def test_merge_changes_only_what_is_given_at_any_depth() -> None:
    merged = merge(FULL, {"inner": {"rate": 5}, "device": "cpu"})
    assert to_dict(merged) == {
        **to_dict(FULL),
        "inner": {**to_dict(FULL)["inner"], "rate": 5.0},
        "device": "cpu",
    }
    assert merge(FULL, {}) == FULL
    assert merge(FULL, {"maybe": None}).maybe is None
    assert merge(Settings(1), {"maybe": {"rate": 3}}).maybe == Inner(rate=3.0)


def test_differences_name_both_values_and_leave_out_what_does_not_count() -> None:
    stored = to_dict(FULL)
    changed = merge(FULL, {"inner": {"rate": 0.5, "size": [1, 9]}, "device": "cuda", "log": {"lines": 1}})
    assert differences(changed, stored) == {"inner.rate": (1e-6, 0.5), "inner.size": ([1, 2], [1, 9])}
    del stored["steps"]
    stored["gone"] = 1
    assert differences(FULL, stored) == {"gone": (1, None), "steps": (None, 3)}


def test_what_does_not_change_the_result_is_dotted_and_reaches_into_parts() -> None:
    assert [setting.name for setting in settings_in(Settings(1)) if setting.run_only] == ["device", "log.lines"]


@dataclass(frozen=True)
class Ranged:
    count: Annotated[int, Range(1, 4096)] = 8
    """How
    many."""
    share: Share | None = None
    sizes: tuple[Share, Share] = (0.2, 1.0)
    levels: tuple[Annotated[int, Range(1, 5)], ...] = (1, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "settings.count must be a whole number from 1 to 4,096, not 0"),
        ({"count": 4097}, "settings.count must be a whole number from 1 to 4,096, not 4097"),
        (
            {"count": 16**5000},
            "settings.count must be a whole number from 1 to 4,096, not a number with thousands of d",
        ),
        ({"share": math.nan}, "settings.share must be a number from 0 to 1 or null, not nan"),
        ({"share": math.inf}, "settings.share must be a number from 0 to 1 or null, not inf"),
        ({"share": 1e400}, "settings.share must be a number from 0 to 1 or null, not inf"),
        ({"share": 10**400}, "settings.share must be a number from 0 to 1 or null, not 1000"),
        ({"share": "-1e-9"}, "settings.share must be a number from 0 to 1 or null, not '-1e-9'"),
        ({"sizes": [0.5, 2]}, "settings.sizes must be a list of 2, each a number from 0 to 1, such as [0.2, 1.0], not"),
        ({"levels": [6]}, "settings.levels must be a list, each a whole number from 1 to 5, such as [1, 5], not [6]"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(values: dict[str, Any], message: str) -> None:
    for build in (lambda: from_dict(Ranged, values), lambda: merge(Ranged(), values), lambda: check(Ranged(**values))):
        with pytest.raises(UsageError) as caught:
            build()
        shown = str(caught.value).removeprefix("settings.")
        assert re.sub(r", such as (\[.*?\]|\{.*?\})", "", shown).startswith(
            re.sub(r", such as (\[.*?\]|\{.*?\})", "", message.removeprefix("settings."))
        )


def test_the_ends_of_a_range_are_inside() -> None:
    for values in ({"count": 1}, {"count": 4096}, {"share": 0}, {"share": 1}, {"levels": [1, 5]}):
        check(from_dict(Ranged, values))


def test_floats_without_a_range_are_finite() -> None:
    for value in (math.nan, math.inf, "nan", "1e999"):
        with pytest.raises(UsageError, match=r"settings\.rate must be a number, not"):
            from_dict(Inner, {"rate": value})


def test_kinds_and_ranges_in_words() -> None:
    words = {setting.name: describe(setting.hint) for setting in settings_in(Ranged())}
    assert words["count"] == "a whole number from 1 to 4,096"
    assert words["share"] == "a number from 0 to 1 or null"
    assert {setting.name: setting.doc for setting in settings_in(Ranged())}["count"] == "How many."
    assert describe(Literal["a", "b"]) == "one of a, b"
    assert describe(Light) == "one of visible, infrared"
    assert describe(bool) == "true or false"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "aliases (*) are not taken"),
        ("a: &a [1]\nb: *a", "aliases (*) are not taken"),
        ("a: " + "[" * 2000 + "]" * 2000, "nested too deeply"),
        ("a: " + "1" * 5000, "4300 digits"),
        ("a: [1\nb: 2", "expected ',' or ']'"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: could not determine a constructor"),
        ("a: !!timestamp x", "NoneType"),
        ("a: !!bool perhaps", "perhaps"),
        ("a: \0", "characters are not allowed"),
        ("", "must hold a mapping"),
        ("2020-01-01", "must hold a mapping"),
    ],
)
def test_yaml_that_is_no_settings_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_date_is_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("note: 2020-13-41\n", encoding="utf-8")
    assert read_yaml(path) == {"note": "2020-13-41"}


def test_flat() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"a: [1", "is not valid YAML"),
        (b"- 1\n- 2\n", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"\xff\xfe\x00\x81", "is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_yaml_files_that_hold_no_settings_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"mine\.yaml.*{message}|{message}.*mine\.yaml"):
        read_yaml(path)


def test_to_dict_is_json() -> None:
    import json

    assert json.loads(json.dumps(to_dict(FULL))) == to_dict(FULL)
    assert math.isclose(to_dict(FULL)["inner"]["rate"], 1e-6)
    assert to_dict(FULL)["light"] == "infrared"


def test_nearest() -> None:
    assert nearest("fgo", ["fog", "snow"]) == "; did you mean 'fog'?"
    assert nearest("zzz", ["fog", "snow"]) == ""


@dataclass(frozen=True)
class Outer:
    method: Any = field(default_factory=Inner)


def test_a_plug_in_s_own_settings_take_a_mapping_only() -> None:
    assert merge(Outer(), {"method": {"rate": 2}}).method == Inner(rate=2.0)
    with pytest.raises(UsageError, match=r"settings\.method must be a mapping, such as \{\w+: ...\}, not 5"):
        merge(Outer(), {"method": 5})


def test_every_list_and_mapping_that_is_refused_comes_with_an_example() -> None:
    @dataclass(frozen=True)
    class Lists:
        words: tuple[str, ...] = ()
        shares: tuple[Share, ...] = ()
        pair: tuple[Annotated[int, Range(3, 9)], Annotated[int, Range(3, 9)]] | None = None
        either: list[str] | None = None
        inner: Inner = field(default_factory=Inner)

    examples = {
        "words": "[first, second]",
        "shares": "[0]",
        "pair": "[3, 3]",
        "either": "[first, second]",
        "inner": "{rate: ...}",
    }
    for name, example in examples.items():
        with pytest.raises(UsageError) as caught:
            merge(Lists(), {name: 5})
        assert f", such as {example}, not 5" in str(caught.value)


def test_a_field_left_unset_is_not_stored() -> None:
    @dataclass(frozen=True)
    class Network:
        width: float = 1.0
        end: str | None = unset(None)

    assert to_dict(Network()) == {"width": 1.0}
    assert to_dict(Network(end="layer3")) == {"width": 1.0, "end": "layer3"}
    assert from_dict(Network, {"width": 1.0}) == Network()
    assert differences(Network(end="layer3"), {"width": 1.0}) == {"end": (None, "layer3")}


def test_a_whole_file_holds_what_is_unset_too_and_replaces_a_preset_s() -> None:
    @dataclass(frozen=True)
    class Network:
        width: float = 1.0
        end: str = unset("")

    preset = Network(end="layer3")
    assert to_dict(Network(), whole=True) == {"width": 1.0, "end": ""}
    assert merge(preset, to_dict(Network(), whole=True)) == Network()
    assert differences(Network(), to_dict(Network(), whole=True)) == {}
    assert differences(Network(), to_dict(Network())) == {}, "a file from before the setting existed"
    assert differences(preset, to_dict(Network(), whole=True)) == {"end": ("", "layer3")}
    assert differences(Network(), to_dict(preset, whole=True)) == {"end": ("layer3", "")}


@dataclass(frozen=True)
class Optimizer:
    name: Literal["sgd", "adam"] = "sgd"
    """Kind."""
    lr: float = 0.1
    """Learning rate,
    per 256 images."""


def test_field_docs() -> None:
    assert field_docs(Optimizer) == {"name": "Kind.", "lr": "Learning rate, per 256 images."}


def test_field_docs_are_inherited_and_may_be_said_anew() -> None:
    @dataclass(frozen=True)
    class Scheduled(Optimizer):
        lr: float = 0.1
        """Learning rate of the first step."""
        warmup: int = 0
        """Steps."""

    assert field_docs(Scheduled) == {"name": "Kind.", "lr": "Learning rate of the first step.", "warmup": "Steps."}
