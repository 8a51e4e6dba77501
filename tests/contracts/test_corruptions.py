"""What every corruption answers to: shape, range, dtype, replay, independence of the batch, growing severity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapg.contracts.corruptions import CHECKS
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library

NAMES = library.names()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_corruption_keeps_its_contract(name: str, check: str) -> None:
    CHECKS[check](name)


def pictures(count: int, height: int = 64, width: int = 48, seed: int = 0) -> torch.Tensor:
    """Smooth colour with some texture: neither flat nor pure noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    fine = torch.rand(count, 3, height, width, generator=generator) * 0.15
    return ((smooth * 0.8 + fine).clamp(0, 1) * 255).to(torch.uint8)


def streams(count: int, start: int = 0) -> SampleGenerator:
    return SampleGenerator(torch.arange(start, start + count))


def test_the_lists() -> None:
    assert len(library.IMAGENET_C) == 15
    assert len(library.VISIBLE_20) == len(set(library.VISIBLE_20)) == 20
    assert set(library.VISIBLE_20) <= set(NAMES)
    assert set(library.SEEN) | set(library.UNSEEN) == set(library.VISIBLE_20)
    assert len(library.INFRARED_20) == len(set(library.INFRARED_20)) == 20
    assert set(library.VISIBLE_20) ^ set(library.INFRARED_20) == {"saturate", "none"}
    assert {name for names in library.families().values() for name in names} == set(NAMES)
    assert set(library.without_family("blur")) == {n for n in library.IMAGENET_C if not n.endswith("_blur")}


@pytest.mark.parametrize("name", NAMES)
def test_float_and_bytes_show_the_same_damage(name: str) -> None:
    images = pictures(5)
    levels = torch.arange(1, 6)
    bytes_ = library.corrupt(images, [name] * 5, levels, streams(5)).float()
    floats = library.corrupt(images.float() / 255, [name] * 5, levels, streams(5)) * 255
    tolerance = 5.0 if name == "rain" else 1.51  # bytes in rain go through 8-bit HLS, whose hue has steps of 2 degrees
    assert ((bytes_ - floats).abs() <= tolerance).float().mean() > 0.99


@pytest.mark.parametrize("name", sorted(set(NAMES) & set(library.VISIBLE_20)))
def test_stronger_severity_is_farther_from_clean(name: str) -> None:
    images = pictures(24, 96, 64)
    distance = []
    for severity in library.SEVERITIES:
        result = library.corrupt(images, name, severity, streams(24)).float()
        distance.append(float((result - images).square().mean()))
    if name == "saturate":
        # Two ways of going wrong: 1 and 2 take colour away, 3 to 5 add it.
        assert distance[0] < distance[1]
        assert distance[2] < distance[3] < distance[4]
        return
    if name in ("glass_blur", "snow", "spatter", "frost"):
        # The published tables are not monotone here in every step.
        assert distance[0] < distance[4]
        return
    if name == "jpeg_compression":
        assert distance == sorted(distance)
        return
    assert distance[0] < distance[2] < distance[4]


@pytest.mark.parametrize("name", sorted(set(library.INFRARED_20) - {library.NONE}))
def test_infrared_noise_is_equal_on_all_channels(name: str) -> None:
    grey = pictures(5)[:, :1].expand(-1, 3, -1, -1).contiguous()
    result = library.corrupt(grey, [name] * 5, torch.arange(1, 6), streams(5), equal_channels=True)
    if name in ("frost", "procedural_frost", "spatter"):
        return  # these paint in colour
    assert (result[:, 0].int() - result[:, 1].int()).abs().max() <= 1
    assert (result[:, 0].int() - result[:, 2].int()).abs().max() <= 1


def test_noise_on_visible_pictures_differs_between_channels() -> None:
    grey = pictures(2)[:, :1].expand(-1, 3, -1, -1).contiguous()
    result = library.corrupt(grey, "gaussian_noise", 3, streams(2))
    assert (result[:, 0] != result[:, 1]).float().mean() > 0.9


def test_mixed_batch_equals_one_by_one_in_any_order_and_chunk() -> None:
    names = [*library.VISIBLE_20, library.NONE] * 2
    count = len(names)
    images = pictures(count)
    levels = torch.arange(count) % 5 + 1
    mixed = library.corrupt(images, names, levels, streams(count))
    chunked = library.corrupt(images, names, levels, streams(count), chunk=5)
    assert ((mixed.int() - chunked.int()).abs() <= 1).float().mean() > 0.999
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    shuffled = library.corrupt(images[order], [names[i] for i in order], levels[order], SampleGenerator(order))
    assert ((mixed[order].int() - shuffled.int()).abs() <= 1).float().mean() > 0.999
    for row in (names.index(library.NONE), count - 1):
        assert torch.equal(mixed[row], images[row])


def test_draws_can_be_moved_and_replayed() -> None:
    images = pictures(4)
    drawn = library.draw(images.shape, ["fog", "snow", "fog", "rain"], torch.tensor([1, 2, 3, 4]), streams(4))
    assert [group.name for group in drawn] == ["fog", "rain", "snow"]
    again = [group.to("cpu") for group in drawn]
    assert torch.equal(library.apply(images, drawn), library.apply(images, again))


def test_mistakes_are_named() -> None:
    images = pictures(2)
    with pytest.raises(UsageError, match="motion_blur"):
        library.corrupt(images, "motion_blurr", 1, streams(2))
    with pytest.raises(UsageError, match="severities"):
        library.corrupt(images, "fog", 6, streams(2))
    with pytest.raises(UsageError, match="32"):
        library.corrupt(images[..., :20], "fog", 1, streams(2))
    with pytest.raises(UsageError, match="names"):
        library.corrupt(images, ["fog"], torch.tensor([1, 1]), streams(2))
    with pytest.raises(UsageError, match="family"):
        library.without_family("fur")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    severity=st.integers(1, 5),
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    bytes_=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_size_severity_and_dtype(
    name: str, severity: int, height: int, width: int, bytes_: bool, seed: int
) -> None:
    images = pictures(1, height, width, seed % 1000)
    if not bytes_:
        images = images.float() / 255
    result = library.corrupt(images, name, severity, SampleGenerator(torch.tensor([seed])))
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert 0 <= result.min() <= result.max() <= (255 if bytes_ else 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"jpeg_compression"}))
def test_gpu_and_cpu_agree_on_one_draw(name: str) -> None:
    images = pictures(10, 256, 128)
    levels = torch.arange(1, 6).repeat(2)
    drawn = library.draw(images.shape, [name] * 10, levels, streams(10))
    here = library.apply(images, drawn).int()
    there = library.apply(images.cuda(), drawn).cpu().int()
    assert ((here - there).abs() <= 1).float().mean() >= 0.999
