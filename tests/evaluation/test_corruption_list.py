"""The fixed list vi-c 1.0: what its file says is done, shown by a second program written from the file alone."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dapg import cli
from dapg.core.errors import DataError, UsageError
from dapg.core.images import to_pil
from dapg.core.rng import SampleGenerator
from dapg.core.types import Modality, Record
from dapg.corruptions import library
from dapg.data.base import POLICY_FILE
from dapg.data.sets.folder import Folder
from dapg.evaluation import corrupted_sets, corruption_list
from dapg.evaluation.corrupted_sets import Assignment, CorruptionPolicy

PINNED = "9db06c2f26a9b70dd5fb840499795dd8102aae3b219c95bf8c9b284983fcc4ae"
"""Of the published file: it never changes; a change is a new list."""
FILE = json.loads(corruption_list.text())


def test_the_file_is_the_published_one_and_says_what_the_package_does() -> None:
    listed = corruption_list.corruption_list("vi-c-1.0")
    assert (listed.name, listed.sha256) == ("vi-c 1.0", PINNED)
    assert tuple(FILE["visible"]) == library.VISIBLE_20
    assert tuple(FILE["infrared"]) == library.INFRARED_20
    assert list(FILE["types"]) == FILE["visible"]
    for name, entry in FILE["types"].items():
        corruption = library.get(name)
        assert entry["family"] == corruption.family
        tables = [value for value in vars(type(corruption)).values() if isinstance(value, tuple) and len(value) == 5]
        assert len(tables) == 1, name
        for row, stated in zip(tables[0], entry["by_severity"], strict=True):
            assert np.asarray(row, dtype=float) == pytest.approx(np.asarray(stated, dtype=float), rel=1e-12), name
            assert len(np.atleast_1d(stated)) == len(entry["constants"]) or name == "zoom_blur"
    assert corrupted_sets.policy("vi-c-1.0") == CorruptionPolicy(types=library.VISIBLE_20)
    assert CorruptionPolicy().names(Modality.VISIBLE) == library.VISIBLE_20, "the default policy is the list's"


# The second program, from the file's words: Python's own integers, no torch.

M64, M32 = 2**64 - 1, 2**32 - 1


def s(*parts: str | int) -> int:
    text = "\x1f".join(f"{'int' if isinstance(part, int) else 'str'}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & M64
    return z ^ z >> 31


class Stream:
    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.calls = mix((seed + s("fork", name)) & M64), 0

    def key(self) -> int:
        self.calls += 1
        return mix((self.seed + self.calls * 0x9E3779B97F4A7C15) & M64)

    def uniform(self, count: int) -> list[float]:
        key = self.key()
        return [(mix((key + i * 0x9E3779B97F4A7C15) & M64) >> 40) / 2**24 for i in range(1, count + 1)]

    def integers(self, n: int) -> int:
        return (mix((self.key() + 0x9E3779B97F4A7C15) & M64) >> 32) * n >> 32

    def field(self, count: int) -> list[int]:
        key = self.key()
        low, high = key & M32, key >> 32
        numbers = []
        for i in range(1, count + 1):
            v = (i * 0x9E3779B9 & M32) ^ low
            v = (v ^ v >> 16) * 0x7FEB352D & M32
            v = ((v ^ v >> 15) + high) * 0x846CA68B & M32
            numbers.append(v ^ v >> 16)
        return numbers

    def uniform_field(self, count: int) -> list[float]:
        return [value % 2**24 / 2**24 for value in self.field(count)]

    def normal_field(self, count: int) -> list[float]:
        half = (count + 1) // 2
        low = [value % 2**24 for value in self.field(2 * half)]
        radius = [math.sqrt(-2 * math.log((value + 0.5) / 2**24)) for value in low[:half]]
        angle = [2 * math.pi * value / 2**24 for value in low[half:]]
        sides = [[r * turn(a) for r, a in zip(radius, angle, strict=True)] for turn in (math.cos, math.sin)]
        return [*sides[0], *sides[1]][:count]


def assigned(title: str, path: str, light: str, repeat: int) -> tuple[str, int, int]:
    key = ("corruption", title, path, repeat, FILE["seed"])
    name = FILE[light][s(*key, "type") % len(FILE[light])]
    severity = FILE["severities"][s(*key, "severity") % 5]
    return name, 0 if name == "none" else severity, 0 if name == "none" else s(*key, "noise")


def test_a_second_program_assigns_the_same_types_severities_and_seeds() -> None:
    policy = corrupted_sets.policy("vi-c-1.0/both")
    for number in range(300):
        light = ("visible", "infrared")[number % 2]
        boxed = number % 3 == 0
        path, box = f"cam{number % 6}/{number:04d}.jpg", (1, 2, 30, 40) if boxed else None
        record = Record(path, modality=Modality[light.upper()], box=box)
        ours = corrupted_sets.assign(policy, "SYSU-MM01", record, number % 4)
        name = f"{path}#1,2,30,40" if boxed else path
        assert ours == Assignment(*assigned("SYSU-MM01", name, light, number % 4))


H, W = 40, 33


def picture() -> np.ndarray:
    rows, columns = np.mgrid[:H, :W]
    return np.stack([rows * 5, columns * 7, 255 - rows * 3], axis=0).astype(np.uint8)


def second(name: str, severity: int, seed: int) -> np.ndarray:
    """One corrupted image as the file describes it, (3, H, W)."""
    x, stream = picture() / 255, Stream(seed, name)
    constant = FILE["types"][name]["by_severity"][severity - 1]
    if name in ("gaussian_noise", "speckle_noise"):
        noise = constant * np.array(stream.normal_field(3 * H * W)).reshape(3, H, W)
        damaged = x + noise * (x if name == "speckle_noise" else 1)
    elif name == "impulse_noise":
        u = np.array(stream.uniform_field(3 * H * W)).reshape(3, H, W)
        damaged = np.where(u < constant / 2, 0.0, np.where(u < constant, 1.0, x))
    else:  # brightness: hue and saturation stay, so that all channels grow by the factor of the largest
        value = x.max(axis=0)
        damaged = x * np.clip(value + constant, 0, 1) / np.maximum(value, 1e-12)
    return np.clip(damaged * 255 + 1e-3, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "impulse_noise", "brightness"])
def test_a_second_program_makes_the_same_pictures(name: str) -> None:
    for severity in (1, 4):
        ours = corrupted_sets.corrupt_image(torch.from_numpy(picture()), Assignment(name, severity, 1234567 + severity))
        difference = np.abs(ours.numpy().astype(int) - second(name, severity, 1234567 + severity))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01, "but for last bits"


def test_a_second_program_draws_the_same_drops_angles_and_cuts() -> None:
    seed, shape = 99, torch.Size((1, 3, H, W))
    streams = SampleGenerator(torch.tensor([seed]))

    def drawn(name: str, severity: int) -> dict[str, torch.Tensor]:
        return library.get(name).draw(shape, torch.tensor([severity]), streams.fork(name))

    rain = Stream(seed, "rain")
    slant = math.trunc(-10 + 20 * rain.uniform(1)[0])
    places = np.array(rain.uniform(2 * (H * W // 500))).reshape(-1, 2)
    length, area = FILE["types"]["rain"]["by_severity"][0][1], FILE["types"]["rain"]["by_severity"][0][0]
    drops = [(int(p0 * (W - slant + 1)) + min(slant, 0), int(p1 * (H - length + 1))) for p0, p1 in places]
    ours = [tuple(drop) for drop in drawn("rain", 1)["drops"][0].tolist() if drop[0] > -1000]
    assert ours == drops[: H * W // area]

    assert float(drawn("motion_blur", 2)["angle"]) == pytest.approx(
        -45 + 90 * Stream(seed, "motion_blur").uniform(1)[0]
    )
    snow = Stream(seed, "snow")
    layer = np.array(snow.normal_field(math.ceil(H / 2) * math.ceil(W / 2)))
    assert drawn("snow", 3)["noise"].flatten().numpy() == pytest.approx(layer, abs=1e-5)
    assert float(drawn("snow", 3)["angle"]) == pytest.approx(-135 + 90 * snow.uniform(1)[0])
    assert int(drawn("frost", 3)["photograph"]) == Stream(seed, "frost").integers(5)

    _, reach, rounds = FILE["types"]["glass_blur"]["by_severity"][2]
    glass = Stream(seed, "glass_blur")
    glass.seed = mix((glass.seed + s("fork", "glass")) & M64)
    halves = [(value & 0xFFFF, value >> 16) for value in glass.field(rounds * H * W)]
    moves = [[((half ^ 0x8000) * 2 * reach // 65536) - reach for half in pair] for pair in halves]
    expected = np.array(moves).reshape(rounds, H, W, 2).transpose(0, 3, 1, 2)
    assert (drawn("glass_blur", 3)["displacement"][0, :rounds].numpy() == expected).all()


def test_each_protocol_says_which_light_and_which_side() -> None:
    expected = {f"{light}{side}" for light in ("visible", "both") for side in ("", "-query", "-gallery")}
    assert set(FILE["protocols"]) == expected
    for name in expected:
        chosen = corrupted_sets.policy(f"vi-c-1.0/{name}")
        light, _, side = name.partition("-")
        assert (chosen.modality, chosen.side) == (light, side or "both")
        assert chosen.provenance()["changed"] == {}, "each is the list's own"


def test_results_state_list_hash_draws_and_what_is_not_the_lists() -> None:
    stated = {"list": "vi-c 1.0", "sha256": PINNED, "draws": library.DRAWS}
    assert CorruptionPolicy(types=("fog",), severities=(3,)).provenance() == {**stated, "changed": {}}
    other = CorruptionPolicy(types=("fog", "procedural_frost"), height=64, width=32, seed=5).provenance()
    assert other == {**stated, "changed": {"height": 64, "width": 32, "seed": 5, "types": ["procedural_frost"]}}


def test_a_list_of_other_draws_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "DRAWS", 99)
    corruption_list.corruption_list.cache_clear()
    with pytest.raises(DataError, match="version 2 of the draws, and this package makes version 99"):
        corruption_list.corruption_list()
    corruption_list.corruption_list.cache_clear()
    with pytest.raises(UsageError, match="did you mean"):
        corruption_list.text("vi-c-1.1")


def test_the_command_prints_the_list_and_copies_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corrupt", "--list", "vi-c-1.0"]) == 0
    assert hashlib.sha256(capsys.readouterr().out.encode()).hexdigest() == PINNED
    root = tmp_path / "set"
    root.mkdir()
    for number in range(3):
        to_pil(torch.from_numpy(picture())).save(root / f"{number}.png")
    out = tmp_path / "copy"
    assert cli.main(["corrupt", str(root), "--list", "vi-c-1.0/both", "--split", "all", "--out", str(out)]) == 0
    stated = json.loads((out / POLICY_FILE).read_text())
    assert stated["list"] == corrupted_sets.policy("vi-c-1.0").provenance()
    assert stated["modality"] == "both"
    title = Folder(root).title
    lines = [json.loads(line) for line in (out / "manifest-1-of-1.jsonl").read_text().splitlines()]
    assert {line["path"]: (line["corruption"], line["severity"]) for line in lines} == {
        f"{number}.png": assigned(title, f"{number}.png", "visible", 0)[:2] for number in range(3)
    }
