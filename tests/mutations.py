"""Damage for files: bytes cut, turned and swapped, and for JSON, YAML, CSV and arrays other values in odd places."""

import csv
import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, float("nan"), float("inf"), 10**400, 2**63, -(2**31) - 1),
    *("", "x", "1", "-1", "nan", "../../outside.jpg", "/outside.jpg", "C:\\outside.jpg", "a\0b", "\ud800", "é" * 300),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, [1, 2, 3], ["x"], [{}], "2026-01-01", "<script>", "*", "&a"),
)
"""Values that no reader expects."""

DOCUMENTS = (
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{}",
    b"[" * 1500,
    b'{"a":' * 1500,
    b"9" * 5000,
    b"date: 2026-01-01\n",
    b"a: &x [*x, *x]\n",
    b"a: &x {b: *x}\n",
    b"%YAML 9.9\n---\n!!python/object/apply:os.system ['true']\n",
    b"\xff\xfe\x00\x01",
    b"\xef\xbb\xbf{}",
    b"\x00" * 512,
    b"version https://git-lfs.github.com/spec/v1\n",
    b"<!doctype html><html></html>",
)


def mutated(data: bytes, name: str, dice: random.Random) -> bytes:
    """A file's content with one damage, of the kind of its name or of any kind."""
    kinds: dict[str, Callable[[bytes, random.Random], bytes]] = {
        ".json": _json,
        ".jsonl": _lines,
        ".yaml": _yaml,
        ".csv": _csv,
        ".npz": _arrays,
        ".safetensors": _safetensors,
    }
    kind = kinds.get(Path(name).suffix)
    if kind is not None and data and dice.random() < 0.7:
        return kind(data, dice)
    return _bytes(data, dice)


def _bytes(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    match dice.randrange(8):
        case 0:
            return data[:place]
        case 1:
            return b""
        case 2:
            return dice.choice(DOCUMENTS)
        case 3:
            return data[:place] + dice.randbytes(dice.randrange(1, 40)) + data[place:]
        case 4:
            return data[:place] + b"\0" * (len(data) - place)
        case 5:
            return data[place:] + data[:place]
        case 6:
            return data + data
    turned = bytearray(data or b"\0")
    for _ in range(dice.randrange(1, 5)):
        turned[dice.randrange(len(turned))] ^= 1 << dice.randrange(8)
    return bytes(turned)


def changed(value: Any, dice: random.Random) -> Any:
    """A plain value with one part replaced by an odd one, taken out or doubled."""
    places = list(_places(value))
    if not places:
        return dice.choice(ODD)
    holder, key = dice.choice(places)
    action = dice.random()
    if action < 0.25:
        del holder[key]
    elif action < 0.35 and isinstance(holder, list):
        holder.append(holder[key])
    elif action < 0.4 and isinstance(holder, dict):
        holder[dice.choice(("", "x", "a\0b"))] = holder.pop(key)
    else:
        holder[key] = dice.choice(ODD)
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _json(data: bytes, dice: random.Random) -> bytes:
    return json.dumps(changed(json.loads(data), dice)).encode(errors="surrogatepass")


def _lines(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    lines[place] = _json(lines[place], dice) + b"\n"
    return b"".join(lines)


def _yaml(data: bytes, dice: random.Random) -> bytes:
    value = changed(yaml.safe_load(data), dice)
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode(errors="surrogatepass")
    except (ValueError, yaml.YAMLError):  # 10^400 has more digits than Python writes
        return yaml.safe_dump({"a": "x"}).encode()


def _csv(data: bytes, dice: random.Random) -> bytes:
    rows = changed([list(row) for row in csv.reader(io.StringIO(data.decode()))], dice)
    text = io.StringIO()
    for row in rows if isinstance(rows, list) else [rows]:
        csv.writer(text).writerow(row if isinstance(row, list) else [row])
    return text.getvalue().encode(errors="surrogatepass")


def _arrays(data: bytes, dice: random.Random) -> bytes:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = dice.choice(list(arrays))
    array = arrays[name]
    match dice.randrange(7):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = array[..., None]
        case 2:
            arrays[name] = array[:-1] if array.ndim else np.array([array, array])
        case 3:
            arrays[name] = np.array(["x"] * max(1, array.size))
        case 4:
            arrays[name] = np.full(array.shape, dice.choice((np.nan, np.inf, -1e300, 0.5)))
        case 5:
            arrays[name] = np.full(array.shape, dice.choice((-1, 2**31, 2**62, 7)), np.int64)
        case _:
            arrays[name] = np.zeros((0, *array.shape[1:]), array.dtype)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _safetensors(data: bytes, dice: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    for key, text in metadata.items():
        if dice.random() < 0.6 and text.startswith("{"):
            metadata[key] = json.dumps(changed(json.loads(text), dice))
            break
    else:
        header = changed(header, dice)
    text = json.dumps(header).encode(errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
