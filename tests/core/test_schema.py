"""What a reader needs is there, of the kind it needs; anything else is said in one line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pytest

from dapg.core.errors import DapgError, DataError
from dapg.core.ranges import Share
from dapg.core.schema import Array, checked, parse_json, read_arrays, read_json, read_json_lines, wall


class Inner(TypedDict):
    share: Share
    box: tuple[int, int]


class Outer(TypedDict):
    name: str
    inner: list[Inner]
    extra: NotRequired[dict[str, float | None]]


@dataclass
class Row:
    number: int
    note: str = ""


GOOD: dict[str, Any] = {"name": "x", "inner": [{"share": 0.5, "box": [1, 2]}], "more": object}


def test_what_fits_comes_back_as_it_is_with_keys_beyond_the_shape() -> None:
    assert checked(GOOD, Outer, "f") is GOOD
    assert checked([{"number": 1}], list[Row], "f") == [{"number": 1}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "f: name must be text, not None"),
        ({"inner": [{"box": [1, 2]}]}, "f: inner[0] has no share"),
        ({"inner": [{"share": 1.5, "box": [1, 2]}]}, "f: inner[0].share must be a number from 0 to 1, not 1.5"),
        ({"inner": [{"share": True, "box": [1, 2]}]}, "f: inner[0].share must be a number"),
        ({"inner": [{"share": 1, "box": [1]}]}, "f: inner[0].box must be a list of 2"),
        ({"inner": [{"share": 1, "box": [1, 2.0]}]}, "f: inner[0].box[1] must be a whole number, not 2.0"),
        ({"extra": {"a": float("inf")}}, "f: extra.a must be a number or null, not inf"),
        ({"extra": {"a": 10**400}}, "f: extra.a must be a number or null, not 1000"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        checked({**GOOD, **change}, Outer, "f", "do so")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("; do so")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match=r"cannot read .*a\.json: No such file"):
        read_json(path)
    path.write_text('{"a": NaN}')
    with pytest.raises(DataError, match=r"a\.json is not valid JSON \(NaN is no number"):
        read_json(path)
    path.write_text('{"number": 1}\n\n{"number": "1"}\n')
    with pytest.raises(DataError, match=r"a\.json, line 3: number must be a whole number"):
        read_json_lines(path, Row)
    with pytest.raises(DataError, match="nested too deeply"):
        parse_json("[" * 100_000, "f")


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((2, 3)), y=np.array([np.nan]))
    assert set(read_arrays(path, {"x": Array("f", (None, 3))})) == {"x", "y"}
    for name, wanted in (("x", Array("i", (2, 3))), ("x", Array("f", (3, 3))), ("y", Array("f", (1,)))):
        with pytest.raises(DataError, match=f"array {name} is float64"):
            read_arrays(path, {name: wanted})
    with pytest.raises(DataError, match="has no array z"):
        read_arrays(path, {"z": Array("f")})


def test_a_wall_lets_our_own_errors_pass_and_names_the_file_in_others() -> None:
    with pytest.raises(DataError, match=r"^f cannot be read \(no 'key'\); do so$"), wall("f", "do so"):
        raise KeyError("key")
    with pytest.raises(DataError, match=r"^mine$"), wall("f"):
        raise DataError("mine")
    with pytest.raises(KeyboardInterrupt), wall("f"):
        raise KeyboardInterrupt


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(DapgError("a\nb\t\x1b[31m c\0")) == "a b \\x1b[31m c\\x00"
