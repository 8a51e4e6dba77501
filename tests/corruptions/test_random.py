"""The random corruptions image by image against slow versions that are given the same random choices."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapg.core.colour import through_hls
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library
from dapg.corruptions.extra import distance_to_edges, rain_streaks
from dapg.corruptions.weather import frost_photograph

sys.path.insert(0, str(Path(__file__).parent))
reference = importlib.import_module("reference")

HEIGHT, WIDTH = 96, 64


def photograph(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """An image with smooth colour, edges and fine texture, some of it black and some white."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    generator = np.random.default_rng(3)
    picture = np.stack([0.6 * y + 0.2, 0.5 + 0.4 * np.sin(9 * x), 0.8 - 0.5 * x * y], axis=-1)
    picture[height // 4 : height // 2, width // 3 : width // 2] = (0.9, 0.2, 0.1)
    picture[:6] = 0
    picture[-6:, :20] = 1
    picture += generator.normal(0, 0.02, picture.shape)
    return torch.from_numpy((picture.clip(0, 1) * 255).astype(np.uint8)).permute(2, 0, 1)[None]


def both(
    name: str, severity: int, convert: Callable[[dict[str, np.ndarray]], dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """The library's uint8 image and the reference's, truncated, from one draw; ``convert`` gives its arguments."""
    corruption = library.get(name)
    images = photograph()
    drawn = corruption.draw(images.shape, torch.tensor([severity]), SampleGenerator(torch.tensor([severity])))
    ours = corruption.apply(images, drawn)[0].permute(1, 2, 0).numpy()
    plain = {key: value[0].numpy() for key, value in drawn.items()}
    clean = images[0].permute(1, 2, 0).numpy()
    theirs = getattr(reference, name)(clean, severity, **convert(plain))
    return ours, np.clip(np.floor(theirs + 1e-3), 0, 255)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """At most two grey levels apart in 99.9 % of all values, and not the same by being flat."""
    difference = np.abs(ours.astype(float) - theirs)
    assert (difference <= 2).mean() >= 0.999, f"{(difference > 2).mean():.4f} of values off, worst {difference.max()}"
    assert ours.std() > 5


def last_axis(field: np.ndarray) -> np.ndarray:
    return field.transpose(1, 2, 0)


def centre(field: np.ndarray) -> np.ndarray:
    """The whole field of which the library keeps the centre; what is outside is never used."""
    whole = np.full((HEIGHT, WIDTH), np.nan)
    top, left = (HEIGHT - field.shape[0]) // 2, (WIDTH - field.shape[1]) // 2
    whole[top : top + field.shape[0], left : left + field.shape[1]] = field
    return whole


ARGUMENTS = {
    "gaussian_noise": lambda p: {"noise": last_axis(p["noise"])},
    "speckle_noise": lambda p: {"noise": last_axis(p["noise"])},
    "shot_noise": lambda p: {"uniform": last_axis(p["uniform"])},
    "impulse_noise": lambda p: {"uniform": last_axis(p["uniform"])},
    "glass_blur": lambda p: {"displacement": p["displacement"]},
    "motion_blur": lambda p: {"angle": float(p["angle"])},
    "snow": lambda p: {"noise": centre(p["noise"][0]), "angle": float(p["angle"])},
    "fog": lambda p: {"uniform": p["field"]},
    "elastic_transform": lambda p: {"columns": p["field"][0], "rows": p["field"][1]},
}


@pytest.mark.parametrize("severity", library.SEVERITIES)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_same_choices_same_picture(name: str, severity: int) -> None:
    assert_close(*both(name, severity, ARGUMENTS[name]))


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_frost(severity: int) -> None:
    def convert(plain: dict[str, np.ndarray]) -> dict[str, Any]:
        ice = frost_photograph(int(plain["photograph"]), HEIGHT, WIDTH, torch.device("cpu"))
        return {"photograph": last_axis(ice.numpy()), "top": plain["corner"][0], "left": plain["corner"][1]}

    assert_close(*both("frost", severity, convert))


@pytest.mark.parametrize("number", range(5))
def test_frost_photographs_as_opencv_enlarges_them(number: int) -> None:
    cv2 = pytest.importorskip("cv2")
    from dapg.corruptions import weather

    path = weather._FROST_FOLDER / weather.FROST_FILES[number]
    stored = cv2.imread(str(path))[..., ::-1]
    for height, width in ((256, 128), (700, 400)):
        factor = 1.1 * max(1, height / stored.shape[0], width / stored.shape[1])
        size = (int(np.ceil(stored.shape[1] * factor)), int(np.ceil(stored.shape[0] * factor)))
        theirs = cv2.resize(stored, size, interpolation=cv2.INTER_CUBIC).astype(float)
        ours = last_axis(frost_photograph(number, height, width, torch.device("cpu")).numpy())
        assert ours.shape == theirs.shape
        assert (np.abs(ours - theirs) <= 2).mean() > 0.999


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_spatter(severity: int) -> None:
    cv2 = pytest.importorskip("cv2")

    def convert(plain: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            "noise": plain["noise"],
            "canny": lambda layer: cv2.Canny(layer, 50, 150),
            "distance": lambda layer: cv2.distanceTransform(layer, cv2.DIST_L2, 5),
            "box": lambda layer: cv2.blur(layer, (3, 3)),
        }

    assert_close(*both("spatter", severity, convert))


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_rain(severity: int) -> None:
    cv2 = pytest.importorskip("cv2")

    def convert(plain: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            "drops": [(int(x), int(y)) for x, y in plain["drops"] if x > -1000],
            "line": lambda image, start, end: cv2.line(image, start, end, (200, 200, 200), 1),
            "box": lambda image, side: cv2.blur(image, (side, side)),
            "hls": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2HLS), cv2.COLOR_HLS2RGB).astype(float),
        }

    ours, theirs = both("rain", severity, convert)
    assert_close(ours, theirs)


def test_the_way_through_hls_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    colours = torch.randint(0, 256, (200, 200, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    theirs = cv2.cvtColor(cv2.cvtColor(colours.numpy(), cv2.COLOR_RGB2HLS), cv2.COLOR_HLS2RGB)
    ours = through_hls(colours.permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).numpy()
    difference = np.abs(ours - theirs)
    assert (difference == 0).mean() > 0.99
    assert (difference <= 2).mean() > 0.999
    assert np.abs(theirs.astype(float) - colours.numpy()).max() > 2, "it does change colours"


def test_rain_draws_the_described_drops() -> None:
    severities = torch.arange(1, 6).repeat(200)
    drawn = library.get("rain").draw(torch.Size((1000, 3, 256, 128)), severities, SampleGenerator(torch.arange(1000)))
    area = 256 * 128
    count = (drawn["drops"][..., 0] > -1000).sum(dim=1)
    assert count.reshape(200, 5)[0].tolist() == [area // 770, area // 600, area // 600, area // 500, area // 500]
    assert (count.reshape(200, 5) == count[:5]).all()
    columns, rows = drawn["drops"].unbind(-1)
    used = columns > -1000
    length = torch.tensor([10, 30, 30, 60, 60]).repeat(200)[:, None].expand_as(columns)
    assert ((rows >= 0) & (rows + length <= 256))[used].all()
    # As published: a slant below 0 begins columns at the slant, left of the image; one above 0 ends them before W.
    slants = SampleGenerator(torch.arange(1000)).uniform(low=-10.0, high=10.0).trunc().long().tolist()
    assert set(slants) == set(range(-9, 10))
    reached: dict[int, set[int]] = {}
    for slant, places, real in zip(slants, columns, used, strict=True):
        reached.setdefault(slant, set()).update(places[real].tolist())
    for slant, places in reached.items():
        assert places <= set(range(min(slant, 0), 128 - max(slant, 0) + 1)), slant
    assert reached[-9] == set(range(-9, 129)), "every column from the slant to W occurs"
    # Slants are truncated: 0 has a tenth, -9 ... -1 a twentieth each, of which |s| of W + |s| + 1 columns are below 0.
    expected = sum(0.05 * s / (128 + s + 1) for s in range(1, 10))
    assert float((columns[used] < 0).float().mean()) == pytest.approx(expected, abs=0.003)


def test_streaks_at_the_edges_are_opencvs() -> None:
    """Drops that begin left of the image, end right of it or one row below, against OpenCV, pixel by pixel."""
    cv2 = pytest.importorskip("cv2")
    for length in (10, 30, 60):
        drops = [(x, y) for x in (*range(-9, 3), *range(WIDTH - 12, WIDTH + 1)) for y in (0, HEIGHT - length)]
        for drop in drops:
            theirs = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.line(theirs, drop, (drop[0] + 10, drop[1] + length), 1, 1)
            ours = rain_streaks(torch.tensor([[drop, (-1000, -1000)]]), 10, length, HEIGHT, WIDTH)[0]
            assert (ours.numpy() == theirs.astype(bool)).all(), drop


def test_shot_noise_table_is_the_exact_inverse_distribution() -> None:
    from scipy.stats import poisson

    from dapg.corruptions.noise import _poisson_counts

    uniform = SampleGenerator(torch.tensor([1])).uniform_field(3, 256, 400)
    uniform[..., :4] = torch.tensor([0.0, 1e-7, 1 - 2**-20, 1 - 2**-24])
    levels = torch.arange(256, dtype=torch.int32)[None, None, :, None].expand(1, 3, 256, 400).contiguous()
    for photons in (60, 25, 12, 5, 3):
        ours = _poisson_counts(levels, uniform, photons).numpy()
        mean = np.arange(256)[None, None, :, None] / 255 * photons
        # Smallest count with F(count) > u; at the bounds F is compared in single precision.
        theirs = poisson.ppf(np.nextafter(uniform.numpy().astype(np.float64), 1), np.maximum(mean, 1e-300))
        theirs = np.maximum(theirs, 0)
        assert (ours != theirs)[..., 4:].mean() < 1e-4
        assert np.abs(ours - theirs)[..., 4:].max() <= 1
        assert (ours[..., 0] == 0).all()
        assert np.abs(ours - theirs)[..., :3].max() <= 1
        assert np.abs(ours - theirs)[..., 3].max() <= 3


def test_glass_blur_reads_copies_of_copies() -> None:
    """Every pixel copies its right neighbour, walked just before: one value spreads over the whole walked row."""
    from dapg.corruptions.blur import _glass_sources

    displacement = torch.zeros(1, 1, 2, 6, 8, dtype=torch.int8)
    displacement[:, :, 0] = 1
    columns = _glass_sources(displacement, 2)[0].reshape(6, 8) - 8 * torch.arange(6)[:, None]
    # Reach 2 walks rows 4 and 3 and columns 6 ... 3.
    assert columns[3].tolist() == [0, 1, 2, 7, 7, 7, 7, 7]
    assert columns[4].tolist() == [0, 1, 2, 7, 7, 7, 7, 7]
    assert columns[2].tolist() == list(range(8))
    displacement[:, :, 0] = -1
    columns = _glass_sources(displacement, 2)[0].reshape(6, 8) - 8 * torch.arange(6)[:, None]
    assert columns[3].tolist() == [0, 1, 2, 2, 3, 4, 5, 7]


def test_both_ways_of_shifting_agree() -> None:
    from dapg.corruptions._filters import _shifted_sum_at_once, _shifted_sum_by_sample
    from dapg.corruptions.blur import motion_trail

    images = torch.rand(6, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    angle = torch.tensor([-45.0, -10.0, 0.0, 30.0, -100.0, 175.0])
    trail = motion_trail(angle, torch.full((6,), 20.0), torch.full((6,), 9.0), 40, 33)
    one = _shifted_sum_by_sample(images, trail["offsets"], trail["weights"])
    two = _shifted_sum_at_once(images, trail["offsets"], trail["weights"])
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_trail_that_leaves_a_small_picture_loses_weight() -> None:
    from dapg.corruptions.blur import motion_trail

    full = motion_trail(torch.tensor([0.0]), torch.tensor([20.0]), torch.tensor([15.0]), 256, 128)
    small = motion_trail(torch.tensor([0.0]), torch.tensor([20.0]), torch.tensor([15.0]), 256, 20)
    assert float(full["weights"].sum()) == pytest.approx(1, abs=1e-6)
    assert (small["weights"][0, :20] == full["weights"][0, :20]).all()
    assert (small["weights"][0, 20:] == 0).all()


def test_distances_to_edges_are_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    for seed, share in enumerate((0.2, 0.02, 0.003)):
        edges = np.random.default_rng(seed).random((3, HEIGHT, WIDTH)) < share
        ours = distance_to_edges(torch.from_numpy(edges)).clamp(max=20).numpy()
        for one, mine in zip(edges, ours, strict=True):
            theirs = cv2.distanceTransform(np.where(one, 0, 255).astype(np.uint8), cv2.DIST_L2, 5)
            assert mine == pytest.approx(np.minimum(theirs, 20), abs=2e-5)
