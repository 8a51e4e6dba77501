"""The noise chain's views: what is done to an image before and after the corruptions."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from dapg.augment import basic
from dapg.augment.noise_chain import ChainConfig, corrupt_repeatedly, noise_chain
from dapg.augment.views import ViewConfig, chain_views, clean_and_corrupted_views, standard_view
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library

PLAIN = ViewConfig(height=64, width=32, crop_scale=(1.0, 1.0), crop_ratio=(0.5, 0.5), flip=0.0, grey=0.0)
CHAIN = ChainConfig(geometry="shared", height=64, width=32)


def pictures(count: int = 4) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").mul(255).to(torch.uint8)


def streams(count: int = 4) -> SampleGenerator:
    return SampleGenerator(torch.arange(count) + 10)


def test_the_views_are_the_chain_on_the_cropped_picture_in_floats() -> None:
    """Nothing blurs or erases, although these are the config's defaults."""
    expected = noise_chain(pictures().float() / 255, streams().fork("chain"))
    views = chain_views(pictures(), PLAIN, CHAIN, streams())
    for view, wanted in zip(views, (expected.query, expected.first, expected.second, expected.mixed), strict=True):
        torch.testing.assert_close(view, wanted, atol=1e-5, rtol=0)


def test_corruptions_come_before_the_networks_size() -> None:
    """Corrupted at 128 x 64 and then halved, not corrupted at 64 x 32."""
    large = replace(CHAIN, height=128, width=64)
    clean = basic.resize(pictures(), (128, 64))
    expected = basic.resize(noise_chain(clean, streams().fork("chain")).second, (64, 32))
    views = chain_views(pictures(), PLAIN, large, streams())
    assert views.shape == (4, 4, 3, 64, 32)
    # Two ways to enlarge, equal but for rounding, which thresholds inside a corruption make larger here and there.
    torch.testing.assert_close(views[2], expected, atol=3e-2, rtol=0)
    small = chain_views(pictures(), PLAIN, CHAIN, streams())
    assert float((views[2] - small[2]).abs().mean()) > 0.02


def test_per_view_geometry_gives_x1_and_x2_their_own_crop_and_the_same_corruptions() -> None:
    """With the whole image as the only crop both geometries are one; with real crops x_q and x_mix stay."""
    own = replace(CHAIN, geometry="per_view")
    assert torch.equal(chain_views(pictures(), PLAIN, own, streams()), chain_views(pictures(), PLAIN, CHAIN, streams()))
    cropped = replace(PLAIN, crop_scale=(0.2, 0.9), flip=0.5)
    shared, per_view = (chain_views(pictures(), cropped, chain, streams()) for chain in (CHAIN, own))
    assert torch.equal(shared[[0, 3]], per_view[[0, 3]])
    for view in (1, 2):
        assert ((shared[view] - per_view[view]).abs().mean(dim=(1, 2, 3)) > 0.05).all()


def test_x_mix_lies_in_the_crop_it_is_told_to() -> None:
    """Alike in crop means alike in pixels, whatever the corruptions: the mild ones are left."""
    cropped = replace(PLAIN, crop_scale=(0.2, 0.4), flip=0.5)
    mild = replace(CHAIN, geometry="per_view", types=("brightness", "pixelate", "jpeg_compression"), severities=(1, 1))
    distances = {}
    for crop in ("anchor", "second", "own"):
        query, _, second, mixed = chain_views(pictures(), cropped, replace(mild, mixed_crop=crop), streams())
        distances[crop] = float((mixed - query).abs().mean()), float((mixed - second).abs().mean())
    assert distances["anchor"][0] < 0.1 < distances["anchor"][1]
    assert distances["second"][1] < 0.1 < distances["second"][0]
    assert min(distances["own"]) > 0.1


def test_a_clean_anchor_is_the_cropped_picture() -> None:
    clean, *others = chain_views(pictures(), PLAIN, replace(CHAIN, anchor="clean"), streams())
    torch.testing.assert_close(clean, pictures().float() / 255, atol=1e-5, rtol=0)
    for view, same in zip(others, chain_views(pictures(), PLAIN, CHAIN, streams())[1:], strict=True):
        assert torch.equal(view, same)


def test_the_pair_is_a_clean_view_and_another_view_corrupted_repeatedly() -> None:
    clean, corrupted = clean_and_corrupted_views(pictures(), PLAIN, CHAIN, streams())
    whole = pictures().float() / 255
    torch.testing.assert_close(clean, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(corrupted, corrupt_repeatedly(whole, streams().fork("chain")), atol=1e-5, rtol=0)
    cropped = replace(PLAIN, crop_scale=(0.2, 0.4))
    clean, corrupted = clean_and_corrupted_views(pictures(), cropped, CHAIN, streams())
    assert float((clean - corrupted).abs().mean()) > 0.1


def test_channels_are_mixed_in_every_view_apart() -> None:
    """All views are grey images then, of different weights; never where no mixing is asked for."""
    mixing = replace(PLAIN, mixing=1.0)
    chain = chain_views(pictures(), mixing, replace(CHAIN, anchor="clean"), streams())
    pair = clean_and_corrupted_views(pictures(), mixing, CHAIN, streams())
    for view in (*chain, *pair, standard_view(pictures(), mixing, streams(), (0.0,) * 3, (1.0,) * 3)):
        assert torch.equal(view[:, 0], view[:, 1])
        assert torch.equal(view[:, 0], view[:, 2])
    weights = streams().fork("view 0").fork("mixing").fork("weights").normal(3).mul(3).softmax(dim=1)
    expected = torch.einsum("bc,bchw->bhw", weights, pictures().float() / 255)
    torch.testing.assert_close(chain[0][:, 0], expected, atol=1e-5, rtol=0)


def test_a_grey_anchor_is_grey_in_all_its_views_but_for_coloured_noise() -> None:
    quiet = replace(CHAIN, leave_out=("noise", "weather"), geometry="per_view")
    grey = chain_views(pictures(), replace(PLAIN, grey=1.0), quiet, streams())
    spread = grey.amax(dim=2) - grey.amin(dim=2)
    assert float(spread.mean()) < 0.02  # JPEG alone leaves a trace of colour


def test_a_sample_s_views_do_not_depend_on_the_batch_around() -> None:
    rows = torch.tensor([2, 0])
    config = replace(PLAIN, crop_scale=(0.2, 1.0), flip=0.5, grey=0.2)
    whole = chain_views(pictures(), config, CHAIN, streams())
    some = chain_views(pictures()[rows], config, CHAIN, streams().rows(rows))
    torch.testing.assert_close(some, whole[:, rows], atol=2e-2, rtol=0)


def test_left_out_families_are_not_drawn() -> None:
    names = replace(CHAIN, leave_out=("noise", "blur")).names
    assert set(names) == set(library.IMAGENET_C) - set(library.families()["noise"]) - set(library.families()["blur"])
    with pytest.raises(UsageError, match="fewer than three"):
        ChainConfig(leave_out=("noise", "blur", "weather", "digital"))
    with pytest.raises(UsageError, match="no family"):
        ChainConfig(leave_out=("fog",))


def test_solarising_turns_bright_values_into_their_negative() -> None:
    values = torch.tensor([0.0, 0.4, 0.5, 0.9]).expand(4, 3, 2, 4)
    expected = torch.tensor([0.0, 0.4, 0.5, 0.1]).expand(4, 3, 2, 4)
    torch.testing.assert_close(basic.solarise(values, streams(), 1.0), expected)
    assert torch.equal(basic.solarise(values, streams(), 0.0), values)
    bright = torch.full((200, 3, 2, 2), 0.8)
    share = (basic.solarise(bright, streams(200), 0.2) < 0.5).flatten(1).all(dim=1).float().mean()
    assert float(share) == pytest.approx(0.2, abs=0.08)


def test_views_are_cut_from_one_chain_of_the_whole_image() -> None:
    """With the whole image as the only crop as the shared chain; with real crops four cuts, in three corruptions."""
    whole = replace(CHAIN, geometry="whole")
    same = chain_views(pictures(), PLAIN, whole, streams()), chain_views(pictures(), PLAIN, CHAIN, streams())
    torch.testing.assert_close(*same, atol=1e-5, rtol=0)
    cropped = replace(PLAIN, height=32, width=16, crop_scale=(0.2, 0.9), flip=0.5)
    views = chain_views(pictures(), cropped, whole, streams())
    noisy = noise_chain(pictures().float() / 255, streams().fork("chain"))
    sources, crops = (noisy.query, noisy.first, noisy.second, noisy.mixed), ("anchor", "first", "second", "anchor")
    for view, corrupted, crop in zip(views, sources, crops, strict=True):
        stream = streams().fork(crop)
        cut = basic.random_resized_crop(corrupted, (32, 16), stream.fork("crop"), (0.2, 0.9), (0.5, 0.5))
        assert torch.equal(view, basic.horizontal_flip(cut, stream.fork("flip"), 0.5))


def test_three_corruptions_of_whole_images_and_eight_of_views(monkeypatch: pytest.MonkeyPatch) -> None:
    applied, counted = library.apply, list[int]()

    def apply(images: torch.Tensor, draws: Sequence[library.Draw]) -> torch.Tensor:
        counted.append(len(images))
        return applied(images, draws)

    monkeypatch.setattr(library, "apply", apply)
    chain_views(pictures(), PLAIN, ChainConfig(geometry="whole", height=64, width=32), streams())
    assert counted == [4] * 3
    chain_views(pictures(), PLAIN, ChainConfig(height=64, width=32), streams())
    assert counted == [4] * (3 + 8)


def test_kept_chains_are_mixed_and_cut_as_new_ones() -> None:
    """A bank that holds just what would be drawn gives the same views, but for the rounding to bytes."""
    whole = replace(CHAIN, geometry="whole", bank=1)
    noisy = noise_chain(pictures().float() / 255, streams().fork("chain"))
    links = torch.stack([noisy.query, noisy.first, noisy.second], dim=1).mul(255).round().to(torch.uint8)
    views = chain_views(pictures(), PLAIN, whole, streams(), lambda numbers: links)
    torch.testing.assert_close(views, chain_views(pictures(), PLAIN, whole, streams()), atol=0.5 / 255 + 1e-5, rtol=0)
